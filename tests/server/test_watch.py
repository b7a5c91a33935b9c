"""watch: looks while there is something to finish, and only then."""

from collections.abc import Callable

from server.watch import INTERVAL, Watch


class Double:
    """A connection that has so many looks to go."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def look(self) -> bool:
        self.looks -= 1
        return self.looks > 0


def watch_of(*connections: Double) -> tuple[Watch, list[Callable[[], None]]]:
    """A watch, and what it has asked to be called for."""
    timers: list[Callable[[], None]] = []

    def call_later(seconds: float, call: Callable[[], None]) -> None:
        assert seconds == INTERVAL
        timers.append(call)

    return Watch(connections, call_later), timers


def test_it_looks_as_long_as_somebody_has_something_to_finish() -> None:
    one, other = Double(1), Double(3)
    watch, timers = watch_of(one, other)
    assert not timers
    watch.begin()
    for _ in range(3):
        timers.pop()()
    assert not timers
    assert (one.looks, other.looks) == (-2, 0)


def test_there_is_one_timer_however_many_begin() -> None:
    watch, timers = watch_of(Double(1))
    for _ in range(3):
        watch.begin()
    assert len(timers) == 1
    timers.pop()()
    assert not timers
    watch.begin()
    assert len(timers) == 1

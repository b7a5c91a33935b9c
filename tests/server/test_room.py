"""room: who gets it, and in which order."""

from collections.abc import Callable

import pytest

from server.room import Room


class Queue:
    """A room, and those to whom it was granted."""

    def __init__(self, size: int) -> None:
        self.granted: list[str] = []
        self.room = Room(size, lambda call: call())
        self._calls = {name: self._call(name) for name in "abc"}

    def wait(self, name: str, count: int) -> None:
        self.room.wait(count, self._calls[name])

    def forget(self, name: str) -> bool:
        return self.room.forget(self._calls[name])

    def _call(self, name: str) -> Callable[[], None]:
        return lambda: self.granted.append(name)


@pytest.fixture
def queue() -> Queue:
    """A room of 100 bytes, all taken."""
    queue = Queue(100)
    queue.room.take(100)
    return queue


def test_room_is_granted_in_the_order_of_asking(queue: Queue) -> None:
    queue.wait("a", 60)
    queue.wait("b", 10)
    queue.room.give(50)
    assert queue.granted == []  # the second would fit, but it is not its turn
    queue.room.give(20)
    assert queue.granted == ["a", "b"]
    assert queue.room.free == 0


def test_nobody_takes_the_room_of_who_waits(queue: Queue) -> None:
    queue.wait("a", 60)
    queue.room.give(50)
    assert not queue.room.has(10)
    queue.room.give(50)
    assert queue.room.has(40)
    assert not queue.room.has(41)


def test_who_was_given_more_than_there_was_owes_it_first(queue: Queue) -> None:
    queue.room.take(30)
    queue.wait("a", 10)
    queue.room.give(30)
    assert queue.granted == []
    queue.room.give(10)
    assert queue.granted == ["a"]


def test_who_has_gone_keeps_nobody_waiting(queue: Queue) -> None:
    queue.wait("a", 60)
    queue.wait("b", 60)
    assert queue.forget("a")
    assert not queue.forget("a")
    queue.room.give(60)
    assert queue.granted == ["b"]

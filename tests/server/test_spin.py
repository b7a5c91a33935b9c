"""spin: the loop stays awake for a moment, where requests follow one another closely."""

from collections.abc import Callable

import pytest

from server import spin as spin_module
from server.spin import SOON, STREAK, WINDOW, Spin


class Turns:
    """A loop that does what was asked for when it is told to, and has a clock to turn by hand."""

    def __init__(self) -> None:
        self.time_now = 100.0
        self.asked: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.asked.append(callback)

    def turn(self) -> bool:
        """One turn; whether another one follows at once."""
        asked, self.asked = self.asked, []
        for callback in asked:
            callback()
        return bool(self.asked)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Turns:
    loop = Turns()
    monkeypatch.setattr(spin_module, "perf_counter", lambda: loop.time_now)
    return loop


def serve(loop: Turns, spin: Spin, count: int, gap: float = SOON / 2) -> None:
    """So many requests, each ``gap`` seconds after the one before was answered."""
    for _ in range(count):
        loop.time_now += gap
        spin.serving()
        spin.served()


def test_a_row_of_requests_keeps_the_loop_awake_for_the_window(loop: Turns) -> None:
    spin = Spin(loop.call_soon)
    serve(loop, spin, STREAK)
    assert not loop.asked
    serve(loop, spin, 1)
    assert loop.turn()
    loop.time_now += WINDOW * 0.9
    assert loop.turn()
    loop.time_now += WINDOW * 0.2
    assert not loop.turn()


def test_the_next_request_begins_a_new_window(loop: Turns) -> None:
    spin = Spin(loop.call_soon)
    serve(loop, spin, STREAK + 1)
    for _ in range(5):
        serve(loop, spin, 1, WINDOW * 0.9)
        assert loop.turn()
    assert len(loop.asked) == 1


def test_requests_far_between_let_it_sleep(loop: Turns) -> None:
    spin = Spin(loop.call_soon)
    serve(loop, spin, 10 * STREAK, SOON * 1.1)
    assert not loop.asked


def test_one_late_request_ends_the_row(loop: Turns) -> None:
    spin = Spin(loop.call_soon)
    serve(loop, spin, STREAK + 1)
    loop.time_now += 2 * WINDOW
    assert not loop.turn()
    serve(loop, spin, 1, 2 * SOON)
    serve(loop, spin, STREAK - 1)
    assert not loop.asked
    serve(loop, spin, 1)
    assert loop.asked


def test_answering_may_take_its_time(loop: Turns) -> None:
    spin = Spin(loop.call_soon)
    for _ in range(STREAK + 1):
        loop.time_now += SOON / 2
        spin.serving()
        loop.time_now += 10 * SOON
        spin.served()
    assert loop.asked


def test_a_window_in_vain_ends_the_row(loop: Turns) -> None:
    """Who takes longer than a window over each request is waited for once in a row."""
    spin = Spin(loop.call_soon)
    serve(loop, spin, STREAK + 1)
    loop.time_now += 1.1 * WINDOW
    assert not loop.turn()
    serve(loop, spin, STREAK - 1, WINDOW / 10)
    assert not loop.asked
    serve(loop, spin, 1, WINDOW / 10)
    assert loop.asked

"""Spin: while requests follow one another closely, the loop does not go to sleep between them.

Rules of this file:

* A client that waits for each answer sends its next request some microseconds after it.  To put
  the CPU to sleep in between and wake it up takes longer than to serve the request.  So after a
  request the loop looks for the next one for ``WINDOW`` seconds before it sleeps (as QEMU's
  event loop does: poll-max-ns).
* It does so only after ``STREAK`` requests in a row came within ``SOON`` of the one before.  Where
  that does not pay it costs one window, until there is such a row again.
* A piece of a request is none: while a large one comes in, the loop sleeps.
* The loop turns while it looks, so every connection, timer and thread has its turn as ever.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Final

WINDOW: Final = 100e-6
SOON: Final = 250e-6
STREAK: Final = 8


class Spin:
    """Keeps a loop awake, whose ``call_soon`` it is given."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._streak = 0
        self._served = 0.0  # when the last request was
        self._turning = False

    def serving(self) -> None:
        """Requests have come in."""
        self._streak = self._streak + 1 if perf_counter() - self._served < SOON else 0

    def served(self) -> None:
        """They are answered."""
        self._served = perf_counter()
        if self._streak >= STREAK and not self._turning:
            self._turning = True
            self._call_soon(self._turn)

    def _turn(self) -> None:
        if perf_counter() - self._served < WINDOW:
            self._call_soon(self._turn)
        else:
            self._turning = False
            self._streak = 0

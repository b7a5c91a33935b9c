"""Room: bytes of this process that all connections share.

Rules of this file:

* Who may not hold more for want of room waits for it.  Room is granted in the order of asking, and
  to nobody else as long as somebody waits.
* Who has to hold something takes it, room or not: how much that can be is bounded by the caller.
"""

from collections.abc import Callable


class Room:
    """Room for ``size`` bytes; ``call_soon`` is the loop's.

    Attributes:
        free: how many there are; less than none while more was taken than there was.
    """

    def __init__(self, size: int, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self.free = size
        self._call_soon = call_soon
        self._waiting: dict[Callable[[], None], int] = {}

    def has(self, count: int) -> bool:
        """Whether there is room for so many, and nobody was there before."""
        return self.free >= count and not self._waiting

    def take(self, count: int) -> None:
        self.free -= count

    def give(self, count: int) -> None:
        """Give back so many."""
        self.free += count
        while self._waiting:
            granted, wanted = next(iter(self._waiting.items()))
            if wanted > self.free:
                break
            del self._waiting[granted]
            self.free -= wanted
            self._call_soon(granted)

    def wait(self, count: int, granted: Callable[[], None]) -> None:
        """Have ``granted`` called, once, when so many bytes were taken for it."""
        self._waiting[granted] = count

    def forget(self, granted: Callable[[], None]) -> bool:
        """Wait no more; whether it still did."""
        return self._waiting.pop(granted, None) is not None

"""Memory: RAM that files share, and the swap behind it.

Rules of this file:

* Every frame of a page is counted in ``ram``.  The last ``reserve`` frames of it are for reading
  pages back from swap: whatever is written, what was written before stays readable.
* Running short is told to ``on_pressure``, which whoever owns the event loop sets; it lets
  :mod:`.pageout` run.  Nothing here waits.
* Several memories may share one swap: slots that one of them frees are news for all.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from .accounting import Budget, Counters
from .frames import BLOCK, BLOCK_MASK, FRAME, Arena, Page
from .replacement import Replacement
from .swap import Copy, Swap

if TYPE_CHECKING:
    from .vmobject import Uobj


def reserve_for(frames: int) -> int:
    """How many of so many frames of RAM are kept to read into: 1/16, from 1 to 16 MiB."""
    return min(max(frames // 16, 256), 4096, frames // 2)


class Memory:
    """RAM for ``frames`` frames, and what spills from it into ``swap``.

    Attributes:
        low, high: page-out starts when fewer frames than ``low`` are free, stops when more than
            ``high`` are.
        reserve: how many frames are kept to read into.
        io_max: the most bytes that one operation may need in RAM at a time.

    Raises:
        OSError: ENOMEM, the host refuses the address space.
    """

    def __init__(self, frames: int, swap: Swap | None = None) -> None:
        self.arena = Arena(frames)
        self.swap = swap
        self.ram = Budget(0)
        self.reserve = self.low = self.high = self.io_max = 0
        self.resize(frames)
        self._last_ino = 0
        self.replacement: Replacement[Page] = Replacement()
        #: Frames whose bytes are in swap, or zeros that need no place there.
        self.swapped = 0
        #: Frames of pages in use, which can not be paged out.
        self.in_use = 0
        self.counters = Counters()
        #: Called when RAM runs low.
        self.on_pressure: Callable[[], None] = lambda: None
        #: Called with blocks in swap that will be wanted soon.
        self.on_ahead: Callable[[list[tuple[Uobj, int]]], None] = lambda _: None
        #: Page-out found nothing to free the last time; until something is freed it will not.
        self.stuck = swap is None
        self._fruitless = 0  # victims in a row that could not be paged out
        #: Operations take one block at a time.  For what was tried again and again: a block always
        #: fits, or is refused, where several may displace each other for ever.
        self.frugal = False
        if swap is not None:
            swap.sharers.append(self)

    def close(self) -> None:
        """End its use of the swap, of which it holds nothing any more."""
        if self.swap is not None:
            self.swap.sharers.remove(self)

    def resize(self, frames: int) -> None:
        """Use so many frames from now on: no fewer than are used, no more than it was made for."""
        self.ram.limit = frames
        self.reserve = reserve_for(frames) if self.swap else 0
        self.low = self.reserve + frames // 32
        self.high = self.reserve + frames // 16
        self.io_max = max(BLOCK, frames // 4 * FRAME) if self.swap else sys.maxsize

    def next_ino(self) -> int:
        """A number that no file of any of its mounts has had."""
        self._last_ino += 1
        return self._last_ino

    def most(self, offset: int) -> int:
        """The most bytes that one operation from ``offset`` on may take while frugal."""
        return BLOCK - (offset & BLOCK_MASK)

    @property
    def writable(self) -> int:
        """Frames that may be written to now."""
        return max(0, self.ram.limit - self.ram.used - self.reserve)

    def statistics(self) -> dict[str, int]:
        """What is where, in bytes, and all counters since the start (see :class:`.Counters`).

        ``swap_size`` and ``swap_used`` are those of the swap, for all who share it.
        """
        return {
            "ram": self.ram.limit * FRAME,
            "resident": self.ram.used * FRAME,
            "in_use": self.in_use * FRAME,
            "swapped": self.swapped * FRAME,
            "swap_size": (self.swap.size if self.swap else 0) * FRAME,
            "swap_used": (self.swap.used if self.swap else 0) * FRAME,
            **asdict(self.counters),
        }

    def release(self, pages: list[Page]) -> int:
        """Free pages that have no owner any more; how many frames they held."""
        for page in pages:
            self.replacement.remove(page)
            page.laundry = None
            self.forget_copy(page)
        frames = self.arena.release(pages)
        self.gained(frames)
        return frames

    def gained(self, frames: int) -> None:
        """So many frames of RAM are free again."""
        self.ram.give(frames)
        self.retry()

    def forget_copy(self, page: Page) -> None:
        """The page's bytes are in RAM only from now on."""
        if page.copy is not None:
            self.free_copy(page.copy)
            page.copy = None

    def dirtied(self, page: Page) -> None:
        """The page was written to: what swap has of it is stale."""
        page.dirty = True
        page.laundry = None
        self.forget_copy(page)

    def trim_copy(self, copy: Copy, mask: int) -> None:
        """Nobody wants more of these bytes of swap than the frames in ``mask``."""
        assert self.swap is not None
        self.swap.trim(copy, mask)
        self.swap.gained()

    def free_copy(self, copy: Copy) -> None:
        """Nobody wants these bytes of swap any more."""
        assert self.swap is not None
        self.swap.give(copy)
        self.swap.gained()

    def tried(self, skipped: int, progress: bool) -> None:
        """Page-out has passed over so many victims, and may have found others."""
        count = len(self.replacement)
        self._fruitless = 0 if progress else min(self._fruitless + skipped, count)
        if not progress and self._fruitless == count:
            self.stuck = True

    def failed(self) -> None:
        """Page-out has failed; new pages will not change that."""
        self._fruitless = sys.maxsize
        self.stuck = True

    def entered(self, page: Page) -> None:
        """There is a new page, which page-out has not tried yet."""
        self.replacement.insert(page)
        if self._fruitless < len(self.replacement):
            self.stuck = self.swap is None

    def retry(self) -> None:
        """What page-out could not do may be possible now."""
        self._fruitless = 0
        self.stuck = self.swap is None

"""RAM frames: one arena of address space, handed out in block-sized runs.

Rules of this file:

* A *frame* is one page of the host's memory (4 KiB), a *block* is a run of 16 frames (64 KiB).
* A :class:`Page` owns one block of address space.  ``mask`` tells which of its frames are in use;
  a frame that is not in use is all zeros and costs the host nothing.  So a small file holds one
  frame, a sparse one only the frames that were written, and no page is ever copied to grow.
* The arena hands out no more blocks to pages than there are frames, because a page holds at least
  one: address space (16 times the RAM at most) can not run out before the frames that the caller
  has counted.  For blocks that belong to no page (warm ones, and the berths of :mod:`.cargo`) there
  is more of it.
* A freed frame goes back to the host at once (``MADV_DONTNEED``), and so reads as zeros when it
  is used again: no file can see another's old bytes.  A few blocks in which only the first frame
  was used are cleared and kept instead, for the small files that come and go all the time; and
  those of a few pages that were paged out, as berths, for pages that will be filled whole.  Both
  are much faster than to give frames back and to get new ones.
"""

import errno
import mmap
import sys
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .errors import refuse

if TYPE_CHECKING:
    from .pageout import Laundry
    from .swap import Copy
    from .vmobject import VMObject

FRAME: Final = 4096
FRAME_SHIFT: Final = 12
BLOCK: Final = 65536
BLOCK_SHIFT: Final = 16
BLOCK_MASK: Final = BLOCK - 1
FRAMES_PER_BLOCK: Final = BLOCK // FRAME
#: The mask of a block all of whose frames are in use.
WHOLE: Final = (1 << FRAMES_PER_BLOCK) - 1

#: Blocks that are kept with a frame in them.
WARM = 64
#: Berths that there can be (32 MiB), and those that are kept with their memory (2 MiB).
BERTHS, BERTHS_KEPT = 512, 32
#: So many free blocks make the list of them worth being forgotten, when all are free.
MANY = 4096

#: What a hole reads as: one block of zeros.
ZEROS: Final = memoryview(bytes(BLOCK))
_ZERO_FRAME: Final = ZEROS[:FRAME]

_MAP_NORESERVE = 0x4000  # <asm-generic/mman-common.h>; not in Python's mmap module


class Page:
    """A run of RAM frames holding one block of a file; it has exactly one owner.

    Attributes:
        slot: number of its block in the arena.
        mem: the block's 64 KiB of memory, writable.
        mask: bit i is set when frame i of the block is in use (16 bits).
        owner: the object whose place ``pindex`` it is.
        dirty: its bytes are nowhere else.
        copy: where its bytes stand in swap too; only a clean page has one.
        laundry: the page-out that is writing it, as long as nobody writes to it meanwhile.
        ahead: it was read before anybody asked for it, and nobody has since.
        awaited: it was read because somebody waits for it, who has not used it yet.
        heat, queue: the replacement policy's.
    """

    __slots__ = (
        "ahead",
        "awaited",
        "copy",
        "dirty",
        "heat",
        "laundry",
        "mask",
        "mem",
        "owner",
        "pindex",
        "queue",
        "slot",
    )

    def __init__(self, slot: int, mem: memoryview, owner: "VMObject", pindex: int) -> None:
        self.slot = slot
        self.mem = mem
        self.mask = 0
        self.owner = owner
        self.pindex = pindex
        self.dirty = False
        self.copy: Copy | None = None
        self.laundry: Laundry | None = None
        self.ahead = False
        self.awaited = False
        self.heat = 0
        self.queue = 0

    @property
    def key(self) -> tuple[int, int]:
        """What it holds, whichever page holds it: (ino, block)."""
        return self.owner.ino, self.pindex


class Berth:
    """A block of the arena that belongs to no page."""

    __slots__ = ("mem", "slot")

    def __init__(self, slot: int, mem: memoryview) -> None:
        self.slot = slot
        self.mem = mem

    def exchange(self, page: Page) -> None:
        """Give the page, all of whose frames are in use, this memory for its own."""
        self.slot, page.slot = page.slot, self.slot
        self.mem, page.mem = page.mem, self.mem


def frame_bits(start: int, stop: int) -> int:
    """The mask of the frames that hold bytes ``start`` to ``stop`` (exclusive) of a block."""
    first = start >> FRAME_SHIFT
    return (1 << ((stop - 1) >> FRAME_SHIFT) + 1) - (1 << first)


def whole_frame_bits(start: int, stop: int) -> int:
    """The mask of the frames that bytes ``start`` to ``stop`` (exclusive) of a block fill."""
    first = start + FRAME - 1 >> FRAME_SHIFT
    last = stop >> FRAME_SHIFT
    return (1 << last) - (1 << first) if last > first else 0


class Arena:
    """Address space for pages that hold at most ``frames`` frames in all.

    Raises:
        OSError: ENOMEM, the host refuses to reserve that much address space.
    """

    def __init__(self, frames: int) -> None:
        length = (max(frames, 1) + WARM + BERTHS) * BLOCK
        if length > sys.maxsize:
            refuse(errno.ENOMEM)
        self._map = mmap.mmap(
            -1,
            length,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE,
        )
        with suppress(OSError):  # EINVAL: a kernel without huge pages
            self._map.madvise(mmap.MADV_NOHUGEPAGE)  # a frame in use must cost a frame, not 2 MiB
        self._map.madvise(mmap.MADV_DONTDUMP)  # file data has no place in a core dump
        self._memory = memoryview(self._map)
        self._fresh = 0  # blocks from here on were never handed out
        self._free = array("Q")  # no int objects, which would keep the memory around them
        self._warm: list[int] = []  # free blocks whose first frame is there, and zeros
        self._berths: list[Berth] = []  # those that are free
        self._berthed = 0  # all that there are

    def allocate(self, owner: "VMObject", pindex: int) -> Page:
        """A page with no frame in use; the caller sets its mask before it allocates another."""
        slot = self._warm.pop() if self._warm else self._slot()
        return Page(slot, self._mem(slot), owner, pindex)

    def allocate_to_fill(self, owner: "VMObject", pindex: int) -> Page:
        """A page whose frames may hold old bytes of any file: the caller fills all of them before
        anybody sees it.
        """
        if not self._berths:
            return self.allocate(owner, pindex)
        self._berthed -= 1
        berth = self._berths.pop()
        return Page(berth.slot, berth.mem, owner, pindex)

    def retire(self, page: Page) -> int:
        """Free a page for another to be filled; how many frames were in use."""
        if page.mask != WHOLE or len(self._berths) >= BERTHS_KEPT or self._berthed >= BERTHS:
            return self.release([page])
        self._berths.append(Berth(page.slot, page.mem))
        self._berthed += 1
        return FRAMES_PER_BLOCK

    def berth(self, count: int) -> list[Berth] | None:
        """So many berths, if there can be as many."""
        new = count - len(self._berths)
        if self._berthed + new > BERTHS:
            return None
        for _ in range(new):
            slot = self._slot()
            self._berths.append(Berth(slot, self._mem(slot)))
            self._berthed += 1
        taken = self._berths[:count]
        del self._berths[:count]
        return taken

    def leave(self, berths: list[Berth]) -> None:
        """Free these berths."""
        self._berths += berths
        surplus = self._berths[BERTHS_KEPT:]
        if surplus:
            del self._berths[BERTHS_KEPT:]
            self._berthed -= len(surplus)
            self._give_back([berth.slot for berth in surplus])

    def _slot(self) -> int:
        """The number of a block that is free, and all zeros."""
        if self._free:
            return self._free.pop()
        self._fresh += 1
        return self._fresh - 1

    def _mem(self, slot: int) -> memoryview:
        start = slot << BLOCK_SHIFT
        return self._memory[start : start + BLOCK]

    def drop_frames(self, page: Page, first: int) -> int:
        """Give frames ``first`` and up of the page back to the host; how many were in use."""
        kept = page.mask & ((1 << first) - 1)
        dropped = (page.mask ^ kept).bit_count()
        if dropped:
            start = (page.slot << BLOCK_SHIFT) + (first << FRAME_SHIFT)
            self._map.madvise(mmap.MADV_DONTNEED, start, BLOCK - (first << FRAME_SHIFT))
            page.mask = kept
        return dropped

    def release(self, pages: list[Page]) -> int:
        """Free the pages, their memory going back to the host; how many frames were in use.

        Neighbours in the arena leave in one call: a large file frees in few steps.
        """
        frames = 0
        slots = []
        for page in pages:
            frames += page.mask.bit_count()
            if page.mask == 1 and len(self._warm) < WARM:
                page.mem[:FRAME] = _ZERO_FRAME
                self._warm.append(page.slot)
            else:
                slots.append(page.slot)
        if slots:
            self._give_back(slots)
        return frames

    def _give_back(self, slots: list[int]) -> None:
        """Free these blocks, their frames going back to the host."""
        slots.sort()
        run = 0
        for i, slot in enumerate(slots):
            if i + 1 == len(slots) or slots[i + 1] != slot + 1:
                start = slots[run]
                self._map.madvise(
                    mmap.MADV_DONTNEED, start << BLOCK_SHIFT, (slot + 1 - start) << BLOCK_SHIFT
                )
                run = i + 1
        self._free.extend(reversed(slots))
        if len(self._free) >= MANY:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """If all blocks are free, forget in which order they came to be."""
        kept = [*self._warm, *(berth.slot for berth in self._berths)]
        if len(self._free) + len(kept) == self._fresh:
            for slot in kept:
                self._map.madvise(mmap.MADV_DONTNEED, slot << BLOCK_SHIFT, BLOCK)
            self._warm.clear()
            self._berths.clear()
            self._berthed = 0
            del self._free[:]
            self._fresh = 0

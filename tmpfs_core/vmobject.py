"""VMObject: pindex -> Page, and the move of a page from one object to another.

Rules of this file:

* Place ``pindex`` holds bytes ``[pindex * BLOCK, (pindex + 1) * BLOCK)`` of a file.  At any moment
  it is in exactly one state: a hole, resident in the vnode object, resident in the uobj, or in
  swap (``uobj.swapped``).
* A page has one owner.  :func:`move` copies no byte, keeps ``dirty``, and empties the target's
  place first, so that nothing is ever held twice.
* ``uobj.charged`` counts the frames of the file wherever they are; a frame is charged to the
  mount's budget from the first write to it until it is freed.
"""

from .accounting import Blocks
from .frames import Page
from .memory import Memory
from .swap import Copy


class VMObject:
    """Pages of one file: those in use (a vnode's), or those at rest (a :class:`Uobj`).

    Attributes:
        ino: whose pages these are.
        pages: the resident ones, by place.
    """

    __slots__ = ("ino", "pages")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.pages: dict[int, Page] = {}

    def empty(self, pindex: int) -> None:
        """Destroy what is at a place, so that a page may move there."""
        raise NotImplementedError

    def rest(self, page: Page) -> None:
        """Bring one of its pages to where it may be paged out."""
        raise NotImplementedError


def move(page: Page, target: VMObject) -> None:
    """Make ``target`` the owner of ``page``."""
    target.empty(page.pindex)
    del page.owner.pages[page.pindex]
    target.pages[page.pindex] = page
    page.owner = target


class Swapped:
    """A place whose bytes are in swap.

    Attributes:
        mask: the frames that it has.
        copy: where those are that are not all zeros; None once they were lost to an error.
    """

    __slots__ = ("copy", "mask")

    def __init__(self, mask: int, copy: Copy | None) -> None:
        self.mask = mask
        self.copy = copy


class Uobj(VMObject):
    """The data of a file at rest, behind it the swap pager.

    Attributes:
        swapped: places whose bytes are in swap.
        charged: frames of the file, in whichever state.
    """

    __slots__ = ("_blocks", "charged", "memory", "swapped")

    def __init__(self, ino: int, memory: Memory, blocks: Blocks) -> None:
        super().__init__(ino)
        self.memory = memory
        self._blocks = blocks
        self.swapped: dict[int, Swapped] = {}
        self.charged = 0

    @property
    def chargeable(self) -> int:
        """How many more frames the mount allows."""
        return self._blocks.free

    def charge(self, frames: int) -> None:
        """Account for frames that are about to be written for the first time, and for their RAM.

        The caller has made sure that there are as many.
        """
        self._blocks.take(frames)
        self.memory.ram.take(frames)
        self.charged += frames

    def uncharge(self, frames: int) -> None:
        """Frames of the file are no more."""
        self._blocks.give(frames)
        self.charged -= frames

    def empty(self, pindex: int) -> None:
        """Destroy what is at a place: a stale page must not stay behind one that moves home."""
        page = self.pages.pop(pindex, None)
        if page is not None:
            self.uncharge(self.memory.release([page]))
        swapped = self.swapped.pop(pindex, None)
        if swapped is not None:
            self._uncharge_swapped(swapped.mask)
            if swapped.copy is not None:
                self.memory.free_copy(swapped.copy)

    def rest(self, page: Page) -> None:
        """It rests here."""

    def evict(self, page: Page) -> int:
        """Free a clean page of this object, which swap has too; how many frames that gives."""
        assert page.copy is not None
        del self.pages[page.pindex]
        self.swapped[page.pindex] = Swapped(page.mask, page.copy)
        frames = self.memory.arena.retire(page)
        self._swapped(frames)
        self.memory.gained(frames)
        return frames

    def admit(self, page: Page, copy: Copy) -> None:
        """The page was read from swap, which keeps its copy."""
        del self.swapped[page.pindex]
        self._swapped(-page.mask.bit_count())
        self.pages[page.pindex] = page
        page.copy = copy
        self.memory.replacement.insert(page)
        self.memory.retry()  # it can be dropped again, even if swap is full

    def trim(self, pindex: int, mask: int) -> None:
        """Free the frames of a place in swap behind those in ``mask``."""
        swapped = self.swapped.get(pindex)
        if swapped is None:
            return
        if not swapped.mask & mask:
            self.empty(pindex)
            return
        self._uncharge_swapped(swapped.mask & ~mask)
        swapped.mask &= mask
        if swapped.copy is not None:
            self.memory.trim_copy(swapped.copy, mask)

    def _uncharge_swapped(self, mask: int) -> None:
        """Frames of the file that were in swap are no more."""
        self.uncharge(mask.bit_count())
        self._swapped(-mask.bit_count())

    def _swapped(self, more: int) -> None:
        """So many more frames are in swap."""
        self.memory.swapped += more
        self._blocks.swapped += more

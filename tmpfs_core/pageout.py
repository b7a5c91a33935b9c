"""Page-out and page-in: pages of uobjs go to swap, and come back.

Rules of this file:

* Each is a job of three steps: begin (which pages, which slots), run (the I/O: it blocks, touches
  no state, and may be done in another thread), finish (what came of it).  Operations go on between
  the steps; what they changed meanwhile is not touched by finish.
* Page-out takes pages only from uobjs.  A victim that is in use is released first (relbuf), and so
  goes home.
* A page that was read for somebody who has not used it yet is passed over once.  Else who needs
  it and RAM to write to could have it taken away for that RAM again and again.
* A clean page is dropped, a page of zeros takes no slot; all others are written in one go, in the
  order of their files.  A failed page-out leaves its pages dirty and resident.
* A page that was paged in keeps its slot until it is written to.  What can not be read is lost,
  and only that: its place answers EIO, and its slots are not used again.
"""

from collections.abc import Iterable

from .frames import WHOLE, Page
from .memory import Memory
from .swap import Copy, plan, read_in, read_now, stored_frames, write_out
from .vmobject import Swapped, Uobj

#: What one page-out writes at the most, in frames (1 MiB).
SLICE = 256
#: What one page-out frees without writing, in frames, until it lets others have their turn.
FREED = 64


class Laundry:
    """One page-out of at most a slice.

    Attributes:
        freed: frames that it has freed so far.
        transfers: what has to be written; nothing, if all could be freed at once.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._pages: list[tuple[Page, Copy]] = []
        self.freed = 0
        self._begin()
        self.transfers = plan((page.mem, copy) for page, copy in self._pages)

    def _begin(self) -> None:
        """Choose victims, free those that need no I/O, and give the others slots."""
        memory = self._memory
        swap = memory.swap
        assert swap is not None
        slots = swap.free
        dirty: list[tuple[Page, int]] = []
        skipped: list[Page] = []
        frames = 0
        while frames < SLICE and self.freed < FREED and len(skipped) < SLICE:
            page = memory.replacement.pick()
            if page is None:
                break
            page.owner.rest(page)
            if page.awaited:
                page.awaited = False
                skipped.append(page)
                continue
            stored = stored_frames(page.mem, page.mask) if page.dirty else 0
            if not stored:
                self._free_at_once(page)
            elif stored.bit_count() > slots:
                skipped.append(page)
            else:
                slots -= stored.bit_count()
                frames += stored.bit_count()
                dirty.append((page, stored))
        for page in skipped:
            memory.replacement.give_back(page)
        memory.tried(len(skipped), progress=bool(self.freed or dirty))
        dirty.sort(key=lambda item: item[0].key)
        extents = swap.take([stored.bit_count() for _, stored in dirty])
        for (page, stored), places in zip(dirty, extents, strict=True):
            page.laundry = self
            self._pages.append((page, Copy(stored, places)))

    def run(self) -> None:
        """Write the pages.

        Raises:
            OSError: it failed; what was written counts for nothing.
        """
        for transfer in self.transfers:
            write_out(transfer)

    def finish(self, done: bool) -> None:
        """Free what was written, or if it was not, take it back."""
        memory = self._memory
        for page, copy in self._pages:
            alive = page.owner.pages.get(page.pindex) is page
            if page.laundry is not self:  # written to, or freed, meanwhile
                memory.free_copy(copy)
                if alive:
                    memory.replacement.give_back(page)
                continue
            page.laundry = None
            if not done:
                memory.counters.failed_page_outs += 1
                memory.free_copy(copy)
                memory.replacement.give_back(page)
                continue
            memory.counters.paged_out += 1
            page.dirty = False
            page.copy = copy
            if isinstance(page.owner, Uobj):
                self._evict(page)
            else:  # in use again
                memory.replacement.give_back(page)
        if not done:
            memory.failed()

    def _free_at_once(self, page: Page) -> None:
        """Evict a page that is clean, or all zeros."""
        if page.dirty:
            self._memory.counters.zero_pages += 1
            page.dirty = False
            page.copy = Copy(0, [])
        else:
            self._memory.counters.dropped_clean += 1
        self._evict(page)

    def _evict(self, page: Page) -> None:
        """Free a clean page of a uobj; its place is in swap from now on."""
        assert isinstance(page.owner, Uobj)
        self.freed += page.owner.evict(page)


class Arrival:
    """One page-in.

    Args:
        memory: to where; the caller has made sure that it has as many frames free.
        places: the blocks to read; those that are not in swap any more are passed over.
        ahead: nobody has asked for them yet.

    Attributes:
        lost: after finish, what could not be read, as lines that name the file and the offset.
    """

    def __init__(
        self, memory: Memory, places: Iterable[tuple[Uobj, int]], ahead: bool = False
    ) -> None:
        self._memory = memory
        self.lost: list[str] = []
        self._moves: list[tuple[Page, Uobj, Swapped, Copy]] = []
        self._failed: dict[Page, str] = {}
        for uobj, pindex in places:
            swapped = uobj.swapped.get(pindex)
            if swapped is not None and swapped.copy is not None:
                whole = swapped.copy.stored == WHOLE
                allocate = memory.arena.allocate_to_fill if whole else memory.arena.allocate
                page = allocate(uobj, pindex)
                page.mask = swapped.mask
                page.ahead = ahead
                page.awaited = not ahead
                memory.ram.take(page.mask.bit_count())
                self._moves.append((page, uobj, swapped, swapped.copy))
        self._transfers = plan((page.mem, copy) for page, _, _, copy in self._moves)
        self._single = [(page, plan([(page.mem, copy)])) for page, _, _, copy in self._moves]

    def run_now(self) -> bool:
        """Read the blocks if none of them has to be waited for; else give up and free their RAM."""
        if all(map(read_now, self._transfers)):
            return True
        pages = [page for page, _, _, _ in self._moves]
        self._memory.gained(self._memory.arena.release(pages))
        return False

    def run(self) -> None:
        """Read the blocks; if that fails, one by one, so that only what can not be read is lost."""
        try:
            for transfer in self._transfers:
                read_in(transfer)
        except OSError:
            for page, transfers in self._single:
                try:
                    for transfer in transfers:
                        read_in(transfer)
                except OSError as error:
                    where = f"{transfer.file.path} at {transfer.offset}"
                    self._failed[page] = f"{where}: {error.strerror}"

    def finish(self) -> None:
        """Make what arrived resident in its uobj, unless its place has changed meanwhile."""
        memory = self._memory
        for page, uobj, swapped, copy in self._moves:
            current = uobj.swapped.get(page.pindex) is swapped and swapped.copy is copy
            current = current and swapped.mask == page.mask
            if not current or page in self._failed:
                memory.gained(memory.arena.release([page]))
                if current:
                    assert memory.swap is not None
                    memory.counters.lost += 1
                    memory.swap.condemned += copy.stored.bit_count()
                    swapped.copy = None  # its slots stay taken for good
                    self.lost.append(self._failed[page])
                continue
            memory.counters.paged_in += 1
            uobj.admit(page, copy)

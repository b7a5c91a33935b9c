"""VMObject: the page table of one file (pindex -> Page).

Rules of this file:

* Place ``pindex`` holds bytes ``[pindex * BLOCK, (pindex + 1) * BLOCK)`` of the file: either a
  page with at least one frame in use, or nothing (a hole, which reads as zeros).
* Account, then allocate, then mutate: frames are taken from the budget before memory is touched,
  so running out is a short count and never a half-made page.
* Bytes behind the end of the file are zeros; :meth:`truncate` sees to it.
"""

import errno
import os

from .frames import (
    BLOCK,
    BLOCK_MASK,
    BLOCK_SHIFT,
    FRAME,
    FRAME_SHIFT,
    ZEROS,
    Arena,
    Page,
    frame_bits,
)


class Budget:
    """A count of things of which there may be ``limit``: frames, or inodes."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def free(self) -> int:
        return self.limit - self.used

    def take(self, count: int) -> None:
        """Count ``count`` more in use.

        Raises:
            OSError: ENOSPC, and nothing is taken.
        """
        if self.used + count > self.limit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.used += count

    def give(self, count: int) -> None:
        self.used -= count


class VMObject:
    """The pages of one file; ``frames`` is how many RAM frames they hold."""

    __slots__ = ("_arena", "_budget", "frames", "pages")

    def __init__(self, arena: Arena, budget: Budget) -> None:
        self._arena = arena
        self._budget = budget
        self.pages: dict[int, Page] = {}
        self.frames = 0

    def read(self, offset: int, count: int) -> list[memoryview]:
        """Views of ``count`` bytes from ``offset``, one a block, without a copy.

        They show the live pages: use or copy them before anything else happens to the file.
        """
        get = self.pages.get
        start = offset & BLOCK_MASK
        pindex = offset >> BLOCK_SHIFT
        if start + count <= BLOCK:
            page = get(pindex)
            return [(ZEROS if page is None else page.mem)[start : start + count]]
        views = []
        while count > 0:
            page = get(pindex)
            length = min(BLOCK - start, count)
            views.append((ZEROS if page is None else page.mem)[start : start + length])
            count -= length
            pindex += 1
            start = 0
        return views

    def write(self, offset: int, data: memoryview) -> int:
        """Store ``data`` at ``offset``; how many bytes fitted (fewer than asked: no space)."""
        done = 0
        total = len(data)
        while done < total:
            start = (offset + done) & BLOCK_MASK
            stop = min(BLOCK, start + total - done)
            room = self._room(offset + done >> BLOCK_SHIFT, start, stop)
            if room is None:
                break
            mem, stop = room
            mem[start:stop] = data[done : done + stop - start]
            done += stop - start
        return done

    def _room(self, pindex: int, start: int, stop: int) -> tuple[memoryview, int] | None:
        """Memory for bytes ``start`` to ``stop`` of a place, and where it ends if cut short."""
        page = self.pages.get(pindex)
        held = 0 if page is None else page.mask
        new = frame_bits(start, stop) & ~held
        if new:
            if new.bit_count() > self._budget.free:
                stop = _fitting(held, start, stop, self._budget.free)
                if stop == start:
                    return None
                new = frame_bits(start, stop) & ~held
            self._budget.take(new.bit_count())
            self.frames += new.bit_count()
            if page is None:
                page = self.pages[pindex] = self._arena.allocate()
            page.mask |= new
        assert page is not None
        return page.mem, stop

    def truncate(self, size: int) -> None:
        """Free all from byte ``size`` on."""
        places = -(-size >> BLOCK_SHIFT)
        doomed = [pindex for pindex in self.pages if pindex >= places]
        freed = self._arena.release([self.pages.pop(pindex) for pindex in doomed])
        tail = size & BLOCK_MASK
        page = self.pages.get(size >> BLOCK_SHIFT)
        if tail and page is not None:
            frame = tail >> FRAME_SHIFT
            if page.mask >> frame & 1:
                stop = (frame + 1) << FRAME_SHIFT
                page.mem[tail:stop] = ZEROS[: stop - tail]
            freed += self._arena.drop_frames(page, -(-tail >> FRAME_SHIFT))
            if not page.mask:
                self._arena.release([self.pages.pop(size >> BLOCK_SHIFT)])
        self.frames -= freed
        self._budget.give(freed)

    def check(self) -> None:
        """Assert this object's invariants (for tests)."""
        assert all(page.mask for page in self.pages.values()), "a page without a frame"
        held = sum(page.mask.bit_count() for page in self.pages.values())
        assert held == self.frames, f"{held} frames held, {self.frames} counted"
        for page in self.pages.values():
            for frame in range(BLOCK // FRAME):
                if not page.mask >> frame & 1:
                    unused = page.mem[frame * FRAME : (frame + 1) * FRAME]
                    assert unused == ZEROS[:FRAME], "an unused frame is not zero"


def _fitting(held: int, start: int, stop: int, free: int) -> int:
    """The furthest stop for which ``[start, stop)`` needs at most ``free`` frames not held yet."""
    for frame in range(start >> FRAME_SHIFT, (stop - 1 >> FRAME_SHIFT) + 1):
        if not held >> frame & 1:
            if not free:
                return max(start, frame << FRAME_SHIFT)
            free -= 1
    return stop

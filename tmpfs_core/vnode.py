"""Vnode: the active face of a regular file, its pages in use, and the buffers over them.

Rules of this file:

* A buffer (Buf) covers one block.  Its page has been moved in from the uobj BEFORE the buffer
  exists, so that nothing is held twice; a buffer is dirty exactly when its page is.
* Pages go home only through :func:`strategy`, on a buffer that is released for good
  (:func:`relbuf`): when RAM is short, or when the vnode becomes inactive at its last close.
* What is not in RAM is asked for by raising :class:`NotResident`, before anything has changed.
  No operation waits.
* Account, then allocate, then mutate: frames are counted before memory is touched, so running out
  is a short count and never a half-made page.  Bytes behind the end of the file are zeros.
"""

import errno

from .cargo import Cargo
from .errors import refuse
from .frames import (
    BLOCK,
    BLOCK_MASK,
    BLOCK_SHIFT,
    FRAME,
    FRAME_SHIFT,
    ZEROS,
    Page,
    frame_bits,
    whole_frame_bits,
)
from .memory import Memory
from .vmobject import Uobj, VMObject, move

#: Blocks that are read ahead for a sequential reader at first, and at the most (1 MiB).
AHEAD_MIN, AHEAD_MAX = 2, 16

Place = tuple[Uobj, int]


class NotResident(Exception):  # noqa: N818 a condition, not an error
    """An operation needs what is not in RAM; nothing has changed.  Provide it, then try again.

    Attributes:
        memory: where it must be provided.
        places: ``(uobj, pindex)`` of each block to read from swap.
        frames: how many frames must be free for what will be written.
    """

    def __init__(self, memory: Memory, places: list[Place], frames: int = 0) -> None:
        super().__init__(f"{len(places)} blocks are in swap, {frames} frames are wanted")
        self.memory = memory
        self.places = places
        self.frames = frames


class Buf:
    """A buffer over one block of a vnode."""

    __slots__ = ("mem", "page")

    def __init__(self, page: Page) -> None:
        self.page = page
        self.mem = page.mem

    @property
    def dirty(self) -> bool:
        return self.page.dirty


class Vnode(VMObject):
    """A regular file while it is open; as a VM object, its pages in use.

    Attributes:
        uobj: the file's data at rest.
        bufs: the buffers, by block.
        usecount: how many have it open.
    """

    __slots__ = ("_ahead", "_first", "_stop", "bufs", "replacement", "uobj", "usecount")

    def __init__(self, uobj: Uobj) -> None:
        super().__init__(uobj.ino)
        self.uobj = uobj
        self.replacement = uobj.memory.replacement
        self.bufs: dict[int, Buf] = {}
        self.usecount = 0
        self._first, self._stop = -1, 0  # the blocks of the last read that was not just of a Buf
        self._ahead = 0  # how many to read ahead of the next

    def empty(self, pindex: int) -> None:
        """A page moves in only where none is: that of the uobj is the file's only one."""
        assert pindex not in self.pages

    def rest(self, page: Page) -> None:
        relbuf(self, page.pindex)

    def inactive(self) -> None:
        """The last one has closed it: all its pages go home."""
        for block in list(self.bufs):
            relbuf(self, block)

    def read_ahead(self, offset: int, stop: int) -> None:
        """From byte ``offset`` to block ``stop`` is read: have what a sequential reader wants next
        brought in meanwhile.
        """
        first = offset >> BLOCK_SHIFT
        if first == self._first:
            return  # the same read again, after what it needs was provided
        sequential = offset == 0 or 0 <= self._first < first <= self._stop
        self._first, self._stop = first, stop
        if not sequential:
            self._ahead = 0
            return
        self._ahead = min(max(self._ahead * 2, AHEAD_MIN), AHEAD_MAX)
        swapped = self.uobj.swapped
        ahead = [block for block in range(stop, stop + self._ahead) if block in swapped]
        if ahead:
            self.uobj.memory.on_ahead([(self.uobj, block) for block in ahead])


def bread(vp: Vnode, block: int) -> Buf | None:
    """The buffer over a block that is in RAM; None where there is a hole.

    Raises:
        OSError: EIO, the block was lost.
    """
    buf = vp.bufs.get(block)
    if buf is None:
        page = vp.uobj.pages.get(block)
        if page is None:
            if block in vp.uobj.swapped:  # and not brought in: it can not be
                refuse(errno.EIO)
            return None
        move(page, vp)
        memory = vp.uobj.memory
        memory.in_use += page.mask.bit_count()
        counters = memory.counters
        counters.moved_in += 1
        page.awaited = False
        if page.ahead:
            page.ahead = False
            counters.readahead_hits += 1
        buf = vp.bufs[block] = Buf(page)
    buf.page.heat = vp.replacement.generation
    return buf


def getblk(vp: Vnode, block: int) -> Buf:
    """A buffer over a hole, with a page that has no frame yet: the caller charges and adds them."""
    memory = vp.uobj.memory
    page = vp.pages[block] = memory.arena.allocate(vp, block)
    page.dirty = True
    memory.entered(page)
    buf = vp.bufs[block] = Buf(page)
    return buf


def bdwrite(vp: Vnode, buf: Buf) -> None:
    """The buffer has been written to; its page will go to swap when its time comes."""
    page = buf.page
    if not page.dirty or page.laundry is not None:
        vp.uobj.memory.dirtied(page)


def relbuf(vp: Vnode, block: int) -> None:
    """Release a buffer for good."""
    strategy(vp, vp.bufs.pop(block))


def strategy(vp: Vnode, buf: Buf) -> None:
    """Move the page of a buffer that was released for good home."""
    move(buf.page, vp.uobj)
    memory = vp.uobj.memory
    memory.in_use -= buf.page.mask.bit_count()
    memory.counters.moved_home += 1


def read(vp: Vnode, offset: int, count: int) -> list[memoryview]:
    """Views of ``count`` bytes from ``offset``, one a block, without a copy; fewer before a loss.

    They show the live pages: use or copy them before anything else happens.

    Raises:
        NotResident: some of it is in swap.
        OSError: EIO, the first of it was lost.
    """
    bufs = vp.bufs
    generation = vp.replacement.generation
    block, start = offset >> BLOCK_SHIFT, offset & BLOCK_MASK
    buf = bufs.get(block)
    if buf is not None and start + count <= BLOCK:  # most reads: of one block, which is in use
        buf.page.heat = generation
        return [buf.mem[start : start + count]]
    if vp.uobj.swapped:
        last = offset + count - 1 >> BLOCK_SHIFT
        vp.read_ahead(offset, last + 1)
        _require(vp, block, last)
    views: list[memoryview] = []
    while count > 0:
        block, start = offset >> BLOCK_SHIFT, offset & BLOCK_MASK
        length = min(BLOCK - start, count)
        buf = bufs.get(block)
        if buf is not None:
            buf.page.heat = generation
        elif views and block in vp.uobj.swapped:
            break  # lost: what is before it can be had
        else:
            buf = bread(vp, block)
        views.append((ZEROS if buf is None else buf.mem)[start : start + length])
        offset += length
        count -= length
    return views


def _require(vp: Vnode, first: int, last: int) -> None:
    """Ask for those of the blocks ``first`` to ``last`` that are in swap."""
    swapped = vp.uobj.swapped
    missing = [
        (vp.uobj, block)
        for block in range(first, last + 1)
        if block in swapped and swapped[block].copy is not None
    ]
    if missing:
        raise NotResident(vp.uobj.memory, missing)


def write(vp: Vnode, offset: int, data: memoryview | Cargo, most: int) -> int:
    """Store up to ``most`` bytes of ``data`` at ``offset``; how many (fewer: no space).

    Raises:
        NotResident: some of it is in swap, or there is no RAM for it yet.
        OSError: EIO, a block that is written in part was lost.
    """
    memory = vp.uobj.memory
    total = min(len(data), most)
    if memory.swap is not None:
        _require_writable(vp, offset, total)
    bufs = vp.bufs
    done = 0
    while done < total:
        block = offset + done >> BLOCK_SHIFT
        start = offset + done & BLOCK_MASK
        stop = min(BLOCK, start + total - done)
        buf = bufs.get(block)
        if buf is None:
            buf = _writable_block(vp, block, start, stop)
            swapped = vp.uobj.swapped.get(block)
            if buf is None and swapped is not None:  # it can not be replaced whole
                if done or swapped.copy is None:
                    break
                raise NotResident(memory, [(vp.uobj, block)])
        held = 0 if buf is None else buf.page.mask
        new = frame_bits(start, stop) & ~held
        if new:
            room = min(vp.uobj.chargeable, memory.writable)
            if new.bit_count() > room:
                stop = _fitting(held, start, stop, room)
                if stop == start:
                    break
                new = frame_bits(start, stop) & ~held
            vp.uobj.charge(new.bit_count())
            if buf is None:
                buf = getblk(vp, block)
            buf.page.mask |= new
            memory.in_use += new.bit_count()
        assert buf is not None
        if isinstance(data, Cargo):
            data.unload(buf.page, done, start, stop)
            buf.mem = buf.page.mem
        else:
            buf.mem[start:stop] = data[done : done + stop - start]
        bdwrite(vp, buf)
        buf.page.heat = vp.replacement.generation
        done += stop - start
    if memory.swap is not None and memory.ram.free < memory.low:
        memory.on_pressure()
    return done


def _writable_block(vp: Vnode, block: int, start: int, stop: int) -> Buf | None:
    """The buffer over a block that has none yet; None for a hole.

    What is in swap and will be replaced whole is destroyed, if there is room to write all of it.
    """
    uobj = vp.uobj
    swapped = uobj.swapped.get(block)
    if swapped is None or swapped.mask & ~whole_frame_bits(start, stop):
        return bread(vp, block)
    bits = frame_bits(start, stop)
    new = bits & ~swapped.mask
    if bits.bit_count() <= uobj.memory.writable and new.bit_count() <= uobj.chargeable:
        uobj.empty(block)
    return None


def _require_writable(vp: Vnode, offset: int, count: int) -> None:
    """Ask for what a write needs: the blocks in swap that it changes in part, and free RAM."""
    uobj = vp.uobj
    memory = uobj.memory
    first, last = offset >> BLOCK_SHIFT, offset + count - 1 >> BLOCK_SHIFT
    places: list[Place] = []
    if uobj.swapped:
        for block in (first, last) if first != last else (first,):
            swapped = uobj.swapped.get(block)
            if swapped is not None and swapped.mask & ~whole_frame_bits(
                *_within(block, offset, count)
            ):
                if swapped.copy is None:
                    refuse(errno.EIO)
                places.append((uobj, block))
    frames = 0
    if not memory.stuck and memory.writable < (count >> FRAME_SHIFT) + 2:
        uncharged = 0
        for block in range(first, last + 1):
            page = vp.pages.get(block) or uobj.pages.get(block)
            swapped = uobj.swapped.get(block)
            bits = frame_bits(*_within(block, offset, count)) & ~(page.mask if page else 0)
            frames += bits.bit_count()
            uncharged += (bits & ~(swapped.mask if swapped else 0)).bit_count()
        frames -= max(0, uncharged - uobj.chargeable)  # what will not fit needs no RAM
        if frames <= memory.writable:
            frames = 0
    if places or frames:
        raise NotResident(memory, places, frames)


def truncate(uobj: Uobj, vp: Vnode | None, size: int) -> None:
    """Free all of a file from byte ``size`` on, whether it is open (``vp``) or not.

    Raises:
        NotResident: the block that is cut within a frame is in swap.
    """
    last, tail = size >> BLOCK_SHIFT, size & BLOCK_MASK
    cut = uobj.swapped.get(last)
    inside = 1 << (tail >> FRAME_SHIFT) if tail & (FRAME - 1) else 0
    if cut is not None and cut.copy is not None and cut.copy.stored & inside:
        raise NotResident(uobj.memory, [(uobj, last)])
    memory = uobj.memory
    doomed: list[Page] = []
    for owner in (uobj,) if vp is None else (uobj, vp):
        page = owner.pages.get(last)
        if tail and page is not None:
            _cut(uobj, page, tail)
        for pindex, page in list(owner.pages.items()):
            if pindex > last or (pindex == last and not (tail and page.mask)):
                doomed.append(owner.pages.pop(pindex))
                if isinstance(owner, Vnode):
                    del owner.bufs[pindex]
                    memory.in_use -= page.mask.bit_count()
    uobj.uncharge(memory.release(doomed))
    for pindex in [pindex for pindex in uobj.swapped if pindex >= last + bool(tail)]:
        uobj.empty(pindex)
    if tail:
        uobj.trim(last, frame_bits(0, tail))


def _cut(uobj: Uobj, page: Page, tail: int) -> None:
    """Free the frames of a page behind byte ``tail``, and clear the rest of the one that has it."""
    memory = uobj.memory
    memory.dirtied(page)
    frame = tail >> FRAME_SHIFT
    if page.mask >> frame & 1:
        stop = (frame + 1) << FRAME_SHIFT
        page.mem[tail:stop] = ZEROS[: stop - tail]
    freed = memory.arena.drop_frames(page, -(-tail >> FRAME_SHIFT))
    if page.owner is not uobj:
        memory.in_use -= freed
    memory.gained(freed)
    uobj.uncharge(freed)


def check(uobj: Uobj, vp: Vnode | None) -> None:
    """Assert the invariants of one file (for tests); their numbers are those of README.md."""
    places = [*uobj.pages, *uobj.swapped, *(() if vp is None else vp.pages)]
    assert len(places) == len(set(places)), "I1: a place in two states"
    charged = sum(swapped.mask.bit_count() for swapped in uobj.swapped.values())
    for owner in (uobj,) if vp is None else (uobj, vp):
        for pindex, page in owner.pages.items():
            assert page.owner is owner, "I2: not its owner"
            assert page.pindex == pindex, "I2: not its place"
            assert page.mask, "I3: a page without a frame"
            assert page.dirty or page.copy is not None, "I4: clean, and nowhere else"
            assert not (page.dirty and page.copy is not None), "I4: dirty, and it has a copy"
            if page.copy is not None:
                page.copy.check(page.mask)
            for frame in range(BLOCK // FRAME):
                if not page.mask >> frame & 1:
                    unused = page.mem[frame * FRAME : (frame + 1) * FRAME]
                    assert bytes(unused) == bytes(FRAME), "I5: an unused frame is not zero"
            charged += page.mask.bit_count()
    assert charged == uobj.charged, f"I6: {charged} frames, {uobj.charged} charged"
    for swapped in uobj.swapped.values():
        if swapped.copy is not None:
            swapped.copy.check(swapped.mask)
    if vp is not None:
        assert vp.bufs.keys() == vp.pages.keys(), "I7: a page in use without its buffer"
        assert all(buf.page is vp.pages[block] for block, buf in vp.bufs.items()), "I7"
        assert all(buf.dirty == buf.page.dirty for buf in vp.bufs.values()), "I8"


def _within(block: int, offset: int, count: int) -> tuple[int, int]:
    """The part of ``[offset, offset + count)`` that is in a block, relative to it."""
    base = block << BLOCK_SHIFT
    return max(offset - base, 0), min(offset + count - base, BLOCK)


def _fitting(held: int, start: int, stop: int, free: int) -> int:
    """The furthest stop for which ``[start, stop)`` needs at most ``free`` frames not held yet."""
    for frame in range(start >> FRAME_SHIFT, (stop - 1 >> FRAME_SHIFT) + 1):
        if not held >> frame & 1:
            if not free:
                return max(start, frame << FRAME_SHIFT)
            free -= 1
    return stop

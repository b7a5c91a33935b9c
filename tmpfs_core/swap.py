"""Swap: frames at rest in preallocated, private, mapped files.

Rules of this file:

* A swap file is made anew, readable by its owner alone, and unlinked while open: it is gone with
  the process, however that ends.  Nothing else touches it.
* It grows in steps, each preallocated before its first slot is handed out; a step goes back to the
  disk (``MADV_REMOVE``) when none of its slots is in use.
* Bytes move by pwritev(2) and preadv(2), which report what went wrong.  The map is never loaded
  from or stored to: on a file that was truncated, or whose disk fails, that would be SIGBUS.
* A slot holds one frame.  A :class:`Copy` owns its slots until it is freed; what could not be read
  again is condemned, and its slots are not used again.
* A file may have a cipher: then its bytes are encrypted on their way out, and decrypted where they
  arrive.
* :func:`write_out` and :func:`read_in` block.  They touch nothing but the file and the memory that
  they are given, so they may run in another thread; so may :meth:`Swap.grow`.
"""

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple, Protocol

from .frames import BLOCK, FRAME, FRAMES_PER_BLOCK

#: A swap file grows by so many frames (64 MiB).
STEP = 16384
#: Most buffers in one preadv(2) or pwritev(2).
IOV_MAX = 1024


class Cipher(Protocol):
    """What keeps the bytes of one file secret.

    Each view is a run of frames, and belongs at ``offset`` behind those before it.  A run is
    decrypted in the same place as it was encrypted, all of it or its first frames.
    """

    def encrypt(self, views: list[memoryview], offset: int) -> memoryview:
        """The bytes of the views as they shall stand in the file."""

    def decrypt(self, views: list[memoryview], offset: int) -> None:
        """Make of what stands in the file what it was, in place."""


class SwapFile:
    """Slots for ``limit`` frames in a file that is made at ``path``.

    Args:
        cipher: encrypts what is in it; it may be called from several threads.

    Raises:
        OSError: the file can not be made there, or there is no room for its first step.
    """

    def __init__(self, path: str, limit: int, cipher: Cipher | None = None) -> None:
        self.path = path
        self.limit = limit
        self.cipher = cipher
        #: Slots that can be taken now, and slots of steps that are not there yet.
        self.free = 0
        self.ungrown = limit
        #: One byte a slot: 0 it can be taken.
        self._taken = bytearray(b"\1") * limit
        #: Slots in use by step, of the steps that are there.
        self._in_use: dict[int, int] = {}
        self._next = 0
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.unlink(path)
            os.ftruncate(self.fd, limit * FRAME)
            self._map = mmap.mmap(self.fd, limit * FRAME)
            self.grow()
        except BaseException:
            os.close(self.fd)
            raise

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)

    def grow(self) -> None:
        """Preallocate one more step; this may block.

        Raises:
            OSError: ENOSPC and whatever posix_fallocate(3) has.
        """
        step = next(n for n in range(-(-self.limit // STEP)) if n not in self._in_use)
        start, stop = self._bounds(step)
        os.posix_fallocate(self.fd, start * FRAME, (stop - start) * FRAME)
        self._in_use[step] = 0
        self._taken[start:stop] = bytes(stop - start)
        self.free += stop - start
        self.ungrown -= stop - start

    def take(self, count: int) -> tuple[int, int]:
        """``(start, length)`` of a run of free slots, ``count`` long or the longest half of it.

        The caller has made sure that some slot is free.
        """
        length = min(count, self.free)
        while True:
            for begin in (self._next, 0):
                start = self._taken.find(bytes(length), begin)
                if start >= 0:
                    self._count(start, length, b"\1")
                    self._next = start + length
                    return start, length
            length = length + 1 >> 1

    def give(self, start: int, length: int) -> None:
        """Free slots.  A step without any in use is given back, but for the last."""
        self._count(start, length, b"\0")
        for step in range(start // STEP, (start + length - 1) // STEP + 1):
            if not self._in_use[step] and len(self._in_use) > 1:
                begin, end = self._bounds(step)
                try:
                    self._map.madvise(mmap.MADV_REMOVE, begin * FRAME, (end - begin) * FRAME)
                except OSError:  # EOPNOTSUPP: this disk takes nothing back, so the step stays
                    continue
                self._taken[begin:end] = b"\1" * (end - begin)
                del self._in_use[step]
                self.free -= end - begin
                self.ungrown += end - begin

    def _bounds(self, step: int) -> tuple[int, int]:
        return step * STEP, min((step + 1) * STEP, self.limit)

    def _count(self, start: int, length: int, value: bytes) -> None:
        """Mark a run of slots as taken (1) or free (0)."""
        sign = 1 if value == b"\1" else -1
        self._taken[start : start + length] = value * length
        self.free -= sign * length
        for step in range(start // STEP, (start + length - 1) // STEP + 1):
            begin, end = self._bounds(step)
            self._in_use[step] += sign * (min(end, start + length) - max(begin, start))

    def check(self) -> None:
        """Assert this file's invariants (for tests)."""
        assert self._taken.count(0) == self.free
        for step, in_use in self._in_use.items():
            begin, end = self._bounds(step)
            assert self._taken[begin:end].count(1) == in_use


class Extent(NamedTuple):
    """A run of slots."""

    file: SwapFile
    start: int
    length: int


@dataclass(slots=True)
class Copy:
    """A block's frames in swap.

    Attributes:
        stored: the mask of the frames that are there; others that the block has are zeros.
        extents: where they are, in order.
    """

    stored: int
    extents: list[Extent]

    def check(self, mask: int) -> None:
        """Assert that each frame stored is one of ``mask``, and has a slot (for tests)."""
        assert not self.stored & ~mask
        assert self.stored.bit_count() == sum(extent.length for extent in self.extents)

    def pieces(self, mem: memoryview) -> Iterator[tuple[SwapFile, int, memoryview]]:
        """``(file, offset, memory)`` of each run that is whole in swap and in the block."""
        if self.stored == (1 << FRAMES_PER_BLOCK) - 1 and len(self.extents) == 1:
            yield self.extents[0].file, self.extents[0].start * FRAME, mem
            return
        frame = 0
        for file, start, length in self.extents:
            slot, stop = start, start + length
            while slot < stop:
                while not self.stored >> frame & 1:
                    frame += 1
                first = frame
                while slot + frame - first < stop and self.stored >> frame & 1:
                    frame += 1
                yield file, slot * FRAME, mem[first * FRAME : frame * FRAME]
                slot += frame - first


class Sharer(Protocol):
    """Who swaps."""

    def retry(self) -> None:
        """Slots are free again."""


class Swap:
    """All swap files as one space, for one or more to share."""

    def __init__(self, files: list[SwapFile]) -> None:
        self.files = files
        self.sharers: list[Sharer] = []
        self._growing = Lock()
        #: Frames that were lost to errors, for good.
        self.condemned = 0

    def close(self) -> None:
        for file in self.files:
            file.close()

    @property
    def size(self) -> int:
        """Slots that there may be."""
        return sum(file.limit for file in self.files)

    @property
    def free(self) -> int:
        """Slots that can be taken now."""
        return sum(file.free for file in self.files)

    @property
    def ungrown(self) -> int:
        """Slots that growing may add."""
        return sum(file.ungrown for file in self.files)

    @property
    def used(self) -> int:
        """Slots in use (condemned ones too)."""
        return sum(file.limit - file.free - file.ungrown for file in self.files)

    def grow(self) -> bool:
        """Add a step where there is room for one; whether there was.  This may block."""
        with self._growing:
            for file in self.files:
                if file.ungrown:
                    try:
                        file.grow()
                    except OSError:
                        continue
                    return True
        return False

    def gained(self) -> None:
        """Slots are free again."""
        for sharer in self.sharers:
            sharer.retry()

    def take(self, counts: list[int]) -> list[list[Extent]]:
        """Slots for blocks of so many frames each, neighbours together.

        The caller has made sure that as many slots are free.
        """
        runs: list[Extent] = []
        result = []
        missing = sum(counts)
        for wanted in counts:
            count = wanted
            extents: list[Extent] = []
            while count:
                if not runs:
                    file = next(file for file in self.files if file.free)
                    runs.append(Extent(file, *file.take(missing)))
                file, start, length = runs.pop()
                used = min(length, count)
                extents.append(Extent(file, start, used))
                if used < length:
                    runs.append(Extent(file, start + used, length - used))
                count -= used
                missing -= used
            result.append(extents)
        return result

    def give(self, copy: Copy) -> None:
        """Free the slots of a copy."""
        for file, start, length in copy.extents:
            file.give(start, length)

    def trim(self, copy: Copy, mask: int) -> None:
        """Free the slots of the frames that are not in ``mask``, which drops only the last ones."""
        kept = (copy.stored & mask).bit_count()
        extents = []
        for file, start, length in copy.extents:
            keep = min(length, kept)
            if keep:
                extents.append(Extent(file, start, keep))
            if keep < length:
                file.give(start + keep, length - keep)
            kept -= keep
        copy.stored &= mask
        copy.extents = extents


class Transfer(NamedTuple):
    """Memory, and the place in a file that it is written to or read from in one call."""

    file: SwapFile
    offset: int
    views: list[memoryview]


def plan(moves: Iterable[tuple[memoryview, Copy]]) -> list[Transfer]:
    """What moves blocks to or from their slots; neighbours in a file go in one call."""
    transfers: list[Transfer] = []
    end = -1
    for mem, copy in moves:
        for file, offset, view in copy.pieces(mem):
            last = transfers[-1] if transfers else None
            if last and last.file is file and offset == end and len(last.views) < IOV_MAX:
                last.views.append(view)
            else:
                transfers.append(Transfer(file, offset, [view]))
            end = offset + len(view)
    return transfers


def write_out(transfer: Transfer) -> None:
    """Write memory to its place.

    Raises:
        OSError: as pwritev(2) has it; some of it may have been written.
    """
    file, offset, views = transfer
    if file.cipher is not None:
        views = [file.cipher.encrypt(views, offset)]
    while views:
        try:
            written = os.pwritev(file.fd, views, offset)
        except OSError as error:
            raise OSError(error.errno, error.strerror, file.path) from None
        if not written:
            raise OSError(errno.EIO, "swap takes no bytes", file.path)
        views = _behind(views, written)
        offset += written


def read_in(transfer: Transfer) -> None:
    """Read memory from its place.

    Raises:
        OSError: as preadv(2) has it; EIO, the file ends too early.
    """
    file, offset, views = transfer
    while views:
        got = os.preadv(file.fd, views, offset)
        if not got:
            raise OSError(errno.EIO, "the swap file was truncated", file.path)
        views = _behind(views, got)
        offset += got
    if file.cipher is not None:
        file.cipher.decrypt(transfer.views, transfer.offset)


def read_now(transfer: Transfer) -> bool:
    """Read memory from its place if the host has it cached, without waiting for a disk.

    Whether it was read; if not, some of the memory may have changed.
    """
    file, offset, views = transfer
    try:
        got = os.preadv(file.fd, views, offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not cached; EOPNOTSUPP: a file system that can not tell
        return False
    if got != sum(map(len, views)):
        return False
    if file.cipher is not None:
        file.cipher.decrypt(views, offset)
    return True


def _behind(views: list[memoryview], count: int) -> list[memoryview]:
    """What follows the first ``count`` bytes of ``views``."""
    rest = []
    for view in views:
        if count < len(view):
            rest.append(view[count:])
        count = max(0, count - len(view))
    return rest


def stored_frames(mem: memoryview, mask: int) -> int:
    """The mask of those frames in ``mask`` that are not all zeros."""
    stored = 0
    for frame in range(BLOCK // FRAME):
        if mask >> frame & 1:
            start = frame * FRAME
            if mem[start] or bytes(mem[start : start + FRAME]) != _ZERO_FRAME:
                stored |= 1 << frame
    return stored


_ZERO_FRAME = bytes(FRAME)

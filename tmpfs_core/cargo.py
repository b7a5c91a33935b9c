"""Cargo: the bytes of a large write on their way in, received where they will stay.

Rules of this file:

* Cargo is received into blocks of the arena, cut as the file's blocks are.  A block of the file
  that it fills whole is not copied: its page changes memory with the cargo.  What is cut is copied.
* These blocks (*berths*) belong to no file and hold old bytes of any; what a page takes over from
  one was received over all of its length.
* There are at most ``BERTHS`` of them.  Where none is left there is no cargo, and the write has to
  be received elsewhere.
"""

from .frames import BLOCK, BLOCK_MASK, BLOCK_SHIFT, Arena, Berth, Page


class Cargo:
    """Room for the ``count`` bytes that will be written at ``offset`` of a file.

    Attributes:
        room: views of what was not received yet, in order; empty when all of it is here.
    """

    __slots__ = ("_arena", "_berths", "_count", "_skew", "room")

    def __init__(self, arena: Arena, offset: int, count: int, berths: list[Berth]) -> None:
        self._arena = arena
        self._berths = berths
        self._count = count
        self._skew = offset & BLOCK_MASK  # where the cargo begins in its first berth
        end = self._skew + count
        self.room = [
            berth.mem[max(self._skew - base, 0) : min(end - base, BLOCK)]
            for base, berth in zip(range(0, end, BLOCK), berths, strict=True)
        ]

    def __len__(self) -> int:
        return self._count

    def received(self, count: int) -> None:
        """The next ``count`` bytes have come in."""
        room = self.room
        while count and len(room[0]) <= count:
            count -= len(room.pop(0))
        if count:
            room[0] = room[0][count:]

    def fill(self, data: memoryview) -> None:
        """Receive ``data``, which is here already."""
        done = 0
        while done < len(data):
            piece = data[done : done + len(self.room[0])]
            self.room[0][: len(piece)] = piece
            self.received(len(piece))
            done += len(piece)

    def unload(self, page: Page, at: int, start: int, stop: int) -> None:
        """Bring what is at ``at`` of the cargo to bytes ``start`` to ``stop`` of a page."""
        at += self._skew
        if stop - start == BLOCK and not at & BLOCK_MASK:
            self._berths[at >> BLOCK_SHIFT].exchange(page)
            return
        while start < stop:
            begin = at & BLOCK_MASK
            length = min(stop - start, BLOCK - begin)
            mem = self._berths[at >> BLOCK_SHIFT].mem
            page.mem[start : start + length] = mem[begin : begin + length]
            start += length
            at += length

    def close(self) -> None:
        """Give the berths back, whatever they hold now."""
        self.room = []
        self._arena.leave(self._berths)
        self._berths = []


def cargo_for(arena: Arena, offset: int, count: int) -> Cargo | None:
    """Cargo for a write of ``count`` bytes at ``offset``, if there are berths for it."""
    berths = arena.berth((offset & BLOCK_MASK) + count + BLOCK - 1 >> BLOCK_SHIFT)
    return None if berths is None else Cargo(arena, offset, count, berths)

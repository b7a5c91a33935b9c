"""Ring: a split virtqueue in a guest's memory, seen from the device (virtio 1.2, 2.7).

Rules of this file:

* The guest may write to all of it at any time.  So each index, descriptor and table is read once,
  whole, and checked before it is used; what it stands for is looked up in the table of memory.
* Indices are read and written in one access of two bytes, as the other side does it: that is what
  a view cast to ``H`` does.  They are little-endian; where the host is not, there is no device.
* Where an answer goes is kept as addresses: it is written to what is the guest's memory then.
* Answers are published together, at the end of a turn (:meth:`Ring.publish`).
"""

from threading import Lock
from typing import Final

from .memory import Memory, VhostError

Buffer = bytes | bytearray | memoryview

#: Entries of a queue at the most, and descriptors of a chain.
MOST: Final = 1024
#: Bytes of a descriptor, of an entry of the available ring, and of one of the used ring.
DESCRIPTOR: Final = 16
AVAILABLE: Final = 2
USED: Final = 8

# linux/virtio_ring.h
NEXT: Final = 1
WRITE: Final = 2
INDIRECT: Final = 4
NO_INTERRUPT: Final = 1

_lock = Lock()


def barrier() -> None:
    """What was written before is seen by the other side before what follows is read or written.

    Python has no such thing by itself; but nothing passes a lock that is given back, and then
    another that is taken.
    """
    _lock.acquire()
    _lock.release()
    _lock.acquire()
    _lock.release()


class Span:
    """Pieces of a guest's memory, one behind another; they are used up from the beginning.

    Attributes:
        left: bytes that were not used yet.
    """

    __slots__ = ("_addresses", "_at", "_lengths", "_memory", "left")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._addresses: list[int] = []
        self._lengths: list[int] = []
        self._at = 0  # the first piece that is not used up
        self.left = 0

    def append(self, address: int, length: int) -> None:
        """Have one more piece; where it goes on from the last one, that grows."""
        self.left += length
        if self._addresses and self._addresses[-1] + self._lengths[-1] == address:
            self._lengths[-1] += length
        else:
            self._addresses.append(address)
            self._lengths.append(length)

    def read(self, to: memoryview) -> None:
        """Fill ``to`` with the next bytes, of which there are that many.

        Raises:
            VhostError: they are not in the guest's memory.
        """
        size = len(to)
        view = self._next(size)
        done = len(view)
        if done == size:
            to[:] = view
            return
        to[:done] = view
        while done < size:
            view = self._next(size - done)
            to[done : done + len(view)] = view
            done += len(view)

    def write(self, data: Buffer) -> None:
        """Fill the next bytes, of which there are that many, with ``data``.

        Raises:
            VhostError: they are not in the guest's memory.
        """
        size = len(data)
        view = self._next(size)
        done = len(view)
        if done == size:
            view[:] = data
            return
        data = memoryview(data)
        view[:] = data[:done]
        while done < size:
            view = self._next(size - done)
            view[:] = data[done : done + len(view)]
            done += len(view)

    def _next(self, most: int) -> memoryview:
        """A view of the next bytes: up to so many, and at least one."""
        at = self._at
        address, length = self._addresses[at], self._lengths[at]
        view = self._memory.view(address, min(length, most))
        used = len(view)
        self.left -= used
        if used == length:
            self._at = at + 1
        else:
            self._addresses[at] = address + used
            self._lengths[at] = length - used
        return view


class Chain:
    """What the guest says, and where the answer goes.

    Attributes:
        head: the first of its descriptors, which names it when it is given back.
        descriptors: how many of them say where all that is, which takes time.
    """

    __slots__ = ("answer", "descriptors", "head", "request")

    def __init__(self, head: int, memory: Memory) -> None:
        self.head = head
        self.descriptors = 0
        self.request = Span(memory)
        self.answer = Span(memory)


class Ring:
    """The queue of ``size`` entries whose parts are at these addresses of the VMM.

    Args:
        base: the index of the first entry to take.
        event_index: whether each side says which entry it wants to be told of.

    Raises:
        VhostError: not all of it is memory, or it is not aligned.
    """

    def __init__(
        self,
        memory: Memory,
        size: int,
        descriptors: int,
        available: int,
        used: int,
        base: int,
        event_index: bool,
    ) -> None:
        if descriptors % 16 or available % 2 or used % 4:
            raise VhostError("a ring that is not aligned")
        self._memory = memory
        self._size = size
        self._event_index = event_index
        self._descriptors = memory.at_user(descriptors, DESCRIPTOR * size).cast("Q")
        #: flags, index, the entries, and the entry of the used ring that the guest waits for.
        self._available = memory.at_user(available, 6 + AVAILABLE * size).cast("H")
        #: flags and index; pairs of a head and a length; the entry that is waited for here.
        self._used = memory.at_user(used, 4).cast("H")
        self._given = memory.at_user(used + 4, USED * size).cast("I")
        self._wanted = memory.at_user(used + 4 + USED * size, 2).cast("H")
        self._next = base  # of the available ring, to take
        self._seen = base  # up to where there was something
        self._done = self._told = self._used[1]  # of the used ring: written, and published

    @property
    def fresh(self) -> bool:
        """Whether nothing was ever taken from it or given back: a driver begins to use it."""
        return not (self._next or self._done or any(self._given))

    @property
    def base(self) -> int:
        """The index of the next entry to take."""
        return self._next

    def pop(self) -> Chain | None:
        """The next request, if there is one.

        Raises:
            VhostError: it is none that can be.
        """
        if self._next == self._seen and not self._look():
            return None
        head = self._available[2 + self._next % self._size]
        self._next = self._next + 1 & 0xFFFF
        return self._walk(head)

    def push(self, chain: Chain, answer: list[Buffer]) -> int:
        """Give a request back with this answer, which may be empty; how many bytes that has.

        Raises:
            VhostError: there is not so much room for it, or that is not memory.
        """
        span = chain.answer
        length = 0
        for part in answer:
            length += len(part)
            if len(part) > span.left:
                raise VhostError(f"room for {span.left} bytes where the answer has {len(part)}")
            if part:
                span.write(part)
        at = self._done % self._size * 2
        self._given[at] = chain.head
        self._given[at + 1] = length
        self._done = self._done + 1 & 0xFFFF
        return length

    def publish(self) -> bool:
        """Let the guest see what was pushed; whether it must be told that there is something."""
        told, done = self._told, self._done
        if told == done:
            return False
        barrier()
        self._used[1] = self._told = done
        barrier()
        if not self._event_index:
            return not self._available[0] & NO_INTERRUPT
        waited_for = self._available[2 + self._size]
        return (done - waited_for - 1) & 0xFFFF < (done - told) & 0xFFFF

    def _look(self) -> bool:
        """See what is available now; whether there is something."""
        seen = self._available[1]
        if seen == self._next and self._event_index:
            self._wanted[0] = seen
            barrier()
            seen = self._available[1]
        if (seen - self._next) & 0xFFFF > self._size:
            raise VhostError(f"available index {seen}, of {self._size} from {self._next} on")
        self._seen = seen
        barrier()
        return seen != self._next

    def _walk(self, head: int) -> Chain:
        """The chain of descriptors that begins with ``head``."""
        chain = Chain(head, self._memory)
        request, answer = chain.request, chain.answer
        table: memoryview | list[int] = self._descriptors
        count = self._size
        at = head
        for _ in range(MOST + 1):
            if at >= count:
                raise VhostError(f"descriptor {at} of {count}")
            address = table[2 * at]
            word = table[2 * at + 1]
            length = word & 0xFFFFFFFF
            flags = word >> 32 & 0xFFFF
            if flags & INDIRECT:
                if table is not self._descriptors or flags & NEXT:
                    raise VhostError("an indirect descriptor where none may be")
                table = self._indirect(address, length)
                count = length // DESCRIPTOR
                at = 0
                continue
            if not length:
                raise VhostError("an empty descriptor")
            chain.descriptors += 1
            if flags & WRITE:
                answer.append(address, length)
            elif answer.left:
                raise VhostError("a descriptor to read behind one to write")
            else:
                request.append(address, length)
            if not flags & NEXT:
                return chain
            at = word >> 48
        raise VhostError(f"a chain of more than {MOST} descriptors")

    def _indirect(self, address: int, length: int) -> list[int]:
        """A copy of a table of descriptors, in numbers of eight bytes."""
        if not length or length % DESCRIPTOR or length > MOST * DESCRIPTOR:
            raise VhostError(f"a table of {length} bytes")
        view = self._memory.view(address, length)
        if len(view) < length:
            raise VhostError("a table that is not in one region of memory")
        numbers: list[int] = view.cast("Q").tolist()
        return numbers

"""Locks: those of the server, for whoever the kernel says wants them.

Rules of this file:

* The kernel names owners by 64 bits, 9P by 32: each owner of locks has a number, as long as he has
  any.
* A lock is taken through an open file, and ends with it at the latest.
"""

from server.wire.constants import LOCK_TYPE_RDLCK, LOCK_TYPE_UNLCK, LOCK_TYPE_WRLCK

from . import protocol
from .nodes import Handle, Node

#: The end of a lock that reaches to the end of the file.
FOREVER = (1 << 63) - 1


class Locks:
    """Those of a mount."""

    def __init__(self) -> None:
        self._last = 0

    async def take(
        self, handle: Handle, owner: int, start: int, end: int, *, exclusive: bool, wait: bool
    ) -> bool:
        """Lock bytes, up to and with ``end``; whether that was done."""
        return await handle.file.lock(
            start,
            _length(start, end),
            exclusive=exclusive,
            wait=wait,
            owner=self._number(handle.node, owner),
        )

    async def give(self, handle: Handle, owner: int, start: int = 0, end: int = FOREVER) -> None:
        """Unlock bytes, whichever open file they were locked through."""
        node, length = handle.node, _length(start, end)
        number = node.use.locks.get(owner)
        if number is None:
            return
        try:
            await handle.file.unlock(start, length, owner=number)
        finally:
            for other in node.handles:
                other.file.unlocked(start, length, number)
            if not any(other.file.has_locks_of(number) for other in node.handles):
                node.use.locks.pop(owner, None)

    async def what_excludes(
        self, handle: Handle, owner: int, start: int, end: int, *, exclusive: bool
    ) -> bytes:
        """What excludes such a lock, as the kernel is told of it; the process is not known."""
        found = await handle.file.locked(
            start,
            _length(start, end),
            exclusive=exclusive,
            owner=self._number(handle.node, owner),
        )
        if found is None:
            return protocol.LOCK.pack(start, end, LOCK_TYPE_UNLCK, 0)
        excludes, first, length = found
        last = first + length - 1 if length else FOREVER
        return protocol.LOCK.pack(first, last, LOCK_TYPE_WRLCK if excludes else LOCK_TYPE_RDLCK, 0)

    def _number(self, node: Node, owner: int) -> int:
        """The number of an owner."""
        if owner not in node.use.locks:
            self._last = self._last % 0xFFFFFFFF + 1
            node.use.locks[owner] = self._last
        return node.use.locks[owner]


def _length(start: int, end: int) -> int:
    """The length of a lock; 0 if it reaches to the end of the file."""
    return 0 if end >= FOREVER else end - start + 1

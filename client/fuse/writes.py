"""Writes: those that the kernel is answered before the server has them.

Rules of this file:

* A write waits while too much of its file, or some of its bytes, is being written.
* Each is one request at first; what that does not do is done the long way, on a new connection if
  need be.
* What becomes of it is told to the handle, which tells whoever asks next.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from server.wire.messages import Rwrite

from . import protocol
from .nodes import Handle, Node, Write

#: Bytes of a file's writes that have been answered but not done, at most.
BEHIND = 8 << 20


class Writes:
    """Those of a mount.

    Args:
        changed: is told of a file when a write of it begins, and when it is over.
        recycle: is given the data that is not needed any more.
    """

    def __init__(
        self, changed: Callable[[Node], None], recycle: Callable[[memoryview], None]
    ) -> None:
        self._changed = changed
        self._recycle = recycle

    def has_to_wait(self, node: Node, start: int, stop: int) -> bool:
        """Whether a write of these bytes can not begin."""
        writes = node.use.writes
        if not writes:
            return False
        return sum(write.stop - write.start for write in writes) > BEHIND or any(
            write.start < stop and start < write.stop for write in writes
        )

    async def turn(self, node: Node, start: int, stop: int) -> None:
        """Wait until it can."""
        while self.has_to_wait(node, start, stop):
            await _called(node.use.ending)

    async def settle(self, node: Node) -> None:
        """Wait for all writes of a file."""
        while node.is_written:
            await _called(node.use.settling)

    def begin(self, handle: Handle, offset: int, data: memoryview) -> bytes:
        """Begin a write; what the kernel is answered."""
        self._changed(handle.node)
        write = Write(offset, offset + len(data))
        handle.node.use.writes.add(write)
        if not handle.file.begin_write(data, offset, partial(self._tried, handle, write, data)):
            self._do_in_full(handle, write, data)
        return protocol.SIZE.pack(len(data))

    def _tried(self, handle: Handle, write: Write, data: memoryview, reply: Any) -> None:
        """A write was tried; if all that is wrong is that not all was done, it is done now."""
        if isinstance(reply, ConnectionError) or (
            isinstance(reply, Rwrite) and reply.count < len(data)
        ):
            self._do_in_full(handle, write, data)
            return
        if isinstance(reply, OSError):
            handle.error = reply
        self._ended(handle.node, write, data)

    def _do_in_full(self, handle: Handle, write: Write, data: memoryview) -> None:
        write.task = asyncio.create_task(self._in_full(handle, write, data))

    async def _in_full(self, handle: Handle, write: Write, data: memoryview) -> None:
        try:
            await handle.file.pwrite(data, write.start)
        except OSError as error:
            handle.error = error
        finally:
            self._ended(handle.node, write, data)

    def _ended(self, node: Node, write: Write, data: memoryview) -> None:
        """A write is over; those who wait for it go on."""
        self._changed(node)
        self._recycle(data)
        use = node.use
        use.writes.discard(write)
        waiting, use.ending = use.ending, []
        if not use.writes:
            waiting += use.settling
            use.settling = []
        for go_on in waiting:
            go_on()


async def _called(waiting: list[Callable[[], None]]) -> None:
    """Wait until what is put in here is called."""
    called = asyncio.get_running_loop().create_future()
    waiting.append(partial(_set, called))
    await called


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():  # it is not cancelled
        future.set_result(None)

"""GuestPeer: a peer whose requests go through the queue of a virtio device."""

import asyncio
import itertools
import socket
from typing import Self

from server.address import VhostUser
from server.wire.codec import Message

from .peer import GUARD, SocketPeer, Stream
from .vhost.frontend import BUFFERS, GUEST, WRITE, Frontend

#: Requests in flight at the most, and bytes of each and of its reply.
SLOTS, SLOT = 8, 0x88000


class GuestPeer(SocketPeer):
    """A virtual machine.

    Attributes:
        frontend: its VMM and its memory.
        empty: heads of the chains that came back without a reply.
    """

    def __init__(self, frontend: Frontend) -> None:
        self.frontend = frontend
        self.empty: list[int] = []
        self._stream = Stream()
        self._arrived: list[tuple[int, Message]] = []
        self._fids = itertools.count(100)
        self._free = list(range(SLOTS))

    @classmethod
    async def plug_in(cls, device: VhostUser, *, event_index: bool = False) -> Self:
        """A virtual machine whose driver has begun to use its queue."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, device.path)
        peer = cls(Frontend(sock, event_index=event_index))
        peer.frontend.start()
        return peer

    def feed(self, data: bytes) -> None:
        """Make a request."""
        slot = self._free.pop(0)
        at = BUFFERS + 2 * slot * SLOT
        self.frontend.put(at, data)
        pieces = [(GUEST + at, len(data), 0), (GUEST + at + SLOT, SLOT, WRITE)]
        self.frontend.chain(pieces, first=2 * slot)
        self.frontend.offer(2 * slot)
        self.frontend.ring_bell()

    async def reply(self) -> tuple[int, Message]:
        """The next reply and its tag."""
        async with asyncio.timeout(GUARD):
            while not self._arrived:
                self._take()
                if not self._arrived:
                    await self.frontend.called()
        return self._arrived.pop(0)

    async def close(self) -> None:
        """The VMM ends."""
        self.frontend.close()

    def reboot(self) -> None:
        """The driver begins anew, with a queue that nothing was done with yet."""
        self.frontend.clear()
        self._free = list(range(SLOTS))
        self._arrived.clear()
        self.frontend.start()

    def _take(self) -> None:
        for head, length in self.frontend.take():
            slot = head // 2
            self._free.append(slot)
            at = BUFFERS + 2 * slot * SLOT + SLOT
            self._arrived += self._stream.cut(self.frontend.memory[at : at + length])
            if not length:
                self.empty.append(head)

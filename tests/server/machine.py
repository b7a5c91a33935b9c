"""Machine: a client in a virtual machine, whose requests go through a virtqueue."""

import asyncio
import itertools
import socket
from collections import deque
from typing import Self

from server.wire.codec import Message

from .peer import GUARD, SocketPeer, Stream
from .vhost.frontend import BUFFERS, GUEST, WRITE, Frontend

#: Requests at once; each has two descriptors.  Those behind them are for whoever makes his own.
SLOTS = 40
#: Bytes of a request, and of its reply, at the most.
LARGEST = 65536


class Machine(SocketPeer):
    """A virtual machine that is running.

    Attributes:
        vm: the VMM, and the guest's memory.
    """

    def __init__(self, vm: Frontend) -> None:
        self.vm = vm
        self._stream = Stream()
        self._arrived: list[tuple[int, Message]] = []
        self._fids = itertools.count(100)
        self._slots = deque(range(SLOTS))

    @classmethod
    async def plug_in(cls, path: str, event_index: bool = False) -> Self:
        """One whose device is set up."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, path)
        machine = cls(Frontend(sock, event_index=event_index))
        machine.vm.start()
        return machine

    def feed(self, data: bytes) -> None:
        """Make this request, which has room for its reply behind it."""
        self.queue(data)
        self.vm.ring_bell()

    def queue(self, data: bytes) -> None:
        """The same, but tell nobody."""
        slot = self._slots.popleft()
        at = self._at(slot)
        self.vm.put(at, data)
        pieces = [(GUEST + at, len(data), 0), (GUEST + at + LARGEST, LARGEST, WRITE)]
        self.vm.chain(pieces, 2 * slot)
        self.vm.offer(2 * slot)

    async def reply(self) -> tuple[int, Message]:
        async with asyncio.timeout(GUARD):
            while not self._arrived:
                await self.vm.called()
                for head, length in self.vm.take():
                    at = self._at(head // 2) + LARGEST
                    self._arrived += self._stream.cut(self.vm.memory[at : at + length])
                    self._slots.append(head // 2)
        return self._arrived.pop(0)

    async def close(self) -> None:
        self.vm.__exit__()

    def abort(self) -> None:
        self.vm.__exit__()

    @staticmethod
    def _at(slot: int) -> int:
        """Where in memory the request of a slot stands."""
        return BUFFERS + slot * 2 * LARGEST

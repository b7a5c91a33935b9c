"""Frontend: a VMM and the driver in its guest, in one; written from the specifications alone.

The guest's memory is a memfd.  From its beginning lie the descriptors, the available ring, the used
ring, and tables of indirect descriptors; behind that, buffers.  So a test may write whatever it
likes, at any place.
"""

import asyncio
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from typing import Self

# Messages, features and flags (QEMU, docs/interop/vhost-user.rst; virtio 1.2, 2.7 and 5.x)
GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = 12, 13, 14
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE = 15, 16, 17, 18
GET_CONFIG, SET_CONFIG, GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 24, 25, 36, 37, 38
INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES, VERSION_1 = 1 << 28, 1 << 29, 1 << 30, 1 << 32
REPLY_ACK, CONFIG = 1 << 3, 1 << 9
NEED_REPLY = 8
NEXT, WRITE, INDIRECT = 1, 2, 4

FEATURES = 1 | INDIRECT_DESC | PROTOCOL_FEATURES | VERSION_1
SIZE = 128
#: Where the guest's memory is, in the guest and in the VMM.
GUEST, USER = 0x4000_0000, 0x7F00_0000_0000
#: Where in it things are; and its size.
DESCRIPTORS, AVAILABLE, USED, TABLES, BUFFERS = 0, 0x10000, 0x20000, 0x30000, 0x100000
MEMORY = 16 << 20

Piece = tuple[int, int, int]  # address, length, flags


class Frontend:
    """A VMM that is connected, and what is in its guest.

    Attributes:
        memory: all of the guest's memory.
        base: how many entries the driver has made available.
        taken: how many answers it has taken.
    """

    def __init__(self, sock: socket.socket, *, event_index: bool = False) -> None:
        self.sock = sock
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, MEMORY)
        self.memory = mmap.mmap(self.fd, MEMORY)
        self.kick = os.eventfd(0, os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_NONBLOCK)
        self.fault = os.eventfd(0, os.EFD_NONBLOCK)
        self.event_index = event_index
        self.base = self.taken = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The VMM ends, if it has not yet."""
        if self.sock.fileno() < 0:
            return
        self.sock.close()
        self.memory.close()
        for fd in (self.fd, self.kick, self.call, self.fault):
            os.close(fd)

    # The VMM

    def send(
        self, request: int, payload: bytes = b"", fds: Sequence[int] = (), flags: int = 0
    ) -> None:
        head = struct.pack("=III", request, 1 | flags, len(payload))
        if fds:
            socket.send_fds(self.sock, [head + payload], list(fds))
        else:
            self.sock.sendall(head + payload)

    def number(self, request: int, number: int, fds: Sequence[int] = (), flags: int = 0) -> None:
        self.send(request, struct.pack("=Q", number), fds, flags)

    def state(self, request: int, number: int, index: int = 0) -> None:
        self.send(request, struct.pack("=II", index, number))

    async def reply(self) -> tuple[int, bytes]:
        """Request and payload of the next reply."""
        loop = asyncio.get_running_loop()
        head = await loop.sock_recv(self.sock, 12)
        if not head:
            raise EOFError
        request, flags, size = struct.unpack("=III", head)
        assert flags & 7 == 5
        return request, await loop.sock_recv(self.sock, size) if size else b""

    async def ask(self, request: int, payload: bytes = b"", flags: int = 0) -> bytes:
        self.send(request, payload, flags=flags)
        answered, content = await self.reply()
        assert answered == request
        return content

    def region(self, guest: int = GUEST, user: int = USER, size: int = MEMORY) -> bytes:
        return struct.pack("=QQQQ", guest, size, user, 0)

    def share_memory(self) -> None:
        self.send(SET_MEM_TABLE, struct.pack("=II", 1, 0) + self.region(), [self.fd])

    def addresses(
        self, descriptors: int = DESCRIPTORS, used: int = USED, available: int = AVAILABLE
    ) -> bytes:
        places = (USER + descriptors, USER + used, USER + available)
        return struct.pack("=IIQQQQ", 0, 0, *places, 0)

    def start(self, base: int = 0, size: int = SIZE) -> None:
        """All that a VMM says until the queue runs."""
        self.number(SET_FEATURES, FEATURES | (EVENT_IDX if self.event_index else 0))
        self.number(SET_PROTOCOL_FEATURES, REPLY_ACK | CONFIG)
        self.send(SET_OWNER)
        self.share_memory()
        self.state(SET_VRING_NUM, size)
        self.state(SET_VRING_BASE, base)
        self.send(SET_VRING_ADDR, self.addresses())
        self.number(SET_VRING_CALL, 0, [self.call])
        self.number(SET_VRING_ERR, 0, [self.fault])
        self.number(SET_VRING_KICK, 0, [self.kick])
        self.state(SET_VRING_ENABLE, 1)

    async def stop(self) -> int:
        """Stop the queue; from where it would go on."""
        answer = await self.ask(GET_VRING_BASE, struct.pack("=II", 0, 0))
        index, base = struct.unpack("=II", answer)
        assert index == 0
        return int(base)

    # The guest

    def clear(self) -> None:
        """The memory of the queue is as new."""
        self.put(0, bytes(TABLES))
        self.base = self.taken = 0

    def put(self, at: int, data: bytes) -> None:
        self.memory[at : at + len(data)] = data

    def describe(self, at: int, address: int, length: int, flags: int, following: int = 0) -> None:
        """Write the descriptor that is ``at`` bytes from the beginning of memory."""
        self.put(at, struct.pack("<QIHH", address, length, flags, following))

    def chain(self, pieces: Sequence[Piece], first: int = 0) -> None:
        """Descriptors one after another, from number ``first`` on."""
        for i, (address, length, flags) in enumerate(pieces):
            more = NEXT if i < len(pieces) - 1 else 0
            at = DESCRIPTORS + 16 * (first + i)
            self.describe(at, address, length, flags | more, first + i + 1)

    def table(self, pieces: Sequence[Piece], first: int = 0, at: int = TABLES) -> None:
        """The same in a table of their own, behind the one descriptor ``first``."""
        for i, (address, length, flags) in enumerate(pieces):
            more = NEXT if i < len(pieces) - 1 else 0
            self.describe(at + 16 * i, address, length, flags | more, i + 1)
        self.describe(DESCRIPTORS + 16 * first, GUEST + at, 16 * len(pieces), INDIRECT)

    def offer(self, *heads: int, size: int = SIZE) -> None:
        """Make chains available, but kick nobody."""
        for head in heads:
            self.put(AVAILABLE + 4 + 2 * (self.base % size), struct.pack("<H", head))
            self.base = self.base + 1 & 0xFFFF
        self.put(AVAILABLE + 2, struct.pack("<H", self.base))

    def ring_bell(self) -> None:
        os.eventfd_write(self.kick, 1)

    @property
    def used(self) -> int:
        """How many answers there were, modulo 2 ** 16."""
        return int(struct.unpack_from("<H", self.memory, USED + 2)[0])

    @property
    def avail_event(self) -> int:
        """Which entry the device wants to be told of."""
        return int(struct.unpack_from("<H", self.memory, USED + 4 + 8 * SIZE)[0])

    def wait_for(self, index: int) -> None:
        """Say which answer the driver wants to be told of."""
        self.put(AVAILABLE + 4 + 2 * SIZE, struct.pack("<H", index & 0xFFFF))

    def take(self) -> list[tuple[int, int]]:
        """Head and length of each answer that was not taken yet."""
        answers = []
        while self.taken != self.used:
            at = USED + 4 + 8 * (self.taken % SIZE)
            answers.append(struct.unpack_from("<II", self.memory, at))
            self.taken = self.taken + 1 & 0xFFFF
        if self.event_index:
            self.wait_for(self.taken)
        return answers

    async def called(self) -> None:
        """Wait until the device tells that there are answers."""
        await readable(self.call)
        os.eventfd_read(self.call)

    async def stopped(self) -> None:
        """Wait until the device tells that it has stopped."""
        await readable(self.fault)


async def readable(fd: int) -> None:
    """Wait until there is something to read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(30):
            await ready.wait()
    finally:
        loop.remove_reader(fd)


def split(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """``data`` cut into pieces of these sizes, and what is left."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data] if data else pieces

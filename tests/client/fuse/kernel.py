"""Kernel: what asks a mounted file system, through a socket that keeps messages apart."""

import asyncio
import socket

from client.fuse import protocol

#: Who asks.
UID, GID = 1, 2


class Kernel:
    """The other end."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        its.setblocking(False)
        self._sock = ours
        self.descriptor = its.detach()

    async def ask(self, unique: int, opcode: int, body: bytes = b"", inode: int = 7) -> None:
        length = protocol.IN.size + len(body)
        head = protocol.IN.pack(length, opcode, unique, inode, UID, GID, 3)
        await asyncio.get_running_loop().sock_sendall(self._sock, head + body)

    async def answer(self) -> tuple[int, int, bytes]:
        """The next answer: to which, its error, what it says."""
        data = await asyncio.get_running_loop().sock_recv(self._sock, 1 << 16)
        size, error, unique = protocol.OUT.unpack_from(data)
        assert size == len(data)
        return unique, -error, data[protocol.OUT.size :]

    def close(self) -> None:
        self._sock.close()

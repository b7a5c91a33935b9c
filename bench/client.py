"""A 9P client in few lines, for what npload does not tell or do."""

import os
import socket
from typing import Self

from bench.tools import MSIZE, Server
from server.wire import messages as m
from server.wire.constants import GETATTR_BASIC, NOFID, NOTAG, VERSION
from server.wire.primitives import HEADER, Buffer

ROOT = 0
GETATTR: list[Buffer] = [m.Tgetattr.pack(1, ROOT, GETATTR_BASIC)]


class Client:
    """An attached connection; fid ROOT is the root."""

    def __init__(self, server: Server) -> None:
        host, port = server.address.split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")
        self.ask([m.Tversion.pack(NOTAG, MSIZE, VERSION)])
        self.ask([m.Tattach.pack(1, ROOT, NOFID, b"root", server.aname.encode(), 0)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.close()
        self._socket.close()

    def getattr(self) -> None:
        self.ask(GETATTR)

    def ask(self, requests: list[Buffer]) -> None:
        """Send these requests at once; each must be answered with success."""
        self._socket.sendall(b"".join(requests))
        for _ in requests:
            size, kind, _ = HEADER.unpack(self._replies.read(HEADER.size))
            body = self._replies.read(size - HEADER.size)
            if kind == m.Rlerror.TYPE:
                (code,) = m.Rlerror.unpack(body, 0, len(body))
                raise OSError(code, os.strerror(code))

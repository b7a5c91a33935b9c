"""A 9P client in few lines, for what npload does not tell: single latencies, idle connections."""

import socket
import struct
from typing import Self

from bench.tools import MSIZE, Server

NONE = 0xFFFFFFFF


class Client:
    """An attached connection; fid 0 is the root."""

    def __init__(self, server: Server) -> None:
        host, port = server.address.split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        version = struct.pack("<I", MSIZE) + _string("9P2000.L")
        self._call(100, 0xFFFF, version)
        names = _string("root") + _string(server.aname)
        self._call(104, 1, struct.pack("<II", 0, NONE) + names + struct.pack("<I", 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def getattr(self) -> None:
        self._call(24, 1, struct.pack("<IQ", 0, 0x7FF))

    def _call(self, kind: int, tag: int, body: bytes) -> None:
        self._socket.sendall(struct.pack("<IBH", 7 + len(body), kind, tag) + body)
        reply = self._socket.recv(4096)  # these replies are short and come in one piece
        assert reply[4] == kind + 1, reply


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text)) + text.encode()

"""What files cost: RSS of a server for a file of 1 GiB, for empty and for small files, and what
stays behind when all of it is deleted.

Each case has a server of its own, which is told what to do through its socket as any client would
tell it, and is looked at from outside.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from server.wire import messages as m
from server.wire.codec import HEADER, Buffer
from server.wire.constants import NOFID, O_CREAT, O_RDWR, VERSION

GIB = 1 << 30
FILES = 100_000
CHUNK = 1 << 19
#: Requests on their way at a time.
DEPTH = 64

ROOT_FID, DIRECTORY, FILE = 0, 1, 2

#: Case -> (its name, what is divided by, unit, most).
CASES = {
    "large": ("bookkeeping of a file of 1 GiB", GIB / 100, "%", 2.0),
    "empty": ("an empty file", FILES * 1024, " KiB", 1.2),
    "small": ("a file of 100 bytes", FILES * 1024, " KiB", 5.5),
}


class Peer:
    """A client that sends many requests ahead, and wants every answer to be a success."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._replies = self._socket.makefile("rb")
        self.ask(
            [
                m.Tversion.pack(0, 1 << 20, VERSION),
                m.Tattach.pack(0, ROOT_FID, NOFID, b"root", b"", 0),
            ]
        )

    def ask(self, requests: list[Buffer]) -> None:
        self._socket.sendall(b"".join(requests))
        for _ in requests:
            size, kind, _ = HEADER.unpack(self._replies.read(HEADER.size))
            body = self._replies.read(size - HEADER.size)
            assert kind != m.Rlerror.TYPE, os.strerror(m.Rlerror.unpack(body, 0, len(body))[0])


def batches(each: Iterator[list[Buffer]]) -> Iterator[list[Buffer]]:
    """The requests, some at a time."""
    batch: list[Buffer] = []
    for requests in each:
        batch += requests
        if len(batch) >= DEPTH:
            yield batch
            batch = []
    yield batch


def create(name: bytes, data: bytes) -> list[Buffer]:
    requests: list[Buffer] = [
        m.Twalk.pack(1, DIRECTORY, FILE, []),
        m.Tlcreate.pack(1, FILE, name, O_RDWR | O_CREAT, 0o644, 0),
    ]
    if data:
        requests.append(m.Twrite.pack(1, FILE, 0, data))
    return [*requests, m.Tclunk.pack(1, FILE)]


def fill(case: str, peer: Peer) -> list[bytes]:
    """Make the files of a case; their names."""
    if case == "large":
        chunk = os.urandom(CHUNK)
        peer.ask(create(b"large", b"")[:-1])
        for offset in range(0, GIB, CHUNK):
            peer.ask([m.Twrite.pack(1, FILE, offset, chunk)])
        peer.ask([m.Tclunk.pack(1, FILE)])
        return [b"large"]
    names = [b"file-%06d" % number for number in range(FILES)]
    data = b"x" * 100 if case == "small" else b""
    for batch in batches(create(name, data) for name in names):
        peer.ask(batch)
    return names


def measure(case: str) -> tuple[int, int, int]:
    """Bytes of RSS: before, with the files, and after they were deleted."""
    server = subprocess.Popen(
        [sys.executable, "-m", "server", "serve", "--listen=tcp://127.0.0.1:0", "--size=3g"],
        stdout=subprocess.PIPE,
        text=True,
    )

    def rss() -> int:
        pages = Path(f"/proc/{server.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    assert server.stdout is not None
    peer = Peer(server.stdout.readline().split()[1].removeprefix("tcp://"))
    peer.ask(
        [m.Tmkdir.pack(1, ROOT_FID, b"d", 0o755, 0), m.Twalk.pack(1, ROOT_FID, DIRECTORY, [b"d"])]
    )
    start = rss()
    names = fill(case, peer)
    full = rss()
    for batch in batches([m.Tunlinkat.pack(1, DIRECTORY, name, 0)] for name in names):
        peer.ask(batch)
    time.sleep(3)  # the server gives it back when it has become quiet
    end = rss()
    server.terminate()
    server.wait()
    return start, full, end


def table() -> list[tuple[str, str, str, bool]]:
    """Rows of (what, measured, at most, reached)."""
    costs, left = [], []
    for case, (what, per, unit, most) in CASES.items():
        start, full, end = measure(case)
        cost = (full - start - (GIB if case == "large" else 0)) / per
        costs.append((what, f"{cost:.2f}{unit}", f"{most}{unit}", cost <= most))
        grown = (end - start) / start * 100
        left.append((f"RSS after deleting ({case})", f"+{grown:.1f} %", "+10 %", grown <= 10))
    return costs + left

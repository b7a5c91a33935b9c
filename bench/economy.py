"""What files cost: RSS of a server for a file of 1 GiB, for empty and for small files, and what
stays behind when all of it is deleted.

Each case has a server of its own, which is told what to do through its socket as any client would
tell it, and is looked at from outside.
"""

import os
import time
from collections.abc import Iterator, Sequence

from bench.client import ROOT, Client
from bench.footprint import rss
from bench.report import row
from bench.tools import ours
from server.wire import messages as m
from server.wire.constants import O_CREAT, O_RDWR
from server.wire.primitives import Buffer

GIB = 1 << 30
FILES = 100_000
CHUNK = 1 << 19
#: Requests on their way at a time.
DEPTH = 64
#: Seconds after which a server has given back what it gives back.
QUIET = 3

DIRECTORY, FILE = 1, 2

#: Case -> (its name, what is divided by, unit, most).
CASES = {
    "large": ("bookkeeping of a file of 1 GiB", GIB / 100, "%", 2.0),
    "empty": ("an empty file", FILES * 1024, " KiB", 1.2),
    "small": ("a file of 100 bytes", FILES * 1024, " KiB", 5.5),
}


def economy_rows(command: Sequence[str]) -> list[list[str]]:
    costs, left = [], []
    for case, (what, per, unit, most) in CASES.items():
        start, full, end = measure(command, case)
        cost = (full - start - (GIB if case == "large" else 0)) / per
        costs.append(row(what, f"{cost:.2f}{unit}", f"<= {most}{unit}", cost <= most))
        grown = (end - start) / start * 100
        left.append(row(f"RSS after deleting ({case})", f"+{grown:.1f} %", "<= 10 %", grown <= 10))
    return costs + left


def measure(command: Sequence[str], case: str) -> tuple[int, int, int]:
    """Bytes of RSS: before, with the files, and after they were deleted."""
    with ours([*command, "--size=3g"]) as server, Client(server) as client:
        client.ask(
            [m.Tmkdir.pack(1, ROOT, b"d", 0o755, 0), m.Twalk.pack(1, ROOT, DIRECTORY, [b"d"])]
        )
        client.ask(create(b"first", b"x"))  # what the first use of all makes, stays
        client.ask([m.Tunlinkat.pack(1, DIRECTORY, b"first", 0)])
        start = rss(server.pid)
        names = fill(case, client)
        full = rss(server.pid)
        for batch in batches([m.Tunlinkat.pack(1, DIRECTORY, name, 0)] for name in names):
            client.ask(batch)
        time.sleep(QUIET)
        return start, full, rss(server.pid)


def fill(case: str, client: Client) -> list[bytes]:
    """Make the files of a case; their names."""
    if case == "large":
        chunk = os.urandom(CHUNK)
        client.ask(create(b"large", b"")[:-1])
        for offset in range(0, GIB, CHUNK):
            client.ask([m.Twrite.pack(1, FILE, offset, chunk)])
        client.ask([m.Tclunk.pack(1, FILE)])
        return [b"large"]
    names = [b"file-%06d" % number for number in range(FILES)]
    data = b"x" * 100 if case == "small" else b""
    for batch in batches(create(name, data) for name in names):
        client.ask(batch)
    return names


def create(name: bytes, data: bytes) -> list[Buffer]:
    requests: list[Buffer] = [
        m.Twalk.pack(1, DIRECTORY, FILE, []),
        m.Tlcreate.pack(1, FILE, name, O_RDWR | O_CREAT, 0o644, 0),
    ]
    if data:
        requests.append(m.Twrite.pack(1, FILE, 0, data))
    return [*requests, m.Tclunk.pack(1, FILE)]


def batches(each: Iterator[list[Buffer]]) -> Iterator[list[Buffer]]:
    """The requests, some at a time."""
    batch: list[Buffer] = []
    for requests in each:
        batch += requests
        if len(batch) >= DEPTH:
            yield batch
            batch = []
    yield batch

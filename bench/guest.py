"""A guest over vhost-user beside a client on a unix socket: ``python -m bench.guest``.

The guest is the scripted one of the tests; both clients are Python, and do as little as they can:
requests and the places of their replies are made once.  They take turns, and the median of the
rounds' ratios counts.  ``-q`` is how many requests are made at once; then their replies are waited
for.
"""

import os
import select
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.report import conditions, table
from bench.tools import OURS, pin_load, pinned
from server.wire import messages as m
from server.wire.constants import GETATTR_BASIC, NOFID, NOTAG, O_RDWR, VERSION
from tests.server.vhost.frontend import BUFFERS, GUEST, TABLES, WRITE, Frontend

ROOT, FILE = 0, 1
MSIZE = 512000
SMALL, LARGE = 4096, 1 << 19
PAGE = 4096
ROUNDS = 9
SECONDS = 0.3
#: Bytes of guest memory for a request, and as many for its reply.
SLOT = 0x88000

Batch = Callable[[], None]


def requests(size: int) -> dict[str, tuple[bytes, int]]:
    """Each request, and the size of its reply, for data of ``size`` bytes."""
    data = os.urandom(min(size, MSIZE - 24))
    return {
        "read": (m.Tread(FILE, 0, len(data)).frame(1), 11 + len(data)),
        "write": (m.Twrite(FILE, 0, data).frame(1), 11),
    }


#: What is measured: request, size of the reply.
WORK = {
    "getattr": (m.Tgetattr(ROOT, GETATTR_BASIC).frame(1), 160),
    **{f"{name} of 4 KiB": it for name, it in requests(SMALL).items()},
    **{f"{name} of 512 KiB": it for name, it in requests(LARGE).items()},
}
BEGIN = [
    m.Tversion(MSIZE, VERSION).frame(NOTAG),
    m.Tattach(ROOT, NOFID, b"root", b"", 0).frame(1),
]
CREATE = [m.Twalk(ROOT, FILE, []).frame(1), m.Tlcreate(FILE, b"file", O_RDWR, 0o600, 0).frame(1)]
OPEN = [m.Twalk(ROOT, FILE, [b"file"]).frame(1), m.Tlopen(FILE, O_RDWR).frame(1)]


class SocketClient:
    """A client on a unix socket."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(path)
        self._reply = memoryview(bytearray(8 * MSIZE))

    def ask(self, request: bytes) -> None:
        self._sock.sendall(request)
        self._sock.recv(MSIZE)

    def batch(self, request: bytes, reply: int, depth: int) -> Batch:
        sock, request = self._sock, request * depth
        view = self._reply[: reply * depth]

        def run() -> None:
            sock.sendall(request)
            got = 0
            while got < len(view):
                got += sock.recv_into(view[got:])

        return run


class GuestClient:
    """A guest."""

    def __init__(self, path: str) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        self._guest = Frontend(sock, event_index=True)
        self._guest.start()
        self._calls = select.poll()
        self._calls.register(self._guest.call, select.POLLIN)

    def ask(self, request: bytes) -> None:
        self.batch(request, SLOT, 1)()

    def batch(self, request: bytes, reply: int, depth: int) -> Batch:
        guest, poll = self._guest, self._calls.poll
        for slot in range(depth):
            at = BUFFERS + slot * 2 * SLOT
            pages = scattered(at, len(request))
            for i, (address, length, _) in enumerate(pages):
                guest.put(address - GUEST, request[i * PAGE : i * PAGE + length])
            room = [(address, length, WRITE) for address, length, _ in scattered(at + SLOT, reply)]
            guest.table([*pages, *room], first=slot, at=TABLES + slot * 0x2000)
        heads = range(depth)

        def run() -> None:
            guest.wait_for(guest.base + depth - 1)
            guest.offer(*heads)
            guest.ring_bell()
            while guest.used != guest.base:
                poll()
                os.eventfd_read(guest.call)

        return run


def scattered(at: int, size: int) -> list[tuple[int, int, int]]:
    """Pieces of a page, no two of them one after another in memory: as a program's pages are."""
    starts = range(0, size, PAGE)
    last = len(starts) - 1
    return [
        (GUEST + at + PAGE * (last - i), min(PAGE, size - start), 0)
        for i, start in enumerate(starts)
    ]


def per_second(run: Batch, depth: int) -> float:
    """Requests a second."""
    done = 0
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < SECONDS:
        run()
        done += depth
    return done / (now - start)


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """The paths of a server's unix socket and of its device."""
    with tempfile.TemporaryDirectory() as directory:
        unix, device = f"{directory}/unix", f"{directory}/device"
        where = [f"--listen=unix://{unix}", f"--listen=vhost-user://{device}?tag=bench"]
        process = subprocess.Popen(
            pinned([*OURS, "serve", "--size=64m", "--log-level=warning", *where]),
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            for _ in where:
                process.stdout.readline()
            yield unix, device
        finally:
            process.terminate()
            process.communicate()


def main() -> None:
    rows = []
    with served() as (unix, device):
        pin_load()
        clients: list[SocketClient | GuestClient] = [SocketClient(unix), GuestClient(device)]
        for client, first in zip(clients, (CREATE, OPEN), strict=True):
            for request in [*BEGIN, *first, WORK["write of 512 KiB"][0]]:
                client.ask(request)
        for name, (request, reply) in WORK.items():
            for depth in (1, 8):
                runs = [client.batch(request, reply, depth) for client in clients]
                for run in runs:
                    run()
                rounds = [[per_second(run, depth) for run in runs] for _ in range(ROUNDS)]
                socket_rate, guest_rate = map(statistics.median, zip(*rounds, strict=True))
                ratios = sorted(guest / sock for sock, guest in rounds)
                spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
                median = f"{statistics.median(ratios):.2f}"
                rates = [f"{rate:,.0f}" for rate in (socket_rate, guest_rate)]
                rows.append([f"{name} -q {depth}", *rates, median, spread])
    print(conditions(OURS))
    print()
    print(table(["", "unix socket, 1/s", "virtio", "ratio", "of the rounds"], rows))


if __name__ == "__main__":
    main()

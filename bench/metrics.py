"""What --metrics costs: ``make bench-metrics``.

First, what it adds to a request within the server: Tgetattr in ``Session.receive``, without a
socket, in many runs that are so short that most of them are not disturbed; the least counts.

Then, under full load: one server, in this process, under a load that goes on, counts the requests
of a short slice of time, and not those of the next.  What counts is the CPU time of a request.  Two
servers that are the same differ by some percent for as long as they live, by where their memory
lies, which is why there is but one.  A slice is compared to one beside it, of the same group of
three in random order; of the groups of a batch, the mean of the middle half of the ratios is taken,
and the mean of the batches is told, with its standard error.

Both have a control, where nothing is counted: its ratio would be 1 if nothing but the metrics
made a difference, and says how far the other can be trusted.  Last, what one scrape takes.  Writes
bench/results/metrics.md.
"""

import asyncio
import logging
import math
import os
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import structlog
import uvloop

from bench.report import conditions, table
from bench.throughput import LARGE, Workload
from bench.tools import (
    CPUS,
    MSIZE,
    OURS,
    RESULTS,
    Server,
    build,
    load_command,
    ours,
    pinned,
    why_not,
)
from server.address import Tcp
from server.exports import Export, Exports
from server.fids import Client
from server.identity import Peer
from server.limits import Limits
from server.listener import Server as Listener
from server.meter import Meter
from server.room import Room
from server.session import Session
from server.store import Store
from server.wire import messages as m
from server.wire.constants import GETATTR_BASIC, NOFID, NOTAG, VERSION
from tmpfs_core.mount import Mount

#: Under load: seconds of a workload, of its beginning that do not count, and of a slice; and how
#: many batches its groups make.
SECONDS, WARM, SLICE = 60, 2, 0.02
BATCHES = 20
SCRAPES = 50
#: Requests in a pass, passes in a run, runs, and how often all of that is done, within the server.
PASS, PASSES, RUNS, TIMES = 32, 8, 500, 30
HEAD = ["requests", "CPU time of one, ns", "with metrics, by that without", "the control, by that"]
#: CPU time of a request in nanoseconds: without metrics, with them, and in the control.
Costs = Sequence[float]
WORKLOADS = [
    Workload("getattr", 32, 0),
    Workload("randread", 32, 0),
    Workload("stat", 32, 0),
    Workload("churn", 32, 0),
    Workload("seqread", 8, 0, more=LARGE),
]


def session(meter: Meter | None) -> Session:
    """One that has agreed on a version, and attached fid ROOT."""
    room = Room(1 << 30, lambda _: None)
    exports = Exports([Export("", Mount(1 << 20, 10))])
    client = Client(exports, Peer("bench", 0, True, None), 0.0, Limits(), room)

    def never(*_: object) -> NoReturn:
        raise AssertionError("nothing waits here")

    made = Session(client, MSIZE, never, never, never, never, room, meter)
    for frame in (m.Tversion.pack(NOTAG, MSIZE, VERSION), m.Tattach.pack(1, 0, NOFID, b"", b"", 0)):
        made.receive(memoryview(frame), 0, len(frame))
        made.out.clear()
    return made


def inside() -> list[float]:
    """What one request costs within the server."""
    sessions = [session(None), session(Meter()), session(None)]
    least = [math.inf] * len(sessions)
    requests = memoryview(m.Tgetattr.pack(1, 0, GETATTR_BASIC) * PASS)
    for _ in range(RUNS):
        for place, each in enumerate(sessions):
            begin = time.thread_time_ns()
            for _ in range(PASSES):
                each.receive(requests, 0, len(requests))
                each.out.clear()
            took = (time.thread_time_ns() - begin) / (PASSES * PASS)
            least[place] = min(least[place], took)
    return least


class Metered:
    """A server, at ``address``, whose requests are counted or not."""

    def __init__(self) -> None:
        mount = Mount(1 << 30, 100_000)
        store = Store(mount.memory, Limits().max_depth)
        store.put(Export("", mount))
        self._meter = Meter()
        self._server = Listener(store, MSIZE, Limits(), meter=self._meter)
        where = self._server.listen(Tcp("127.0.0.1", 0))
        assert isinstance(where, Tcp)
        self.address = f"{where.host}:{where.port}"

    async def slice(self, counts: bool) -> float:
        """The CPU time of a request in a slice of time; NaN if there is none."""
        sessions = [each.session for each in self._server.clients]
        for each in sessions:
            each._meter = self._meter if counts else None
        requests = sum(each.requests for each in sessions)
        begin = time.thread_time_ns()
        await asyncio.sleep(SLICE)
        took = time.thread_time_ns() - begin
        done = sum(each.requests for each in sessions) - requests
        return took / done if done else math.nan

    async def stop(self) -> None:
        await self._server.stop()


async def compare(npload: str, server: Metered, workload: Workload) -> list[Costs]:
    """What a request costs: without metrics, with them, and in the control, in each group."""
    command = load_command(
        npload, Server("ours", server.address, 0), workload.name, workload.options, SECONDS
    )
    load = await asyncio.create_subprocess_exec(
        *pinned(command, CPUS[-1]), stdout=asyncio.subprocess.DEVNULL
    )
    ended = asyncio.create_task(load.wait())
    await asyncio.sleep(WARM)
    groups = []
    while not ended.done():
        costs = [math.nan] * 3
        for place in random.sample(range(3), 3):
            costs[place] = await server.slice(counts=place == 1)
        groups.append(costs)
    if await ended:
        raise RuntimeError(f"{command} failed")
    return [costs for costs in groups if not math.isnan(sum(costs))]


def ratios(groups: Sequence[Costs], place: int) -> list[float]:
    """Of each batch of groups, the mean of the middle half of the ratios to the cost without."""
    found = []
    for batch in range(BATCHES):
        some = sorted(costs[place] / costs[0] for costs in groups[batch::BATCHES])
        found.append(statistics.mean(some[len(some) // 4 : -(len(some) // 4) or None]))
    return found


def row(what: str, groups: Sequence[Costs]) -> list[str]:
    """The median cost, and the mean ratios with their standard errors."""
    cells = [what, f"{statistics.median(without for without, _, _ in groups):,.0f}"]
    for place in (1, 2):
        each = ratios(groups, place)
        error = statistics.stdev(each) / math.sqrt(len(each))
        cells.append(f"{statistics.mean(each):.3f} ± {error:.3f}")
    return cells


def cpu_time(pid: int) -> float:
    """Seconds that all threads of a process have run (schedstat of proc(5))."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9


def scrape(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n")
        with sock.makefile("rb") as reply:
            assert b"tmpfs9p_requests_total" in reply.read()


def cost_of_scrape(directory: str) -> float:
    """The server's CPU time for one, in seconds."""
    path = f"{directory}/metrics"
    with ours([*OURS, "serve", f"--metrics=unix://{path}"]) as server:
        scrape(path)
        before = cpu_time(server.pid)
        for _ in range(SCRAPES):
            scrape(path)
        return (cpu_time(server.pid) - before) / SCRAPES


async def under_load(directory: str) -> list[list[str]]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    npload = build("npload", directory)
    server = Metered()
    rows = []
    for workload in WORKLOADS:
        rows.append(row(str(workload), await compare(npload, server, workload)))
        print(*rows[-1], flush=True)
    await server.stop()
    return rows


def main() -> None:
    missing = why_not()
    if missing is not None:
        print(f"nothing was measured: {missing}")
        return
    os.sched_setaffinity(0, CPUS[:1])
    rows = [row("getattr, inside", [inside() for _ in range(TIMES)])]
    print(*rows[0], flush=True)
    with tempfile.TemporaryDirectory() as directory:
        rows += uvloop.run(under_load(directory))
        scraping = f"A scrape: {cost_of_scrape(directory) * 1e3:.1f} ms of CPU time."
    report = [conditions(OURS), table(HEAD, rows), scraping]
    print("\n\n".join(report))
    (RESULTS / "metrics.md").write_text("\n\n".join(report) + "\n")


if __name__ == "__main__":
    main()

"""What --metrics costs: ``make bench-metrics``.

First, what it adds to a request within the server: Tgetattr in ``Session.receive``, without a
socket, in many runs that are so short that most of them are not disturbed; the least counts.

Then, under full load: servers with metrics and without take the same load in turns, in short
rounds.  What counts is the CPU time that a server takes for an operation, again the least of all.
Two servers that are the same differ by some percent for as long as they live, by where their memory
lies; so there are many generations of servers, of which the mean is told, and its standard error.

Both have a control, a third one without metrics: its ratio would be 1 if nothing but the metrics
made a difference, and says how far the other can be trusted.  Last, what one scrape takes.  Writes
bench/results/metrics.md.
"""

import contextlib
import math
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bench.report import conditions, table
from bench.throughput import LARGE, Workload
from bench.tools import MSIZE, OURS, RESULTS, Server, build, load, ours, pin_load, pinned, why_not
from server.exports import Export, Exports
from server.fids import Client
from server.identity import Peer
from server.limits import Limits
from server.meter import Meter
from server.room import Room
from server.session import Session
from server.wire import messages as m
from server.wire.constants import GETATTR_BASIC, NOFID, NOTAG, VERSION
from tmpfs_core.mount import Mount

GENERATIONS, ROUNDS = 30, 3
SECONDS = 0.2
SCRAPES = 50
#: Requests in a pass, passes in a run, and runs, within the server.
PASS, PASSES, RUNS = 32, 8, 500
HEAD = ["request", "CPU time, ns", "with metrics, by that without", "the control, by that"]
NAMES = ["without", "with", "control"]
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


def row(what: str, generations: Sequence[Costs]) -> list[str]:
    """The mean cost, and the mean ratios with their standard errors."""
    cells = [what, f"{statistics.mean(without for without, _, _ in generations):,.0f}"]
    for place in (1, 2):
        ratios = [costs[place] / costs[0] for costs in generations]
        error = statistics.stdev(ratios) / math.sqrt(len(ratios))
        cells.append(f"{statistics.mean(ratios):.3f} ± {error:.3f}")
    return cells


def cpu_time(pid: int) -> float:
    """Seconds that all threads of a process have run (schedstat of proc(5))."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9


def measure(npload: str, server: Server, workload: Workload) -> float:
    """The server's CPU time for one operation, in nanoseconds."""
    before = cpu_time(server.pid)
    ops = load(npload, server, workload.name, workload.options, SECONDS).ops
    return (cpu_time(server.pid) - before) / (ops * SECONDS) * 1e9


def compare(npload: str, workload: Workload, servers: Sequence[Server]) -> Costs:
    """What an operation costs the servers: without metrics, with them, and the control."""
    least = dict.fromkeys(servers, math.inf)
    for turn in range(ROUNDS):
        for place in range(len(servers)):
            server = servers[(turn + place) % len(servers)]
            least[server] = min(least[server], measure(npload, server, workload))
    return list(least.values())


def scrape(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n")
        with sock.makefile("rb") as reply:
            assert b"tmpfs9p_requests_total" in reply.read()


def cost_of_scrape(server: Server, path: str) -> float:
    """The server's CPU time for one, in seconds."""
    before = cpu_time(server.pid)
    for _ in range(SCRAPES):
        scrape(path)
    return (cpu_time(server.pid) - before) / SCRAPES


def main() -> None:
    missing = why_not()
    if missing is not None:
        print(f"nothing was measured: {missing}")
        return
    pin_load()
    under_load: dict[Workload, list[Costs]] = {workload: [] for workload in WORKLOADS}
    with tempfile.TemporaryDirectory() as directory:
        npload = build("npload", directory)
        path = f"{directory}/metrics"
        options = {"with": [f"--metrics=unix://{path}"]}
        for number in range(GENERATIONS):
            with contextlib.ExitStack() as stack:
                started = {
                    name: stack.enter_context(
                        ours(pinned([*OURS, "serve", *options.get(name, [])]))
                    )
                    for name in NAMES[number % 3 :] + NAMES[: number % 3]
                }
                servers = [started[name] for name in NAMES]
                for workload, costs in under_load.items():
                    costs.append(compare(npload, workload, servers))
                a_scrape = cost_of_scrape(started["with"], path)
            print(f"generation {number + 1} of {GENERATIONS}", flush=True)
    rows = [row("getattr, inside", [inside() for _ in range(GENERATIONS)])]
    rows += [row(str(workload), costs) for workload, costs in under_load.items()]
    scraping = f"A scrape: {a_scrape * 1e3:.1f} ms of CPU time."
    report = [conditions(OURS), table(HEAD, rows), scraping]
    print("\n\n".join(report))
    (RESULTS / "metrics.md").write_text("\n\n".join(report) + "\n")


if __name__ == "__main__":
    main()

"""What --metrics costs under full load: ``python -m bench.metrics``.

Three servers take the same load in turns, in many short rounds: one with metrics and two without,
of which the second shows what the figures are worth, as it should have the ratio 1.  What counts is
the CPU time that a server takes for an operation: the least of all rounds, as whatever else the
machine does only adds to it.  Beside it stands what one scrape takes.
"""

import contextlib
import math
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.report import conditions, table, verdict
from bench.throughput import LARGE, Workload
from bench.tools import OURS, Server, build, load, ours, pin_load, pinned, why_not

ROUNDS = 40
SECONDS = 0.3
SCRAPES = 50
#: The most that it may cost.
TARGET = 0.03
HEAD = ["workload", "least CPU time, ns", "ratio with metrics", "of the control", "below 1.03"]
WORKLOADS = [
    Workload("getattr", 32, 0),
    Workload("randread", 32, 0),
    Workload("stat", 32, 0),
    Workload("churn", 32, 0),
    Workload("seqread", 8, 0, more=LARGE),
]


def cpu_time(pid: int) -> float:
    """Seconds that all threads of a process have run (schedstat of proc(5))."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9


def measure(npload: str, server: Server, workload: Workload) -> float:
    """The server's CPU time for one operation, in seconds."""
    before = cpu_time(server.pid)
    ops = load(npload, server, workload.name, workload.options, SECONDS).ops
    return (cpu_time(server.pid) - before) / (ops * SECONDS)


def compare(npload: str, workload: Workload, servers: Sequence[Server]) -> list[str]:
    """The row of a workload; the servers: without metrics, with them, and the control."""
    least = dict.fromkeys(servers, math.inf)
    for turn in range(ROUNDS):
        for place in range(len(servers)):
            server = servers[(turn + place) % len(servers)]
            least[server] = min(least[server], measure(npload, server, workload))
    without, having, control = least.values()
    return [
        str(workload),
        f"{without * 1e9:,.0f}",
        f"{having / without:.3f}",
        f"{control / without:.3f}",
        verdict(having < (1 + TARGET) * without),
    ]


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
    print(conditions(OURS), end="\n\n")
    pin_load()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        npload = build("npload", directory)
        path = f"{directory}/metrics"
        command = [*OURS, "serve"]
        having = [*command, f"--metrics=unix://{path}"]
        servers = [
            stack.enter_context(ours(pinned(each)))._replace(name=name)
            for each, name in ((command, "without"), (having, "with"), (command, "control"))
        ]
        print(table(HEAD, [compare(npload, workload, servers) for workload in WORKLOADS]))
        print(f"\na scrape: {cost_of_scrape(servers[1], path) * 1e3:.1f} ms of CPU time")


if __name__ == "__main__":
    main()

"""What --metrics costs under full load: ``python -m bench.metrics``.

Two servers, one with metrics and one without, take the same load in turns, in many short rounds, so
that what else the machine does harms both alike.  The median of the rounds' ratios counts: of the
CPU time that the server takes for an operation, and of the operations a second, which depend more
on what else runs.  What one scrape takes is told beside it.
"""

import contextlib
import socket
import statistics
import tempfile
from pathlib import Path

from bench.report import conditions, table, verdict
from bench.throughput import LARGE, Workload
from bench.tools import OURS, Server, build, load, ours, pin_load, pinned, why_not

ROUNDS = 60
SECONDS = 0.3
SCRAPES = 50
#: The most that it may cost.
TARGET = 0.03
HEAD = [
    *("workload", "CPU time without, ns", "ratio with metrics", "half of the rounds"),
    *("below 1.03", "operations a second, ratio"),
]
WORKLOADS = [
    Workload("getattr", 32, 0),
    Workload("randread", 32, 0),
    Workload("randwrite", 32, 0),
    Workload("stat", 32, 0),
    Workload("churn", 32, 0),
    Workload("getattr", 1, 0),
    Workload("seqread", 8, 0, more=LARGE),
]


def cpu_time(pid: int) -> float:
    """Seconds that all threads of a process have run (schedstat of proc(5))."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9


def measure(npload: str, server: Server, workload: Workload) -> tuple[float, float]:
    """The server's CPU time for one operation, and operations a second."""
    before = cpu_time(server.pid)
    ops = load(npload, server, workload.name, workload.options, SECONDS).ops
    return (cpu_time(server.pid) - before) / (ops * SECONDS), ops


def compare(npload: str, workload: Workload, without: Server, having: Server) -> list[str]:
    """The row of a workload."""
    found: dict[Server, list[tuple[float, float]]] = {without: [], having: []}
    for _ in range(ROUNDS):
        for server, figures in found.items():
            figures.append(measure(npload, server, workload))
    pairs = list(zip(found[having], found[without], strict=True))
    cpu = [mine[0] / other[0] for mine, other in pairs]
    low, median, high = statistics.quantiles(cpu, n=4)
    return [
        str(workload),
        f"{statistics.median(other[0] for _, other in pairs) * 1e9:,.0f}",
        f"{median:.3f}",
        f"{low:.3f} to {high:.3f}",
        verdict(median < 1 + TARGET),
        f"{statistics.median(mine[1] / other[1] for mine, other in pairs):.3f}",
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
        without = stack.enter_context(ours(pinned(command)))
        having = stack.enter_context(ours(pinned([*command, f"--metrics=unix://{path}"])))
        rows = [compare(npload, workload, without, having) for workload in WORKLOADS]
        print(table(HEAD, rows))
        print(f"\na scrape: {cost_of_scrape(having, path) * 1e3:.1f} ms of CPU time")


if __name__ == "__main__":
    main()

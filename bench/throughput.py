"""Operations per second as a part of the physical limit, and how that changes with sizes.

Rules:

* The physical limit is npnull, which reads requests and sends canned answers from C.
* A figure is a ratio to npnull's in the same round.  A round takes the servers in turns, and the
  median of the rounds counts; so what else the machine does harms all of them alike.
"""

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from bench.report import row, table, verdict
from bench.tools import Load, Server, load

IO_SIZES = [1 << shift for shift in range(9, 21)]
FILE_SIZES = [16 << 20, 256 << 20, 1 << 30, 4 << 30]
LEAST_STEP = 0.75  # of the bytes per second at the size before; less is a cliff
MOST_TAIL = 3.0  # p99 / p50

Loads = dict[str, list[Load]]  # by the server's name, one of each round
Sweep = dict[int, Loads]  # by size


class Workload(NamedTuple):
    """What npload does, and the least ratio."""

    name: str
    depth: int
    target: float
    connections: int = 1
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        connections = f" -c {self.connections}" if self.connections > 1 else ""
        return f"{self.name}{connections} -q {self.depth}"

    @property
    def options(self) -> list[str]:
        return ["-q", str(self.depth), "-c", str(self.connections), *self.more]


LARGE = ("-s", str(1 << 20))
SMALL_FILES = ("-f", str(1 << 20))  # each connection has its own

WORKLOADS = [
    Workload("getattr", 1, 0.80),
    Workload("stat", 1, 0.80),
    Workload("openclose", 1, 0.80),
    Workload("churn", 1, 0.80),
    Workload("randread", 1, 0.80),
    Workload("randwrite", 1, 0.80),
    Workload("seqread", 1, 0.90, more=LARGE),
    Workload("seqwrite", 1, 0.90, more=LARGE),
    Workload("getattr", 32, 0.40),
    Workload("statfs", 32, 0.40),
    Workload("stat", 32, 0.40),
    Workload("openclose", 32, 0.40),
    Workload("churn", 32, 0.40),
    Workload("randread", 32, 0.45),
    Workload("randwrite", 32, 0.45),
    Workload("seqread", 8, 0.90, more=LARGE),
    Workload("seqwrite", 8, 0.90, more=LARGE),
    Workload("getattr", 4, 0.40, 64),
    Workload("randread", 4, 0.40, 64, SMALL_FILES),
]
READDIR = Workload("readdir", 1, 3.0)  # of diod's: npnull has no entries


def measure(
    npload: str,
    servers: Sequence[Server],
    workload: str,
    options: Sequence[str],
    rounds: int = 5,
    seconds: float = 0.5,
) -> Loads:
    loads: Loads = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            loads[server.name].append(load(npload, server, workload, options, seconds))
    return loads


def sweep(
    npload: str, servers: Sequence[Server], workload: str, option: str, sizes: Sequence[int]
) -> Sweep:
    """The workload at depth 8 with each size; shorter rounds, as there are many."""
    found = {}
    for size in sizes:
        found[size] = measure(
            npload, servers, workload, ["-q", "8", option, str(size)], rounds=3, seconds=0.3
        )
        print(f"{workload} {option} {size}: {ratio(found[size], 'ours'):.3f}", flush=True)
    return found


def ratio(loads: Loads, of: str, to: str = "npnull") -> float:
    """Of the operations; of the bytes where one of the two has smaller messages."""
    return statistics.median(
        (a.ops * a.io) / (b.ops * b.io) for a, b in zip(loads[of], loads[to], strict=True)
    )


def tail(loads: list[Load]) -> float:
    return statistics.median(each.p99 / each.p50 for each in loads)


def throughput_table(found: dict[Workload, Loads]) -> str:
    def ops(loads: Loads, name: str) -> str:
        return f"{statistics.median(each.ops for each in loads[name]):,.0f}"

    rows = [
        [
            str(workload),
            ops(loads, "ours"),
            ops(loads, "npnull"),
            f"{(ours := ratio(loads, 'ours')):.3f}",
            f"{workload.target:.2f}",
            verdict(ours >= workload.target),
            f"{ratio(loads, 'diod'):.3f}" if "diod" in loads else "",
        ]
        for workload, loads in found.items()
    ]
    head = [
        "workload",
        "ours, ops/s",
        "npnull, ops/s",
        "ratio",
        "target",
        "reached",
        "diod's ratio",
    ]
    return table(head, rows)


def tail_table(found: dict[Workload, Loads]) -> str:
    """How much slower than the median the slowest hundredth is, where no request waits in line."""
    rows = []
    for workload, loads in found.items():
        ours = tail(loads["ours"])
        p50 = statistics.median(each.p50 for each in loads["ours"])
        p99 = statistics.median(each.p99 for each in loads["ours"])
        cells = [f"{p50:.1f}", f"{p99:.1f}", f"{ours:.2f}", f"{tail(loads['npnull']):.2f}"]
        rows.append([str(workload), *cells, f"{MOST_TAIL:.0f}", verdict(ours <= MOST_TAIL)])
    return table(
        ["workload", "p50, us", "p99, us", "p99 / p50", "npnull's", "at most", "reached"], rows
    )


def readdir_row(loads: Loads) -> list[str]:
    times = ratio(loads, "ours", "diod")
    target = READDIR.target
    return row(
        "readdir of 1,000 entries, of diod's", f"{times:.2f}", f">= {target:.0f}", times >= target
    )


def cliff_row(what: str, found: Sweep) -> list[str]:
    """The worst step of our bytes per second from one size to the next; npnull has steps, too."""
    rates = [
        statistics.median(each.ops * each.io for each in found[size]["ours"]) for size in found
    ]
    worst = min(after / before for before, after in pairwise(rates))
    return row(
        f"{what}: lowest rate, of that at the next smaller size",
        f"{worst:.2f}",
        f">= {LEAST_STEP}",
        worst >= LEAST_STEP,
    )

"""How long each of many getattrs takes, one after the other on one connection."""

import statistics
import time
from collections.abc import Sequence

from bench.client import Client
from bench.report import table
from bench.tools import Server

ROUNDS = 5
COUNT = 4000  # in each round


def latencies(servers: Sequence[Server]) -> dict[str, list[float]]:
    """Microseconds in rising order, by the server's name."""
    found: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(ROUNDS):
        for server in servers:
            with Client(server) as client:
                for _ in range(COUNT):
                    start = time.perf_counter_ns()
                    client.getattr()
                    found[server.name].append((time.perf_counter_ns() - start) / 1000)
    return {name: sorted(times) for name, times in found.items()}


def latency_table(found: dict[str, list[float]]) -> str:
    rows = []
    for name, times in found.items():
        cuts = statistics.quantiles(times, n=1000)
        rows.append([name, *(f"{cuts[per_mille - 1]:.1f}" for per_mille in (500, 900, 990, 999))])
    return table(["getattr, us, with a client in Python", "p50", "p90", "p99", "p99.9"], rows)

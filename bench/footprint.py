"""What a server costs that nobody uses: memory, wake-ups, the time of its start, connections."""

import contextlib
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from bench.client import Client
from bench.report import row
from bench.tools import ours, pinned

STARTS = 5
CONNECTIONS = 200
IDLE_SECONDS = 2


def footprint_rows(command: Sequence[str]) -> list[list[str]]:
    """Measure servers of their own, with the options that they have by default."""
    starts = []
    for _ in range(STARTS):
        begin = time.perf_counter()
        with ours(pinned(command)):
            starts.append(time.perf_counter() - begin)
    ready = statistics.median(starts)
    with ours(pinned(command)) as server:
        time.sleep(0.5)
        before = switches(server.pid)
        time.sleep(IDLE_SECONDS)
        woken = switches(server.pid) - before
        idle = rss(server.pid)
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS):
                stack.enter_context(Client(server))
            connection = (rss(server.pid) - idle) / CONNECTIONS
    return [
        row("MB of an idle server's RSS", f"{idle / 1e6:.1f}", "< 45", idle < 45e6),
        row(f"wake-ups of an idle server in {IDLE_SECONDS} s", f"{woken}", "0", woken == 0),
        row("seconds from start to ready", f"{ready:.3f}", "< 0.3", ready < 0.3),
        row(
            "KiB of RSS for an idle connection",
            f"{connection / 1024:.1f}",
            "< 100",
            connection < 100 * 1024,
        ),
    ]


def rss(pid: int) -> int:
    """Bytes of a process that are resident."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def switches(pid: int) -> int:
    """How often all threads of a process gave up a CPU so far."""
    return sum(
        int(count)
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for count in re.findall(r"ctxt_switches:\s*(\d+)", status.read_text())
    )

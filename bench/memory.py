"""What memory costs, how it is shared, and where it goes: ``python -m bench.memory``.

* economy: what files cost, and what stays behind when they are deleted (bench/economy.py);
* timeline: resident and swapped bytes while 1 GiB is written, read and deleted through 128 MiB;
* fairness: getattr on one connection while another reads at random through four times the RAM,
  beside the same when idle.  It needs npload, built from ../shared/tools; else it is skipped.

Writes bench/results/memory.md and memory.svg.
"""

import os
import random  # the places of reads are no secret
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

from bench import tools
from bench.economy import economy_rows
from bench.report import HEAD, row, table
from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import FRAME
from tmpfs_core.memory import Memory
from tmpfs_core.mount import Mount
from tmpfs_core.pageout import SLICE, Arrival, Laundry
from tmpfs_core.swap import Swap, SwapFile
from tmpfs_core.vnode import NotResident

GIB = 1 << 30


# Timeline


class Timeline:
    """A mount with less RAM than it holds, and samples of where its bytes are."""

    def __init__(self, ram: int, size: int) -> None:
        path = os.path.join(tempfile.gettempdir(), f"tmpfs9p-bench-{os.getpid()}")
        swap = Swap([SwapFile(path, size // FRAME)])
        self.memory = Memory(ram // FRAME, swap)
        self.mount = Mount(size, 1000, memory=self.memory)
        self.samples: list[tuple[float, int, int]] = []
        self._start = time.perf_counter()

    def sample(self) -> None:
        now = time.perf_counter() - self._start
        used, swapped = self.memory.ram.used * FRAME, self.memory.swapped * FRAME
        self.samples.append((now, used, swapped))

    def do(self, operation: Callable[[], object]) -> None:
        """Run an operation, providing what it needs as the server's pager does."""
        while True:
            try:
                operation()
            except NotResident as absent:
                wanted = len(absent.places) * 16
                while self.memory.ram.free < max(wanted, absent.frames + self.memory.reserve):
                    self.clean()
                arrival = Arrival(self.memory, absent.places)
                arrival.run()
                arrival.finish()
            else:
                break
        while self.memory.ram.free < self.memory.low:
            self.clean()
        self.sample()

    def clean(self) -> None:
        swap = self.memory.swap
        assert swap is not None
        if swap.free < SLICE:
            swap.grow()
        laundry = Laundry(self.memory)
        laundry.run()
        laundry.finish(done=True)

    def run(self) -> dict[str, float]:
        """Write, read in order, read at random, delete; when each began."""
        phases = {}
        chunk = memoryview(os.urandom(1 << 20))
        size = GIB
        node = vnops.create(self.mount.root, b"f", 0o644, ROOT, 0).node
        vnops.open(node)
        offsets = range(0, size, len(chunk))
        chosen = random.Random(1)
        scattered = [chosen.randrange(size) & ~0xFFFF for _ in range(2000)]
        for phase, places in (("write", offsets), ("read", offsets), ("random reads", scattered)):
            phases[phase] = time.perf_counter() - self._start
            for offset in places:
                if phase == "write":
                    self.do(lambda offset=offset: vnops.write(node, offset, chunk, ROOT))  # type: ignore[misc]
                else:
                    count = 65536 if phase == "random reads" else len(chunk)
                    self.do(lambda offset=offset, count=count: vnops.read(node, offset, count))  # type: ignore[misc]
        phases["delete"] = time.perf_counter() - self._start
        vnops.close(node)
        vnops.unlink(self.mount.root, b"f", ROOT)
        self.sample()
        return phases


def plot(timeline: Timeline, phases: dict[str, float]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 only this step needs it

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    times, resident, swapped = zip(*timeline.samples, strict=True)
    figure, axes = plt.subplots(figsize=(9, 4))
    for label, values in (("resident", resident), ("swapped", swapped)):
        axes.plot(times, [value / (1 << 20) for value in values], label=label)
    axes.axhline(timeline.memory.ram.limit * FRAME >> 20, linestyle=":", label="--ram")
    for phase, begin in phases.items():
        axes.axvline(begin, color="grey", linewidth=0.5)
        axes.text(begin, axes.get_ylim()[1], f" {phase}", va="top", fontsize=8)
    axes.set(xlabel="s", ylabel="MiB", title="1 GiB through 128 MiB of RAM")
    axes.legend()
    figure.savefig(tools.RESULTS / "memory.svg")


# Fairness


def fairness_rows(command: Sequence[str]) -> list[list[str]]:
    if reason := tools.why_not():
        print(f"fairness skipped: {reason}")
        return []
    with tempfile.TemporaryDirectory() as scratch:
        npload = tools.build("npload", scratch)
        options = ["--size=1g", "--ram=64m", f"--swap={scratch}/swap"]
        with tools.ours([*command, *options]) as server:
            large = ["-q", "8", "-f", str(256 << 20)]
            read = tools.load_command(npload, server, "randread", large, seconds=6)
            rounds = []
            for _ in range(5):
                idle = tools.load(npload, server, "getattr", ["-q", "1"], seconds=2).p99
                with subprocess.Popen(read, stdout=subprocess.DEVNULL):
                    time.sleep(3)  # it writes its file first
                    busy = tools.load(npload, server, "getattr", ["-q", "1"], seconds=2).p99
                rounds.append((busy / idle, idle))
    ratio, idle = sorted(rounds)[2]
    print(f"getattr p99: idle {idle:.0f} us, rounds {[round(r, 2) for r, _ in rounds]}")
    return [
        row(
            "getattr's p99 beside random reads of swap, of idle's",
            f"{ratio:.2f}",
            "<= 5",
            ratio <= 5,
        )
    ]


def main() -> None:
    command = [*tools.OURS, "serve"]
    lines = [table(HEAD, economy_rows(command) + fairness_rows(command))]
    timeline = Timeline(128 << 20, 2 * GIB)
    phases = timeline.run()
    plot(timeline, phases)
    lines += ["", "Counters of the timeline:", ""]
    lines += [f"* {name}: {value}" for name, value in timeline.memory.statistics().items()]
    print("\n".join(lines))
    (tools.RESULTS / "memory.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""How fast a real kernel works on a mount, beside diod: ``python -m bench.kernel``.

Both servers are mounted in turn in the same User Mode Linux guest, with the same options; diod
exports a directory of the host's /dev/shm.  Measured in the guest, with nothing cached in it:

* git checkout of some thousand source files, out of a repository that is on the mount too;
* tar x of 5,000 small files, and find that looks at each of them;
* reading and writing of one file, in order by 1 MiB and at random by 4 KiB (fio).

Writes bench/results/kernel.md and kernel.svg.
"""

import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.kernel.uml import HOST, MTU, REPOSITORY, SERVER_ADDRESS, Guest, Lab, Listening, why_not

from .tools import OURS as OUR_COMMAND
from .tools import RESULTS
from .trees import make_archive, make_repository

PROGRAMS = {"diod": "diod", "fio": "fio"}
ROUNDS = 3
OURS, DIOD = "tmpfs9p", "diod"

FILE = 256 << 20
SCATTERED = 16 << 20

#: diod looks up the name of a client, and drops it if that fails.
HOSTS = f"127.0.0.1 localhost\n{SERVER_ADDRESS} server\n10.99.0.2 guest\n"


class Workload(NamedTuple):
    """What is timed; a figure is ``amount`` per second, or the seconds if there is none."""

    name: str
    unit: str
    amount: float = 0


CHECKOUT = Workload("git checkout", "s")
EXTRACT = Workload("tar x", "s")
FIND = Workload("find", "s")
FIO = {
    "write --bs=1m": Workload("write in order", "MB/s", FILE / 1e6),
    "read --bs=1m": Workload("read in order", "MB/s", FILE / 1e6),
    f"randwrite --bs=4k --io_size={SCATTERED}": Workload("random write", "IOPS", SCATTERED / 4096),
    f"randread --bs=4k --io_size={SCATTERED}": Workload("random read", "IOPS", SCATTERED / 4096),
}
WORKLOADS = [CHECKOUT, EXTRACT, FIND, *FIO.values()]

Times = dict[Workload, float]


# The servers


class Diod(NamedTuple):
    port: int


@contextlib.contextmanager
def diod(lab: Lab, directory: str) -> Iterator[Diod]:
    """Debian's diod, exporting a directory to everybody."""
    hosts = lab.scratch / "hosts"
    hosts.write_text(HOSTS)
    port = 564
    words = ["diod", "-f", "-n", "-c", "/dev/null", "-L", "stderr", "-e", directory]
    process = subprocess.Popen(
        lab.command(
            *("unshare", "--mount", "sh", "-ec", f'mount --bind {hosts} /etc/hosts; exec "$@"'),
            *("sh", *words, "-l", f"{SERVER_ADDRESS}:{port}"),
        )
    )
    with process:
        try:
            sockets = Path(f"/proc/{process.pid}/net/tcp")
            while not re.search(rf":{port:04X} \S+ 0A", sockets.read_text()):
                assert process.poll() is None, "diod has ended"
                time.sleep(0.05)
            yield Diod(port)
        finally:
            process.kill()


@contextlib.contextmanager
def serving(lab: Lab, name: str, command: Sequence[str]) -> Iterator[tuple[Listening, str]]:
    """A server of that name with nothing in it, and the mount options that only it needs."""
    if name == OURS:
        with lab.serve("--size=2g", "--log-level=warning", command=command) as server:
            yield server, ""
    else:
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
            diod(lab, directory) as server,
        ):
            yield server, f"aname={directory}"


# The workloads


def seconds(guest: Guest, work: str) -> float:
    output = guest.sh(f"start=$EPOCHREALTIME\n{work} >/dev/null\necho $start $EPOCHREALTIME", 120)
    start, end = output.split()[-2:]
    return float(end) - float(start)


def make_trees(guest: Guest, top: str) -> Times:
    guest.sh(f"git clone --quiet --no-checkout /tmp/repository {top}/clone")
    return {
        CHECKOUT: seconds(guest, f"git -C {top}/clone checkout --quiet"),
        EXTRACT: seconds(guest, f"tar -C {top} -xf /tmp/archive.tar"),
    }


def look_and_transfer(guest: Guest, top: str) -> Times:
    times = {FIND: seconds(guest, rf"find {top}/tree -printf '%s %m\n'")}
    jobs = " ".join(
        f"--name='{workload.name}' --stonewall --rw={how}" for how, workload in FIO.items()
    )
    report = guest.sh(
        f"fio --output=/tmp/report --output-format=json --directory={top} --filename=data"
        f" --size={FILE} --ioengine=psync --thread --fallocate=none {jobs}; cat /tmp/report",
        120,
    )
    for job, workload in zip(json.loads(report)["jobs"], FIO.values(), strict=True):
        assert job["jobname"] == workload.name, job
        times[workload] = (job["read"]["runtime"] + job["write"]["runtime"]) / 1000
    return times


def measure(lab: Lab, name: str, command: Sequence[str]) -> tuple[Times, str]:
    """One round on one server: the seconds, and how the kernel says it is mounted."""
    guest = lab.guest()
    with serving(lab, name, command) as (server, own):
        with guest.mount(server, extra=own) as top:
            times = make_trees(guest, top)
        with guest.mount(server, extra=own) as top:  # again, so that nothing is cached
            options = guest.sh(f"findmnt --noheadings --output=OPTIONS {top}").strip()
            return times | look_and_transfer(guest, top), options


# The report


class Row(NamedTuple):
    """The medians of one workload on both servers."""

    workload: Workload
    ours: float
    diod: float

    @property
    def ratio(self) -> float:
        return self.diod / self.ours

    def figure(self, time: float) -> float:
        return self.workload.amount / time if self.workload.amount else time

    def __str__(self) -> str:
        ours, diod = (f"{self.figure(time):.4g}" for time in (self.ours, self.diod))
        mark = "yes" if self.ratio >= 1 else "NO"
        name, unit, _ = self.workload
        return f"| {name} | {unit} | {ours} | {diod} | {self.ratio:.2f} | {mark} |"


def output(*command: str) -> str:
    return subprocess.check_output(command, text=True, cwd=REPOSITORY).strip()


def processor() -> str:
    """What kind this machine has."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def conditions(guest: Guest, trees: list[str], mounts: dict[str, str]) -> list[str]:
    versions = output("dpkg-query", "-W", "-f", "${Package} ${Version}, ", *PROGRAMS, "git", "tar")
    commit = output("git", "describe", "--always", "--dirty")
    kernel = guest.sh("uname -r").strip()
    return [
        f"* {datetime.now(UTC):%Y-%m-%d}, commit {commit}",
        f"* host: {processor()}, {os.cpu_count()} processors, Linux {platform.release()}",
        f"* guest: User Mode Linux {kernel}, tap with mtu {MTU} and no offloads",
        f"* Python {platform.python_version()}, {versions.removesuffix(',')}",
        f"* git checkout: {trees[0]}; tar x: {trees[1]}; find: that tree",
        f"* medians of {ROUNDS} rounds, the servers in turn; ratio: diod's time by ours",
        *(f"* {name}: `{options}`" for name, options in mounts.items()),
    ]


def plot(rows: list[Row]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 only this step needs it

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    units = {
        unit: [row for row in rows if row.workload.unit == unit] for unit in ("s", "MB/s", "IOPS")
    }
    figure, panels = plt.subplots(
        1, len(units), figsize=(11, 4), width_ratios=[len(shown) for shown in units.values()]
    )
    for axes, (unit, shown) in zip(panels, units.items(), strict=True):
        for shift, name in ((-0.2, OURS), (0.2, DIOD)):
            values = [row.figure(row.ours if name == OURS else row.diod) for row in shown]
            bars = axes.bar([place + shift for place in range(len(shown))], values, 0.4, label=name)
            axes.bar_label(bars, fmt="{:,.4g}", fontsize=8)
        axes.set_xticks(range(len(shown)), [row.workload.name for row in shown], fontsize=8)
        axes.set_title(f"{unit} ({'less' if unit == 's' else 'more'} is better)", fontsize=10)
        axes.margins(y=0.1)
    panels[0].legend()
    figure.suptitle("A kernel's work on a mount (9P2000.L over TCP, nothing cached)")
    figure.tight_layout()
    figure.savefig(RESULTS / "kernel.svg")


def main() -> None:
    reason = why_not(PROGRAMS.items())
    if reason is not None:
        print(f"bench.kernel skipped: {reason}")
        return
    command = [*OUR_COMMAND, "serve"]
    times: dict[str, list[Times]] = {OURS: [], DIOD: []}
    mounts = {}
    log: list[str] = []  # shows how much the rounds differ, which depends on what else runs here
    with tempfile.TemporaryDirectory() as place, contextlib.closing(Lab(Path(place))) as lab:
        trees = [
            make_repository(lab.scratch / "repository"),
            make_archive(lab.scratch / "archive.tar"),
        ]
        guest = lab.guest()
        guest.sh(f"""
            cp -r {HOST}{place}/archive.tar /tmp
            git clone --quiet --bare {HOST}{place}/repository /tmp/repository
            mkdir /tmp/once
        """)
        make_trees(guest, "/tmp/once")  # so that the guest has read its programs
        look_and_transfer(guest, "/tmp/once")
        guest.sh("rm -r /tmp/once")
        for number in range(ROUNDS):
            for name, rounds in times.items():
                measured, mounts[name] = measure(lab, name, command)
                rounds.append(measured)
                shown = ", ".join(f"{what.name} {time:.2f}" for what, time in measured.items())
                log.append(f"* round {number + 1}, {name}: {shown} s")
                print(log[-1], flush=True)
        described = conditions(guest, trees, mounts)
    rows = [
        Row(what, *(statistics.median(round_[what] for round_ in times[name]) for name in times))
        for what in WORKLOADS
    ]
    lines = [
        f"| workload | unit | {OURS} | {DIOD} | ratio | as fast |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(str, rows),
        "",
        *described,
        *log,
    ]
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "kernel.md").write_text("\n".join(lines) + "\n")
    plot(rows)


if __name__ == "__main__":
    main()

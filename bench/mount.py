"""How fast a FUSE mount is, beside sshfs: ``python -m bench.mount``.

Both are on the same machine and over loopback: sshfs shows a directory of /dev/shm through a real
sshd; ours is mounted through that sshd too, and besides over a unix socket and over TCP.  They take
turns, with the options that they have by default, and nothing is cached where something is read:

* writing one large file in order, until it is there (fsync); reading it;
* 1,000 small files created;
* find that looks at each file of a tree; git status of a clone.

Writes bench/results/mount.md.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests import sshd

from .kernel import output, processor
from .tools import OURS, RESULTS
from .trees import make_archive, make_repository

ROUNDS = 7
FILE = 256 << 20
PACKAGES = {**sshd.PACKAGES, "sshfs": "sshfs", "fuse3": "fusermount3", "git": "git"}
SSHFS = "sshfs"

CREATE = """
import os, sys
os.mkdir(sys.argv[1])
os.chdir(sys.argv[1])
for number in range(1000):
    with open(str(number), "wb") as file:
        file.write(bytes(number))
"""
#: The commands that are timed, by name; all but the first two are run on a fresh mount each.
WORK = {
    "large write": ["dd", "if=/dev/zero", "of=data", "bs=1M", f"count={FILE >> 20}", "conv=fsync"],
    "1,000 small files": [sys.executable, "-c", CREATE, "small"],
    "large read": ["dd", "if=data", "of=/dev/null", "bs=1M"],
    "find and stat": ["find", "tree", "-printf", r"%s %m\n"],
    "git status": ["git", "-C", "clone", "status", "--porcelain"],
}
WRITING = 2

Times = dict[str, float]
#: Mounts it on a directory meanwhile.
Mount = Callable[[Path], contextlib.AbstractContextManager[None]]


def why_not() -> str | None:
    """What keeps this machine from measuring it."""
    if os.getuid() != 0:
        return "it needs root"
    missing = [name for name, file in PACKAGES.items() if not shutil.which(file)]
    return f"Debian's packages {' '.join(missing)} are missing" if missing else None


# The mounts


@contextlib.contextmanager
def sshfs(server: sshd.Sshd, shown: Path, place: Path) -> Iterator[None]:
    login, _, _ = server.where.rpartition(":")
    options = ["-p", str(server.port), "-F", str(server.config)]
    subprocess.run(["sshfs", *options, f"{login}:{shown}", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def ours(address: str, server: sshd.Sshd, place: Path) -> Iterator[None]:
    environ = {**os.environ, "PATH": f"{server.path}:{os.environ['PATH']}"}
    command = [*OURS, "mount", "-o", "driver=fuse", address, str(place)]
    subprocess.run(command, check=True, env=environ)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


# The work


def timed(command: list[str], top: Path) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True, cwd=top, capture_output=True)
    return time.monotonic() - start


def prepare(mount: Mount, place: Path, scratch: Path) -> None:
    """Put there what is only looked at."""
    with mount(place):
        subprocess.run(["tar", "-C", place, "-xf", scratch / "archive.tar"], check=True)
        subprocess.run(["git", "clone", "-q", scratch / "repository", place / "clone"], check=True)


def measure(mount: Mount, place: Path) -> Times:
    """The seconds that each takes."""
    times = {}
    with mount(place):
        for name in list(WORK)[:WRITING]:
            times[name] = timed(WORK[name], place)
    for name in list(WORK)[WRITING:]:
        with mount(place):
            times[name] = timed(WORK[name], place)
    with mount(place):
        shutil.rmtree(place / "small")
        (place / "data").unlink()
    return times


# The report


def table(times: dict[str, list[Times]]) -> list[str]:
    medians = {
        name: {what: statistics.median(one[what] for one in rounds) for what in WORK}
        for name, rounds in times.items()
    }
    own = [name for name in times if name != SSHFS]
    lines = [
        f"| | {SSHFS} | " + " | ".join(f"{name} | ratio" for name in own) + " |",
        "| --- |" + " --- |" * (1 + 2 * len(own)),
    ]
    for what in WORK:
        theirs = medians[SSHFS][what]
        cells = [f"{theirs:.3f} s"]
        for name in own:
            cells += [f"{medians[name][what]:.3f} s", f"{theirs / medians[name][what]:.2f}"]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return lines


def conditions(trees: list[str]) -> list[str]:
    versions = output("dpkg-query", "-W", "-f", "${Package} ${Version}, ", *PACKAGES)
    return [
        f"* {processor()}, {os.cpu_count()} processors, Linux {os.uname().release}",
        f"* Python {sys.version.split()[0]}, {versions.removesuffix(',')}",
        f"* commit {output('git', 'describe', '--always', '--dirty')}",
        f"* find: {trees[1]}; git status: {trees[0]}; the large file: {FILE >> 20} MiB",
        f"* medians of {ROUNDS} rounds, all in turn; ratio: the time of sshfs by ours",
    ]


@contextlib.contextmanager
def serving(socket: Path) -> Iterator[str]:
    """Our server on a unix socket and on TCP: the latter's address."""
    listen = ["--listen", f"unix://{socket}", "--listen", "tcp://127.0.0.1:0"]
    command = [*OURS, "serve", "--size=2g", "--log-level=error", *listen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        _, tcp = (process.stdout.readline().split()[1] for _ in listen[::2])
        yield tcp
        process.terminate()


def main() -> None:
    reason = why_not()
    if reason is not None:
        print(f"bench.mount skipped: {reason}")
        return
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        trees = [
            make_repository(scratch / "repository"),
            make_archive(scratch / "archive.tar"),
        ]
        place, shown, socket = (scratch / name for name in ("place", "shown", "socket"))
        place.mkdir()
        shown.mkdir()
        server = stack.enter_context(sshd.running(scratch, OURS))
        tcp = stack.enter_context(serving(socket))
        mounts: dict[str, Mount] = {SSHFS: partial(sshfs, server, shown)}
        for address in (f"ssh://{server.where}{socket}", f"unix://{socket}", tcp):
            mounts[address.partition("://")[0] + "://"] = partial(ours, address, server)
        times: dict[str, list[Times]] = {name: [] for name in mounts}
        for name in (SSHFS, "unix://"):
            prepare(mounts[name], place, scratch)
        for number in range(ROUNDS):
            for name, rounds in times.items():
                rounds.append(measure(mounts[name], place))
                shows = ", ".join(f"{what} {time:.2f}" for what, time in rounds[-1].items())
                print(f"round {number + 1}, {name} {shows} s", flush=True)
    lines = [*table(times), "", *conditions(trees)]
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mount.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

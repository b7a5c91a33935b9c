"""FUSE mounts on this machine, behind the same face as a guest's.

Rules
- Scripts have /tmp and $HOME of their own; mounts end with the test, however it ends.
- Who has no FUSE, or is not root, is told so.
"""

import contextlib
import itertools
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from .uml import LabError, Result

PACKAGES = {"fuse3": "fusermount3"}
PROGRAM = (sys.executable, "-m", "server")
ENVIRON = {
    key: value for key, value in os.environ.items() if not key.startswith(("TMPFS9P", "GIT"))
}
#: Seconds that anything may take.
LIMIT = 120


def why_not() -> str | None:
    """What keeps this machine from mounting by FUSE."""
    if os.getuid() != 0:
        return "a mount for all users needs root"
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    missing = [name for name in ("fusermount3", "git", "gcc", "sqlite3") if not shutil.which(name)]
    return f"missing programs: {' '.join(missing)}" if missing else None


class Served:
    """A server in a process of its own.

    Attributes:
        path: its unix socket.
        address: that, as the client has it.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "socket"
        self.address = f"unix://{self.path}"
        self.start()

    def start(self) -> None:
        """Start it, empty."""
        listen = "--listen", self.address
        self._process = subprocess.Popen(
            [*PROGRAM, "serve", "--size", "512m", "--log-level", "error", *listen],
            stdout=subprocess.PIPE,
            env=ENVIRON,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith(b"ready: ")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate(timeout=LIMIT)


class Addressed(Protocol):
    """What can be mounted."""

    @property
    def address(self) -> str: ...


class At(NamedTuple):
    """Something else that can be, by its address."""

    address: str


class Host:
    """This machine."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._numbers = itertools.count()
        (scratch / "tmp").mkdir()

    def run(self, script: str) -> Result:
        """Run a bash script (-euo pipefail): its exit status and its output."""
        file = self._scratch / f"script{next(self._numbers)}"
        mine = rf"(?<![\w-])/tmp\b(?!{re.escape(str(self._scratch).removeprefix('/tmp'))})"
        file.write_text(re.sub(mine, f"{self._scratch}/tmp", script))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", file],
            env={**ENVIRON, "HOME": str(self._scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
            cwd="/",
        )
        return Result(done.returncode, done.stdout)

    def sh(self, script: str) -> str:
        """Run a script that must succeed: its output."""
        status, output = self.run(script)
        if status:
            raise LabError(f"{script}\nexited with {status}:\n{output}")
        return output

    @contextlib.contextmanager
    def mount(
        self, server: Addressed, path: str = "a", *, cache: str = "mmap", extra: str = ""
    ) -> Iterator[str]:
        """The server's file system, mounted."""
        place = self._scratch / path.replace("/", "_")
        place.mkdir(exist_ok=True)
        options = f"driver=fuse,cache={cache}{',' * bool(extra)}{extra}"
        process = mount_in_foreground(server.address, place, options)
        try:
            yield str(place)
        except BaseException:
            process.send_signal(signal.SIGKILL)
            process.wait()
            subprocess.run(["umount", "--lazy", place], check=True)
            raise
        subprocess.run(["umount", place], check=True)
        if process.wait(LIMIT):
            raise LabError(f"the mount exited with {process.returncode}")


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[list[int]]:
    """What is mounted there is used, then unmounted: which processes serve it; they end with it."""
    serving = [
        int(pid) for pid in os.listdir("/proc") if pid.isdigit() and str(place) in _line(pid)
    ]
    try:
        ends = [os.pidfd_open(pid) for pid in serving]
        yield serving
    except BaseException:
        for pid in serving:
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["umount", "--lazy", place], check=True)
        raise
    subprocess.run(["umount", place], check=True)
    for end in ends:
        assert select.select([end], [], [], LIMIT)[0], "a process stays"
        os.close(end)


def _line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def mount_in_foreground(address: str, place: Path, options: str) -> subprocess.Popen[bytes]:
    """The process that serves a mount, when that is ready."""
    was = place.stat().st_dev
    process = subprocess.Popen(
        [*PROGRAM, "mount", "--foreground", "-o", options, address, str(place)], env=ENVIRON
    )
    while place.stat().st_dev == was:
        if process.poll() is not None:
            raise LabError(f"the mount exited with {process.returncode}")
    return process

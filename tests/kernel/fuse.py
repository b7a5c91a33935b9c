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
#: The command as it is installed, which has a way of its own to mount.
PROGRAM = (sys.executable, "-P", "-c", "from server.program import main; main()")
ENVIRON = {
    key: value for key, value in os.environ.items() if not key.startswith(("TMPFS9P", "GIT"))
}
#: Seconds that anything may take.
LIMIT = 120
#: Seconds after which it is looked why a process has not ended.
PATIENCE = 10


def why_not() -> str | None:
    """What keeps this machine from mounting by FUSE."""
    if os.getuid() != 0:
        return "a mount for all users needs root"
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    missing = [name for name in ("fusermount3", "git", "gcc", "sqlite3") if not shutil.which(name)]
    return f"missing programs: {' '.join(missing)}" if missing else None


class Served:
    """A server in a process of its own, with these options.

    Attributes:
        path: its unix socket.
        address: that, as the client has it.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.path = directory / "socket"
        self.address = f"unix://{self.path}"
        self._options = options
        self.start()

    def start(self) -> None:
        """Start it, empty."""
        listen = "--listen", self.address
        self._process = subprocess.Popen(
            [*PROGRAM, "serve", "--size", "512m", "--log-level", "error", *listen, *self._options],
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
        _wait_for_end(process.pid, place)
        if process.wait():
            raise LabError(f"the mount exited with {process.returncode}")


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[list[int]]:
    """What is mounted there is used, then unmounted: which processes serve it; they end with it."""
    serving = [
        int(pid) for pid in os.listdir("/proc") if pid.isdigit() and str(place) in _line(pid)
    ]
    try:
        yield serving
    except BaseException:
        for pid in serving:
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["umount", "--lazy", place], check=True)
        raise
    subprocess.run(["umount", place], check=True)
    for pid in serving:
        _wait_for_end(pid, place)


def _wait_for_end(pid: int, place: Path) -> None:
    """Wait until the process of a mount ends, now that nothing is mounted there."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with open(descriptor, "rb", buffering=0) as end:
        for _ in range(LIMIT // PATIENCE):
            if select.select([end], [], [], PATIENCE)[0]:
                return
            if _is_mounted_by_others(place):
                os.kill(pid, signal.SIGTERM)
    raise LabError("the process of a mount stays")


def _is_mounted_by_others(place: Path) -> bool:
    """Whether mount namespaces that were made meanwhile have what was mounted there."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if str(place) in Path(f"/proc/{pid}/mountinfo").read_text():
                return True
    return False


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

"""A virtual machine as the client: QEMU under software emulation, and Debian's kernel in it.

Rules
- A guest is booted once and serves script after script over a serial line.  One that exceeded a
  time limit, or whose kernel complained, is killed.
- It has no disk: busybox, the modules it needs and the programs that a test names are its initrd.
- Every guest dies with this process, however it ends.
- How it reaches a server is up to the test: arguments for QEMU are passed on as they are.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, Self

from .debian import KERNEL, MODULES
from .uml import COMPLAINT, GUEST_PROGRAMS, REPOSITORY, SERVE, LabError, Result, success

PACKAGES = {
    "busybox-static": "/bin/busybox",
    "qemu-system-x86": "qemu-system-x86_64",
    "sqlite3": "sqlite3",
}
QEMU = ("qemu-system-x86_64",)
#: Under emulation, wherever it runs: a /dev/kvm that can be opened may still not work.
MACHINE = (
    *("-accel", "tcg", "-machine", "q35", "-cpu", "qemu64"),
    *("-nographic", "-nodefaults", "-no-reboot"),
)
KERNEL_ARGUMENTS = "console=ttyS0 panic=-1 loglevel=5 mitigations=off"
#: As fast as it is for users: the lines that a server runs are counted by other tests.
ENVIRON = {key: value for key, value in os.environ.items() if "COV" not in key}
#: The programs of the host that guests have, with their libraries.
PROGRAMS = ("b2sum", "flock", "sqlite3")


def why_not() -> str | None:
    """What keeps this machine from running a guest."""
    missing = sorted(package for package, file in PACKAGES.items() if not shutil.which(file))
    if missing:
        return f"Debian's packages {' '.join(missing)} are missing"
    if not KERNEL.exists():
        return "there is no kernel to boot: python -m tests.kernel.debian"
    return None


class Guest:
    """A machine with Debian's kernel.

    Args:
        scratch: a directory for what it needs.
        arguments: for QEMU, beside those that every guest has.
        qemu: the words that run QEMU.
        memory: of the guest, in MiB.
    """

    def __init__(
        self,
        scratch: Path,
        *arguments: str,
        qemu: Sequence[str] = QEMU,
        memory: int = 256,
    ) -> None:
        directory = Path(tempfile.mkdtemp(dir=scratch))
        self._log = directory / "console"
        self._log_read = 0
        self._answers = bytearray()
        self._agent, far_end = socket.socketpair()
        with far_end, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig=KILL", *qemu, *MACHINE, "-m", str(memory)),
                    *("-kernel", str(KERNEL / "vmlinux"), "-append", KERNEL_ARGUMENTS),
                    *("-initrd", str(_initrd(directory)), "-serial", "stdio"),
                    *("-chardev", f"socket,id=agent,fd={far_end.fileno()}"),
                    *("-serial", "chardev:agent", *arguments),
                ],
                env=ENVIRON,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[far_end.fileno()],
            )
        self.alive = True
        self.booted()

    def booted(self) -> None:
        """Wait until it has booted, the first time or once more."""
        if self._receive(b"\n", 60) != b"ready":
            self._fail("the guest's agent did not start", self._news())
        self._news()  # of a boot that went well

    def run(self, script: str, timeout: float = 60) -> Result:
        """Run a script of busybox' shell (-eu) in the guest: its exit status and its output."""
        with contextlib.suppress(ConnectionError):  # it has ended, and will not answer either
            self._agent.sendall(b"%d\n" % len(script.encode()) + script.encode())
        head = self._receive(b"\n", timeout)
        if head is None:
            self._fail(f"no answer (limit: {timeout:g} s): {script}", self._news())
        status, size = map(int, head.split())
        output = self._receive(size, timeout)
        if output is None:
            self._fail(f"only half an answer (limit: {timeout:g} s): {script}", self._news())
        news = self._news()
        if COMPLAINT.search(news):
            self._fail(f"the kernel complains: {script}", news)
        return Result(status, output.decode(errors="backslashreplace"))

    def sh(self, script: str, timeout: float = 60) -> str:
        """Run a script that must succeed: its output."""
        return success(script, self.run(script, timeout))

    @contextlib.contextmanager
    def mount(
        self, options: str, source: str, path: str = "/mnt/a", *, before: str = ""
    ) -> Iterator[str]:
        """A file system of type 9p with these options, mounted; ``before`` is run in its shell."""
        self.sh(f"mkdir -p {path}\n{before}\nmount -t 9p -o {options} {source} {path}")
        try:
            yield path
        except BaseException:
            if self.alive:
                self.run(f"umount -l {path}")
            raise
        self.sh(f"umount {path}")

    def kill(self) -> None:
        self.alive = False
        self._agent.close()
        with self._process:
            self._process.kill()

    def _receive(self, what: bytes | int, timeout: float) -> bytes | None:
        """The next bytes of the agent, so many or as far as this byte, which is dropped; none if
        they do not come in time or the guest has ended.
        """
        end = time.monotonic() + timeout
        while (found := _found(what, self._answers)) < 0:
            self._agent.settimeout(max(end - time.monotonic(), 0.001))
            try:
                received = self._agent.recv(1 << 16)
            except (TimeoutError, ConnectionError):
                return None
            if not received:
                return None
            self._answers += received
        answer = bytes(self._answers[:found])
        del self._answers[: found + isinstance(what, bytes)]
        return answer

    def _news(self) -> str:
        """What the kernel and QEMU wrote since this was asked last."""
        with self._log.open("rb") as log:
            log.seek(self._log_read)
            news = log.read().decode(errors="backslashreplace")
            self._log_read = log.tell()
        return news

    def _fail(self, reason: str, news: str) -> NoReturn:
        self.kill()
        raise LabError(f"{reason}\nThe guest was killed. It wrote:\n{news}")


def _found(what: bytes | int, answers: bytearray) -> int:
    if isinstance(what, bytes):
        return answers.find(what)
    return what if len(answers) >= what else -1


def _initrd(directory: Path) -> Path:
    """What the guest has as its root."""
    root = directory / "root"
    files = {"/bin/busybox": "/bin/busybox", "/init": str(GUEST_PROGRAMS / "init.busybox")}
    files |= {f"/modules/{name}.ko": str(KERNEL / f"{name}.ko") for name in MODULES}
    for program in PROGRAMS:
        path = shutil.which(program)
        assert path is not None
        listed = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
        libraries = re.findall(r"(/\S+) \(0x", listed)
        files |= {f"/bin/{program}": path} | {library: library for library in libraries}
    for inside, outside in files.items():
        place = root / inside.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(outside)
    (root / "modules/order").write_text(" ".join(MODULES))
    names = "".join(f"{file.relative_to(root)}\n" for file in sorted(root.rglob("*")))
    words = ["busybox", "cpio", "-o", "-L", "-H", "newc", "-R", "0:0"]
    with (directory / "initrd").open("wb") as archive:
        subprocess.run(
            words,
            cwd=root,
            input=names.encode(),
            stdout=archive,
            stderr=subprocess.PIPE,
            check=True,
        )
    return directory / "initrd"


class Served:
    """A server in a process of its own, at a unix socket and at a port of this machine.

    Args:
        directory: where its sockets are.
        options: of ``serve``, beside those that it has.

    Attributes:
        unix: the address of its socket.
        port: its port.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.unix = f"unix://{directory}/t9.sock"
        listen = ["--listen", "tcp://127.0.0.1:0", "--listen", self.unix]
        self._process = subprocess.Popen(
            [*SERVE, "--size", "512m", "--log-level", "warning", *listen, *options],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            env=ENVIRON,
            text=True,
        )
        assert self._process.stdout is not None
        found = re.match(r"ready: tcp://127.0.0.1:(\d+) ", self._process.stdout.readline())
        assert found is not None
        self.port = int(found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0

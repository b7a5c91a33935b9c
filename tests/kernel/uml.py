"""A real Linux kernel as the client: User Mode Linux, and the server beside it.

Rules
- Both run in a network namespace that has no name, and every process in it dies with this one,
  however it ends: nothing is left behind, and no address ever appears on the machine's own network.
- A guest is booted once and serves script after script over its console. One that exceeded a time
  limit, or whose kernel complained, is killed; the next test boots another.
- The guest sees the host's files read-only: at their own paths unless it has a tmpfs there, and all
  of them under HOST.
- The link takes large packets, because what comes in costs the guest most by the packet.
- A server must exit with 0 when told to, and leave no traceback in its log.
"""

import contextlib
import itertools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

GUEST_PROGRAMS = Path(__file__).parent / "guest"
REPOSITORY = Path(__file__).parents[2]
HOST = "/mnt/host"
NETWORK = "10.99.0.0/24"
SERVER_ADDRESS = "10.99.0.1"
MTU = 9000
SERVE = (sys.executable, "-m", "server", "serve")
SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin:/usr/bin:/bin"

PACKAGES = {
    "acl": "setfacl",
    "attr": "setfattr",
    "e2fsprogs": "mkfs.ext4",
    "ethtool": "ethtool",
    "gcc": "gcc",
    "git": "git",
    "iproute2": "ip",
    "kmod": "insmod",
    "libc6-dev": "/usr/include/stdio.h",
    "make": "make",
    "python3": "/usr/bin/python3",
    "sqlite3": "sqlite3",
    "user-mode-linux": "linux.uml",
    "util-linux": "nsenter",
}

#: The guest's network driver overlooks about one packet in a thousand until the next one comes; so
#: it is sent again after 10 ms rather than 200 ms.
SET_UP = f"""
ip link set lo up
ip tuntap add dev tap0 mode tap
ip address add {SERVER_ADDRESS}/24 dev tap0
ip link set tap0 up mtu {MTU}
ip route change {NETWORK} dev tap0 rto_min 10ms
ethtool -K tap0 tx off rx off sg off tso off gso off gro off
echo ready
exec cat
"""

COMPLAINT = re.compile(r"BUG:|Oops|Kernel panic|Call Trace|WARNING:|blocked for more than|bogus")


def why_not(more: Iterable[tuple[str, str]] = ()) -> str | None:
    """What keeps this machine from running a guest, and programs of more packages."""
    if os.getuid() != 0:
        return "a guest kernel needs root"
    missing = sorted(
        package
        for package, file in (*PACKAGES.items(), *more)
        if not any(Path(place, file).exists() for place in SEARCH_PATH.split(":"))
    )
    if missing:
        return f"Debian's packages {' '.join(missing)} are missing"
    if not Path("/dev/net/tun").exists():
        return "a guest kernel needs /dev/net/tun"
    return None


class LabError(AssertionError):
    """The guest or the server did not do what it must."""


class Result(NamedTuple):
    status: int
    output: str


class Listening(Protocol):
    """What a guest can mount."""

    @property
    def port(self) -> int: ...


class Lab:
    """The network namespace, and what runs in it: servers, and at most one living guest."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._ports = itertools.count(5640)
        self._guest: Guest | None = None
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-ec", SET_UP],
            env=os.environ | {"PATH": SEARCH_PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            raise LabError("the network namespace could not be set up")

    def command(self, *words: str) -> list[str]:
        """The command that runs these words in the namespace, and dies with this process."""
        enter = ["nsenter", f"--target={self._holder.pid}", "--net"]
        return [*enter, "setpriv", "--pdeathsig=KILL", *words]

    @contextlib.contextmanager
    def serve(self, *options: str, command: Sequence[str] = SERVE) -> Iterator["Server"]:
        """A server of its own, fresh and empty."""
        server = Server(self, next(self._ports), [*command, *options])
        try:
            yield server
        except BaseException:
            server.kill()
            raise
        finally:
            print(server.log())
        server.stop()

    def guest(self) -> "Guest":
        """The living guest, booted if there is none."""
        if self._guest is None or not self._guest.alive:
            self._guest = Guest(self)
        return self._guest

    def close(self) -> None:
        if self._guest is not None:
            self._guest.kill()
        with self._holder:
            self._holder.kill()


class Server:
    """The program under test, listening on a port that no other server of this lab had."""

    def __init__(self, lab: Lab, port: int, command: list[str]) -> None:
        self.port = port
        self._lines: list[str] = []
        self._ready = threading.Event()
        listen = f"tcp://{SERVER_ADDRESS}:{port}"
        # As fast as it is for users: the lines that it runs are counted by other tests.
        environ = {key: value for key, value in os.environ.items() if "COV" not in key}
        self._process = subprocess.Popen(
            lab.command(*command, "--listen", listen, "--allow", NETWORK),
            cwd=REPOSITORY,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
        )
        self._reader = threading.Thread(target=self._collect)
        self._reader.start()
        if not self._ready.wait(30) or self._process.poll() is not None:
            self.kill()
            raise LabError(f"the server did not get ready:\n{self.log()}")

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if f"{SERVER_ADDRESS}:{self.port}" in line and "mount" in line:
                self._ready.set()
        self._ready.set()

    def log(self) -> str:
        return "".join(self._lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    def rss(self) -> int:
        """The memory that the server has resident, in bytes."""
        return self._status("VmRSS")

    def peak_rss(self) -> int:
        """The most memory that the server has had resident, in bytes."""
        return self._status("VmHWM")

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def stop(self) -> None:
        """Tell the server to end, and insist that it does so in order."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            status = self._process.wait(20)
        except subprocess.TimeoutExpired:
            status = None
        self.kill()
        if status != 0:
            raise LabError(f"the server's exit status was {status}:\n{self.log()}")
        if "Traceback" in self.log():
            raise LabError(f"the server's log has a traceback:\n{self.log()}")

    def kill(self) -> None:
        with self._process:
            self._process.kill()
            self._reader.join()

    def _status(self, key: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"{key}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


class Guest:
    """A kernel that runs as a process, with guest/agent.py at the other end of its console."""

    def __init__(self, lab: Lab) -> None:
        self._scripts = Path(tempfile.mkdtemp(dir=lab.scratch))
        self._numbers = itertools.count()
        self._log = self._scripts / "console"
        self._log_read = 0
        self._answers = bytearray()
        self._console, far_end = socket.socketpair()
        with far_end, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                lab.command(
                    # A process namespace, because then the kernel's helper processes die with it.
                    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("linux.uml", "mem=1024M", "root=/dev/root", "rootfstype=hostfs"),
                    *("rootflags=/", "ro", f"init={GUEST_PROGRAMS}/init.sh"),
                    *(f"vec0:transport=tap,ifname=tap0,mtu={MTU}", f"uml_dir={lab.scratch}"),
                    *("con=null", "con0=null,fd:1", f"con1=fd:{far_end.fileno()}"),
                ),
                env={"PATH": SEARCH_PATH, "LD_PRELOAD": _build_xstate(lab.scratch)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[far_end.fileno()],
            )
        self.alive = True
        if self._answer(60) != b"ready":
            self._fail("the guest's agent did not start", self._news())
        self._news()  # of a boot that went well

    def run(self, script: str, timeout: float = 60) -> Result:
        """Run a bash script (-euo pipefail) in the guest: its exit status and its output."""
        file = self._scripts / str(next(self._numbers))
        file.write_text(script)
        return self._ask(["bash", "-euo", "pipefail", f"{HOST}{file}"], script, timeout)

    def sh(self, script: str, timeout: float = 60) -> str:
        """Run a script that must succeed: its output."""
        return success(script, self.run(script, timeout))

    def python(self, program: str, *arguments: str, timeout: float = 60) -> None:
        """Run a program of guest/, which must succeed, with the guest's own Python."""
        self._command("python", program, *arguments, timeout=timeout)

    @contextlib.contextmanager
    def mount(
        self,
        server: Listening,
        path: str = "/mnt/a",
        *,
        cache: str = "none",
        msize: int = 1 << 20,
        access: str = "client",
        version: str = "9p2000.L",
        extra: str = "",
    ) -> Iterator[str]:
        """The server's file system, mounted."""
        options = (
            f"trans=tcp,port={server.port},version={version},uname=root,"
            f"access={access},msize={msize},cache={cache},X-mount.mkdir{',' * bool(extra)}{extra}"
        )
        self._command("mount", "-t", "9p", "-o", options, SERVER_ADDRESS, path)
        try:
            yield path
        except BaseException:
            if self.alive:
                self.run(f"umount --lazy {path}")
            raise
        self._command("umount", path)

    def kill(self) -> None:
        self.alive = False
        self._console.close()
        with self._process:
            self._process.kill()

    def _command(self, *words: str, timeout: float = 60) -> None:
        """Have the agent run a command that must succeed, without a shell around it."""
        success(shlex.join(words), self._ask(words, shlex.join(words), timeout))

    def _ask(self, words: Sequence[str], meaning: str, timeout: float) -> Result:
        """Have the agent run these words."""
        with contextlib.suppress(ConnectionError):  # it has ended, and will not answer either
            self._console.sendall(json.dumps(words).encode() + b"\n")
        answer = self._answer(timeout)
        if answer is None:
            self._fail(f"no answer (limit: {timeout:g} s): {meaning}", self._news())
        news = self._news()
        if COMPLAINT.search(news):
            self._fail(f"the kernel complains: {meaning}", news)
        return Result(*json.loads(answer))

    def _answer(self, timeout: float) -> bytes | None:
        """The next line of the agent; none if it does not come in time or the guest has ended."""
        end = time.monotonic() + timeout
        while b"\n" not in self._answers:
            self._console.settimeout(max(end - time.monotonic(), 0.001))
            try:
                received = self._console.recv(1 << 16)
            except (TimeoutError, ConnectionError):
                return None
            if not received:
                return None
            self._answers += received
        line, _, rest = self._answers.partition(b"\n")
        self._answers = rest
        return bytes(line)

    def _news(self) -> str:
        """What the kernel wrote since this was asked last."""
        with self._log.open("rb") as log:
            log.seek(self._log_read)
            news = log.read().decode(errors="backslashreplace")
            self._log_read = log.tell()
        return news

    def _fail(self, reason: str, news: str) -> NoReturn:
        self.kill()
        raise LabError(f"{reason}\nThe guest was killed. Its kernel wrote:\n{news}")


def success(meaning: str, result: Result) -> str:
    """The output of what must have succeeded."""
    if result.status != 0:
        raise LabError(f"exit status {result.status}: {meaning}\n{result.output}")
    return result.output


def _build_xstate(scratch: Path) -> str:
    library = scratch / "xstate.so"
    if not library.exists():
        source = GUEST_PROGRAMS / "xstate.c"
        flags = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, source, "-o", library], check=True)
    return str(library)

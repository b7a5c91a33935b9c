"""What the benches share: building the C tools, starting servers, running the load generator.

Rules:

* The tools are not part of this repository: ``npload``, the load, and ``npnull``, a server with
  canned answers, lie in ../shared/tools.  Where they or gcc are not there, ``why_not`` says so.
* A server that is measured is pinned to the first CPU; the bench pins itself, and so the load, to
  the second.  With one CPU only nothing is pinned.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]
SOURCES = REPOSITORY.parent / "shared/tools"
RESULTS = Path(__file__).parent / "results"
#: The command whose "serve" is measured.
OURS = (str(Path(sys.executable).with_name("tmpfs9p")),)
MSIZE = 1 << 20
CPUS = sorted(os.sched_getaffinity(0))


class Server(NamedTuple):
    """A running server."""

    name: str
    address: str  # HOST:PORT
    pid: int
    aname: str = "/"


class Load(NamedTuple):
    """What npload found: latencies in microseconds, ``io`` in bytes."""

    io: int
    ops: float
    megabytes: float
    p50: float
    p99: float


def why_not() -> str | None:
    """What keeps this machine from building the tools."""
    if all((SOURCES / f"{name}.c").exists() for name in ("npload", "npnull")) and shutil.which(
        "gcc"
    ):
        return None
    return f"it needs gcc, and npload.c and npnull.c in {SOURCES}"


def build(name: str, directory: str) -> str:
    """Compile one of the tools; the path of the program."""
    program = f"{directory}/{name}"
    subprocess.run(["gcc", "-O2", "-w", "-o", program, SOURCES / f"{name}.c"], check=True)
    return program


# Load


def load_command(
    npload: str, server: Server, workload: str, options: Sequence[str], seconds: float
) -> list[str]:
    fixed = ["-m", str(MSIZE), "-t", str(seconds)]
    return [npload, server.address, server.aname, workload, *options, *fixed]


def load(
    npload: str, server: Server, workload: str, options: Sequence[str], seconds: float
) -> Load:
    """Run npload, pinned as the caller is."""
    command = load_command(npload, server, workload, options, seconds)
    return parse_load(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)


def parse_load(line: str) -> Load:
    found = re.search(
        r"io=(\d+)  ([\d.]+) ops/s  ([\d.]+) MB/s  p50 ([\d.]+) us  p99 ([\d.]+) us", line
    )
    if found is None:
        raise ValueError(f"not a line of npload: {line!r}")
    return Load(int(found[1]), *(float(text) for text in found.groups()[1:]))


# Servers


def pinned(command: Sequence[str], cpu: int = CPUS[0]) -> list[str]:
    """The same command on one CPU, by default the first."""
    return ["taskset", "-c", str(cpu), *command] if len(CPUS) > 1 else [*command]


def pin_load() -> None:
    """Keep this process, and the load that it starts, away from the servers' CPU."""
    if len(CPUS) > 1:
        os.sched_setaffinity(0, {CPUS[1]})


@contextlib.contextmanager
def ours(command: Sequence[str]) -> Iterator[Server]:
    """A server of this repository, once it is ready; it must end with status 0 when told to."""
    listen = ["--listen=tcp://127.0.0.1:0", "--log-level=warning"]
    process = subprocess.Popen([*command, *listen], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = re.match(r"ready: tcp://(\S+)", process.stdout.readline())
        assert ready is not None, "the server did not get ready"
        yield Server("ours", ready[1], process.pid)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


@contextlib.contextmanager
def npnull(program: str) -> Iterator[Server]:
    """The server without a file system."""
    port = _free_port()
    with _listening("npnull", [program, str(port)], port) as server:
        yield server


@contextlib.contextmanager
def diod(program: str) -> Iterator[Server]:
    """Diod, exporting a directory in memory, without authentication and a change of user."""
    port = _free_port()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as export:
        identity = ["-n", "-S", "-U", "root"]
        where = ["-f", "-c", "/dev/null", "-l", f"127.0.0.1:{port}", "-e", export]
        with _listening("diod", [program, *where, *identity], port) as server:
            yield server._replace(aname=export)


def find_diod() -> str | None:
    return shutil.which("diod", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


@contextlib.contextmanager
def _listening(name: str, command: Sequence[str], port: int) -> Iterator[Server]:
    """A server that does not tell when it is ready."""
    process = subprocess.Popen(pinned(command), stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.01)
        else:
            raise TimeoutError(f"{name} does not listen")
        yield Server(name, f"127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def available() -> int:
    """Bytes of memory that may be used."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found[1]) * 1024

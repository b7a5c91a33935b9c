"""The server as a process that runs out of something, is told to stop, or is killed."""

import contextlib
import json
import os
import resource
import signal
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.listener import GRACE
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message, parse
from tests.server.peer import GUARD
from tests.server.test_main import COMMAND, ENVIRON, ask
from tests.tmpfs_core.paging import pattern

MSIZE = 1 << 20
STATFS = m.Tstatfs(0)


class Process:
    """A server in a process of its own, on a port of its own and a unix socket.

    All warnings are on; they would stand among its events.
    """

    def __init__(self, place: Path, *options: str, port: int = 0) -> None:
        self.path = place / "t9.sock"
        listen = ("--listen", f"tcp://127.0.0.1:{port}", "--listen", f"unix://{self.path}")
        self._log = place / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "serve", "--size", "64m", "--log-format", "json", *listen, *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**ENVIRON, "PYTHONWARNINGS": "always"},
            )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        lines = [self._process.stdout.readline() for _ in range(2)]
        self.port = int(lines[0].split()[1].rpartition(":")[2])

    def connect(self) -> socket.socket:
        """A new client, which has not said anything yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=GUARD)

    def begin(self) -> socket.socket:
        """A new client that has attached fid 0."""
        sock = self.connect()
        begin(sock)
        return sock

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status when it gets this signal."""
        os.kill(self.pid, number)
        return self.status()

    def status(self) -> int:
        """Its exit status, when it has ended."""
        return self._process.wait(GUARD)

    def events(self) -> list[str]:
        """What it has logged until now; every line must be an event, and no warning."""
        whole, _, _ = self._log.read_text().rpartition("\n")
        return [json.loads(line)["event"] for line in whole.splitlines()]

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait(GUARD)
        self._process.stdout.close()


def begin(sock: socket.socket) -> None:
    ask(sock, m.Tversion(MSIZE, c.VERSION))
    ask(sock, m.Tattach(0, c.NOFID, b"", b"", 0))


def received(sock: socket.socket) -> list[tuple[int, Message]]:
    """All replies until the server ends the connection, with their tags."""
    found = []
    with sock.makefile("rb") as stream:
        while head := stream.read(4):
            rest = stream.read(struct.unpack("<I", head)[0] - 4)
            found.append(parse(head + rest))
    return found


def descriptors(server: Process) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


@contextlib.contextmanager
def running(tmp_path: Path, *options: str, port: int = 0) -> Iterator[Process]:
    with contextlib.closing(Process(tmp_path, *options, port=port)) as server:
        yield server


def p99(clients: list[socket.socket]) -> float:
    """Within how many seconds 99 of 100 small reads are answered, each asked when it can be."""
    took = []
    for _ in range(200):
        for sock in clients:
            began = time.perf_counter()
            ask(sock, m.Tread(0, 0, 4096))
            took.append(time.perf_counter() - began)
    return statistics.quantiles(took, n=100)[-1]


def test_clients_that_do_not_read_do_not_slow_the_others_down(tmp_path: Path) -> None:
    """Measured by turns with them and without, so that what else the machine does is in both."""
    with running(tmp_path) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.begin()) for _ in range(4)]
        for number, sock in enumerate(clients):
            ask(sock, m.Tlcreate(0, b"%d" % number, c.O_RDWR, 0o600, 0))
            data = pattern(number, MSIZE - 24)
            assert ask(sock, m.Twrite(0, 0, data)) == m.Rwrite(len(data))
        ratios = []
        for _ in range(9):
            alone = p99(clients)
            with contextlib.ExitStack() as others:
                for _ in range(8):
                    stuck = others.enter_context(server.begin())
                    ask(stuck, m.Twalk(0, 1, [b"0"]))
                    ask(stuck, m.Tlopen(1, c.O_RDONLY))
                    stuck.sendall(m.Tread(1, 0, MSIZE).frame(1) * 200)
                    assert stuck.recv(4, socket.MSG_PEEK)  # it has the first reply, or a part
                ratios.append(p99(clients) / alone)
        assert statistics.median(ratios) < 3
        assert server.end() == 0


def test_out_of_descriptors_new_clients_wait_and_come_in_when_others_leave(tmp_path: Path) -> None:
    with running(tmp_path) as server, contextlib.ExitStack() as stack:
        at_first = descriptors(server)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (at_first + 10, at_first + 10))
        served = [stack.enter_context(server.begin()) for _ in range(6)]
        waiting = [stack.enter_context(server.connect()) for _ in range(20)]
        while "accept failed" not in server.events():
            ask(served[0], STATFS)
        for sock in served:
            assert isinstance(ask(sock, STATFS), m.Rstatfs)
            sock.close()
        for sock in waiting:
            begin(sock)
            assert isinstance(ask(sock, STATFS), m.Rstatfs)
            sock.close()
        with server.begin() as sock:
            ask(sock, STATFS)
        while descriptors(server) > at_first:
            time.sleep(0.01)
        assert server.end() == 0
        assert not server.path.exists()


def test_out_of_memory_for_frames_who_sends_them_is_dropped_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as server, contextlib.ExitStack() as stack:
        steady = stack.enter_context(server.begin())
        ask(steady, m.Tlcreate(0, b"file", c.O_RDWR, 0o600, 0))
        data = pattern(1, MSIZE - 24)
        assert ask(steady, m.Twrite(0, 0, data)) == m.Rwrite(len(data))
        size = int(Path(f"/proc/{server.pid}/statm").read_text().split()[0])
        limit = size * resource.getpagesize() + (16 << 20)
        resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        greedy = [stack.enter_context(server.begin()) for _ in range(60)]
        for sock in greedy:  # a Twrite of a fid that is not there is kept whole
            with contextlib.suppress(ConnectionError):
                sock.sendall(m.Twrite(9, 0, data).frame(1)[:-1])
        while "out of memory" not in server.events():
            assert ask(steady, m.Tread(0, 5, 100)) == m.Rread(data[5:105])
        assert ask(steady, m.Tread(0, 0, MSIZE)) == m.Rread(data)
        for sock in greedy:
            sock.close()
        with server.begin() as again:
            assert ask(again, m.Twalk(0, 1, [b"file"]))
            ask(again, m.Tlopen(1, c.O_RDWR))
            assert ask(again, m.Twrite(1, 0, data)) == m.Rwrite(len(data))
        assert server.end() == 0
        assert set(server.events()) == {
            "client connected", "client gone", "out of memory", "stopping",
        }  # fmt: skip


@pytest.mark.parametrize("swap", [False, True])
def test_a_server_that_stops_under_load_answers_what_it_was_asked(
    tmp_path: Path, swap: bool
) -> None:
    options = ["--ram", "4m", "--swap", str(tmp_path / "swap")] if swap else []
    count, size = 100, 65536
    with running(tmp_path, *options) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.begin()) for _ in range(8)]
        for number, sock in enumerate(clients):
            ask(sock, m.Tlcreate(0, b"%d" % number, c.O_RDWR, 0o600, 0))
            for block in range(10):
                data = pattern(number * 10 + block, size)
                assert ask(sock, m.Twrite(0, block * size, data)) == m.Rwrite(size)
        for sock in clients:
            reads = [m.Tread(0, tag % 10 * size, size).frame(tag) for tag in range(count)]
            sock.sendall(b"".join(reads))
        for sock in clients:
            assert sock.recv(4, socket.MSG_PEEK)  # it has begun to answer all of them
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        for number, sock in enumerate(clients):
            answered = dict(received(sock))
            assert set(answered) == set(range(count))
            for tag, reply in answered.items():
                assert reply == m.Rread(pattern(number * 10 + tag % 10, size))
            sock.close()
        assert server.status() == 0
        assert time.monotonic() - began < GRACE + 1
        assert set(server.events()) == {"client connected", "stopping", "client gone"}


def test_a_killed_server_leaves_nothing_that_keeps_the_next_from_starting(tmp_path: Path) -> None:
    swap = tmp_path / "swap"
    options = ["--ram", "4m", "--swap", str(swap)]
    data = pattern(1, 65536)
    with running(tmp_path, *options) as server, server.begin() as sock:
        port = server.port
        ask(sock, m.Tlcreate(0, b"file", c.O_RDWR, 0o600, 0))
        for place in range(0, 16 << 20, len(data)):
            assert ask(sock, m.Twrite(0, place, data)) == m.Rwrite(len(data))
        sock.sendall(m.Tread(0, 0, 65536).frame(1) * 100)  # and it dies in the middle
        assert sock.recv(1)
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        assert server.path.exists()
        assert not swap.exists()
        with running(tmp_path, *options, port=port) as after, after.begin() as other:
            assert after.port == port
            ask(other, m.Tlcreate(0, b"file", c.O_RDWR | c.O_EXCL, 0o600, 0))
            with socket.socket(socket.AF_UNIX) as unix:
                unix.connect(str(after.path))
                begin(unix)
            other.close()
            assert after.end() == 0
            assert not after.path.exists()

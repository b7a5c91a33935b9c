"""stdio: a connection that is there already, which nothing else must disturb."""

import os
import signal
import socket
import struct
import subprocess
import sys
import syslog
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader, BufferedWriter, FileIO
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

from server import stdio
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message, parse

from .peer import GUARD
from .test_main import COMMAND, ENVIRON, ask, run, serving

SERVE = [*COMMAND, "serve", "--size", "1m", "--listen", "stdio:"]
#: The command as it is installed, which has a way of its own to connect.
INSTALLED = [sys.executable, "-P", "-c", "from server.program import main; main()"]


@contextmanager
def on_a_socket(
    family: int, *command: str
) -> Iterator[tuple[socket.socket, "subprocess.Popen[bytes]"]]:
    """A command whose standard input, output and error are one socket, and the other end of it."""
    ours, its = tcp_pair() if family == socket.AF_INET else socket.socketpair()
    ours.settimeout(GUARD)
    end = its.fileno()
    with ours, subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=ENVIRON) as process:
        its.close()
        try:
            yield ours, process
        finally:
            process.kill()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        return one, listening.accept()[0]


def rest_of(sock: socket.socket) -> bytes:
    """What comes until the end."""
    sock.shutdown(socket.SHUT_WR)
    with sock.makefile("rb") as stream:
        return stream.read()


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET], ids=["unix", "tcp"])
def test_a_client_on_a_socket_is_served_and_hears_nothing_else(family: int) -> None:
    with on_a_socket(family, *SERVE, "--log-level", "debug") as (sock, process):
        assert ask(sock, m.Tversion(8192, c.VERSION)) == m.Rversion(8192, c.VERSION)
        ask(sock, m.Tattach(0, c.NOFID, b"", b"", 0))
        ask(sock, m.Tlcreate(0, b"file", c.O_RDWR, 0o600, 0))
        assert ask(sock, m.Twrite(0, 0, b"data")) == m.Rwrite(4)
        assert ask(sock, m.Tread(0, 0, 10)) == m.Rread(b"data")
        assert rest_of(sock) == b""
        assert process.wait(GUARD) == 0


def test_a_client_on_pipes_is_served_and_the_log_is_beside(tmp_path: Path) -> None:
    other = f"unix://{tmp_path}/t9.sock"
    version, attach = m.Tversion(8192, c.VERSION), m.Tattach(0, c.NOFID, b"", b"", 0)
    done = subprocess.run(
        [*SERVE, "--listen", other],
        input=version.frame(c.NOTAG) + attach.frame(1),
        capture_output=True,
        timeout=GUARD,
        env=ENVIRON,
        check=False,
    )
    assert done.returncode == 0
    assert [type(it) for it in messages(done.stdout)] == [m.Rversion, m.Rattach]
    assert f"ready: {other}" in done.stderr.decode()
    assert "client gone" in done.stderr.decode()


def messages(data: bytes) -> Iterator[Message]:
    while data:
        size = struct.unpack_from("<I", data)[0]
        yield parse(data[:size])[1]
        data = data[size:]


def test_a_signal_ends_it_though_the_client_stays() -> None:
    with on_a_socket(socket.AF_UNIX, *SERVE) as (sock, process):
        ask(sock, m.Tversion(8192, c.VERSION))
        process.send_signal(signal.SIGTERM)
        assert process.wait(GUARD) == 0
        assert sock.recv(1) == b""


def test_a_signal_ends_it_though_its_pipes_stay() -> None:
    with subprocess.Popen(
        SERVE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRON
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(m.Tversion(8192, c.VERSION).frame(c.NOTAG))
        process.stdin.flush()
        assert process.stdout.read(4)
        process.send_signal(signal.SIGTERM)
        assert process.wait(GUARD) == 0


def test_where_there_is_no_output_nobody_is_served() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *SERVE],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=ENVIRON,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == b"tmpfs9p: --listen: stdio: Bad file descriptor\n"


def test_a_complaint_does_not_reach_the_client() -> None:
    for command in (
        [*SERVE, "--size", "much"],
        [*COMMAND, "connect", "here"],
        [*INSTALLED, "connect", "here"],
    ):
        with on_a_socket(socket.AF_UNIX, *command) as (sock, process):
            assert process.wait(GUARD) == 2
            assert rest_of(sock) == b""


def test_a_complaint_is_in_the_system_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[tuple[object, ...]] = []
    monkeypatch.setattr(syslog, "syslog", lambda *words: said.append(words))
    stdio.complain("why", True)
    assert said == [(syslog.LOG_ERR, "why")]
    assert capsys.readouterr().err == ""
    stdio.complain("why", False)
    assert capsys.readouterr().err == "tmpfs9p: why\n"


def test_the_installed_command_connects_as_the_other_does(tmp_path: Path) -> None:
    with (
        serving("--listen", f"unix://{tmp_path}/t9.sock") as server,
        on_a_socket(socket.AF_INET, *INSTALLED, "connect", server.ready()[0]) as (sock, process),
    ):
        assert ask(sock, m.Tversion(8192, c.VERSION)) == m.Rversion(8192, c.VERSION)
        assert rest_of(sock) == b""
        assert process.wait(GUARD) == 0


def test_the_installed_command_has_all_others_too() -> None:
    done = subprocess.run([*INSTALLED, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, run("--version").stdout)


def test_connecting_loads_nothing_that_takes_long() -> None:
    program = "import sys; from server import connect; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"asyncio", "ssl", "structlog", "uvloop", "client"} & set(done.stdout.split())


def test_small_messages_leave_a_bridge_at_once() -> None:
    """Nagle's algorithm is off where standard output is a TCP socket."""
    ours, its = tcp_pair()
    near, far = socket.socketpair()
    with ours, its, near, far:
        bridge = stdio.Bridge(near, its.fileno(), its.fileno())
        assert its.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        thread = Thread(target=bridge.run)
        thread.start()
        far.sendall(b"reply")
        assert ours.recv(10) == b"reply"
        far.close()
        thread.join()


class Piped(NamedTuple):
    """The other ends of a bridge's pipes, and of its socket."""

    into: FileIO
    out: FileIO
    far: socket.socket


@pytest.fixture
def piped() -> Iterator[Piped]:
    """A bridge whose standard input and output are pipes."""
    (stdin, into), (out, stdout) = os.pipe(), os.pipe()
    near, far = socket.socketpair()
    far.settimeout(GUARD)
    bridge = stdio.Bridge(near, stdin, stdout)
    thread = Thread(target=stdio._carry, args=(bridge,), daemon=True)
    with near, far, FileIO(into, "w") as writing, FileIO(out) as reading:
        thread.start()
        yield Piped(writing, reading, far)
        far.close()
        thread.join(GUARD)
        assert not thread.is_alive()
    for end in (stdin, stdout):
        os.close(end)


def test_pipes_are_carried_both_ways_to_their_ends(piped: Piped) -> None:
    data = bytes(range(256)) * 8192

    def send_in() -> None:
        with piped.into, BufferedWriter(piped.into) as writing:
            writing.write(data)

    with (
        ThreadPoolExecutor() as others,
        piped.far.makefile("rb") as requests,
        BufferedReader(piped.out) as replies,
    ):
        sent = others.submit(send_in), others.submit(piped.far.sendall, data)
        replied = others.submit(replies.read, len(data))
        assert requests.read() == data
        assert replied.result(GUARD) == data
        for done in sent:
            done.result(GUARD)


def test_replies_come_while_a_server_takes_nothing(piped: Piped) -> None:
    """Who waits in splice(2) for a socket keeps the pipe locked, and its other end waits too."""

    def fill() -> None:
        while piped.into.write(bytes(65536)):
            pass

    os.set_blocking(piped.into.fileno(), False)
    filling = Thread(target=fill, daemon=True)
    filling.start()
    filling.join(GUARD)
    assert not filling.is_alive()
    piped.far.sendall(b"reply")
    assert piped.out.read(100) == b"reply"


def test_only_a_socket_that_is_input_too_silences() -> None:
    """Standard error may be a socket of its own, as a service's is that of the journal."""
    program = [sys.executable, "-c", "from server.stdio import is_silent; print(is_silent())"]
    ours, its = socket.socketpair()
    with ours, its:
        for stdin, stderr, silent in (
            (subprocess.DEVNULL, its.fileno(), False),
            (its.fileno(), subprocess.PIPE, False),
            (its.fileno(), its.fileno(), True),
        ):
            done = subprocess.run(
                program, stdin=stdin, stderr=stderr, stdout=subprocess.PIPE, check=True
            )
            assert done.stdout == f"{silent}\n".encode()

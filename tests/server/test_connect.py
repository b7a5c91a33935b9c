"""connect: ``tmpfs9p connect`` to servers in processes of their own, and to others."""

import contextlib
import errno
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.handover import ABLE
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message, parse
from tests.tmpfs_core.paging import pattern

from .certificates import Authority
from .peer import GUARD
from .test_main import COMMAND, ENVIRON, Running, run, serving

MSIZE = 1 << 20


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Bridge:
    """``tmpfs9p connect`` in a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def ask(self, message: Message) -> Message:
        """The reply to a request."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(message.frame(1))
        stdin.flush()
        head = stdout.read(4)
        return parse(head + stdout.read(struct.unpack("<I", head)[0] - 4))[1]

    def end(self) -> tuple[int, bytes, str]:
        """End its input: its exit status, the rest of its output, and what it says is wrong."""
        output, errors = self.process.communicate(timeout=GUARD)
        return self.process.returncode, output, errors.decode()


@contextlib.contextmanager
def connected(*arguments: str) -> Iterator[Bridge]:
    process = subprocess.Popen(
        [*COMMAND, "connect", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRON,
    )
    with process:
        try:
            yield Bridge(process)
        finally:
            process.kill()


def proof(authority: Authority, *names: str, common: str | None = None) -> list[str]:
    """The options of a client with these names."""
    cert, key = authority.issue(f"client {names}", *names, common=common)
    return ["--cert", cert, "--key", key, "--ca", authority.ca]


@contextlib.contextmanager
def secure(authority: Authority, *options: str) -> Iterator[tuple[Running, str]]:
    """A server that takes whom this authority certifies as root@here, and its address."""
    cert, key = authority.issue("server", "localhost", "127.0.0.1")
    files = ("--tls-cert", cert, "--tls-key", key, "--tls-ca", authority.ca)
    listen = ("--listen", "tls://127.0.0.1:0", "--tls-user", "root@here=root")
    with serving("--size", "16m", *listen, *files, *options) as server:
        yield server, server.ready()[0]


# Through to a server


@pytest.mark.parametrize("kind", ["tls", "tcp", "unix"])
def test_any_client_comes_through(authority: Authority, tmp_path: Path, kind: str) -> None:
    more = ["--listen", "tcp://127.0.0.1:0", "--listen", f"unix://{tmp_path}/t9.sock"]
    with secure(authority, *more) as (server, address):
        addresses = {"tls": address, "tcp": server.ready()[0], "unix": server.ready()[0]}
        given = proof(authority, "root@here") if kind == "tls" else []
        with connected(addresses[kind], *given) as bridge:
            assert bridge.ask(m.Tversion(MSIZE, c.VERSION)) == m.Rversion(MSIZE, c.VERSION)
            bridge.ask(m.Tattach(0, c.NOFID, b"", b"", 0))
            bridge.ask(m.Tlcreate(0, b"file", c.O_RDWR, 0o600, 0))
            size = MSIZE - c.IOHDRSZ
            for place in range(4):
                written = bridge.ask(m.Twrite(0, place * size, pattern(place, size)))
                assert written == m.Rwrite(size)
            for place in range(4):
                read = bridge.ask(m.Tread(0, place * size, size))
                assert read == m.Rread(pattern(place, size))
            assert bridge.end() == (0, b"", "")
        status, events = server.stop()
        assert (status, events[-2:]) == (0, ["client gone", "stopping"])


def test_what_the_server_still_says_comes_out_when_the_input_has_ended(
    authority: Authority,
) -> None:
    with secure(authority) as (_, address):
        request = m.Tversion(MSIZE, c.VERSION).frame(c.NOTAG)
        done = subprocess.run(
            [*COMMAND, "connect", address, *proof(authority, "root@here")],
            input=request,
            capture_output=True,
            timeout=GUARD,
            env=ENVIRON,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == m.Rversion(MSIZE, c.VERSION).frame(c.NOTAG)


def test_it_ends_when_the_server_has_ended(authority: Authority) -> None:
    with (
        secure(authority) as (server, address),
        connected(address, *proof(authority, "root@here")) as bridge,
    ):
        bridge.ask(m.Tversion(MSIZE, c.VERSION))
        assert server.stop()[0] == 0
        assert bridge.process.wait(GUARD) == 0


def test_it_ends_when_nobody_takes_its_output(authority: Authority) -> None:
    with (
        secure(authority) as (_, address),
        connected(address, *proof(authority, "root@here")) as bridge,
    ):
        bridge.ask(m.Tversion(MSIZE, c.VERSION))
        assert bridge.process.stdout is not None
        assert bridge.process.stdin is not None
        bridge.process.stdout.close()
        bridge.process.stdin.write(m.Tstatfs(0).frame(1))
        bridge.process.stdin.flush()
        assert bridge.process.wait(GUARD) == 0


def test_a_server_has_the_pipes_itself(tmp_path: Path) -> None:
    with serving("--size", "16m", "--listen", f"unix://{tmp_path}/t9.sock") as server:
        with connected(server.ready()[0]) as bridge:
            bridge.ask(m.Tversion(MSIZE, c.VERSION))
            bridge.process.send_signal(signal.SIGSTOP)  # it carries nothing
            bridge.ask(m.Tattach(0, c.NOFID, b"", b"", 0))
            bridge.process.send_signal(signal.SIGCONT)
            assert bridge.end() == (0, b"", "")
        assert server.stop()[0] == 0


def test_it_ends_when_the_server_that_has_the_pipes_has(tmp_path: Path) -> None:
    with (
        serving("--size", "16m", "--listen", f"unix://{tmp_path}/t9.sock") as server,
        connected(server.ready()[0]) as bridge,
    ):
        bridge.ask(m.Tversion(MSIZE, c.VERSION))
        assert server.stop()[0] == 0
        assert bridge.process.wait(GUARD) == 0
        assert bridge.process.stdout is not None
        assert bridge.process.stdout.read() == b""


@contextlib.contextmanager
def another_server(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """One that was not made by this project, or before: its address; ``serve`` is all it does."""
    where = f"{path}/other.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(where)
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield f"unix://{where}"
        thread.join(GUARD)


@pytest.mark.parametrize("answer", [m.Rlerror(errno.EPROTO).frame(c.NOTAG), b""])
def test_for_a_server_that_takes_no_pipes_bytes_are_carried(tmp_path: Path, answer: bytes) -> None:
    def serve(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with sock:
            sock.recv(100)
            sock.send(answer)
        sock, _ = listening.accept()
        with sock, sock.makefile("rb") as stream:
            sock.sendall(stream.read())

    with another_server(tmp_path, serve) as address, connected(address) as bridge:
        output, errors = bridge.process.communicate(b"bytes", timeout=GUARD)
    assert (bridge.process.returncode, output, errors) == (0, b"bytes", b"")


def test_a_server_that_does_not_take_what_it_has_said_it_takes(tmp_path: Path) -> None:
    def serve(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with sock:
            sock.recv(100)
            sock.send(ABLE)
            sock.recv(100)
            sock.send(m.Rlerror(errno.EPROTO).frame(c.NOTAG))

    with another_server(tmp_path, serve) as address, connected(address) as bridge:
        status, _, errors = bridge.end()
    why = "the server has not taken what it was given"
    assert (status, errors) == (1, f"tmpfs9p: {address}: {why}\n")


# Not let in


def test_who_is_not_let_in_is_told_so(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    cert, key = other.issue("client", "root@here")
    with secure(authority) as (_, address):
        for given, why in (
            (proof(authority, "carol"), "the server has ended the connection at once; see its log"),
            (["--cert", cert, "--key", key, "--ca", authority.ca], "tlsv1 alert unknown ca"),
            (proof(other, "root@here"), "self.signed certificate in certificate chain"),
            (
                [*proof(authority, "root@here"), "--server-name", "other.example"],
                "Hostname mismatch, certificate is not valid for 'other.example'.",
            ),
        ):
            with connected(address, *given) as bridge:
                errors = bridge.process.stderr
                assert errors is not None
                assert bridge.process.wait(GUARD) == 1
                assert re.fullmatch(f"tmpfs9p: {address}: {why}\n", errors.read().decode())


@pytest.mark.parametrize("scheme", ["tls", "tcp"])
def test_a_server_that_is_not_there_exits_1(authority: Authority, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    given = proof(authority, "root@here") if scheme == "tls" else []
    done = run("connect", f"{scheme}://127.0.0.1:{port}", *given)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tmpfs9p: {scheme}://127.0.0.1:{port}: Connection refused\n"


def test_a_connection_that_is_cut_exits_1(authority: Authority) -> None:
    """It has ended without a close_notify, so anybody on the way may have ended it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", "127.0.0.1"))

    def serve(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with context.wrap_socket(sock, server_side=True) as stream:
            stream.sendall(b"something")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        address = f"tls://127.0.0.1:{listening.getsockname()[1]}"
        with connected(address, *proof(authority, "root@here")) as bridge:
            assert bridge.process.wait(GUARD) == 1
            _, output, errors = bridge.end()
        thread.join()
    assert (output, errors) == (b"something", f"tmpfs9p: {address}: the connection was cut\n")


# What can not be


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["here"], "tmpfs9p: 'here' is not allowed; it takes tcp://HOST:PORT, tls://HOST:PORT,"),
        (["tls://h:1"], "tmpfs9p: --cert: not given; tls://h:1 takes --cert, --key and --ca"),
        (["tcp://h:1", "--ca", "x"], "tmpfs9p: --ca: without a use, tcp://h:1 is not tls://"),
        (
            ["tls://h:1", "--cert", "/missing", "--key", "/missing", "--ca", "/missing"],
            "tmpfs9p: --cert: /missing: No such file or directory",
        ),
    ],
)
def test_what_can_not_be_exits_2(arguments: list[str], message: str) -> None:
    done = run("connect", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


# The server's side


def test_a_hangup_has_it_read_its_certificates_again(authority: Authority) -> None:
    def serial(port: int) -> object:
        context = authority.client("root@here")
        with (
            socket.create_connection(("127.0.0.1", port), GUARD) as sock,
            context.wrap_socket(sock, server_hostname="127.0.0.1") as stream,
        ):
            certificate = stream.getpeercert()
            assert certificate is not None
            return certificate["serialNumber"]

    with secure(authority) as (server, address):
        port = int(address.rpartition(":")[2])
        with connected(address, *proof(authority, "root@here")) as bridge:
            bridge.ask(m.Tversion(MSIZE, c.VERSION))
            before = serial(port)
            authority.issue("server", "localhost", "127.0.0.1")
            server.tell(signal.SIGHUP)
            bridge.ask(m.Tattach(0, c.NOFID, b"", b"", 0))  # the loop has had its turn
            assert serial(port) != before
        status, events = server.stop()
    assert (status, events.count("certificates reloaded")) == (0, 1)


@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key", "--tls-ca"])
def test_files_that_are_no_good_exit_2(authority: Authority, option: str) -> None:
    cert, key = authority.issue("server", "localhost")
    files = {"--tls-cert": cert, "--tls-key": key, "--tls-ca": authority.ca, option: "/missing"}
    given = [word for item in files.items() for word in item]
    listen = ["--listen", "tls://127.0.0.1:0", "--tls-user", f"a={os.getuid()}"]
    done = run("serve", "--size", "1m", *listen, *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tmpfs9p: {option}: /missing: No such file or directory\n"

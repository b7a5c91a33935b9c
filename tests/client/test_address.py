"""address: what users write, and where it leads."""

import os
import stat
import sys
from pathlib import Path

import pytest

from client.address import Address, parse
from client.errors import UnreachableError
from client.filesystem import FileSystem
from server.address import Unix
from server.wire.constants import NONUNAME

from .serving import Serving

ME = os.geteuid()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://h:1", Address("tcp", "h", 1, "", "", "", ME)),
        ("tcp://h", Address("tcp", "h", None, "", "", "", ME)),
        ("tcp://[::1]:99/", Address("tcp", "::1", 99, "", "", "", ME)),
        ("tls://h.example:5641", Address("tls", "h.example", 5641, "", "", "", NONUNAME)),
        ("unix:///run/a b", Address("unix", "", None, "/run/a b", "", "", ME)),
        ("ssh://me@h/run/s", Address("ssh", "h", None, "/run/s", "me", "me", NONUNAME)),
        ("ssh://a%40b@h:22/s", Address("ssh", "h", 22, "/s", "a@b", "a@b", NONUNAME)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h:1",
        "http://h",
        "tcp://",
        "tcp://h:65536",
        "tcp://h:x",
        "tcp://h/path",
        "tcp://me@h",
        "tcp://-h",
        "unix://path",
        "ssh://h",
        "ssh://h/",
        "ssh://-oProxyCommand=x/s",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="none of tcp://"):
        parse(text)


def test_what_ssh_is_asked_to_do() -> None:
    command = parse("ssh://me@h:2222/run/a b").ssh()
    assert command[:-1] == ["ssh", "-T", "-p", "2222", "-l", "me", "--", "h"]
    assert command[-1] == "tmpfs9p connect 'unix:///run/a b'"
    assert parse("ssh://h/s").ssh()[:-1] == ["ssh", "-T", "--", "h"]


async def test_over_tcp(serving: Serving) -> None:
    async with FileSystem(serving.tcp) as fs:
        await fs.write_bytes("/f", b"x")
        assert (await fs.stat("/f")).st_uid == ME


#: Stands for ssh: does what it is asked on this machine, with a bridge for ``tmpfs9p connect``.
SSH = f"""#!{sys.executable}
import os, socket, sys, threading
*_, path = sys.argv[-1].partition("unix://")
there = socket.socket(socket.AF_UNIX)
there.connect(path)
def back():
    while data := there.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=back, daemon=True).start()
while data := os.read(0, 65536):
    there.sendall(data)
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH)
    program.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


async def test_over_ssh_the_connection_runs_through_a_process(ssh: None, server: Unix) -> None:
    async with FileSystem(f"ssh://h{server.path}", uid=ME) as fs:
        await fs.write_bytes("/f", bytes(3 << 20))
        assert await fs.read_bytes("/f") == bytes(3 << 20)
        assert fs._current is not None
        process = fs._current.connection.carrier
        assert process is not None
        process.kill()
        assert (await fs.stat("/f")).st_size == 3 << 20
        again = fs._current.connection.carrier
    assert again is not None
    assert again is not process
    # Whichever of asyncio's two waiters comes first tells the status; the other knows none.
    assert process.returncode in (-9, 255)
    assert again.returncode is not None


async def test_where_ssh_fails_nothing_is_left(ssh: None, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        async with FileSystem(f"ssh://h{tmp_path}/none"):
            raise AssertionError


async def test_without_ssh_nobody_can_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnreachableError):
        async with FileSystem("ssh://h/s"):
            raise AssertionError

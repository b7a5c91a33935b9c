"""control: lines in, lines out, and peers that do not keep to that."""

import asyncio
import errno
import json
import os
import re
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server import control as control_module
from server.control import LINE_MAX, Command, Control, Refused, ask
from server.identity import Peer
from server.usage import ConfigError

from .peer import GUARD, raises_errno


@dataclass(frozen=True, slots=True)
class Words:
    text: str
    loud: bool


async def say(words: Words) -> Any:
    return words.text.upper() if words.loud else words.text


async def fail(words: Words) -> Any:
    errors: dict[str, Exception] = {
        "os": OSError(errno.EBUSY, "in use"),
        "config": ConfigError("--size: bad"),
        "bug": KeyError("bug"),
    }
    raise errors[words.text]


COMMANDS = {"say": Command(Words, say), "fail": Command(Words, fail)}


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """Where a server listens for commands."""
    path = tmp_path / "control"
    control = Control(str(path), COMMANDS)
    yield path
    await control.close()
    assert not path.exists()


async def asked(path: Path, command: str, **arguments: str | bool) -> Any:
    """The result of a command, asked for as the command line does."""
    call = partial(ask, str(path), command, arguments)
    return await asyncio.get_running_loop().run_in_executor(None, call)


class Client:
    """Sends lines as they are."""

    @classmethod
    async def connect(cls, path: Path) -> "Client":
        client = cls()
        client.reader, client.writer = await asyncio.open_unix_connection(path, limit=2 * LINE_MAX)
        return client

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def line(self, line: bytes) -> Any:
        self.writer.write(line + b"\n")
        return json.loads(await self.read())

    async def read(self) -> bytes:
        async with asyncio.timeout(GUARD):
            return await self.reader.readline()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture
async def client(path: Path) -> AsyncIterator[Client]:
    client = await Client.connect(path)
    yield client
    await client.close()


async def test_a_command_has_its_result(path: Path) -> None:
    assert await asked(path, "say", text="hello", loud=False) == "hello"
    assert await asked(path, "say", text="hello", loud=True) == "HELLO"


async def test_the_socket_is_for_its_owner_only(path: Path) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


async def test_one_connection_may_say_several_lines(client: Client) -> None:
    for text in ("one", "two"):
        request = {"command": "say", "arguments": {"text": text, "loud": False}}
        assert await client.line(json.dumps(request).encode()) == {"result": text}


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("os", errno.EBUSY, "in use"),
        ("config", errno.EINVAL, "--size: bad"),
        ("bug", errno.EIO, "the server failed; its log tells why"),
    ],
)
async def test_what_is_refused_is_told_with_its_errno(
    path: Path, text: str, code: int, message: str
) -> None:
    with capture_logs() as logs, pytest.raises(Refused, match=message) as caught:
        await asked(path, "fail", text=text, loud=False)
    assert caught.value.code == code
    assert bool(logs) == (text == "bug")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"hello", "Expecting value"),
        (b"\xff", "can't decode"),
        (b"[]", "not an object of a command and its arguments"),
        (b'{"command": "say"}', "not an object of a command and its arguments"),
        (b'{"command": "sing", "arguments": {}}', "'sing': no such command; there are: say, fail"),
        (b'{"command": [], "arguments": {}}', "no such command"),
        (b'{"command": "say", "arguments": []}', "say: not an object of its arguments"),
        (b'{"command": "say", "arguments": {"text": "x"}}', r"say: .*\(text, loud\)"),
        (b'{"command": "say", "arguments": {"text": 1, "loud": true}}', "say: text: 1 is not"),
        (b'{"command": "say", "arguments": {"text": "", "loud": 1}}', "say: loud: 1 is not"),
        (b"[" * 100_000, "recursion"),
    ],
)
async def test_what_can_not_be_is_refused_and_the_next_line_is_not(
    client: Client, line: bytes, message: str
) -> None:
    reply = await client.line(line)
    assert reply["errno"] == errno.EINVAL
    assert re.search(message, reply["message"])
    request = b'{"command": "say", "arguments": {"text": "x", "loud": false}}'
    assert await client.line(request) == {"result": "x"}


async def test_a_line_that_is_too_long_ends_the_connection(path: Path, client: Client) -> None:
    with capture_logs() as logs:
        client.writer.write(b"x" * (LINE_MAX + 1))
        assert await client.read() == b""
    assert [line["event"] for line in logs] == ["control: a line is too long"]
    assert await asked(path, "say", text="hello", loud=False) == "hello"


async def test_a_silent_peer_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "SILENCE", 0)
    client = await Client.connect(path)
    assert await client.read() == b""
    await client.close()


async def test_who_leaves_at_once_leaves_nothing(path: Path) -> None:
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
    assert await asked(path, "say", text="hello", loud=False) == "hello"


async def test_only_root_and_the_server_s_user_are_heard(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Peer("unix", 1234, False, None)
    monkeypatch.setattr(control_module, "peer_of", lambda _: stranger)
    with pytest.raises(Refused, match="only root and the server's own user") as caught:
        await asked(path, "say", text="hello", loud=False)
    assert caught.value.code == errno.EPERM


async def test_where_nobody_listens_is_told(tmp_path: Path) -> None:
    with raises_errno(errno.ENOENT):
        await asked(tmp_path / "nowhere", "say", text="hello", loud=False)


async def test_a_server_that_ends_without_an_answer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        asking = asyncio.create_task(asked(path, "say", text="hello", loud=False))
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        sock, _ = await loop.sock_accept(listening)
        assert await loop.sock_recv(sock, 1000)
        sock.close()
        with raises_errno(errno.ECONNRESET):
            await asking


async def test_closing_ends_connections(tmp_path: Path) -> None:
    control = Control(str(tmp_path / "control"), COMMANDS)
    client = await Client.connect(tmp_path / "control")
    request = b'{"command": "say", "arguments": {"text": "x", "loud": false}}'
    assert await client.line(request) == {"result": "x"}
    await control.close()
    assert await client.read() == b""
    await client.close()

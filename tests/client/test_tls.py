"""``tls://``: the client and a server, each of which believes only whom its authority certifies."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client.filesystem import FileSystem
from client.tls import context
from server.address import Tls
from server.certificates import Certificates
from server.limits import Limits
from server.listener import Server
from tests.server.certificates import Authority
from tests.server.peer import store_of
from tmpfs_core.mount import Mount

from .running import Done, start


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def address(mount: Mount, authority: Authority) -> AsyncIterator[str]:
    """Where the server is, which knows ann, who is root there."""
    cert, key = authority.issue("server", "127.0.0.1")
    certificates = Certificates(cert, key, authority.ca, {"ann@example.org": 0})
    server = Server(store_of(mount), 1 << 20, Limits(), certificates=certificates)
    yield str(server.listen(Tls("127.0.0.1", 0)))
    await server.stop()


@pytest.fixture
def files(authority: Authority) -> dict[str, str]:
    """What ann shows, and whom she believes."""
    cert, key = authority.issue("ann", "ann@example.org")
    return {"cert": cert, "key": key, "ca": authority.ca}


async def test_who_shows_a_certificate_is_let_in(address: str, files: dict[str, str]) -> None:
    async with FileSystem(address, tls=context(**files)) as fs:
        data = bytes(range(256)) * 20_000
        await fs.write_bytes("/f", data)
        assert await fs.read_bytes("/f") == data


async def test_the_environment_says_what_to_show(
    address: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, file in files.items():
        monkeypatch.setenv(f"TMPFS9P_{name.upper()}", file)
    async with FileSystem(address) as fs:
        assert await fs.listdir("/") == []


async def test_who_shows_none_is_not(address: str, authority: Authority) -> None:
    with pytest.raises(ConnectionError, match="CERTIFICATE_REQUIRED"):
        async with FileSystem(address, tls=context(None, None, authority.ca)):
            raise AssertionError


async def test_a_server_that_nobody_certifies_is_not_believed(
    address: str, files: dict[str, str]
) -> None:
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        async with FileSystem(address, tls=context(files["cert"], files["key"], None)):
            raise AssertionError


async def run(*arguments: str, address: str) -> Done:
    process = start(*arguments, address=address, stdout=-1, stderr=-1)
    out, err = await asyncio.to_thread(process.communicate)
    return Done(process.returncode, out.decode(), err.decode())


async def test_commands_take_them_as_options(address: str, files: dict[str, str]) -> None:
    options = [word for name, file in files.items() for word in (f"--{name}", file)]
    assert await run("mkdir", *options, "/d", address=address) == (0, "", "")
    assert await run("ls", *options, address=address) == (0, "d\n", "")
    assert (await run("ls", address=address)).status == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"key": None}, "a certificate needs its key"),
        ({"cert": "{top}/none.pem"}, "none.pem, {top}/ann.key: no certificate and its key in PEM"),
        ({"key": "{top}/ca.pem"}, "ca.pem: no certificate and its key in PEM"),
        ({"ca": "{top}/none.pem"}, "none.pem: no certificates in PEM: No such file"),
        ({"ca": "{top}/ann.key"}, "ann.key: no certificates in PEM"),
    ],
)
def test_files_that_are_none(
    change: dict[str, str | None], told: str, files: dict[str, str], tmp_path: Path
) -> None:
    given: dict[str, str | None] = dict(files)
    given |= {name: file and file.format(top=tmp_path) for name, file in change.items()}
    with pytest.raises(ValueError) as refused:  # noqa: PT011 what it says is checked
        context(**given)
    assert told.format(top=tmp_path) in str(refused.value)

"""Fixtures of the client's tests: a server, and clients on both event loops."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from client.filesystem import FileSystem
from client.sync import SyncFileSystem
from server.address import Unix
from server.limits import Limits
from server.listener import Server
from tests.server.peer import store_of
from tmpfs_core.mount import Mount

from .cable import Cable
from .running import Tool, tool_for
from .serving import Serving, serving


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A program that uses the client may run on either."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def mount() -> Iterator[Mount]:
    """A file system of 64 MiB and 5000 inodes."""
    mount = Mount(size=64 << 20, nr_inodes=5000)
    yield mount
    assert not mount.orphans
    mount.check()


@pytest.fixture
async def server(mount: Mount, tmp_path: Path) -> AsyncIterator[Unix]:
    """Where it is served."""
    server = Server(store_of(mount), 1 << 20, Limits())
    address = Unix(str(tmp_path / "server"))
    server.listen(address)
    yield address
    await server.stop()


@pytest.fixture
async def cable(server: Unix, tmp_path: Path) -> AsyncIterator[Cable]:
    """A cable to the server, plugged in."""
    cable = Cable(str(tmp_path / "cable"), server)
    await cable.plug()
    yield cable
    await cable.unplug()


@pytest.fixture
async def fs(cable: Cable) -> AsyncIterator[FileSystem]:
    """The file system at the other end of the cable."""
    async with FileSystem(cable.address, patience=5) as fs:
        yield fs


@pytest.fixture(name="serving")
def serving_(mount: Mount, tmp_path: Path) -> Iterator[Serving]:
    """A server in a thread."""
    with serving(mount, tmp_path) as where:
        yield where


@pytest.fixture
def there(serving: Serving) -> Iterator[SyncFileSystem]:
    """The files of the server in a thread."""
    with SyncFileSystem(serving.unix) as fs:
        yield fs


@pytest.fixture
def tool(
    serving: Serving, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Tool:
    """Runs ``tmpfs9p``, whose server that is."""
    return tool_for(serving.unix, capfd, monkeypatch)

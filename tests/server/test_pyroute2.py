"""pyroute2's client of 9P2000, written by others, against the server."""

import os
import pwd
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pyroute2.plan9 import (
    Stat,
    msg_base,
    msg_tclunk,
    msg_topen,
    msg_tstat,
    msg_tversion,
    msg_twstat,
)
from pyroute2.plan9.client import Plan9ClientSocket

from server.address import Tcp
from server.limits import Limits
from server.listener import Server
from server.wire import constants as c
from tmpfs_core.mount import Mount
from tmpfs_core.node import DirNode, FileNode

from ..tmpfs_core.support import make_file
from .peer import store_of


class Client(Plan9ClientSocket):  # type: ignore[misc] # it has no types
    """What it lacks: the messages are there, but for two that it can not encode."""

    async def open(self, fid: int, mode: int) -> Any:
        request = msg_topen()
        request["fid"] = fid
        request["mode"] = mode
        return await self.request(request)

    async def stat(self, fid: int) -> Any:
        request = msg_tstat()
        request["fid"] = fid
        return (await self.request(request))["stat"]

    async def wstat(self, fid: int, **changes: Any) -> None:
        told = Stat()
        told |= {"type": 0xFFFF} | dict.fromkeys(
            ("dev", "qid.vers", "mode", "atime", "mtime"), c.KEEP32
        )
        told |= {"qid.type": 0xFF} | dict.fromkeys(("qid.path", "length"), c.KEEP64)
        request = msg_twstat()
        request["fid"] = fid
        request["stat"] = told | changes
        await self.request(request)

    async def clunk(self, fid: int) -> None:
        request = msg_tclunk()
        request["fid"] = fid
        await self.request(request)


@pytest.fixture
async def client(mount: Mount) -> AsyncIterator[Client]:
    """A client of a server."""
    server = Server(store_of(mount), 1 << 20, Limits())
    bound = server.listen(Tcp("127.0.0.1", 0))
    assert isinstance(bound, Tcp)
    client = Client(address=(bound.host, bound.port))
    yield client
    client.close()
    await server.stop()


def split(data: bytes) -> list[Any]:
    """The stats that these bytes are."""
    told = []
    at = 0
    while at < len(data):
        one, at = Stat.decode_from(data, at)
        told.append(one)
    return told


async def test_a_session_begins(client: Client) -> None:
    answer = await client.version()
    assert (answer["version"], answer["msize"]) == ("9P2000", 8192)
    await client.start_session()
    assert (await client.stat(0))["name"] == "/"


async def test_a_version_of_9p2000_l_is_agreed_on_too(client: Client) -> None:
    request = msg_tversion()
    request["msize"] = 8192
    request["version"] = c.VERSION.decode()
    answer = await client.request(request, tag=c.NOTAG)
    assert (answer["version"], answer["msize"]) == ("9P2000.L", 8192)


async def test_a_file_is_read_and_written(client: Client, mount: Mount) -> None:
    file = make_file(mount, b"file", b"some data")
    await client.start_session()
    fid = await client.fid("file")
    opened = await client.open(fid, c.ORDWR)
    assert opened["qid"] == {"type": 0, "vers": file.version, "path": file.ino}
    assert bytes((await client.read(fid))["data"]) == b"some data"
    assert (await client.write(fid, b"SOME"))["count"] == 4
    assert bytes((await client.read(fid, 2, 5))["data"]) == b"ME da"
    await client.clunk(fid)


async def test_a_directory_is_read(client: Client, mount: Mount) -> None:
    for number in range(300):
        make_file(mount, b"%03d" % number, b"x" * number)
    await client.start_session()
    fid = client.fid_pool.alloc()
    await client.walk("..", fid, fid=0)
    await client.open(fid, c.OREAD)
    told = []
    offset = 0
    while data := bytes((await client.read(fid, offset))["data"]):
        told += split(data)
        offset += len(data)
    assert [one["name"] for one in told] == [f"{number:03}" for number in range(300)]
    assert [one["length"] for one in told] == list(range(300))


async def test_a_stat_is_told_and_changed(client: Client, mount: Mount) -> None:
    file = make_file(mount, b"file", b"some data")
    await client.start_session()
    fid = await client.fid("file")
    told = await client.stat(fid)
    name = pwd.getpwuid(file.uid).pw_name
    assert (told["name"], told["uid"], told["muid"]) == ("file", name, name)
    assert (told["length"], told["qid.path"]) == (9, file.ino)
    assert told["mtime"] == file.mtime // 10**9
    await client.wstat(fid, name="new", mode=0o600, length=4, mtime=7)
    assert (file.mode & 0o777, file.size, file.mtime) == (0o600, 4, 7 * 10**9)
    assert mount.root.entries.find(b"new") is not None
    assert (await client.stat(fid))["name"] == "new"


async def test_files_are_made_and_removed(client: Client, mount: Mount) -> None:
    """It declares neither message, so these are put together here."""

    class tcreate(msg_base):  # type: ignore[misc] # noqa: N801
        defaults = {"header": {"type": 114}}  # noqa: RUF012
        fields = (("fid", "I"), ("length", "H"), ("name", "4s"), ("perm", "I"), ("mode", "B"))

    class tremove(msg_base):  # type: ignore[misc] # noqa: N801
        defaults = {"header": {"type": 122}}  # noqa: RUF012
        fields = (("fid", "I"),)

    await client.start_session()
    for fid, perm, kind in ((5, 0o644, FileNode), (6, c.DMDIR | 0o755, DirNode)):
        await client.walk("..", fid, fid=0)
        request = tcreate()
        request["fid"], request["length"], request["name"] = fid, 4, b"made"
        request["perm"], request["mode"] = perm, c.OREAD
        await client.request(request)
        entry = mount.root.entries.find(b"made")
        assert entry is not None
        assert isinstance(entry.node, kind)
        assert entry.node.uid == os.getuid()
        request = tremove()
        request["fid"] = fid
        await client.request(request)
        assert mount.root.entries.find(b"made") is None


async def test_an_error_is_told(client: Client) -> None:
    """It expects JSON as its own server sends it."""
    await client.start_session()
    with pytest.raises(ValueError, match="Expecting value"):
        await client.walk("nothing")

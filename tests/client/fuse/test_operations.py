"""operations: what a kernel is answered by a server, and what it costs there."""

import asyncio
import errno
import os
import pwd
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from client.filesystem import FileSystem
from client.fuse import protocol
from client.fuse.device import Device
from client.fuse.operations import Operations, operations
from server.wire.constants import NONUNAME
from server.wire.messages import Tgetattr, Tlcreate, Tsetattr, Twalk
from server.wire.own import Tcreateplus
from tests.server.peer import raises_errno

from ..cable import Cable
from .kernel import GID, UID, Kernel

GETATTR, MKDIR, WRITE, FLUSH, ACCESS, CREATE = 3, 9, 16, 25, 34, 35
CREATED = os.O_CREAT | os.O_WRONLY


class Asker:
    """A kernel that asks ``operations`` for one thing after the other."""

    def __init__(self, kernel: Kernel, operations: Operations) -> None:
        self.operations = operations
        self._kernel = kernel
        self._unique = 0

    async def __call__(self, opcode: int, body: bytes, inode: int = protocol.ROOT) -> bytes:
        """The answer.

        Raises:
            OSError: the error that it is.
        """
        self._unique += 2
        await self._kernel.ask(self._unique, opcode, body, inode)
        unique, error, told = await self._kernel.answer()
        assert unique == self._unique
        if error:
            raise OSError(error, os.strerror(error))
        return told

    async def create(
        self, name: bytes, flags: int = CREATED, inode: int = protocol.ROOT
    ) -> tuple[tuple[Any, ...], int]:
        """Make a file: the fields of its entry, and its number as an open file."""
        fields = struct.pack("=IIII", flags, 0o666, 0o022, 0)
        told = await self(CREATE, fields + name + b"\0", inode)
        handle, _ = protocol.OPEN.unpack(told[protocol.ENTRY.size :])
        return protocol.ENTRY.unpack(told[: protocol.ENTRY.size]), handle

    async def write(self, inode: int, handle: int, data: bytes) -> None:
        """Write at the start of a file, and close it."""
        fields = struct.pack("=QQII16x", handle, 0, len(data), 0)
        assert protocol.SIZE.unpack(await self(WRITE, fields + data, inode)) == (len(data),)
        await self(FLUSH, struct.pack("=Q8xQ", handle, 1), inode)


@pytest.fixture(params=[True, False], ids=["own", "L"])
async def mounted(request: pytest.FixtureRequest, fs: FileSystem) -> FileSystem:
    """What is mounted: of a server of this project, and of another."""
    (await fs._session()).connection.plus = request.param
    return fs


async def asking(fs: FileSystem, uid: int) -> AsyncIterator[Asker]:
    kernel = Kernel()
    asked = await operations(fs, uid, 60.0)
    device = asked.device = Device(kernel.descriptor, 1 << 18, asked)
    serving = asyncio.create_task(device.serve())
    yield Asker(kernel, asked)
    device.end()
    await serving
    kernel.close()


@pytest.fixture
async def ask(mounted: FileSystem) -> AsyncIterator[Asker]:
    """A kernel that has mounted it for a user."""
    async for asker in asking(mounted, 1000):
        yield asker


@pytest.fixture
async def root_asks(mounted: FileSystem) -> AsyncIterator[Asker]:
    """One that has mounted it for root."""
    async for asker in asking(mounted, 0):
        yield asker


async def is_plus(fs: FileSystem) -> bool:
    return (await fs._session()).connection.plus


async def test_a_file_is_made_with_its_attributes(
    ask: Asker, mounted: FileSystem, cable: Cable
) -> None:
    before = cable.requests.copy()
    (ino, gen, *fields), handle = await ask.create(b"a")
    asked = cable.requests - before
    own = {Tcreateplus.TYPE: 1}
    other = {Twalk.TYPE: 1, Tlcreate.TYPE: 1, Tgetattr.TYPE: 2}
    assert asked == (own if await is_plus(mounted) else other)
    found = await mounted.stat("/a")
    assert (ino, gen) == (found.st_ino, found.st_gen)
    assert (found.st_mode & 0o7777, found.st_gid) == (0o644, GID)
    assert found.st_mode in fields
    await ask.write(ino, handle, b"data")
    assert await mounted.read_bytes("/a") == b"data"


async def test_attributes_of_the_directory_are_known_then(ask: Asker, cable: Cable) -> None:
    await ask.create(b"a")
    before = cable.requests.copy()
    told = await ask(GETATTR, bytes(16))
    assert cable.requests == before
    assert protocol.ATTR.unpack(told)[2] == protocol.ROOT


async def test_what_is_there_is_opened(ask: Asker, mounted: FileSystem) -> None:
    await mounted.write_bytes("/a", b"old data")
    (ino, *_), handle = await ask.create(b"a")
    await ask.write(ino, handle, b"new")
    assert await mounted.read_bytes("/a") == b"new data"
    (_, _, *fields), _ = await ask.create(b"a", CREATED | os.O_TRUNC)
    assert await mounted.read_bytes("/a") == b""
    assert 8 not in fields


async def test_what_is_refused_is_told_and_leaves_no_fid(
    ask: Asker, mounted: FileSystem, cable: Cable
) -> None:
    await ask.create(b"a", CREATED | os.O_EXCL)
    session = await mounted._session()
    fid = session.new_fid()
    session.free(fid)
    for _ in range(3):
        with pytest.raises(FileExistsError):
            await ask.create(b"a", CREATED | os.O_EXCL)
    await mounted.stat("/")  # what was posted has gone out
    assert session.new_fid() <= fid + 1


async def test_a_file_belongs_to_whom_root_has_made_it_for(
    root_asks: Asker, mounted: FileSystem, cable: Cable
) -> None:
    before = cable.requests.copy()
    (_, _, *fields), _ = await root_asks.create(b"a")
    assert (cable.requests - before)[Tsetattr.TYPE] == 1
    assert (await mounted.stat("/a")).st_uid == UID
    assert UID in fields


async def test_it_is_his_who_is_there_for_the_server_if_that_is_not_root(cable: Cable) -> None:
    async with FileSystem(cable.address, uname="nobody", uid=NONUNAME) as fs:
        async for asks in asking(fs, 0):
            (ino, *_), handle = await asks.create(b"a")
            await asks.write(ino, handle, b"data")
        assert (await fs.stat("/a")).st_uid == pwd.getpwnam("nobody").pw_uid
        assert await fs.read_bytes("/a") == b"data"


async def test_all_may_be_accessible_but_what_is_no_program(
    ask: Asker, mounted: FileSystem
) -> None:
    (ino, *_), _ = await ask.create(b"a")
    for mask in (os.F_OK, os.R_OK, os.W_OK, os.R_OK | os.W_OK):
        assert await ask(ACCESS, struct.pack("=I4x", mask), ino) == b""
    with pytest.raises(PermissionError):
        await ask(ACCESS, struct.pack("=I4x", os.X_OK), ino)
    assert await ask(ACCESS, struct.pack("=I4x", os.X_OK)) == b""


async def test_what_is_made_where_nothing_is_any_more_is_stale(ask: Asker) -> None:
    ino, *_ = protocol.ENTRY.unpack(await ask(MKDIR, struct.pack("=II", 0o755, 0) + b"d\0"))
    ask.operations._nodes[ino].name = None  # it goes while it is asked for
    with raises_errno(errno.ESTALE):
        await ask.create(b"a", inode=ino)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
async def test_a_lost_connection_is_made_again(
    ask: Asker, mounted: FileSystem, cable: Cable, before: bool
) -> None:
    cable.cut_at(Tcreateplus if await is_plus(mounted) else Tlcreate, before=before)
    (ino, *_), handle = await ask.create(b"a")
    assert cable.connections == 2
    await ask.write(ino, handle, b"data")
    assert await mounted.read_bytes("/a") == b"data"


async def test_whether_it_was_made_is_unknown_if_it_must_not_be_there(
    ask: Asker, mounted: FileSystem, cable: Cable
) -> None:
    cable.cut_at(Tcreateplus if await is_plus(mounted) else Tlcreate)
    with raises_errno(errno.EIO):
        await ask.create(b"a", CREATED | os.O_EXCL)
    assert await mounted.exists("/a")

"""What goes on when a connection is lost, and what can not."""

import asyncio
import errno
import os

import pytest

from client import filesystem
from client.errors import OutcomeUnknownError, UnreachableError
from client.filesystem import FileSystem
from server.wire.messages import (
    Tattach,
    Tgetattr,
    Tlopen,
    Tmkdir,
    Tread,
    Trenameat,
    Tunlinkat,
    Twalk,
    Twrite,
)
from tests.server.peer import raises_errno
from tests.tmpfs_core.paging import pattern

from .cable import Cable

DATA = pattern(5, 5 << 20)


async def lose(fs: FileSystem, cable: Cable) -> None:
    """Cut the connection, and wait until the client knows."""
    assert fs._current is not None
    cable.cut()
    await fs._current.connection._ended


@pytest.mark.parametrize("kind", [Twalk, Tgetattr])
@pytest.mark.parametrize("before", [False, True])
async def test_what_does_no_harm_is_done_again(
    fs: FileSystem, cable: Cable, kind: type, before: bool
) -> None:
    await fs.write_bytes("/f", b"123")
    cable.cut_at(kind, before=before)
    assert (await fs.stat("/f")).st_size == 3
    assert cable.connections == 2


async def test_a_connection_that_is_lost_while_nothing_happens_is_made_again(
    fs: FileSystem, cable: Cable
) -> None:
    await lose(fs, cable)
    await fs.mkdir("/d")
    assert await fs.listdir("/") == ["d"]


@pytest.mark.parametrize("before", [False, True])
async def test_what_can_not_be_repeated_says_that_its_outcome_is_unknown(
    fs: FileSystem, cable: Cable, before: bool
) -> None:
    cable.cut_at(Tmkdir, before=before)
    with pytest.raises(OutcomeUnknownError, match="unknown"):
        await fs.mkdir("/d")
    assert await fs.exists("/d") is not before

    await fs.makedirs("/a/b")
    cable.cut_at(Trenameat, before=before)
    with pytest.raises(OutcomeUnknownError):
        await fs.rename("/a/b", "/c")
    assert await fs.exists("/c") is not before

    cable.cut_at(Tunlinkat, before=before)
    with pytest.raises(OutcomeUnknownError):
        await fs.rmdir("/a")


async def test_what_had_not_begun_is_done(fs: FileSystem, cable: Cable) -> None:
    cable.cut_at(Twalk)
    await fs.mkdir("/d")
    assert await fs.exists("/d")


@pytest.mark.parametrize("before", [False, True])
async def test_open_files_carry_on(fs: FileSystem, cable: Cable, before: bool) -> None:
    async with await fs.open("/f", os.O_RDWR | os.O_CREAT | os.O_TRUNC) as file:
        cable.cut_at(Twrite, before=before)
        await file.pwrite(DATA, 0)
        cable.cut_at(Tread, before=before)
        assert await file.pread(len(DATA), 0) == DATA
        cable.cut_at(Tlopen, before=before)
        cable.cut()
        assert (await file.stat()).st_size == len(DATA)
        assert cable.requests[Tlopen.TYPE] <= 5


async def test_a_new_file_is_not_emptied_again(fs: FileSystem, cable: Cable) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_TRUNC
    async with await fs.open("/f", flags) as file:
        await file.pwrite(b"kept", 0)
        await lose(fs, cable)
        assert await file.pread(9, 0) == b"kept"


async def test_what_is_appended_is_not_appended_twice(fs: FileSystem, cable: Cable) -> None:
    async with await fs.open("/f", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
        cable.cut_at(Twrite)
        with pytest.raises(OutcomeUnknownError):
            await file.pwrite(b"once", 0)
        assert await fs.read_bytes("/f") == b"once"
        await file.pwrite(b" more", 0)
    assert await fs.read_bytes("/f") == b"once more"


async def test_a_file_that_was_renamed_here_carries_on(fs: FileSystem, cable: Cable) -> None:
    await fs.makedirs("/a/b")
    async with await fs.open("a//b/f", os.O_RDWR | os.O_CREAT) as file:
        await fs.rename("/a", "/c")
        await fs.rename("/c/b/f", "/g")
        await lose(fs, cable)
        await file.pwrite(b"x", 0)
    assert await fs.read_bytes("/g") == b"x"


async def test_a_file_that_was_unlinked_is_stale(fs: FileSystem, cable: Cable) -> None:
    async with await fs.open("/f", os.O_RDWR | os.O_CREAT) as file:
        await fs.unlink("/f")
        await file.pwrite(b"x", 0)
        await lose(fs, cable)
        with raises_errno(errno.ESTALE):
            await file.pread(1, 0)
        with pytest.raises(OSError, match=r"gone from its path.*'/f'"):
            await file.pread(1, 0)


async def test_another_file_in_its_place_is_not_taken_for_it(fs: FileSystem, cable: Cable) -> None:
    async with await fs.open("/f", os.O_RDWR | os.O_CREAT) as file:
        await fs.rename("/f", "/g")
        file.path = b"/f"  # as if another client had renamed it
        await fs.write_bytes("/f", b"other")
        await lose(fs, cable)
        with raises_errno(errno.ESTALE):
            await file.pwrite(b"x", 0)
    assert await fs.read_bytes("/f") == b"other"


async def test_a_file_whose_locks_were_lost_is_refused(fs: FileSystem, cable: Cable) -> None:
    flags = os.O_RDWR | os.O_CREAT
    async with await fs.open("/f", flags) as locked, await fs.open("/g", flags) as unlocked:
        await locked.lock(0, 10)
        await unlocked.lock(5, 5)
        await unlocked.unlock(0, 10)
        await lose(fs, cable)
        with raises_errno(errno.EIO):
            await locked.pread(1, 0)
        with pytest.raises(OSError, match="locks were lost"):
            await locked.unlock()
        await unlocked.pwrite(b"x", 0)


async def test_a_server_that_is_away_is_waited_for(fs: FileSystem, cable: Cable) -> None:
    await fs.write_bytes("/f", b"x")
    await cable.unplug()
    reading = asyncio.create_task(fs.read_bytes("/f"))
    writing = asyncio.create_task(fs.write_bytes("/g", b"y"))
    await asyncio.sleep(0)
    await cable.plug()
    assert await reading == b"x"
    await writing
    assert cable.connections == 2


async def test_a_server_that_stays_away_is_given_up(
    fs: FileSystem, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fs, "_patience", 0.05)
    await cable.unplug()
    with pytest.raises(UnreachableError):
        await fs.stat("/")


async def test_a_server_that_is_never_there_is_not_waited_for(cable: Cable) -> None:
    with pytest.raises(UnreachableError):
        async with FileSystem(cable.address + "-none", patience=3600):
            raise AssertionError


async def test_what_ends_every_connection_is_given_up(
    fs: FileSystem, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "PAUSE", 0.0)

    async def fatal(session: object) -> None:
        cable.cut()
        raise ConnectionResetError("again")

    with pytest.raises(ConnectionResetError):
        await fs.do(b"/", fatal)
    assert cable.connections <= filesystem.TRIES


async def test_a_connection_that_is_lost_while_it_is_made_is_made_again(
    fs: FileSystem, cable: Cable
) -> None:
    await lose(fs, cable)
    cable.cut_at(Tattach)
    assert await fs.listdir("/") == []
    assert cable.connections == 3

"""connection: what goes out when."""

import asyncio
import errno
import os
from typing import Any

import pytest

from client import connection
from client.filesystem import FileSystem
from server import dialects
from server.address import Unix
from server.wire.constants import VERSION, VERSION_OWN, VERSION_PLAIN
from server.wire.messages import Rwrite, Tclunk, Tlock, Twrite
from tests.server.peer import raises_errno

from .cable import Cable


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody waits for stays for longer than any test."""
    monkeypatch.setattr(connection, "MOMENT", 3600.0)


@pytest.mark.usefixtures("moment")
async def test_what_nobody_waits_for_goes_out_with_the_next_request(
    fs: FileSystem, cable: Cable
) -> None:
    file = await fs.open("/file", os.O_CREAT | os.O_RDWR)
    await fs.stat("/file")
    before = cable.requests[Tclunk.TYPE]
    await file.close()
    assert cable.requests[Tclunk.TYPE] == before
    await fs.statvfs()
    assert cable.requests[Tclunk.TYPE] > before


@pytest.mark.usefixtures("moment")
async def test_who_waits_for_a_lock_need_not_wait_for_the_next_request(
    fs: FileSystem, cable: Cable
) -> None:
    file = await fs.open("/file", os.O_CREAT | os.O_RDWR)
    async with FileSystem(cable.address) as other, await other.open("/file", os.O_RDWR) as waiting:
        assert await file.lock()
        assert not await waiting.lock(wait=False)
        await file.close()
        assert await waiting.lock()
    assert cable.requests[Tlock.TYPE] >= 3


async def test_what_nobody_waits_for_goes_out_by_itself(fs: FileSystem, cable: Cable) -> None:
    file = await fs.open("/file", os.O_CREAT | os.O_RDWR)
    await fs.stat("/file")
    before = cable.requests[Tclunk.TYPE]
    await file.close()
    await cable.reached(Tclunk, before + 1)


@pytest.mark.parametrize("refuses", [False, True], ids=["knows less", "refuses what it knows not"])
async def test_a_server_that_is_another_is_spoken_to_in_9p2000_l(
    server: Unix, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    async with FileSystem(f"unix://{server.path}") as fs:
        assert (await fs._session()).connection.plus
    monkeypatch.delitem(dialects._DIALECTS, VERSION_OWN)
    if refuses:
        monkeypatch.delitem(dialects._DIALECTS, VERSION_PLAIN)
    async with FileSystem(f"unix://{server.path}") as fs:
        assert not (await fs._session()).connection.plus
        await fs.write_bytes("/file", b"data")
        assert await fs.listdir("/") == ["file"]


async def test_a_server_that_does_not_speak_9p2000_l_is_refused(
    server: Unix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(dialects._DIALECTS, VERSION_OWN)
    monkeypatch.delitem(dialects._DIALECTS, VERSION)
    with raises_errno(errno.EPROTONOSUPPORT):
        await FileSystem(f"unix://{server.path}").__aenter__()


async def test_what_waits_for_the_transport_goes_out_in_the_order_in_which_it_came(
    fs: FileSystem,
) -> None:
    file = await fs.open("/file", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    assert fs._current is not None
    there = fs._current.connection
    there.pause_writing()
    writes = [asyncio.ensure_future(file.pwrite(data, 0)) for data in (b"1", b"2", b"3")]
    await asyncio.sleep(0)
    writes += [asyncio.ensure_future(file.pwrite(b"4", 0))]
    there.resume_writing()
    assert await asyncio.gather(*writes) == [1, 1, 1, 1]
    assert await file.pread(9, 0) == b"1234"
    await file.close()


async def test_who_begins_a_request_is_told_of_its_reply(fs: FileSystem) -> None:
    file = await fs.open("/file", os.O_CREAT | os.O_RDWR)
    told: asyncio.Queue[Any] = asyncio.Queue()
    assert file.begin_write(memoryview(b"data"), 0, told.put_nowait)
    assert await told.get() == Rwrite(4)
    assert await fs.read_bytes("/file") == b"data"
    reading = await fs.open("/file", os.O_RDONLY)
    assert reading.begin_write(memoryview(b"data"), 0, told.put_nowait)
    assert (await told.get()).errno == errno.EBADF


async def test_what_would_have_to_wait_is_not_begun(fs: FileSystem) -> None:
    file = await fs.open("/file", os.O_CREAT | os.O_RDWR)
    appending = await fs.open("/file", os.O_RDWR | os.O_APPEND)
    there = (await fs._session()).connection
    data = memoryview(b"data")
    told: list[Any] = []
    there.pause_writing()
    assert not file.begin_write(data, 0, told.append)
    waiting = asyncio.ensure_future(file.pwrite(b"before", 0))
    await asyncio.sleep(0)
    there.resume_writing()
    assert not file.begin_write(data, 0, told.append)
    await waiting
    assert not appending.begin_write(data, 0, told.append)
    assert not file.begin_write(memoryview(bytes(fs.data_max + 1)), 0, told.append)
    await file.close()
    assert not file.begin_write(data, 0, told.append)
    assert not told


async def test_who_has_begun_a_request_is_told_of_the_end_of_the_connection(
    fs: FileSystem, cable: Cable
) -> None:
    file = await fs.open("/file", os.O_CREAT | os.O_RDWR)
    told: asyncio.Queue[Any] = asyncio.Queue()
    cable.cut_at(Twrite)
    assert file.begin_write(memoryview(b"data"), 0, told.put_nowait)
    assert isinstance(await told.get(), ConnectionError)
    assert not file.begin_write(memoryview(b"data"), 0, told.put_nowait)
    assert await file.pwrite(b"data", 0) == 4

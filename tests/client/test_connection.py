"""connection: what goes out when."""

import os

import pytest

from client import connection
from client.filesystem import FileSystem
from server.wire.messages import Tclunk, Tlock

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

"""A clock that steps back under a running server."""

import time

import pytest

from server.wire import constants as c
from server.wire import messages as m
from tests.server.peer import SocketPeer
from tests.server.spilling import DATA, MSIZE, STATFS, Spilling, swapped, until
from tests.server.test_handlers_locks import tlock

HOUR = 3600


@pytest.fixture
async def peer(world: Spilling) -> SocketPeer:
    return await world.begin()


def step_back(patch: pytest.MonkeyPatch, seconds: int) -> None:
    """From now on, the clock says that it is so many seconds ago."""
    of_time, of_ns = time.time, time.time_ns

    def now() -> int:
        return of_ns() - seconds * 10**9

    patch.setattr(time, "time", lambda: of_time() - seconds)
    patch.setattr(time, "time_ns", now)
    for module in ("node", "vnops", "xattr"):
        patch.setattr(f"tmpfs_core.{module}.now", now)


async def test_times_of_files_follow_the_clock_and_changes_are_told_all_the_same(
    world: Spilling, peer: SocketPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await peer.create(b"file", b"before")
    before = await peer.call(m.Tgetattr(file, c.GETATTR_ALL))
    step_back(monkeypatch, HOUR)
    await peer.call(m.Twrite(file, 0, b"after!"))
    after = await peer.call(m.Tgetattr(file, c.GETATTR_ALL))
    assert after.mtime_sec < before.mtime_sec - HOUR // 2
    assert after.qid.version > before.qid.version
    assert (after.btime_sec, after.atime_sec) == (before.btime_sec, before.atime_sec)
    assert (await peer.call(m.Tread(file, 0, MSIZE))).data == b"after!"
    read = await peer.call(m.Tgetattr(file, c.GETATTR_ALL))
    assert read.qid.version == after.qid.version


async def test_who_is_connected_stays_and_who_waits_gets_his_lock(
    world: Spilling, peer: SocketPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await world.begin()
    held = await peer.create(b"lock")
    await peer.call(tlock(held))
    lock = await other.open(b"lock")
    other.send(tlock(lock, proc=2, flags=c.LOCK_FLAGS_BLOCK), 7)
    half = m.Twrite(lock, 0, DATA).frame(1)
    third = await world.begin()
    third.feed(half[:1000])
    for seconds in (HOUR, -HOUR, 24 * HOUR):
        step_back(monkeypatch, seconds)
        for _ in range(20):
            await peer.call(STATFS)
    await peer.call(tlock(held, c.LOCK_TYPE_UNLCK))
    tag, reply = await other.reply()
    assert (tag, reply) == (7, m.Rlock(c.LOCK_SUCCESS))
    assert len(world.server._connections) == 3
    third.abort()
    await until(lambda: len(world.server._connections) == 2, peer)


async def test_what_is_in_swap_comes_back(
    world: Spilling, peer: SocketPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fid = await swapped(world, peer)
    step_back(monkeypatch, HOUR)
    assert (await peer.call(m.Tread(fid, 0, MSIZE))).data == DATA
    world.spill.page_out_all()
    step_back(monkeypatch, 24 * HOUR)
    assert (await peer.call(m.Tread(fid, 0, MSIZE))).data == DATA

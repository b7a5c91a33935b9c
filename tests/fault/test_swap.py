"""Swap that breaks under a running server: what was lost is told, and only that is lost."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.encryption import Xts
from server.pager import Pager
from server.wire import constants as c
from server.wire import messages as m
from tests.server.peer import ROOT, SocketPeer, raises_errno
from tests.server.spilling import Spilling, spilling
from tests.tmpfs_core.paging import pattern
from tmpfs_core.frames import BLOCK, FRAME

BLOCKS = 6
DATA = pattern(1, BLOCKS * BLOCK)


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Spilling]:
    """A server with 2 MiB of RAM and 8 MiB of swap."""
    async with spilling(tmp_path, 512, 2048) as world:
        if request.param:
            world.spill.swap.files[0].cipher = Xts()
        yield world
        world.spill.check()


@pytest.fixture
async def peer(world: Spilling) -> SocketPeer:
    return await world.begin()


@pytest.fixture
async def fid(world: Spilling, peer: SocketPeer) -> int:
    """An open file that holds DATA, all of it in swap."""
    fid = await peer.create(b"file")
    for place in range(0, len(DATA), BLOCK):
        await peer.call(m.Twrite(fid, place, DATA[place : place + BLOCK]))
    world.spill.page_out_all()
    return fid


def broken(*_: object) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def fill(peer: SocketPeer, fid: int) -> int:
    """Write blocks, each of another pattern, until there is no space; how many bytes fitted."""
    stored = 0
    try:
        while stored < 1 << 30:
            stored += (await peer.call(m.Twrite(fid, stored, pattern(stored, BLOCK)))).count
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017 it must end so
    return stored


async def readable(peer: SocketPeer, fid: int) -> set[int]:
    """The blocks of DATA that can be read; each that can not is EIO."""
    good = set()
    for block in range(BLOCKS):
        expected = DATA[block * BLOCK :][:BLOCK]
        try:
            data = (await peer.call(m.Tread(fid, block * BLOCK, BLOCK))).data
        except OSError as error:
            assert error.errno == errno.EIO  # noqa: PT017 any number of them may come
        else:
            assert data == expected
            good.add(block)
    return good


# Bytes that are gone


@pytest.mark.parametrize(
    ("kept", "lost"),
    [
        (BLOCKS * BLOCK - 1, {5}),
        (BLOCKS * BLOCK - FRAME, {5}),
        (3 * BLOCK + 1, {3, 4, 5}),
        (3 * BLOCK, {3, 4, 5}),
        (0, {0, 1, 2, 3, 4, 5}),
    ],
)
async def test_a_swap_file_that_is_truncated_loses_just_what_was_cut_off(
    world: Spilling, peer: SocketPeer, fid: int, kept: int, lost: set[int]
) -> None:
    file = world.spill.swap.files[0]
    os.ftruncate(file.fd, kept)
    good = set(range(BLOCKS)) - lost
    for _ in range(2):
        assert await readable(peer, fid) == good
    lines = [line["at"] for line in world.errors()]
    assert len(lines) == len(lost)
    assert set(lines) == {
        f"{file.path} at {block * BLOCK}: the swap file was truncated" for block in lost
    }
    assert {line["event"] for line in world.errors()} == {"page-in failed, a block is lost"}
    assert world.memory.counters.lost == len(lost)


async def test_a_disk_with_a_bad_spot_loses_just_that(
    world: Spilling, peer: SocketPeer, fid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spot = 2 * BLOCK + 5 * FRAME
    preadv = os.preadv

    def bad(fd: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        if offset <= spot < offset + sum(map(len, views)):
            return broken()
        return preadv(fd, views, offset, flags)

    monkeypatch.setattr(os, "preadv", bad)
    assert len((await peer.call(m.Tread(fid, 0, BLOCKS * BLOCK))).data) == 2 * BLOCK
    assert await readable(peer, fid) == {0, 1, 3, 4, 5}
    path = world.spill.swap.files[0].path
    assert [line["at"] for line in world.errors()] == [f"{path} at {2 * BLOCK}: Input/output error"]


async def test_a_lost_block_is_told_to_all_and_can_be_written_anew(
    world: Spilling, peer: SocketPeer, fid: int
) -> None:
    os.ftruncate(world.spill.swap.files[0].fd, 5 * BLOCK)
    other = await world.begin()
    same = await other.open(b"file")
    for who, its in ((peer, fid), (other, same)):
        with raises_errno(errno.EIO):
            await who.call(m.Tread(its, 5 * BLOCK + 100, 1))
        with raises_errno(errno.EIO):
            await who.call(m.Twrite(its, 5 * BLOCK + 100, b"part"))
    assert (await other.call(m.Twrite(same, 5 * BLOCK, DATA[5 * BLOCK :]))).count == BLOCK
    assert await readable(peer, fid) == set(range(BLOCKS))
    assert len(world.errors()) == 1


async def test_a_file_with_a_lost_block_can_be_truncated_and_deleted(
    world: Spilling, peer: SocketPeer, fid: int
) -> None:
    os.ftruncate(world.spill.swap.files[0].fd, 4 * BLOCK)
    assert await readable(peer, fid) == {0, 1, 2, 3}
    size = m.Tsetattr(fid, c.SETATTR_SIZE, 0, 0, 0, 4 * BLOCK, 0, 0, 0, 0)
    await peer.call(size)
    assert await peer.size(fid) == 4 * BLOCK
    assert (await peer.call(m.Tread(fid, 3 * BLOCK, MANY))).data == DATA[3 * BLOCK : 4 * BLOCK]
    await peer.call(m.Tunlinkat(ROOT, b"file", 0))
    await peer.call(m.Tclunk(fid))
    numbers = await peer.call(m.Tstatfs(ROOT))
    assert numbers.bfree == numbers.blocks
    world.spill.nothing_is_left()


MANY = 16 * BLOCK


async def test_a_truncation_within_a_lost_block_keeps_the_rest_lost(
    world: Spilling, peer: SocketPeer, fid: int
) -> None:
    os.ftruncate(world.spill.swap.files[0].fd, 5 * BLOCK)
    await peer.call(m.Tsetattr(fid, c.SETATTR_SIZE, 0, 0, 0, 5 * BLOCK + 9, 0, 0, 0, 0))
    assert await peer.size(fid) == 5 * BLOCK + 9
    with raises_errno(errno.EIO):
        await peer.call(m.Tread(fid, 5 * BLOCK, 1))
    assert (await peer.call(m.Tread(fid, 4 * BLOCK, BLOCK))).data == DATA[4 * BLOCK : 5 * BLOCK]


# Bytes that do not get there


async def test_a_disk_that_takes_nothing_loses_nothing(
    world: Spilling, peer: SocketPeer, fid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", broken)
        more = await peer.create(b"more")
        stored = await fill(peer, more)
        assert await readable(peer, fid) == set(range(BLOCKS))  # it is only clean pages that go
        assert await readable(peer, fid) == set(range(BLOCKS))
        other = await world.begin()
        assert (await other.call(m.Tstatfs(ROOT))).bsize == FRAME
        if world.pager._cleaning is not None:  # it may have begun before
            await asyncio.wait([world.pager._cleaning])
    assert {line["event"] for line in world.errors()} == {"page-out failed"}
    path = world.spill.swap.files[0].path
    assert {(line["file"], line["why"]) for line in world.errors()} == {
        (path, "Input/output error")
    }
    world.memory.retry()  # as it is after a while
    for place in range(stored, stored + 8 * BLOCK, BLOCK):
        assert (await peer.call(m.Twrite(more, place, DATA[:BLOCK]))).count == BLOCK
    assert await readable(peer, fid) == set(range(BLOCKS))


async def test_a_request_that_never_gets_what_it_needs_is_refused_in_the_end(
    world: Spilling, fid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def provide(*_: object) -> None:
        """Others have taken it away again."""

    with monkeypatch.context() as patch:
        patch.setattr(Pager, "provide", provide)
        patch.setattr(Pager, "provide_now", lambda *_: False)
        unlucky = await world.begin()
        same = await unlucky.open(b"file")
        with raises_errno(errno.ENOMEM):
            await unlucky.call(m.Tread(same, 0, BLOCK))
        assert (await unlucky.call(m.Tstatfs(ROOT))).bsize == FRAME
    other = await world.begin()
    assert await readable(other, await other.open(b"file")) == set(range(BLOCKS))


async def test_a_disk_that_takes_a_part_of_each_write_is_as_good_as_any(
    world: Spilling, peer: SocketPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwritev, preadv = os.pwritev, os.preadv
    monkeypatch.setattr(os, "pwritev", lambda fd, v, at: pwritev(fd, [v[0][:5000]], at))
    monkeypatch.setattr(os, "preadv", lambda fd, v, at, *_: preadv(fd, [v[0][:3000]], at))
    fid = await peer.create(b"file")
    for _ in range(2):
        for place in range(0, len(DATA), BLOCK):
            await peer.call(m.Twrite(fid, place, DATA[place : place + BLOCK]))
        for place in range(0, 30 * BLOCK, BLOCK):
            await peer.call(m.Twrite(fid, 100 * BLOCK + place, DATA[:BLOCK]))
    assert await readable(peer, fid) == set(range(BLOCKS))
    assert not world.errors()


async def test_a_full_disk_is_a_smaller_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file can not grow beyond its first step."""
    monkeypatch.setattr("tmpfs_core.swap.STEP", 256)
    async with spilling(tmp_path, 512, 2048) as world:

        def no_space(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        peer = await world.begin()
        fid = await peer.create(b"file")
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", no_space)
            stored = await fill(peer, fid)
            assert stored == (512 + 256 - world.memory.reserve) * FRAME
            for place in range(0, stored, BLOCK):
                data = (await peer.call(m.Tread(fid, place, BLOCK))).data
                assert data == pattern(place, BLOCK)
        await peer.call(m.Tsetattr(fid, c.SETATTR_SIZE, 0, 0, 0, BLOCK, 0, 0, 0, 0))
        for place in range(BLOCK, 2 * stored, BLOCK):
            assert (await peer.call(m.Twrite(fid, place, pattern(place, BLOCK)))).count == BLOCK
        for place in range(0, 2 * stored, BLOCK):
            data = (await peer.call(m.Tread(fid, place, BLOCK))).data
            assert data == pattern(place, BLOCK)
        assert not world.errors()

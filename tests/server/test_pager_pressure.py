"""pager: writing more than there is RAM, and page-out that fails."""

import asyncio
import errno
import gc
import os
from pathlib import Path

import pytest

from server import pager as pager_module
from server.wire import messages as m
from tests.tmpfs_core.paging import pattern
from tmpfs_core import swap as swap_module
from tmpfs_core.frames import BLOCK, FRAME

from .peer import ROOT, raises_errno
from .spilling import (
    DATA,
    MANY,
    STATFS,
    Gate,
    Spilling,
    fill,
    holds,
    pump,
    replies,
    spilling,
    swapped,
    truncation,
    until,
)

# Writing more than there is RAM


async def test_several_clients_write_and_read_far_more_than_ram_holds(small: Spilling) -> None:
    peers = [await small.begin() for _ in range(4)]
    fids = [await peer.create(b"%d" % i) for i, peer in enumerate(peers)]
    everyone = list(enumerate(zip(peers, fids, strict=True)))
    await asyncio.gather(*(fill(peer, fid, i, 14) for i, (peer, fid) in everyone))
    assert small.memory.swapped > 2 * 256
    found = await asyncio.gather(*(holds(peer, fid, i, 14) for i, (peer, fid) in everyone))
    assert found == [True] * 4
    assert not small.errors()


async def test_a_write_waits_for_ram_while_others_are_served(small: Spilling, writes: Gate) -> None:
    peer, other = await small.begin(), await small.begin()
    fid = await peer.create(b"file")
    data = pattern(1, 12 * BLOCK)
    for tag in range(12):
        peer.send(m.Twrite(fid, tag * BLOCK, data[tag * BLOCK : (tag + 1) * BLOCK]), tag)
    await writes.reached()
    for _ in range(3):
        await other.call(STATFS)
    assert small.memory.writable < 16
    assert small.memory.counters.reclaim_stalls > 0
    stored = await other.size(await other.open(b"file"))
    assert stored < len(data)
    writes.open()
    answered = await replies(peer, 12)
    assert answered == {tag: m.Rwrite(BLOCK) for tag in range(12)}
    assert await holds(peer, fid, 1, 12)


async def test_a_large_write_waits_while_its_fid_becomes_an_attribute(
    small: Spilling, writes: Gate
) -> None:
    peer = await small.begin()
    fid = await peer.create(b"file")
    for place in range(0, 6 * BLOCK, BLOCK):
        await peer.call(m.Twrite(fid, place, pattern(1, BLOCK)))
    peer.send(m.Twrite(fid, 6 * BLOCK, pattern(1, 8 * BLOCK)), 20)
    await writes.reached()
    await peer.call(m.Tclunk(fid), 21)
    await peer.call(m.Twalk(ROOT, fid, []), 21)
    await peer.call(m.Txattrcreate(fid, b"user.a", BLOCK, 0), 21)
    writes.open()
    assert await peer.reply() == (20, m.Rlerror(errno.EBADF))
    assert not small.errors()


async def test_page_out_works_ahead_of_the_writers(small: Spilling) -> None:
    peer = await small.begin()
    fid = await peer.create(b"file")
    for place in range(8):
        await peer.call(m.Twrite(fid, place * BLOCK, pattern(place, BLOCK)))
    await until(lambda: small.memory.ram.free >= small.memory.high, peer)
    assert small.memory.counters.reclaim_stalls == 0
    assert small.memory.counters.paged_out > 0


async def test_swap_grows_while_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap_module, "STEP", 64)
    async with spilling(tmp_path, 256, 700, 300) as world:
        assert world.spill.swap.ungrown > 600
        peer = await world.begin()
        fid = await peer.create(b"file")
        await fill(peer, fid, 1, 40)
        assert world.spill.swap.used > 256
        assert await holds(peer, fid, 1, 40)
        await peer.call(truncation(fid, 0))
        assert world.spill.swap.ungrown > 600


async def test_when_all_is_full_writes_are_refused_and_reads_go_on(tmp_path: Path) -> None:
    async with spilling(tmp_path, 256, 256) as world:
        peer = await world.begin()
        fid = await peer.create(b"file")
        with raises_errno(errno.ENOSPC):
            await fill(peer, fid, 1, 64)
        size = await peer.size(fid)
        assert size >= (256 + 256 - world.memory.reserve - 16) * FRAME
        for _ in range(2):
            place = 0
            while place < size:
                data = (await peer.call(m.Tread(fid, place, BLOCK))).data
                place += len(data)
                assert data
            with raises_errno(errno.ENOSPC):
                await peer.call(m.Twrite(fid, size, b"x" * FRAME))
        await peer.call(truncation(fid, 0))
        await fill(peer, fid, 2, 20)
        assert await holds(peer, fid, 2, 20)
        assert not world.errors()


# Failing


async def test_a_page_out_that_fails_is_told_and_tried_again(
    small: Spilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pager_module, "RETRY", 0.0)
    left = [3]
    pwritev = os.pwritev

    def broken(fd: int, views: list[memoryview], offset: int) -> int:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pwritev(fd, views, offset)

    monkeypatch.setattr(os, "pwritev", broken)
    peer = await small.begin()
    fid = await peer.create(b"file")
    place = 0
    while place < 20 * BLOCK:
        try:
            data = pattern(1, 20 * BLOCK)[place : place + BLOCK]
            place += (await peer.call(m.Twrite(fid, place, data))).count
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 it may come, and then goes
    assert await holds(peer, fid, 1, 20)
    path = small.spill.swap.files[0].path
    line = {"event": "page-out failed", "file": path, "why": "Input/output error"}
    assert small.errors() == [{**line, "log_level": "error"}] * 3


async def test_while_page_out_fails_writes_are_refused_when_ram_is_full(
    small: Spilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    peer = await small.begin()
    fid = await peer.create(b"file")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", broken)
        with raises_errno(errno.ENOSPC):
            await fill(peer, fid, 1, 9)
        size = await peer.size(fid)
        assert size >= (256 - small.memory.reserve) * FRAME
        assert (await peer.call(m.Tread(fid, 0, MANY))).data == pattern(1, 9 * BLOCK)[: 4 * BLOCK]
    small.memory.retry()  # as it is after a while
    assert (await peer.call(m.Twrite(fid, size, b"more"))).count == 4


async def test_a_failed_page_out_is_tried_again_after_a_while(
    small: Spilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    later: list[tuple[float, object]] = []
    monkeypatch.setattr(os, "pwritev", broken)
    pager = small.pager
    loop = pager._loop

    class Loop:
        """The loop, but time does not pass."""

        def __getattr__(self, name: str) -> object:
            return getattr(loop, name)

        def call_later(self, delay: float, callback: object) -> None:
            later.append((delay, callback))

    monkeypatch.setattr(pager, "_loop", Loop())
    peer = await small.begin()
    with raises_errno(errno.ENOSPC):
        await fill(peer, await peer.create(b"file"), 1, 9)
    assert later == [(pager_module.RETRY, small.memory.retry)]
    assert small.memory.stuck
    assert [line["event"] for line in small.errors()] == ["page-out failed"]


async def test_what_nobody_foresaw_in_page_out_is_told_and_ends_nothing(
    small: Spilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(pager_module, "Laundry", broken)
    peer = await small.begin()
    with raises_errno(errno.ENOSPC):
        await fill(peer, await peer.create(b"file"), 1, 9)
    assert [line["event"] for line in small.errors()] == ["page-out failed unexpectedly"]
    await peer.call(STATFS)


async def test_without_ram_to_read_into_a_read_is_enomem(small: Spilling) -> None:
    peer = await small.begin()
    fid = await swapped(small, peer)
    taken = small.memory.ram.free
    small.memory.ram.take(taken)
    for tag in (1, 2):
        with raises_errno(errno.ENOMEM):
            await peer.call(m.Tread(fid, 5, 10), tag)
    small.memory.ram.give(taken)
    assert (await peer.call(m.Tread(fid, 5, 10))).data == DATA[5:15]
    assert not small.errors()


async def test_a_read_that_fails_after_its_reader_left_disturbs_nobody(small: Spilling) -> None:
    peer = await small.begin()
    fid = await swapped(small, peer)
    taken = small.memory.ram.free
    small.memory.ram.take(taken)
    peer.feed(m.Tread(fid, 5, 10).frame(1) + m.Tflush(1).frame(2))
    assert await peer.reply() == (2, m.Rflush())
    await pump()
    small.memory.ram.give(taken)
    await pump()
    gc.collect()  # a failure that nobody has seen would be told now

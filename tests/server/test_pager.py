"""pager: requests that wait for swap while all others go on."""

import asyncio
import errno
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server import pager as pager_module
from server import session as session_module
from server.wire import constants as c
from server.wire import messages as m
from tests.tmpfs_core.paging import Spill, pattern, places_of
from tmpfs_core import pageout
from tmpfs_core import swap as swap_module
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.swap import Transfer, read_in, write_out
from tmpfs_core.vnode import NotResident

from .peer import GUARD, ROOT, SocketPeer, raises_errno
from .spilling import Gate, Spilling, pump, spilling

STATFS = m.Tstatfs(ROOT)
DATA = pattern(1, 4 * BLOCK)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Spilling]:
    """A server with plenty of RAM and swap: only what a test pages out is in swap."""
    async with spilling(tmp_path, 8192, 2048) as world:
        yield world


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Spilling]:
    """A server with 1 MiB of RAM and 4 MiB of swap."""
    async with spilling(tmp_path, 256, 1024) as world:
        yield world


@pytest.fixture
async def reads(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """Holds all reading from swap until it is opened."""
    gate = Gate(read_in)
    monkeypatch.setattr(pageout, "read_in", gate)
    monkeypatch.setattr(pageout, "read_now", lambda _: False, raising=False)
    yield gate
    gate.open()


@pytest.fixture
async def writes(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """Holds all writing to swap until it is opened."""
    gate = Gate(write_out)
    monkeypatch.setattr(pageout, "write_out", gate)
    yield gate
    gate.open()


async def swapped(world: Spilling, peer: SocketPeer, name: bytes = b"file") -> int:
    """An open fid of a new file that holds DATA, all of it in swap."""
    fid = await peer.create(name)
    for place in range(0, len(DATA), BLOCK):
        await peer.call(m.Twrite(fid, place, DATA[place : place + BLOCK]))
    world.spill.page_out_all()
    assert len(world.file(name).uobj.swapped) == 4
    return fid


async def replies(peer: SocketPeer, count: int) -> dict[int, object]:
    """The next replies by their tags; dicts keep the order in which they came."""
    return dict([await peer.reply() for _ in range(count)])


# Reading from swap


async def test_what_is_in_swap_is_read(world: Spilling) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    assert (await peer.call(m.Tread(fid, 0, MANY))).data == DATA
    assert (await peer.call(m.Tread(fid, 3 * BLOCK + 5, 10))).data == DATA[3 * BLOCK + 5 :][:10]
    world.spill.check()


MANY = 10 * BLOCK


async def test_others_are_served_while_a_read_waits_for_swap(world: Spilling, reads: Gate) -> None:
    peer, other = await world.begin(), await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Tread(fid, 0, 100), 7)
    await reads.reached()
    for _ in range(3):
        await peer.call(STATFS)
        await other.call(STATFS)
    there = await other.create(b"other", b"in RAM")
    assert (await other.call(m.Tread(there, 0, 10))).data == b"in RAM"
    reads.open()
    assert await peer.reply() == (7, m.Rread(DATA[:100]))


async def test_two_requests_for_a_block_wait_for_one_read(world: Spilling, reads: Gate) -> None:
    peer, other = await world.begin(), await world.begin()
    fid = await swapped(world, peer)
    same = await other.open(b"file")
    peer.send(m.Tread(fid, 5, 100), 1)
    peer.send(m.Tread(fid, 2000, 100), 2)
    other.send(m.Tread(same, 5, 100), 3)
    await reads.reached()
    await pump()
    await peer.call(STATFS, 9)
    reads.open()
    assert await replies(peer, 2) == {1: m.Rread(DATA[5:105]), 2: m.Rread(DATA[2000:2100])}
    assert await other.reply() == (3, m.Rread(DATA[5:105]))
    blocks = [sum(map(len, transfer.views)) for transfer in reads.calls]
    assert blocks.count(BLOCK) == 1  # the rest is read ahead
    assert world.memory.counters.paged_in == sum(blocks) // BLOCK


async def test_blocks_of_several_requests_are_read_side_by_side(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    for tag, block in ((1, 3), (2, 1), (3, 2)):
        peer.send(m.Tread(fid, block * BLOCK + 1, 10), tag)
    await reads.reached(3)
    reads.open()
    assert set(await replies(peer, 3)) == {1, 2, 3}


async def test_a_large_read_over_blocks_some_of_which_are_in_ram(world: Spilling) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    await peer.call(m.Tread(fid, 2 * BLOCK + 7, 10))
    assert (await peer.call(m.Tread(fid, 1, MANY))).data == DATA[1:]
    assert world.memory.counters.paged_in == 4


async def test_a_write_to_a_part_of_a_block_in_swap_waits_for_the_rest(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Twrite(fid, BLOCK + 5, b"new"), 1)
    await reads.reached()
    await peer.call(STATFS, 9)
    reads.open()
    assert await peer.reply() == (1, m.Rwrite(3))
    expected = DATA[: BLOCK + 5] + b"new" + DATA[BLOCK + 8 :]
    assert (await peer.call(m.Tread(fid, 0, MANY))).data == expected


async def test_a_truncation_within_a_frame_in_swap_waits_for_it(
    world: Spilling, reads: Gate
) -> None:
    peer, other = await world.begin(), await world.begin()
    fid = await swapped(world, peer)
    same = await other.open(b"file")
    peer.send(truncation(fid, BLOCK + 5), 1)
    await reads.reached()
    assert await other.size(same) == 4 * BLOCK
    reads.open()
    assert await peer.reply() == (1, m.Rsetattr())
    await peer.call(truncation(fid, 2 * BLOCK))
    assert (await peer.call(m.Tread(fid, BLOCK, MANY))).data == DATA[BLOCK:][:5] + bytes(BLOCK - 5)


def truncation(fid: int, size: int) -> m.Tsetattr:
    return m.Tsetattr(fid, c.SETATTR_SIZE, 0, 0, 0, size, 0, 0, 0, 0)


async def test_data_that_waits_to_be_written_is_not_that_of_a_later_request(
    world: Spilling, reads: Gate
) -> None:
    """The buffer in which it came is used again meanwhile."""
    peer = await world.begin()
    fid = await swapped(world, peer)
    scratch = await peer.create(b"scratch")
    peer.send(m.Twrite(fid, 1, b"kept" * 100), 1)
    await reads.reached()
    for _ in range(3):
        await peer.call(m.Twrite(scratch, 0, b"late" * 5000), 2)
    reads.open()
    assert await peer.reply() == (1, m.Rwrite(400))
    assert (await peer.call(m.Tread(fid, 1, 400))).data == b"kept" * 100


# What happens while a read waits


async def test_a_flushed_read_is_not_answered_and_its_flush_is(
    world: Spilling, reads: Gate
) -> None:
    peer, other = await world.begin(), await world.begin()
    fid = await swapped(world, peer)
    same = await other.open(b"file")
    peer.send(m.Tread(fid, 5, 100), 1)
    other.send(m.Tread(same, 5, 100), 1)
    await reads.reached()
    peer.send(m.Tflush(1), 2)
    assert await peer.reply() == (2, m.Rflush())
    await peer.call(STATFS, 1)  # the tag is free again
    reads.open()
    assert await other.reply() == (1, m.Rread(DATA[5:105]))  # which waited for the same block
    assert (await peer.call(m.Tread(fid, 5, 100), 1)).data == DATA[5:105]
    await peer.call(STATFS, 3)


async def test_a_block_whose_only_reader_was_flushed_arrives_all_the_same(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Tread(fid, BLOCK + 5, 100), 1)
    await reads.reached()
    await peer_flushed(peer, 1)
    reads.open()
    assert (await peer.call(m.Tread(fid, BLOCK + 5, 100))).data == DATA[BLOCK + 5 :][:100]
    assert len(reads.calls) == 1


async def peer_flushed(peer: SocketPeer, tag: int) -> None:
    peer.send(m.Tflush(tag), 99)
    assert await peer.reply() == (99, m.Rflush())


async def test_a_fid_that_is_clunked_while_its_read_waits_is_unknown(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Tread(fid, 5, 100), 1)
    await reads.reached()
    await peer.call(m.Tclunk(fid), 2)
    reads.open()
    assert await peer.reply() == (1, m.Rlerror(errno.EBADF))


async def test_a_file_that_is_unlinked_while_its_read_waits_is_read(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Tread(fid, 5, 100), 1)
    await reads.reached()
    await peer.call(m.Tunlinkat(ROOT, b"file", 0), 2)
    reads.open()
    assert await peer.reply() == (1, m.Rread(DATA[5:105]))
    await peer.call(m.Tclunk(fid))
    world.spill.nothing_is_left()


@pytest.mark.parametrize(("size", "expected"), [(0, b""), (50, DATA[5:50])])
async def test_a_file_that_is_truncated_while_its_read_waits_is_read_to_its_end(
    world: Spilling, reads: Gate, size: int, expected: bytes
) -> None:
    peer, other = await world.begin(), await world.begin()
    fid = await swapped(world, peer)
    same = await other.open(b"file")
    peer.send(m.Tread(fid, 5, 100), 1)
    await reads.reached()
    other.send(truncation(same, size), 1)
    await pump()
    reads.open()
    await other.reply()
    tag, reply = await peer.reply()
    assert (tag, isinstance(reply, m.Rread)) == (1, True)
    assert (await peer.call(m.Tread(fid, 5, 100))).data == expected
    world.spill.check()


async def test_a_block_that_is_replaced_while_a_read_waits_is_read_new(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Tread(fid, BLOCK + 5, 100), 1)
    await reads.reached()
    new = pattern(2, BLOCK)
    assert (await peer.call(m.Twrite(fid, BLOCK, new), 2)).count == BLOCK
    reads.open()
    assert await peer.reply() == (1, m.Rread(new[5:105]))
    world.spill.check()


@pytest.mark.parametrize("unlinked", [False, True])
async def test_a_connection_that_dies_while_its_requests_wait_leaves_nothing(
    world: Spilling, reads: Gate, unlinked: bool
) -> None:
    peer, other = await world.begin(), await world.begin()
    fid = await swapped(world, peer)
    for tag, block in ((1, 1), (2, 2), (3, 1)):
        peer.send(m.Tread(fid, block * BLOCK + 5, 100), tag)
    peer.send(m.Twrite(fid, 3 * BLOCK + 1, b"new"), 4)
    await reads.reached(3)
    if unlinked:
        await other.call(m.Tunlinkat(ROOT, b"file", 0))
    peer.abort()
    while world.memory.active:
        await other.call(STATFS)
    reads.open()
    if not unlinked:
        same = await other.open(b"file")
        data = (await other.call(m.Tread(same, 0, MANY))).data
        assert data == DATA
        await other.call(m.Tclunk(same))
        await other.call(m.Tunlinkat(ROOT, b"file", 0))
    while world.memory.ram.used:
        await other.call(STATFS)
    world.spill.nothing_is_left()


async def test_a_new_version_drops_what_waits(world: Spilling, reads: Gate) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Tread(fid, 5, 100), 1)
    await reads.reached()
    await peer.begin(65536)
    reads.open()
    same = await peer.open(b"file")
    assert (await peer.call(m.Tread(same, 5, 100))).data == DATA[5:105]


async def test_only_so_many_requests_may_wait(
    world: Spilling, reads: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "WAITING_MAX", 2)
    peer = await world.begin()
    fid = await swapped(world, peer)
    for tag in (1, 2, 3):
        peer.send(m.Tread(fid, 1, 10), tag)
    assert await peer.reply() == (3, m.Rlerror(errno.EAGAIN))
    reads.open()
    assert set(await replies(peer, 2)) == {1, 2}


# Reading ahead


async def test_a_sequential_reader_finds_what_was_read_ahead(world: Spilling) -> None:
    peer = await world.begin()
    fid = await peer.create(b"file")
    data = pattern(1, 24 * BLOCK)
    for place in range(0, len(data), 8 * BLOCK):
        await peer.call(m.Twrite(fid, place, data[place : place + 8 * BLOCK]))
    world.spill.page_out_all()
    for place in range(0, len(data), 10000):
        assert (await peer.call(m.Tread(fid, place, 10000))).data == data[place : place + 10000]
    assert world.memory.counters.paged_in == 24
    assert world.memory.counters.readahead_hits >= 22


async def test_nothing_is_read_ahead_where_ram_is_short(small: Spilling) -> None:
    peer = await small.begin()
    fid = await swapped(small, peer)
    small.memory.ram.take(small.memory.ram.free - small.memory.low)
    assert (await peer.call(m.Tread(fid, 0, 10))).data == DATA[:10]
    await pump()
    assert small.memory.counters.paged_in == 1
    small.memory.ram.give(small.memory.ram.used - 16)


async def test_a_block_that_is_being_read_ahead_is_not_read_again(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Tread(fid, 0, 10), 1)
    await reads.reached(2)  # block 0, and ahead of it 1 and 2
    peer.send(m.Tread(fid, BLOCK, 10), 2)
    await pump()
    await peer.call(STATFS, 9)
    reads.open()
    assert set(await replies(peer, 2)) == {1, 2}
    await peer.call(m.Tread(fid, 0, MANY))
    assert world.memory.counters.paged_in == 4


# Writing more than there is RAM


async def fill(peer: SocketPeer, fid: int, seed: int, blocks: int) -> None:
    data = pattern(seed, blocks * BLOCK)
    for place in range(0, len(data), BLOCK):
        part = data[place : place + BLOCK]
        while part:
            done = (await peer.call(m.Twrite(fid, place, part))).count
            place, part = place + done, part[done:]  # noqa: PLW2901


async def holds(peer: SocketPeer, fid: int, seed: int, blocks: int) -> bool:
    data = b""
    while part := (await peer.call(m.Tread(fid, len(data), MANY))).data:
        data += part
    return data == pattern(seed, blocks * BLOCK)


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


async def test_page_out_works_ahead_of_the_writers(small: Spilling) -> None:
    peer = await small.begin()
    fid = await peer.create(b"file")
    for place in range(8):
        await peer.call(m.Twrite(fid, place * BLOCK, pattern(place, BLOCK)))
    while small.memory.ram.free < small.memory.high:
        await peer.call(STATFS)
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
    pager = small.server._pager
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


# Congestion


async def test_a_connection_with_much_data_waiting_is_not_read_until_that_is_over(
    world: Spilling, reads: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "HELD_MAX", 2 * BLOCK)
    peer, other = await world.begin(), await world.begin()
    fid = await swapped(world, peer)
    log = await peer.create(b"log", flags=c.O_WRONLY | c.O_APPEND)
    same = await other.open(b"log")
    for tag, block in ((1, 1), (2, 2), (3, 3)):
        peer.send(m.Tread(fid, block * BLOCK + 1, 10), tag)
    await reads.reached(3)
    for tag in range(10, 40):
        peer.send(m.Twrite(log, 0, b"." * 20000), tag)
    for _ in range(50):  # the server has time enough
        await other.call(STATFS)
    assert await other.size(same) == 0
    reads.open()
    answered = list(await replies(peer, 33))
    assert answered[0] in (1, 2, 3)
    assert [tag for tag in answered if tag >= 10] == list(range(10, 40))
    assert await other.size(same) == 30 * 20000


async def test_a_congested_connection_that_is_flushed_goes_on(
    world: Spilling, reads: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came with the requests that wait is not forgotten."""
    monkeypatch.setattr(session_module, "HELD_MAX", BLOCK)
    peer = await world.begin()
    fid = await swapped(world, peer)
    heap = [m.Tread(fid, block * BLOCK + 1, 10).frame(block) for block in (1, 2, 3)]
    heap += [STATFS.frame(tag) for tag in range(10, 20)]
    peer.feed(b"".join(heap))
    assert list(await replies(peer, 10)) == list(range(10, 20))
    peer.feed(b"".join(STATFS.frame(tag) for tag in range(20, 30)))
    await reads.reached(3)
    await pump()
    reads.open()
    assert sorted(await replies(peer, 13)) == [1, 2, 3, *range(20, 30)]


# Stopping


async def stopped(world: Spilling, *gates: Gate) -> None:
    """Stop the server while I/O is held; it comes to its end before the threads do."""
    threads = world.server._pager._threads
    shutdown = threads.shutdown

    def end() -> None:
        for gate in gates:
            gate.open()
        shutdown()

    world.server._pager._threads.shutdown = end  # type: ignore[method-assign, assignment]
    async with asyncio.timeout(GUARD):
        await world.server.stop()
    assert not threads._threads or all(not thread.is_alive() for thread in threads._threads)


async def test_stopping_while_reads_wait(world: Spilling, reads: Gate) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Tread(fid, 0, 10), 1)  # and some is read ahead
    await reads.reached(2)
    await stopped(world, reads)
    assert await peer.is_dropped()
    assert not world.errors()


async def test_stopping_while_writes_wait(small: Spilling, writes: Gate) -> None:
    peer = await small.begin()
    fid = await peer.create(b"file")
    for tag in range(12):
        peer.send(m.Twrite(fid, tag * BLOCK, pattern(tag, BLOCK)), tag)
    await writes.reached()
    await stopped(small, writes)
    await peer.last_replies()
    assert not small.errors()


async def test_stopping_an_idle_server_with_swap(world: Spilling) -> None:
    await stopped(world)
    assert not world.errors()


def test_places_are_values() -> None:
    """Two requests for a block must find the same task."""
    spill = Spill(ram=64)
    node = spill.file(data=pattern(1, BLOCK))
    spill.page_out_all()
    assert places_of(node) == places_of(node)
    assert len({*places_of(node), *places_of(node)}) == 1
    spill.swap.close()


# What needs no disk


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has all of the swap file in its page cache."""

    def read(transfer: Transfer) -> bool:
        read_in(transfer)
        return True

    async def provide(pager: pager_module.Pager, absent: NotResident) -> None:
        raise AssertionError(f"a request has to wait: {absent}")

    monkeypatch.setattr(pageout, "read_now", read)
    monkeypatch.setattr(pager_module.Pager, "provide", provide)


@pytest.mark.usefixtures("cached")
async def test_what_the_host_has_cached_is_read_at_once(world: Spilling) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    assert (await peer.call(m.Tread(fid, 5, 100))).data == DATA[5:105]
    assert (await peer.call(m.Tread(fid, 0, MANY))).data == DATA
    await peer.call(m.Twrite(fid, 9, b"new"))
    assert world.memory.counters.paged_in == 4
    world.spill.check()


@pytest.mark.usefixtures("cached")
async def test_a_pass_ends_with_a_page_in_and_the_next_goes_on(world: Spilling) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    reads = [m.Tread(fid, block * BLOCK, 7) for block in (3, 1, 2, 0)]
    peer.feed(b"".join(read.frame(tag) for tag, read in enumerate(reads)))
    assert list(await replies(peer, 4)) == [0, 1, 2, 3]

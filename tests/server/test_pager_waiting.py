"""pager: what happens while requests wait for swap."""

import asyncio
import errno

import pytest

from server import listener
from server.limits import Limits
from server.wire import constants as c
from server.wire import messages as m
from tests.tmpfs_core.paging import pattern
from tmpfs_core.frames import BLOCK

from .peer import GUARD, ROOT
from .spilling import (
    DATA,
    MANY,
    STATFS,
    Gate,
    Spilling,
    pump,
    replies,
    swapped,
    truncation,
    until,
    waits,
)

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
    await waits(peer, m.Tread(fid, BLOCK + 5, 100), reads)
    await peer.call(m.Tflush(1), 2)
    reads.open()
    assert (await peer.call(m.Tread(fid, BLOCK + 5, 100))).data == DATA[BLOCK + 5 :][:100]
    assert len(reads.calls) == 1


async def test_a_fid_that_is_clunked_while_its_read_waits_is_unknown(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    await waits(peer, m.Tread(fid, 5, 100), reads)
    await peer.call(m.Tclunk(fid), 2)
    reads.open()
    assert await peer.reply() == (1, m.Rlerror(errno.EBADF))


async def test_a_file_that_is_unlinked_while_its_read_waits_is_read(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    await waits(peer, m.Tread(fid, 5, 100), reads)
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
    await waits(peer, m.Tread(fid, 5, 100), reads)
    other.send(truncation(same, size), 1)
    await pump()
    reads.open()
    await other.reply()
    tag, reply = await peer.reply()
    assert tag == 1
    assert reply in (m.Rread(expected), m.Rread(DATA[5:105]))  # either may come first
    assert (await peer.call(m.Tread(fid, 5, 100))).data == expected
    world.spill.check()


async def test_a_block_that_is_replaced_while_a_read_waits_is_read_new(
    world: Spilling, reads: Gate
) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    await waits(peer, m.Tread(fid, BLOCK + 5, 100), reads)
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
    node = world.file(b"file")
    for tag, block in ((1, 1), (2, 2), (3, 1)):
        peer.send(m.Tread(fid, block * BLOCK + 5, 100), tag)
    peer.send(m.Twrite(fid, 3 * BLOCK + 1, b"new"), 4)
    await reads.reached(3)
    if unlinked:
        await other.call(m.Tunlinkat(ROOT, b"file", 0))
    peer.abort()
    await until(lambda: node.vnode is None, other)
    reads.open()
    if not unlinked:
        same = await other.open(b"file")
        data = (await other.call(m.Tread(same, 0, MANY))).data
        assert data == DATA
        await other.call(m.Tclunk(same))
        await other.call(m.Tunlinkat(ROOT, b"file", 0))
    await until(lambda: not world.memory.ram.used, other)
    world.spill.nothing_is_left()


async def test_a_new_version_drops_what_waits(world: Spilling, reads: Gate) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    await waits(peer, m.Tread(fid, 5, 100), reads)
    await peer.begin(65536)
    reads.open()
    same = await peer.open(b"file")
    assert (await peer.call(m.Tread(same, 5, 100))).data == DATA[5:105]


async def test_only_so_many_requests_may_wait(world: Spilling, reads: Gate) -> None:
    limit(world, max_requests=2)
    peer = await world.begin()
    fid = await swapped(world, peer)
    for tag in (1, 2, 3):
        peer.send(m.Tread(fid, 1, 10), tag)
    assert await peer.reply() == (3, m.Rlerror(errno.EAGAIN))
    reads.open()
    assert set(await replies(peer, 2)) == {1, 2}


# Congestion


def limit(world: Spilling, **limits: int) -> None:
    """Let these be the limits of clients that come from now on."""
    world.server._limits = Limits(**limits)


async def test_a_connection_with_much_data_waiting_is_not_read_until_that_is_over(
    world: Spilling, reads: Gate
) -> None:
    limit(world, max_request_bytes=2 * BLOCK)
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


async def test_a_congested_connection_goes_on_with_what_came_before(
    world: Spilling, reads: Gate
) -> None:
    limit(world, max_request_bytes=BLOCK)
    peer = await world.begin()
    fid = await swapped(world, peer)
    heap = [m.Tread(fid, block * BLOCK + 1, 10).frame(block) for block in (1, 2, 3)]
    heap += [STATFS.frame(tag) for tag in range(10, 20)]
    peer.feed(b"".join(heap))
    await reads.reached(2)
    peer.feed(b"".join(STATFS.frame(tag) for tag in range(20, 30)))
    await pump()
    reads.open()
    answered = list(await replies(peer, 23))
    assert answered[0] in (1, 2)
    assert sorted(answered) == [1, 2, 3, *range(10, 30)]
    assert [tag for tag in answered if tag >= 10] == list(range(10, 30))


# Stopping


async def stopped(world: Spilling, *gates: Gate) -> None:
    """Stop the server while I/O is held; it comes to its end before the threads do."""
    threads = world.pager._threads
    shutdown = threads.shutdown

    def end() -> None:
        for gate in gates:
            gate.open()
        shutdown()

    world.pager._threads.shutdown = end  # type: ignore[method-assign, assignment]
    async with asyncio.timeout(GUARD):
        await world.server.stop()
    assert not threads._threads or all(not thread.is_alive() for thread in threads._threads)


async def test_stopping_answers_reads_that_wait(world: Spilling, reads: Gate) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    await waits(peer, m.Tread(fid, 5, 100), reads)
    stopping = asyncio.create_task(world.server.stop())
    await pump()
    reads.open()
    assert await peer.reply() == (1, m.Rread(DATA[5:105]))
    assert await peer.is_dropped()
    await peer.close()
    await stopping
    assert not world.errors()


@pytest.fixture
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops waits for nothing."""
    monkeypatch.setattr(listener, "GRACE", 0.0)


@pytest.mark.usefixtures("_no_grace")
async def test_stopping_while_reads_wait(world: Spilling, reads: Gate) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    peer.send(m.Tread(fid, 0, 10), 1)  # and some is read ahead
    await reads.reached(2)
    await stopped(world, reads)
    assert await peer.is_dropped()
    assert not world.errors()


@pytest.mark.usefixtures("_no_grace")
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

"""Clients that vanish, stop half-way, do not read, or ask for more than anybody should."""

import asyncio
import errno
import itertools
import os
import resource
import socket
from pathlib import Path

import pytest

from server.address import Tcp
from server.connection import TURN_BYTES
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message
from tests.server.peer import ROOT, SocketPeer
from tests.server.spilling import (
    DATA,
    MSIZE,
    STATFS,
    Gate,
    Spilling,
    replies,
    swapped,
    until,
)
from tests.server.test_handlers_locks import tlock
from tests.tmpfs_core.paging import pattern
from tests.tmpfs_core.support import no_berth_is_taken
from tmpfs_core.frames import BLOCK

BLOCKING = c.LOCK_FLAGS_BLOCK


async def connected(world: Spilling) -> SocketPeer:
    """A client on TCP."""
    peer = await (await SocketPeer.connect(world.server.listen(Tcp("127.0.0.1", 0)))).begin(MSIZE)
    world.peers.append(peer)
    return peer


async def nobody_else(world: Spilling, other: SocketPeer) -> None:
    """Wait until the server has no client but ``other``, and look that nothing is left of them."""
    connections = world.server._connections
    await until(lambda: len(connections) == 1, other)
    assert no_berth_is_taken(world.memory.arena)
    await until(lambda: len(asyncio.all_tasks()) == 1, other)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """The memory that this process has in RAM, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# Clients that vanish


@pytest.mark.parametrize("size", [1000, MSIZE - c.IOHDRSZ])
@pytest.mark.parametrize("kept", [6, 20, 500, -1], ids=["head", "fields", "data", "all but one"])
async def test_a_client_killed_while_it_writes_has_written_nothing(
    world: Spilling, size: int, kept: int
) -> None:
    peer, other = await connected(world), await world.begin()
    file = await peer.create(b"file", b"before")
    same = await other.open(b"file")
    peer.feed(m.Twrite(file, 0, pattern(1, size)).frame(1)[:kept])
    await peer.writer.drain()
    for _ in range(20):
        await other.call(STATFS)
    peer.reset()
    await nobody_else(world, other)
    assert (await other.call(m.Tread(same, 0, MSIZE))).data == b"before"


@pytest.mark.parametrize("read", [0, 100_000])
async def test_a_client_killed_while_it_reads_leaves_nothing(world: Spilling, read: int) -> None:
    peer, other = await connected(world), await world.begin()
    file = await peer.create(b"file", pattern(1, MSIZE - c.IOHDRSZ))
    for tag in range(40):
        peer.send(m.Tread(file, 0, MSIZE), tag)
    await peer.reader.readexactly(read)
    await until(lambda: any(one._unsent for one in world.server._connections), other)
    peer.reset()
    await nobody_else(world, other)


async def test_a_reset_with_1000_requests_in_flight(world: Spilling) -> None:
    """All of them wait for a lock, which nobody has afterwards."""
    holder, peer = await world.begin(), await connected(world)
    held = await holder.create(b"lock")
    await holder.call(tlock(held))
    lock = await peer.open(b"lock")
    for tag in range(1000):
        peer.send(tlock(lock, proc=tag + 2, flags=BLOCKING), tag)
    await until(lambda: len(asyncio.all_tasks()) > 1000, holder)
    peer.reset()
    await nobody_else(world, holder)
    await holder.call(tlock(held, c.LOCK_TYPE_UNLCK))
    assert (await holder.call(tlock(held, proc=5))).status == c.LOCK_SUCCESS


async def test_a_reset_with_1000_requests_that_need_swap(world: Spilling, reads: Gate) -> None:
    peer, other = await connected(world), await world.begin()
    fid = await swapped(world, peer)
    same = await other.open(b"file")
    for tag in range(1000):
        message = m.Twrite(fid, tag, b"new") if tag % 2 else m.Tread(fid, tag * 200, 100)
        peer.send(message, tag)
    await reads.reached()
    await until(lambda: len(asyncio.all_tasks()) > 100, other)
    peer.reset()
    reads.open()
    await nobody_else(world, other)
    assert len((await other.call(m.Tread(same, 0, len(DATA)))).data) == len(DATA)
    world.spill.check()


# Clients that are half closed


async def test_a_client_that_sends_no_more_gets_all_its_answers(world: Spilling) -> None:
    peer = await connected(world)
    data = pattern(1, MSIZE - c.IOHDRSZ)
    file = await peer.create(b"file", data)
    for tag in range(20):
        peer.send(m.Tread(file, 0, MSIZE), tag)
    peer.writer.write_eof()
    answered = await replies(peer, 20)
    assert list(answered) == list(range(20))
    assert all(reply == m.Rread(data) for reply in answered.values())
    assert await peer.is_dropped()


async def test_a_client_that_sends_no_more_waits_for_no_lock(world: Spilling) -> None:
    holder, peer = await world.begin(), await connected(world)
    held = await holder.create(b"lock")
    await holder.call(tlock(held))
    peer.send(tlock(await peer.open(b"lock"), proc=2, flags=BLOCKING), 7)
    peer.send(STATFS, 8)
    peer.writer.write_eof()
    assert (await peer.reply())[0] == 8
    assert await peer.is_dropped()
    await nobody_else(world, holder)


# A client that does not read


async def test_clients_that_do_not_read_hold_up_nobody_and_little_memory(world: Spilling) -> None:
    data = pattern(1, MSIZE - c.IOHDRSZ)
    others = [await world.begin() for _ in range(8)]
    files = [await peer.create(b"%d" % i, data) for i, peer in enumerate(others)]
    stuck = [await world.begin() for _ in range(10)]
    for peer in stuck:
        file = await peer.open(b"0")
        for tag in range(200):
            peer.send(m.Tread(file, 0, MSIZE), tag)

    def unsent() -> list[int]:
        return [len(one._unsent) for one in world.server._connections if one._unsent is not None]

    await until(lambda: len(unsent()) == len(stuck), others[0])
    for peer, file in zip(others, files, strict=True):
        for tag in range(100):
            peer.send(m.Tread(file, tag, 4096) if tag % 2 else STATFS, tag)
    for peer in others:
        answered = await replies(peer, 100)
        assert list(answered) == list(range(100))
        assert all(answered[tag] == m.Rread(data[tag : tag + 4096]) for tag in range(1, 100, 2))
    assert len(unsent()) == len(stuck)
    assert max(unsent()) <= TURN_BYTES + MSIZE
    for peer in stuck:
        assert list(await replies(peer, 3)) == [0, 1, 2]
        peer.abort()
    await until(lambda: len(world.server._connections) == len(others), others[0])


# Floods


async def test_every_request_is_flushed(world: Spilling) -> None:
    """And every flush, and what was never asked; each reply comes before those to its flushes."""
    peer = await world.begin()
    file = await peer.create(b"file", DATA[:1010])
    for tag in range(0, 4000, 4):
        peer.send(m.Tread(file, tag % 1000, 10), tag)
        peer.send(m.Tflush(tag), tag + 1)
        peer.send(m.Tflush(tag + 1), tag + 2)
        peer.send(m.Tflush(tag + 3), tag + 3)  # itself
    answered = await replies(peer, 4000)
    assert list(answered) == list(range(4000))
    for tag, reply in answered.items():
        expected = m.Rflush() if tag % 4 else m.Rread(DATA[tag % 1000 :][:10])
        assert reply == expected


async def flushed(peer: SocketPeer, tags: range) -> None:
    """Flush each of the requests that wait, three times over, and those flushes too."""
    count = len(tags)
    for place, tag in enumerate(tags):
        for flush, old in ((1, tag), (2, tag), (3, 10_000 + place), (4, 10_000 + place)):
            peer.send(m.Tflush(old), flush * 10_000 + place)
    answered = await replies(peer, 4 * count)
    assert set(answered) == {
        flush * 10_000 + place for flush in (1, 2, 3, 4) for place in range(count)
    }
    order = list(answered)
    for place in range(count):
        own = [flush * 10_000 + place for flush in (1, 2, 3, 4)]
        assert [tag for tag in order if tag in own] == own
    assert set(map(type, answered.values())) == {m.Rflush}


async def test_every_lock_that_is_waited_for_is_flushed(world: Spilling) -> None:
    holder, peer = await world.begin(), await world.begin()
    held = await holder.create(b"lock")
    await holder.call(tlock(held))
    lock = await peer.open(b"lock")
    for tag in range(100):
        peer.send(tlock(lock, proc=tag + 2, flags=BLOCKING), tag)
    await flushed(peer, range(100))
    await holder.call(tlock(held, c.LOCK_TYPE_UNLCK))
    for tag in range(100):  # all tags are free, and nobody has the lock
        assert (await peer.call(tlock(lock, proc=500), tag)).status == c.LOCK_SUCCESS


async def test_every_request_that_needs_swap_is_flushed(world: Spilling, reads: Gate) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    for tag in range(50):
        peer.send(m.Tread(fid, tag * 5000, 100), tag)
        peer.send(m.Twrite(fid, tag * 5000, b"never"), 100 + tag)
    await reads.reached()
    await flushed(peer, range(50))
    for place in range(50):
        peer.send(m.Tflush(100 + place), 200 + place)
    assert set(await replies(peer, 50)) == set(range(200, 250))
    reads.open()
    assert (await peer.call(m.Tread(fid, 0, MSIZE))).data == DATA
    world.spill.check()


async def test_one_fid_is_used_by_100_requests_at_once(world: Spilling, reads: Gate) -> None:
    """Some have to wait for swap; the fid is clunked meanwhile, and its number used anew."""
    peer, other = await world.begin(), await world.begin()
    fid = await swapped(world, peer)
    new = pattern(7, BLOCK)
    requests: list[Message] = []
    for place in range(25):
        at = place * 10_000
        requests += [m.Tread(fid, at, 100), m.Twrite(fid, at, b"torn")]
        requests += [m.Twrite(fid, 2 * BLOCK, new), STATFS]
    for tag, request in enumerate(requests[:50]):
        peer.send(request, tag)
    await reads.reached()
    peer.send(m.Tclunk(fid), 1000)
    for tag, request in enumerate(requests[50:], 50):
        peer.send(request, tag)
    peer.send(m.Twalk(ROOT, fid, []), 1001)  # so it is another file's
    answered: dict[int, object] = {}
    while 1001 not in answered:
        answered.update(await replies(peer, 1))
    reads.open()
    answered.update(await replies(peer, 102 - len(answered)))
    assert set(answered) == {*range(100), 1000, 1001}
    gone = m.Rlerror(errno.EBADF)
    for tag, request in enumerate(requests):
        if isinstance(request, m.Tstatfs):
            assert isinstance(answered[tag], m.Rstatfs)
        elif tag >= 50:
            assert answered[tag] == gone
        elif request == m.Twrite(fid, 2 * BLOCK, new):
            assert answered[tag] == m.Rwrite(BLOCK)  # nothing of it was in swap
        elif request.offset >> 16 != 2:  # type: ignore[attr-defined]
            assert answered[tag] == gone
    same = await other.open(b"file")
    data = (await other.call(m.Tread(same, 0, MSIZE))).data
    assert data[: 2 * BLOCK] == DATA[: 2 * BLOCK]
    assert data[3 * BLOCK :] == DATA[3 * BLOCK :]
    world.spill.check()


# Many connections


async def visit(path: str, count: int) -> None:
    """So many clients that begin, ask for something, and vanish."""
    hello = m.Tversion(MSIZE, c.VERSION).frame(c.NOTAG)
    hello += m.Tattach(ROOT, c.NOFID, b"", b"", 0).frame(1) + STATFS.frame(2)
    for _ in range(count):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.send(hello)
            for _ in range(3):
                await asyncio.sleep(0)


async def test_10000_connections_come_and_go_and_leave_nothing(world: Spilling) -> None:
    asyncio.get_running_loop().set_debug(False)  # it keeps a traceback of each callback
    other = await world.begin()
    path = world._address.path
    await visit(path, 1000)
    await nobody_else(world, other)
    world.logs.clear()
    before, at_first = descriptors(), resident()
    for _ in range(10):
        await visit(path, 1000)
        await nobody_else(world, other)
        assert sum(line["event"] == "client gone" for line in world.logs) == 1000
        world.logs.clear()
    assert descriptors() == before
    assert resident() - at_first < 2 << 20


async def test_1000_connections_at_once_do_their_work(world: Spilling) -> None:
    asyncio.get_running_loop().set_debug(False)
    world.spill.mount.inodes.limit = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        peers = [await world.begin() for _ in range(1000)]
        assert len(world.server._connections) == 1000

        async def work(number: int, peer: SocketPeer) -> None:
            name, data = b"%d" % number, pattern(number, 3000 + number)
            file = await peer.create(name, data)
            for step in range(3):
                await peer.call(m.Twrite(file, step * 500, name))
                data = data[: step * 500] + name + data[step * 500 + len(name) :]
                assert (await peer.call(m.Tread(file, 0, MSIZE))).data == data
            await peer.call(m.Tclunk(file))
            other = await peer.open(name)
            assert await peer.size(other) == len(data)
            await peer.call(m.Tunlinkat(ROOT, name, 0))

        await asyncio.gather(*itertools.starmap(work, enumerate(peers)))
        for peer in peers:
            await peer.close()
        world.peers.clear()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

"""Clients that take more than their share, or that never finish what they begin."""

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator

import pytest

from server.limits import Limits
from server.wire import constants as c
from server.wire import messages as m
from tests.server.peer import ROOT, SocketPeer, raises_errno
from tests.server.test_connection import MSIZE, Link, narrow_pair, pump, tags
from tmpfs_core import frames
from tmpfs_core.mount import Mount

STATFS = m.Tstatfs(ROOT)
LIMITS = Limits(
    client_memory=16 * MSIZE, frame_timeout=5, version_timeout=3, idle_timeout=0, max_requests=8
)


@pytest.fixture
def mount() -> Iterator[Mount]:
    """A file system of 16 MiB and 1000 inodes."""
    mount = Mount(16 << 20, 1000)
    yield mount
    assert not mount.orphans
    mount.check()


@pytest.fixture
async def link(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Link]:
    """Connections without cargo; when they are over, all room is free."""
    monkeypatch.setattr(frames, "BERTHS", 0)
    link = Link(mount, LIMITS)
    yield link
    for connection in link.connections:
        connection.close("the test is over")
    for peer in link.peers:
        await peer.close()
    await pump()
    assert link.room.free == LIMITS.request_bytes


def seconds(link: Link, count: int) -> None:
    """Let so many seconds go by."""
    for _ in range(count):
        if link.looks:
            link.looks.pop()()


async def half_sent(link: Link, sent: int) -> SocketPeer:
    """A client that has sent so many bytes of a write of nearly 1 MiB."""
    peer = await link.begin()
    fid = await peer.create(b"%d" % len(link.peers))
    peer.feed(m.Twrite(fid, 0, bytes(MSIZE - 100)).frame(1)[:sent])
    return peer


# Time


async def test_a_request_that_is_never_finished_ends_the_connection(link: Link) -> None:
    peer = await half_sent(link, 1000)
    await pump()
    seconds(link, LIMITS.frame_timeout)
    assert link.gone == 0
    seconds(link, 1)
    assert link.gone == 1
    assert await peer.is_dropped()


async def test_a_byte_now_and_then_does_not_help(link: Link) -> None:
    peer = await half_sent(link, 1000)
    for _ in range(LIMITS.frame_timeout + 1):
        peer.feed(b".")
        await pump()
        seconds(link, 1)
    assert link.gone == 1


async def test_who_finishes_each_request_in_time_may_go_on_for_ever(link: Link) -> None:
    peer = await link.begin()
    frame = STATFS.frame(1)
    peer.feed(frame[:5])
    for _ in range(3 * LIMITS.frame_timeout):
        await pump()
        seconds(link, 1)
        peer.feed(frame[5:] + frame[:5])
        assert await tags(peer, 1) == [1]
    assert link.gone == 0


async def test_a_client_that_does_not_say_its_version_is_ended(link: Link) -> None:
    silent, noisy = await link.connect(), await link.connect()
    for _ in range(LIMITS.version_timeout + 1):
        assert link.gone == 0
        noisy.send(STATFS)
        assert await tags(noisy, 1) == [1]
        seconds(link, 1)
    assert link.gone == 2
    assert await silent.is_dropped()


async def test_a_client_that_is_silent_is_not_ended_and_not_looked_at(link: Link) -> None:
    peer = await link.begin()
    seconds(link, 1)
    assert not link.looks
    await peer.call(STATFS)
    assert not link.looks


async def test_a_client_that_is_idle_is_ended_if_that_is_wanted(mount: Mount) -> None:
    link = Link(mount, Limits(idle_timeout=4))
    idle, busy = await link.begin(), await link.begin()
    for _ in range(5):
        await busy.call(STATFS)
        seconds(link, 1)
    assert link.gone == 1
    assert await idle.is_dropped()
    await busy.call(STATFS)
    for connection in link.connections:
        connection.close("the test is over")
    await busy.close()
    await idle.close()


# Memory


async def test_an_unfinished_request_holds_what_has_come_and_not_what_was_announced(
    link: Link,
) -> None:
    for sent in (100, 5000, 20_000):
        before = link.room.free
        await half_sent(link, sent)
        await pump()
        assert before - link.room.free <= max(4 * sent, 16384)


async def test_200_half_sent_requests_hold_no_more_than_the_room(link: Link) -> None:
    for _ in range(200):
        await half_sent(link, 200_000)
        await pump()
        assert link.room.free >= -200 * 4096
    await (await link.begin()).call(STATFS)  # a small request is served all the same


async def test_where_room_is_short_a_large_request_is_served_when_it_is_its_turn(
    link: Link,
) -> None:
    for _ in range(20):
        await half_sent(link, 200_000)
        await pump()
    peer = await link.begin()
    fid = await peer.create(b"file")
    peer.send(m.Twrite(fid, 0, b"x" * (MSIZE - 100)), 7)
    await pump()
    assert link.gone == 0
    for _ in range(10 * LIMITS.frame_timeout):
        seconds(link, 1)
        await pump()
    assert link.gone == 20
    assert await tags(peer, 1) == [7]
    assert await peer.size(fid) == MSIZE - 100


async def test_of_those_that_do_not_read_the_one_with_the_most_is_ended(mount: Mount) -> None:
    link = Link(mount, LIMITS)
    stuck = [await (await link.connect(narrow_pair())).begin() for _ in range(5)]
    for number, peer in enumerate(stuck):
        fid = await peer.create(b"%d" % number, bytes(900_000))
        peer.send(m.Tread(fid, 0, 900_000))
        await pump()
    assert link.gone == 1
    await (await link.begin()).call(STATFS)
    for connection in link.connections:
        connection.close("the test is over")
    for peer in link.peers:
        await peer.close()


async def test_a_flood_of_requests_whose_replies_nobody_reads_is_not_read(mount: Mount) -> None:
    link = Link(mount, LIMITS)
    flooding, other = await (await link.connect(narrow_pair())).begin(), await link.begin()
    fid = await flooding.create(b"file", bytes(60_000))
    flooding.feed(m.Tread(fid, 0, 60_000).frame(1) * 5000)
    for _ in range(300):
        await other.call(STATFS)
    assert link.replies_queued() <= MSIZE
    for connection in link.connections:
        connection.close("the test is over")
    for peer in link.peers:
        peer.abort()
    await asyncio.sleep(0)


# What is kept


async def test_a_client_with_too_many_fids_keeps_those_it_has(mount: Mount) -> None:
    link = Link(mount, Limits(max_fids=50))
    peer, other = await link.begin(), await link.begin()
    for fid in range(1, 50):
        await peer.call(m.Twalk(ROOT, fid, []))
    with raises_errno(errno.EMFILE):
        await peer.call(m.Twalk(ROOT, 99, []))
    await other.call(m.Twalk(ROOT, 99, []))
    await peer.call(m.Tclunk(7))
    await peer.call(m.Twalk(ROOT, 99, []))
    await peer.call(m.Tgetattr(99, c.GETATTR_BASIC))
    for connection in link.connections:
        connection.close("the test is over")
    for end in link.peers:
        await end.close()

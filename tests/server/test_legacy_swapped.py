"""legacy: requests that wait for swap, and errors of those."""

import errno

import pytest

from server.wire import constants as c
from server.wire import legacy as old
from server.wire import messages as m
from server.wire.codec import Message
from tmpfs_core.frames import BLOCK

from .peer import ROOT, SocketPeer, code_of
from .spilling import DATA, MSIZE, Gate, Spilling, swapped, waits

VERSIONS = (c.VERSION_PLAIN, c.VERSION_UNIX)
either = pytest.mark.parametrize("version", VERSIONS)


def stat(version: bytes, name: bytes = b"", length: int = c.KEEP64) -> bytes:
    """For a Twstat that changes these alone."""
    keep = c.KEEP32
    fields = (0, 0, (0, 0, 0), keep, keep, keep, length, name, b"", b"", b"")
    if version == c.VERSION_PLAIN:
        return old.Stat.pack(*fields)
    return old.StatUnix.pack(*fields, b"", keep, keep, keep)


async def begin(world: Spilling, version: bytes) -> tuple[SocketPeer, int]:
    """A client of a dialect, and its open fid of a file that is in swap."""
    linux, peer = await world.begin(), await world.begin()
    await swapped(world, linux)
    await peer.call(m.Tversion(MSIZE, version), c.NOTAG)
    attach: Message = m.Tattach(ROOT, c.NOFID, b"root", b"", 0)
    if version == c.VERSION_PLAIN:
        attach = old.TattachPlain(ROOT, c.NOFID, b"root", b"")
    await peer.call(attach)
    await peer.call(m.Twalk(ROOT, 1, [b"file"]))
    await peer.call(old.Topen(1, c.ORDWR))
    return peer, 1


@either
async def test_data_is_read_from_swap(world: Spilling, version: bytes) -> None:
    peer, fid = await begin(world, version)
    assert (await peer.call(m.Tread(fid, 0, len(DATA)))).data == DATA


@either
async def test_a_wstat_that_waits_changes_everything_when_it_can(
    world: Spilling, reads: Gate, version: bytes
) -> None:
    peer, fid = await begin(world, version)
    file = world.file(b"file")
    await waits(peer, old.Twstat(fid, stat(version, b"new", BLOCK + 9)), reads)
    assert world.file(b"file") is file  # it has its name, and its size
    assert file.size == len(DATA)
    reads.open()
    assert await peer.reply() == (1, old.Rwstat())
    assert world.file(b"new") is file
    assert file.size == BLOCK + 9
    assert (await peer.call(m.Tread(fid, 0, len(DATA)))).data == DATA[: BLOCK + 9]


@either
async def test_a_wstat_that_waits_is_refused_if_the_name_went_meanwhile(
    world: Spilling, reads: Gate, version: bytes
) -> None:
    peer, fid = await begin(world, version)
    file = world.file(b"file")
    await waits(peer, old.Twstat(fid, stat(version, b"new", BLOCK + 9)), reads)
    await peer.call(m.Twalk(ROOT, 2, [b"file"]), 2)
    await peer.call(m.Tremove(2), 2)
    reads.open()
    tag, reply = await peer.reply()
    assert (tag, code_of(reply)) == (1, errno.ENOENT)
    assert file.size == len(DATA)

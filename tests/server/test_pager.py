"""pager: requests that wait for swap while all others go on."""

import pytest

from server import pager as pager_module
from server.wire import messages as m
from tests.tmpfs_core.paging import Spill, pattern, places_of
from tmpfs_core import pageout
from tmpfs_core.frames import BLOCK
from tmpfs_core.swap import Transfer, read_in
from tmpfs_core.vnode import NotResident

from .spilling import DATA, MANY, STATFS, Gate, Spilling, replies, swapped, truncation, waits

# Reading from swap


async def test_what_is_in_swap_is_read(world: Spilling) -> None:
    peer = await world.begin()
    fid = await swapped(world, peer)
    assert (await peer.call(m.Tread(fid, 0, MANY))).data == DATA
    assert (await peer.call(m.Tread(fid, 3 * BLOCK + 5, 10))).data == DATA[3 * BLOCK + 5 :][:10]
    world.spill.check()


async def test_others_are_served_while_a_read_waits_for_swap(world: Spilling, reads: Gate) -> None:
    peer, other = await world.begin(), await world.begin()
    fid = await swapped(world, peer)
    await waits(peer, m.Tread(fid, 0, 100), reads, 7)
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
    await peer.call(STATFS, 9)  # by now all three have been seen
    await other.call(STATFS, 9)
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
    await waits(peer, m.Twrite(fid, BLOCK + 5, b"new"), reads)
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
    await waits(peer, truncation(fid, BLOCK + 5), reads)
    assert await other.size(same) == 4 * BLOCK
    reads.open()
    assert await peer.reply() == (1, m.Rsetattr())
    await peer.call(truncation(fid, 2 * BLOCK))
    assert (await peer.call(m.Tread(fid, BLOCK, MANY))).data == DATA[BLOCK:][:5] + bytes(BLOCK - 5)


async def test_data_that_waits_to_be_written_is_not_that_of_a_later_request(
    world: Spilling, reads: Gate
) -> None:
    """The buffer in which it came is used again meanwhile."""
    peer = await world.begin()
    fid = await swapped(world, peer)
    scratch = await peer.create(b"scratch")
    await waits(peer, m.Twrite(fid, 1, b"kept" * 100), reads)
    for _ in range(3):
        await peer.call(m.Twrite(scratch, 0, b"late" * 5000), 2)
    reads.open()
    assert await peer.reply() == (1, m.Rwrite(400))
    assert (await peer.call(m.Tread(fid, 1, 400))).data == b"kept" * 100


def test_places_are_values() -> None:
    """Two requests for a block must find the same task."""
    spill = Spill(ram=64)
    node = spill.file(data=pattern(1, BLOCK))
    spill.page_out_all()
    assert places_of(node) == places_of(node)
    assert len({*places_of(node), *places_of(node)}) == 1
    spill.swap.close()


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
    assert not small.pager._arriving
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
    await peer.call(STATFS, 9)
    reads.open()
    assert set(await replies(peer, 2)) == {1, 2}
    await peer.call(m.Tread(fid, 0, MANY))
    assert world.memory.counters.paged_in == 4


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

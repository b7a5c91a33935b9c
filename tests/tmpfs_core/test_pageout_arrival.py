"""page-in: what comes back from swap, whatever happens meanwhile or fails.

After every step the invariants of all files, of RAM and of swap are checked (Spill.check).
"""

import errno
import os

import pytest

from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.node import FileNode

from .paging import Calls, Spill, pattern, places_of
from .support import refused

# Page-in: what happens meanwhile


def test_blocks_that_are_not_in_swap_any_more_are_passed_over(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    spill.page_out_all()
    places = places_of(node)
    spill.bring_in([(node.uobj, 0)])
    assert spill.bring_in([*places, (node.uobj, 99)]) == []
    assert spill.memory.counters.paged_in == 2
    assert spill.bring_in(places) == []


def test_a_block_that_arrives_twice_arrives_once(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    spill.page_out()
    arrivals = [spill.begin_in(places_of(node)) for _ in range(2)]
    for arrival in arrivals:
        spill.end_in(arrival)
    assert (spill.memory.ram.used, spill.memory.counters.paged_in) == (16, 1)
    assert spill.get(node) == pattern(1, BLOCK)


def test_a_block_that_arrives_late_does_not_replace_a_newer_one(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    spill.page_out()
    arrival = spill.begin_in(places_of(node))
    spill.run(arrival)
    spill.put(node, pattern(2, BLOCK))
    spill.check()
    spill.finish_in(arrival)
    assert spill.get(node) == pattern(2, BLOCK)
    assert spill.memory.ram.used == 16


def test_a_block_that_was_replaced_and_paged_out_again_is_not_the_one_that_arrives(
    spill: Spill,
) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    spill.page_out()
    arrival = spill.begin_in(places_of(node))
    spill.run(arrival)
    spill.put(node, pattern(2, BLOCK))
    spill.page_out()
    spill.finish_in(arrival)
    assert not node.uobj.pages
    assert spill.get(node) == pattern(2, BLOCK)


@pytest.mark.parametrize("broken", [False, True], ids=["read", "failed"])
@pytest.mark.parametrize("how", ["truncate", "unlink"])
def test_a_block_that_is_freed_while_it_arrives_is_gone(
    spill: Spill, how: str, broken: bool
) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    spill.page_out_all()
    arrival = spill.begin_in(places_of(node))
    if how == "truncate":
        spill.truncate(node, 0)
    else:
        vnops.unlink(spill.mount.root, b"file", ROOT)
        spill.close(node)
    spill.check()
    spill.end_in(arrival, broken)
    assert (spill.memory.ram.used, spill.swap.used, spill.memory.counters.lost) == (0, 0, 0)


@pytest.mark.parametrize("broken", [False, True], ids=["read", "failed"])
def test_a_block_that_is_trimmed_while_it_arrives_is_read_again(spill: Spill, broken: bool) -> None:
    """Its slots may hold something else by the time they are read."""
    node = spill.file(data=pattern(1, BLOCK))
    spill.page_out()
    arrival = spill.begin_in(places_of(node))
    spill.truncate(node, 3 * FRAME)
    spill.file(b"other", pattern(2, BLOCK))
    spill.page_out_all()
    spill.end_in(arrival, broken)
    assert spill.get(node) == pattern(1, 3 * FRAME)


def test_a_block_that_somebody_waits_for_is_passed_over_once(spill: Spill) -> None:
    node, other = spill.file(data=pattern(1, BLOCK)), spill.file(b"other", pattern(2, BLOCK))
    spill.page_out_all()
    spill.bring_in(places_of(node))
    spill.get(other)
    spill.page_out()
    assert (len(node.uobj.swapped), len(other.uobj.swapped)) == (0, 1)
    spill.page_out()
    assert len(node.uobj.swapped) == 1


def test_a_block_that_was_used_or_was_read_ahead_is_not_passed_over(spill: Spill) -> None:
    node, other = spill.file(data=pattern(1, BLOCK)), spill.file(b"other", pattern(2, BLOCK))
    spill.page_out_all()
    spill.bring_in(places_of(node))
    spill.get(node)
    arrival = spill.begin_in(places_of(other), ahead=True)
    spill.end_in(arrival)
    spill.page_out()
    assert (len(node.uobj.swapped), len(other.uobj.swapped)) == (1, 1)


def test_a_block_read_ahead_counts_as_a_hit_once_it_is_asked_for(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    spill.page_out_all()
    arrival = spill.begin_in(places_of(node), ahead=True)
    spill.end_in(arrival)
    counters = spill.memory.counters
    assert counters.readahead_hits == 0
    for _ in range(2):
        spill.get(node, 0, 1)
        assert counters.readahead_hits == 1
    spill.get(node)
    assert counters.readahead_hits == 2


# Page-in that fails


@pytest.fixture
def loss(spill: Spill) -> FileNode:
    """A file of three blocks, of which the middle one was lost while all were in swap."""
    node = spill.file(data=pattern(1, 3 * BLOCK))
    spill.page_out_all()
    (line,) = spill.bring_in([(node.uobj, 1)], broken=True)
    path = spill.swap.files[0].path
    assert line == f"{path} at {BLOCK}: the swap file was truncated"
    return node


def test_only_what_can_not_be_read_is_lost(spill: Spill, monkeypatch: pytest.MonkeyPatch) -> None:
    node = spill.file(data=pattern(1, 3 * BLOCK))
    spill.page_out_all()
    preadv = os.preadv

    def broken(fd: int, views: list[memoryview], offset: int) -> int:
        if offset <= BLOCK + FRAME < offset + sum(map(len, views)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return preadv(fd, views, offset)

    monkeypatch.setattr(os, "preadv", broken)
    lost = spill.bring_in(places_of(node))
    assert lost == [f"{spill.swap.files[0].path} at {BLOCK}: Input/output error"]
    assert sorted(node.uobj.pages) == [0, 2]
    assert (spill.memory.counters.lost, spill.memory.counters.paged_in) == (1, 2)


def test_a_lost_block_is_eio_and_all_others_are_read(spill: Spill, loss: FileNode) -> None:
    assert spill.get(loss, 0, BLOCK) == pattern(1, BLOCK)
    assert spill.get(loss, 2 * BLOCK, BLOCK) == pattern(1, 3 * BLOCK)[2 * BLOCK :]
    for offset, count in ((BLOCK, BLOCK), (BLOCK + 5, 1), (2 * BLOCK - 1, 2)):
        with refused(errno.EIO):
            spill.get(loss, offset, count)
    assert spill.do(lambda: len(b"".join(vnops.read(loss, 5, 2 * BLOCK)))) == BLOCK - 5


def test_the_slots_of_a_lost_block_are_not_used_again(spill: Spill, loss: FileNode) -> None:
    assert spill.swap.condemned == 16
    spill.delete_all()
    assert spill.swap.used == 16
    node = spill.file(data=pattern(2, 40 * BLOCK))
    spill.page_out_all()
    bad = {(spill.swap.files[0], slot) for slot in range(16, 32)}
    copies = [entry.copy for entry in node.uobj.swapped.values() if entry.copy]
    used = {
        (extent.file, extent.start + i)
        for copy in copies
        for extent in copy.extents
        for i in range(extent.length)
    }
    assert used
    assert not used & bad
    assert spill.get(node) == pattern(2, 40 * BLOCK)


def test_a_lost_block_is_not_read_again(spill: Spill, loss: FileNode, was_read: Calls) -> None:
    with refused(errno.EIO):
        spill.get(loss, BLOCK, 1)
    spill.bring_in([(loss.uobj, 1)])
    assert was_read == []
    assert loss.blocks == 3 * BLOCK // 512  # it still takes its space


@pytest.mark.parametrize(("offset", "count"), [(0, FRAME), (5, BLOCK), (FRAME, BLOCK - FRAME)])
def test_a_lost_block_is_not_written_in_part(
    spill: Spill, loss: FileNode, offset: int, count: int
) -> None:
    with refused(errno.EIO):
        spill.put(loss, bytes(count), BLOCK + offset)
    with refused(errno.EIO):
        spill.get(loss, BLOCK, 1)


def test_a_lost_block_that_is_overwritten_whole_is_whole_again(
    spill: Spill, loss: FileNode
) -> None:
    assert spill.put(loss, pattern(2, BLOCK), BLOCK) == BLOCK
    spill.check()
    old = pattern(1, 3 * BLOCK)
    assert spill.get(loss) == old[:BLOCK] + pattern(2, BLOCK) + old[2 * BLOCK :]
    spill.page_out_all()
    assert spill.get(loss, BLOCK, BLOCK) == pattern(2, BLOCK)


def test_a_lost_block_that_is_truncated_away_is_a_hole_again(spill: Spill, loss: FileNode) -> None:
    spill.truncate(loss, BLOCK)
    spill.truncate(loss, 3 * BLOCK)
    assert spill.get(loss) == pattern(1, BLOCK) + bytes(2 * BLOCK)
    assert spill.swap.used == 32


def test_what_is_left_of_a_lost_block_that_is_cut_is_still_lost(
    spill: Spill, loss: FileNode
) -> None:
    spill.truncate(loss, BLOCK + FRAME + 5)
    spill.check()
    with refused(errno.EIO):
        spill.get(loss, BLOCK, 1)
    assert spill.mount.blocks.used == 18
    spill.truncate(loss, BLOCK)
    assert spill.get(loss) == pattern(1, BLOCK)


def test_a_lost_block_goes_with_its_file(spill: Spill, loss: FileNode) -> None:
    vnops.unlink(spill.mount.root, b"file", ROOT)
    spill.close(loss)
    spill.nothing_is_left()

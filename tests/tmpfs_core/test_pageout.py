"""page-out and page-in: what goes to swap and comes back, whatever happens meanwhile or fails.

After every step the invariants of all files, of RAM and of swap are checked (Spill.check).
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tmpfs_core import pageout, vnops
from tmpfs_core import swap as swap_module
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.node import FileNode
from tmpfs_core.pageout import SLICE
from tmpfs_core.vnode import NotResident

from .paging import Spill, pattern, places_of, vnode_of
from .support import refused

FULL = 0xFFFF


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A swap file grows by 1 MiB, so that the tests are quick."""
    monkeypatch.setattr(swap_module, "STEP", 256)


@pytest.fixture
def spill() -> Iterator[Spill]:
    """256 frames of RAM and 1024 of swap; in the end all files are deleted, and nothing is left."""
    spill = Spill(ram=256, swap=(1024,))
    yield spill
    delete_all(spill)
    spill.swap.close()


def delete_all(spill: Spill) -> None:
    for entry in list(spill.mount.root.entries.after(0)):
        node = entry.node
        vnops.remove(entry)
        if isinstance(node, FileNode) and node.refs:
            spill.close(node)
        spill.check()
    spill.nothing_is_left()


Calls = list[tuple[int, int]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """(offset, bytes) of each write to swap."""
    return watched(monkeypatch, "pwritev")


@pytest.fixture
def was_read(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """(offset, bytes) of each read from swap."""
    return watched(monkeypatch, "preadv")


def watched(monkeypatch: pytest.MonkeyPatch, name: str) -> Calls:
    calls: Calls = []
    call = getattr(os, name)

    def note(fd: int, views: list[memoryview], offset: int) -> int:
        done: int = call(fd, views, offset)
        calls.append((offset, done))
        return done

    monkeypatch.setattr(os, name, note)
    return calls


# There and back


def test_what_was_paged_out_is_read_as_it_was_written(spill: Spill) -> None:
    data = pattern(1, 3 * BLOCK + 100)
    node = spill.file(data=data)
    spill.page_out_all()
    assert len(node.uobj.swapped) == 4
    assert spill.memory.ram.used == 0
    assert spill.get(node) == data


def test_files_of_many_times_the_ram_are_written_and_read(spill: Spill) -> None:
    contents = {spill.file(b"%d" % i, pattern(i, 8 * BLOCK)): i for i in range(7)}
    assert spill.memory.swapped > 2 * spill.memory.ram.limit
    for node, seed in contents.items():
        assert spill.get(node) == pattern(seed, 8 * BLOCK)


def test_a_page_that_is_in_use_is_released_and_goes_home_first(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    assert list(vnode_of(node).bufs) == [0]
    spill.page_out()
    assert not vnode_of(node).bufs
    assert spill.memory.counters.moved_home == 1


def test_a_closed_file_is_paged_out_too(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    vnops.close(node)
    spill.page_out()
    assert list(node.uobj.swapped) == [0]
    vnops.open(node)
    assert spill.get(node) == pattern(1, BLOCK)


def test_only_the_frames_that_a_block_has_take_slots(spill: Spill) -> None:
    node = spill.file()
    for frame in (0, 5, 6, 15):
        spill.put(node, pattern(frame, FRAME), frame * FRAME)
    spill.page_out()
    assert spill.swap.used == 4
    assert spill.get(node, 5 * FRAME, 2 * FRAME) == pattern(5, FRAME) + pattern(6, FRAME)
    assert spill.get(node, FRAME, 4 * FRAME) == bytes(4 * FRAME)
    assert spill.memory.ram.used == 4


def test_a_page_of_zeros_takes_no_slot_and_no_call(
    spill: Spill, written: Calls, was_read: Calls
) -> None:
    node = spill.file(data=bytes(BLOCK))
    spill.page_out()
    assert spill.memory.counters.zero_pages == 1
    assert (spill.memory.ram.used, spill.memory.swapped, spill.swap.used) == (0, 16, 0)
    assert node.blocks == BLOCK // 512
    assert spill.get(node) == bytes(BLOCK)
    assert (written, was_read) == ([], [])


def test_frames_of_zeros_in_a_page_take_no_slot(spill: Spill, written: Calls) -> None:
    data = pattern(1, FRAME) + bytes(2 * FRAME) + pattern(2, FRAME)
    node = spill.file(data=data)
    spill.page_out()
    assert (spill.swap.used, sum(count for _, count in written)) == (2, 2 * FRAME)
    assert spill.get(node) == data
    assert spill.memory.ram.used == 4


def test_a_clean_page_is_dropped_and_not_written_again(spill: Spill, written: Calls) -> None:
    data = pattern(1, 2 * BLOCK)
    node = spill.file(data=data)
    spill.page_out_all()
    for _ in range(3):
        assert spill.get(node) == data
        before = len(written)
        spill.page_out_all()
        assert len(written) == before
    assert spill.memory.counters.dropped_clean == 6
    assert spill.swap.used == 32


def test_a_page_that_came_back_keeps_its_slots_until_it_is_written_to(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    spill.page_out()
    spill.get(node)
    page = vnode_of(node).pages[0]
    assert (page.dirty, spill.swap.used) == (False, 16)
    spill.put(node, b"!", 5)
    assert (page.dirty, page.copy, spill.swap.used) == (True, None, 0)
    spill.page_out()
    assert spill.get(node, 0, 10) == pattern(1, 5) + b"!" + pattern(1, 10)[6:]


def test_a_copy_in_ram_that_is_truncated_is_not_mistaken_for_the_one_in_swap(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    spill.page_out()
    spill.get(node)
    spill.truncate(node, 2 * FRAME + 5)
    assert spill.swap.used == 0
    spill.page_out_all()
    spill.truncate(node, BLOCK)
    assert spill.get(node) == pattern(1, 2 * FRAME + 5) + bytes(14 * FRAME - 5)


def test_neighbours_are_written_in_one_call_whatever_was_written_first(
    spill: Spill, written: Calls
) -> None:
    node = spill.file()
    for block in (3, 1, 0, 2):
        spill.put(node, pattern(block, BLOCK), block * BLOCK)
    spill.page_out()
    assert written == [(0, 4 * BLOCK)]


def test_a_page_out_takes_a_slice_and_not_everything(spill: Spill) -> None:
    spill.memory.reserve = 0
    spill.file(data=pattern(1, 15 * BLOCK))
    bigger = Spill(ram=1024, swap=(1024,))
    bigger.file(data=pattern(1, 40 * BLOCK))
    laundry = bigger.begin_out()
    assert len(laundry._pages) == SLICE // 16
    laundry.run()
    bigger.finish_out(laundry)
    assert bigger.memory.ram.used == 24 * 16
    bigger.swap.close()


def test_the_coldest_page_goes_first(spill: Spill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pageout, "SLICE", 1)
    hot, cold, new = (spill.file(name) for name in (b"hot", b"cold", b"new"))
    for node in (hot, cold, new):
        spill.put(node, pattern(1, BLOCK))
    spill.get(hot)
    spill.page_out()
    assert [len(node.uobj.swapped) for node in (hot, cold, new)] == [0, 1, 0]


# What operations ask for


def test_a_read_asks_for_the_blocks_that_are_in_swap_and_changes_nothing(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 4 * BLOCK))
    spill.page_out_all()
    spill.bring_in([(node.uobj, 2)])
    atime = node.atime
    with pytest.raises(NotResident, match="2 blocks are in swap, 0 frames are wanted") as caught:
        vnops.read(node, BLOCK - 1, 2 * BLOCK + 1)
    assert caught.value.places == [(node.uobj, 0), (node.uobj, 1)]
    assert node.atime == atime
    spill.check()


@pytest.mark.parametrize(
    ("offset", "count", "blocks"),
    [
        (0, BLOCK, []),
        (0, 2 * BLOCK, []),
        (1, BLOCK, [0, 1]),
        (0, BLOCK + 1, [1]),
        (BLOCK - 1, BLOCK + 1, [0]),
        (5, 10, [0]),
        (FRAME, BLOCK, [0, 1]),
    ],
)
def test_a_write_asks_only_for_the_blocks_that_it_changes_in_part(
    spill: Spill, offset: int, count: int, blocks: list[int]
) -> None:
    node = spill.file(data=pattern(1, 3 * BLOCK))
    spill.page_out_all()
    new = pattern(2, count)
    wanted = [block for _, block in asked(node, offset, new).places]
    assert wanted == blocks
    spill.put(node, new, offset)
    spill.check()
    old = pattern(1, 3 * BLOCK)
    assert spill.get(node) == old[:offset] + new + old[offset + count :]


def asked(node: FileNode, offset: int, data: bytes) -> NotResident:
    """What a write of this asks for; it must not change anything."""
    before = (node.size, node.version, node.blocks)
    try:
        vnops.write(node, offset, memoryview(data), ROOT)
    except NotResident as absent:
        assert (node.size, node.version, node.blocks) == before
        return absent
    return NotResident([])


def test_a_write_over_just_the_frames_that_a_block_has_needs_no_read(
    spill: Spill, was_read: Calls
) -> None:
    node = spill.file()
    spill.put(node, pattern(1, 2 * FRAME), 4 * FRAME)
    spill.page_out()
    spill.put(node, pattern(2, 4 * FRAME), 3 * FRAME)
    assert was_read == []
    assert spill.swap.used == 0
    assert spill.get(node) == bytes(3 * FRAME) + pattern(2, 4 * FRAME)


def test_a_write_asks_for_ram_when_there_is_too_little(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 8 * BLOCK))
    assert spill.memory.writable == 0
    absent = asked(node, 20 * BLOCK + 100, pattern(2, BLOCK))
    assert (absent.places, absent.frames) == ([], 17)
    assert asked(node, 0, pattern(2, BLOCK)).frames == 0  # it is there


def test_a_write_asks_for_no_more_ram_than_the_mount_has_space(
    exact: Callable[[int], Spill],
) -> None:
    spill = exact(8 * 16 + 3)
    node = spill.file(data=pattern(1, 8 * BLOCK))
    assert asked(node, 20 * BLOCK, pattern(2, BLOCK)).frames == 3
    assert spill.put(node, pattern(2, BLOCK), 20 * BLOCK) == 3 * FRAME


def test_truncating_asks_only_for_a_frame_that_is_cut(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 3 * BLOCK))
    spill.page_out_all()
    with pytest.raises(NotResident):
        vnops.setattr(node, ROOT, size=BLOCK + FRAME + 1)
    assert node.size == 3 * BLOCK
    vnops.setattr(node, ROOT, size=2 * BLOCK + FRAME)
    spill.check()
    assert spill.swap.used == 33
    vnops.setattr(node, ROOT, size=2 * BLOCK)
    spill.check()
    assert spill.swap.used == 32
    assert spill.get(node) == pattern(1, 2 * BLOCK)
    spill.truncate(node, BLOCK + 5)
    spill.truncate(node, BLOCK + FRAME)
    assert spill.get(node) == pattern(1, BLOCK + 5) + bytes(FRAME - 5)


def test_truncating_within_a_frame_of_zeros_needs_no_read(spill: Spill, was_read: Calls) -> None:
    node = spill.file(data=pattern(1, FRAME) + bytes(FRAME) + pattern(2, FRAME))
    spill.page_out()
    spill.truncate(node, FRAME + 5)
    assert (was_read, spill.swap.used) == ([], 1)
    assert spill.get(node) == pattern(1, FRAME) + bytes(5)


# Page-out: what happens meanwhile


@pytest.mark.parametrize("done", [True, False], ids=["written", "failed"])
def test_a_page_that_is_written_to_meanwhile_stays_dirty_and_resident(
    spill: Spill, done: bool
) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    laundry = spill.begin_out()
    spill.put(node, b"new", 0)
    spill.check()
    laundry.run()
    spill.finish_out(laundry, done)
    (page,) = vnode_of(node).pages.values()
    assert (page.pindex, page.dirty) == (0, True)
    assert spill.swap.used == (16 if done else 0)
    assert spill.get(node) == b"new" + pattern(1, 2 * BLOCK)[3:]


def test_a_page_that_is_read_meanwhile_stays_resident_and_clean(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    laundry = spill.begin_out()
    assert spill.get(node, 0, 10) == pattern(1, 10)
    laundry.run()
    spill.finish_out(laundry)
    (page,) = vnode_of(node).pages.values()
    assert (page.pindex, page.dirty, list(node.uobj.swapped)) == (0, False, [1])
    spill.page_out()
    assert spill.memory.counters.dropped_clean == 1


@pytest.mark.parametrize("done", [True, False], ids=["written", "failed"])
@pytest.mark.parametrize("how", ["truncate", "unlink", "unlink closed"])
def test_a_page_that_is_freed_meanwhile_is_gone(spill: Spill, how: str, done: bool) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    laundry = spill.begin_out()
    if how == "truncate":
        spill.truncate(node, 0)
    else:
        vnops.unlink(spill.mount.root, b"file")
        spill.close(node)
    spill.check()
    other = spill.file(b"other", pattern(2, 2 * BLOCK))  # takes its place in memory
    spill.check()
    laundry.run()
    spill.finish_out(laundry, done)
    assert spill.swap.used == 0
    assert spill.get(other) == pattern(2, 2 * BLOCK)


@pytest.mark.parametrize("done", [True, False], ids=["written", "failed"])
@pytest.mark.parametrize("size", [FRAME, 3 * FRAME + 7])
def test_a_page_that_is_trimmed_meanwhile_keeps_what_it_has(
    spill: Spill, size: int, done: bool
) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    laundry = spill.begin_out()
    spill.truncate(node, size)
    spill.check()
    laundry.run()
    spill.finish_out(laundry, done)
    assert spill.swap.used == 0
    spill.page_out_all()
    spill.truncate(node, BLOCK)
    assert spill.get(node) == pattern(1, size) + bytes(BLOCK - size)


def test_a_file_that_is_closed_or_opened_meanwhile_is_paged_out_all_the_same(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    laundry = spill.begin_out()
    vnops.close(node)
    vnops.open(node)
    laundry.run()
    spill.finish_out(laundry)
    assert list(node.uobj.swapped) == [0]


def test_no_page_is_in_two_page_outs(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 4 * BLOCK))
    first = spill.begin_out()
    second = spill.begin_out()
    assert (len(first._pages), len(second._pages)) == (4, 0)
    spill.put(node, b"new", BLOCK)
    third = spill.begin_out()  # it was written to, but is still on its way
    assert not third._pages
    for laundry in (second, first, third):
        laundry.run()
        spill.finish_out(laundry)
    assert sorted(node.uobj.swapped) == [0, 2, 3]


# Page-out that fails


def test_a_page_out_that_fails_leaves_its_pages_dirty_and_resident(spill: Spill) -> None:
    data = pattern(1, 3 * BLOCK)
    node = spill.file(data=data)
    spill.page_out(fails=True)
    assert spill.memory.stuck
    assert spill.memory.counters.failed_page_outs == 3
    assert all(page.dirty and page.laundry is None for page in node.uobj.pages.values())
    assert (len(node.uobj.pages), spill.swap.used) == (3, 0)
    assert spill.get(node) == data


def test_a_page_out_that_failed_is_tried_again_and_loses_nothing(
    spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pattern(1, 3 * BLOCK)
    node = spill.file(data=data)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", broken)
        laundry = spill.begin_out()
        with refused(errno.EIO):
            laundry.run()
        spill.finish_out(laundry, done=False)
    assert spill.swap.used == 0
    spill.page_out_all()
    assert len(node.uobj.swapped) == 3
    assert spill.get(node) == data


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
        spill.run(arrival)
        spill.finish_in(arrival)
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
        vnops.unlink(spill.mount.root, b"file")
        spill.close(node)
    spill.check()
    spill.run(arrival, broken)
    spill.finish_in(arrival)
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
    spill.run(arrival, broken)
    spill.finish_in(arrival)
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
    spill.run(arrival)
    spill.finish_in(arrival)
    spill.page_out()
    assert (len(node.uobj.swapped), len(other.uobj.swapped)) == (1, 1)


def test_a_block_read_ahead_counts_as_a_hit_once_it_is_asked_for(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    spill.page_out_all()
    arrival = spill.begin_in(places_of(node), ahead=True)
    spill.run(arrival)
    spill.finish_in(arrival)
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
    delete_all(spill)
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
    vnops.unlink(spill.mount.root, b"file")
    spill.close(loss)
    spill.nothing_is_left()


# Full


@pytest.fixture
def full() -> Iterator[tuple[Spill, dict[FileNode, bytes]]]:
    """RAM and swap are full of files."""
    spill = Spill(ram=64, swap=(128,))
    contents: dict[FileNode, bytes] = {}
    for i in range(50):
        data = pattern(i, BLOCK + 3 * FRAME)
        node = spill.file(b"%d" % i)
        done = 0
        with suppress(OSError):
            done = spill.put(node, data)
        contents[node] = data[:done]
        if done < len(data):
            break
    assert spill.memory.writable == 0
    assert spill.swap.free < 16  # not enough for a block
    yield spill, contents
    delete_all(spill)
    spill.swap.close()


Full = tuple[Spill, dict[FileNode, bytes]]


def test_when_ram_and_swap_are_full_writes_are_short_and_then_refused(full: Full) -> None:
    spill, contents = full
    assert spill.mount.blocks.used >= 128 + 64 - spill.memory.reserve - 16
    for node in contents:
        with refused(errno.ENOSPC):
            spill.put(node, b"x", 100 * BLOCK)
        spill.check()


def test_when_all_is_full_everything_can_be_read_again_and_again(full: Full) -> None:
    spill, contents = full
    for _ in range(3):
        for node, data in contents.items():
            assert spill.get(node) == data
            with refused(errno.ENOSPC):
                spill.put(node, b"x", 100 * BLOCK)


def test_when_all_is_full_what_is_there_can_be_changed(full: Full) -> None:
    """Each change gives its slots back, and needs as much RAM."""
    spill, contents = full
    for i, (node, data) in enumerate(contents.items()):
        new = pattern(100 + i, len(data))
        if new:
            assert spill.put(node, new) == len(new)
        contents[node] = new
    for node, data in contents.items():
        assert spill.get(node) == data


def test_when_all_is_full_a_write_that_needs_a_block_and_ram_comes_to_an_end(full: Full) -> None:
    """The only page that could be freed for it is the one that was read for it."""
    spill, contents = full
    node, data = next((n, d) for n, d in contents.items() if n.uobj.swapped.keys() == {0, 1})
    assert spill.put(node, pattern(7, BLOCK), len(data) - 10) == 10
    contents[node] = data[:-10] + pattern(7, 10)
    for node, data in contents.items():
        assert spill.get(node) == data


@pytest.mark.parametrize("frames", [1, 5, 10, 16, 17, 19])
def test_when_all_is_full_every_write_comes_to_an_end(full: Full, frames: int) -> None:
    """Two blocks that it needs may displace each other; see Memory.frugal."""
    spill, contents = full
    new = pattern(8, frames * FRAME)
    for node in contents:
        now = bytearray(contents[node])
        for offset in (0, 5 * FRAME, 12 * FRAME + 5, BLOCK):
            done = 0
            with suppress(OSError):
                done = spill.put(node, new, offset)
            now.extend(bytes(node.size - len(now)))
            now[offset : offset + done] = new[:done]
        contents[node] = bytes(now)
    for node, data in contents.items():
        assert spill.get(node) == data


def test_when_all_was_full_deleting_makes_room(full: Full) -> None:
    spill, contents = full
    for name in (b"0", b"1", b"2"):
        node = vnops.lookup(spill.mount.root, name).node
        assert isinstance(node, FileNode)
        vnops.unlink(spill.mount.root, name)
        spill.close(node)
        del contents[node]
    contents[spill.file(b"new", pattern(99, 2 * BLOCK))] = pattern(99, 2 * BLOCK)
    for node, data in contents.items():
        assert spill.get(node) == data


def test_without_swap_left_dirty_pages_stay_and_clean_ones_go() -> None:
    spill = Spill(ram=256, swap=(16,))
    lucky = spill.file(b"lucky", pattern(1, BLOCK))
    spill.page_out_all()
    node = spill.file(data=pattern(2, 3 * BLOCK))
    spill.page_out_all()
    assert (spill.memory.stuck, spill.memory.ram.used) == (True, 48)
    assert spill.get(lucky) == pattern(1, BLOCK)
    spill.page_out_all()
    assert (spill.memory.ram.used, spill.memory.counters.dropped_clean) == (48, 1)
    assert spill.get(node) == pattern(2, 3 * BLOCK)
    spill.swap.close()


# A mount whose size is used up, while some of it is in swap


@pytest.fixture
def exact() -> Iterator[Callable[[int], Spill]]:
    """Makes a mount of so many frames, with RAM and swap enough."""
    made: list[Spill] = []

    def make(size: int) -> Spill:
        made.append(Spill(ram=256, swap=(256,), size=size))
        return made[-1]

    yield make
    for spill in made:
        delete_all(spill)
        spill.swap.close()


def test_a_short_write_over_a_block_in_swap_loses_nothing(exact: Callable[[int], Spill]) -> None:
    """The frames that it did not reach still hold what they did."""
    spill = exact(4)
    node = spill.file()
    old = pattern(1, 4 * FRAME)
    spill.put(node, old, 12 * FRAME)
    spill.page_out_all()
    with refused(errno.ENOSPC):
        spill.put(node, pattern(2, BLOCK))
    assert spill.get(node) == bytes(12 * FRAME) + old


def test_a_write_over_a_block_in_swap_fills_the_frames_that_it_has(
    exact: Callable[[int], Spill],
) -> None:
    spill = exact(4)
    node = spill.file(data=pattern(1, 4 * FRAME))
    spill.page_out_all()
    assert spill.put(node, pattern(2, BLOCK)) == 4 * FRAME
    assert spill.get(node) == pattern(2, 4 * FRAME)


def test_a_block_in_swap_can_be_replaced_though_there_is_no_space_left(
    exact: Callable[[int], Spill],
) -> None:
    spill = exact(10 * 16)
    node = spill.file(data=pattern(1, 10 * BLOCK))
    spill.page_out_all()
    spill.get(node, 0, 8 * BLOCK)
    assert (spill.memory.writable, spill.mount.blocks.free) == (0, 0)
    assert 9 in node.uobj.swapped
    assert spill.put(node, pattern(2, BLOCK), 9 * BLOCK) == BLOCK
    assert spill.get(node) == pattern(1, 9 * BLOCK) + pattern(2, BLOCK)


def test_a_lost_block_stays_lost_when_there_is_no_space_to_replace_it(
    exact: Callable[[int], Spill],
) -> None:
    spill = exact(4)
    node = spill.file()
    spill.put(node, pattern(1, 4 * FRAME), 12 * FRAME)
    spill.page_out_all()
    spill.bring_in(places_of(node), broken=True)
    with refused(errno.ENOSPC):
        spill.put(node, pattern(2, BLOCK))
    with refused(errno.EIO):
        spill.get(node)

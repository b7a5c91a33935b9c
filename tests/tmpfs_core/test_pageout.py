"""page-out: what goes to swap and comes back, whatever happens meanwhile or fails.

After every step the invariants of all files, of RAM and of swap are checked (Spill.check).
"""

import errno
import os

import pytest

from tmpfs_core import pageout, vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.pageout import SLICE

from .paging import Calls, Spill, pattern, vnode_of
from .support import refused

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
    bigger.end_out(laundry)
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


# Page-out: what happens meanwhile


@pytest.mark.parametrize("done", [True, False], ids=["written", "failed"])
def test_a_page_that_is_written_to_meanwhile_stays_dirty_and_resident(
    spill: Spill, done: bool
) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    laundry = spill.begin_out()
    spill.put(node, b"new", 0)
    spill.check()
    spill.end_out(laundry, done)
    (page,) = vnode_of(node).pages.values()
    assert (page.pindex, page.dirty) == (0, True)
    assert spill.swap.used == (16 if done else 0)
    assert spill.get(node) == b"new" + pattern(1, 2 * BLOCK)[3:]


def test_a_page_that_is_read_meanwhile_stays_resident_and_clean(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    laundry = spill.begin_out()
    assert spill.get(node, 0, 10) == pattern(1, 10)
    spill.end_out(laundry)
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
        vnops.unlink(spill.mount.root, b"file", ROOT)
        spill.close(node)
    spill.check()
    other = spill.file(b"other", pattern(2, 2 * BLOCK))  # takes its place in memory
    spill.check()
    spill.end_out(laundry, done)
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
    spill.end_out(laundry, done)
    assert spill.swap.used == 0
    spill.page_out_all()
    spill.truncate(node, BLOCK)
    assert spill.get(node) == pattern(1, size) + bytes(BLOCK - size)


def test_a_file_that_is_closed_or_opened_meanwhile_is_paged_out_all_the_same(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK))
    laundry = spill.begin_out()
    vnops.close(node)
    vnops.open(node)
    spill.end_out(laundry)
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
        spill.end_out(laundry)
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

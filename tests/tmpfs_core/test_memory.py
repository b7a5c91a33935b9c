"""memory: the reserve, what it tells, and when page-out is given up and tried again."""

import errno
from collections.abc import Iterator

import pytest

from tmpfs_core import vnode as vnode_module
from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.memory import Memory, reserve_for
from tmpfs_core.mount import Mount
from tmpfs_core.pageout import Laundry
from tmpfs_core.vnode import NotResident, Place

from .paging import Spill, pattern, places_of, vnode_of
from .support import make_file, put, refused

MIB = 1 << 20


@pytest.fixture
def spill() -> Iterator[Spill]:
    spill = Spill(ram=64)
    yield spill
    spill.check()
    spill.swap.close()


# Sizes


@pytest.mark.parametrize(
    ("frames", "reserve"),
    [
        (0, 0),
        (1, 0),
        (64, 32),  # half of it
        (512, 256),
        (2048, 256),  # 1 MiB
        (16 * 1024, 1024),  # a sixteenth
        (1 << 20, 4096),  # 16 MiB
    ],
)
def test_some_frames_are_kept_to_read_into(frames: int, reserve: int) -> None:
    assert reserve_for(frames) == reserve


def test_without_swap_nothing_is_kept_and_nothing_is_short() -> None:
    memory = Memory(64)
    assert (memory.reserve, memory.writable) == (0, 64)
    assert memory.stuck
    memory.retry()
    assert memory.stuck


def test_without_swap_no_operation_is_cut_short() -> None:
    mount = Mount(MIB, 4)
    node = make_file(mount)
    assert put(node, bytes(MIB)) == MIB
    mount.check()


def test_with_swap_one_operation_needs_a_fraction_of_ram(spill: Spill) -> None:
    """So that it can be provided for: a client writes the rest with its next request."""
    node = spill.file()
    assert vnops.write(node, 0, memoryview(bytes(3 * BLOCK)), ROOT) == BLOCK
    assert sum(map(len, vnops.read(node, 0, 3 * BLOCK))) == BLOCK


def test_in_need_one_operation_takes_one_block(spill: Spill) -> None:
    node = spill.file(data=pattern(1, 2 * BLOCK))
    spill.memory.frugal = True
    assert vnops.write(node, 5, memoryview(bytes(BLOCK)), ROOT) == BLOCK - 5
    assert sum(map(len, vnops.read(node, BLOCK - 7, BLOCK))) == 7
    assert sum(map(len, vnops.read(node, 2 * BLOCK - 7, BLOCK))) == 7


def test_writes_leave_the_reserve_to_reads(spill: Spill) -> None:
    node = spill.file()
    spill.memory.failed()
    assert vnops.write(node, 0, memoryview(pattern(1, BLOCK)), ROOT) == BLOCK
    assert spill.memory.writable == 16
    assert vnops.write(node, BLOCK, memoryview(pattern(2, BLOCK)), ROOT) == BLOCK
    assert (spill.memory.writable, spill.memory.ram.free) == (0, 32)
    with refused(errno.ENOSPC):
        vnops.write(node, 2 * BLOCK, memoryview(b"x"), ROOT)
    assert vnops.write(node, 0, memoryview(b"again"), ROOT) == 5
    spill.memory.ram.take(3)  # a page-in
    assert spill.memory.writable == 0
    spill.memory.ram.give(3)
    spill.memory.retry()


# What it tells


def test_pressure_is_told_when_ram_runs_low(spill: Spill) -> None:
    told: list[int] = []
    spill.memory.on_pressure = lambda: told.append(spill.memory.ram.free)
    node = spill.file()
    while spill.memory.writable:
        vnops.write(node, node.size, memoryview(pattern(1, FRAME)), ROOT)
        assert bool(told) == (spill.memory.ram.free < spill.memory.low)


def test_a_sequential_reader_has_more_and_more_blocks_read_ahead(spill: Spill) -> None:
    told: list[list[int]] = []
    spill.memory.on_ahead = lambda places: told.append([block for _, block in places])
    node = spill.file(data=pattern(1, 12 * BLOCK))
    spill.page_out_all()
    for block in range(3):
        with pytest.raises(NotResident):
            vnops.read(node, block * BLOCK, BLOCK)
    assert told == [[1, 2], [2, 3, 4, 5], [3, 4, 5, 6, 7, 8, 9, 10]]


def test_reading_ahead_has_a_limit_and_ends_at_the_end(
    spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vnode_module, "AHEAD_MAX", 4)
    told: list[list[int]] = []
    spill.memory.on_ahead = lambda places: told.append([block for _, block in places])
    node = spill.file(data=pattern(1, 7 * BLOCK))
    spill.page_out_all()
    for block in range(7):
        with pytest.raises(NotResident):
            vnops.read(node, block * BLOCK, BLOCK)
    assert told == [[1, 2], [2, 3, 4, 5], [3, 4, 5, 6], [4, 5, 6], [5, 6], [6]]


def test_a_reader_here_and_there_has_nothing_read_ahead(spill: Spill) -> None:
    told: list[list[Place]] = []
    spill.memory.on_ahead = told.append
    node = spill.file(data=pattern(1, 8 * BLOCK))
    spill.page_out_all()
    for block in (5, 2, 7, 1):
        with pytest.raises(NotResident):
            vnops.read(node, block * BLOCK, 100)
    assert told == []
    with pytest.raises(NotResident):
        vnops.read(node, 2 * BLOCK, 100)  # goes on behind the last one
    assert [[block for _, block in places] for places in told] == [[3, 4]]


def test_a_read_that_is_tried_again_is_no_step_of_the_reader(spill: Spill) -> None:
    told: list[list[int]] = []
    spill.memory.on_ahead = lambda places: told.append([block for _, block in places])
    node = spill.file(data=pattern(1, 12 * BLOCK))
    spill.page_out_all()
    for block in (0, 0, 1, 1, 1):
        with pytest.raises(NotResident):
            vnops.read(node, block * BLOCK, BLOCK)
    assert told == [[1, 2], [2, 3, 4, 5]]


def test_a_reader_in_small_steps_is_sequential_too(spill: Spill) -> None:
    told: list[list[int]] = []
    spill.memory.on_ahead = lambda places: told.append([block for _, block in places])
    node = spill.file(data=pattern(1, 8 * BLOCK))
    spill.page_out_all()
    for offset in range(0, 3 * BLOCK, 10000):  # some of them in two blocks
        spill.get(node, offset, 10000)
    assert told == [[1, 2], [3, 4, 5, 6], [4, 5, 6, 7]]


def test_a_file_in_ram_is_not_read_ahead(spill: Spill) -> None:
    told: list[list[Place]] = []
    spill.memory.on_ahead = told.append
    node = spill.file(data=pattern(1, BLOCK))
    for offset in range(0, BLOCK, FRAME):
        vnops.read(node, offset, FRAME)
    assert told == []


def test_statistics_tell_where_everything_is(spill: Spill) -> None:
    node = spill.file(data=pattern(1, BLOCK) + bytes(BLOCK))
    spill.page_out_all()
    spill.get(node, 0, 1)
    numbers = spill.memory.statistics()
    assert numbers["ram"] == 64 * FRAME
    assert numbers["resident"] == numbers["in_use"] == BLOCK
    assert numbers["swapped"] == BLOCK
    assert numbers["swap_used"] == BLOCK
    assert (numbers["paged_out"], numbers["zero_pages"], numbers["paged_in"]) == (1, 1, 1)
    assert numbers["bytes_copied_by_moves"] == 0


def test_statistics_without_swap() -> None:
    memory = Memory(8)
    assert memory.statistics()["ram"] == 8 * FRAME
    assert memory.statistics()["swap_used"] == 0


# Stuck, and not any more


def full() -> Spill:
    """A mount whose swap is full, and so is its RAM but for the reserve."""
    spill = Spill(ram=64, swap=(32,))
    node = spill.file(data=pattern(1, 2 * BLOCK))
    spill.page_out_all()
    assert len(node.uobj.swapped) == 2
    other = spill.file(b"other", pattern(2, 2 * BLOCK))
    spill.page_out_all()
    assert spill.memory.stuck
    assert spill.memory.writable == spill.swap.free == 0
    assert len(vnode_of(other).pages) + len(other.uobj.pages) == 2
    return spill


def test_page_out_is_given_up_when_no_victim_could_be_freed() -> None:
    spill = full()
    counters = spill.memory.counters
    assert (counters.paged_out, counters.failed_page_outs) == (2, 0)
    spill.check()
    spill.swap.close()


@pytest.mark.parametrize("how", ["truncate", "unlink", "overwrite", "trim"])
def test_page_out_is_tried_again_when_something_was_freed(how: str) -> None:
    spill = full()
    node, other = spill.files()
    if how == "truncate":
        spill.truncate(other, 0)
    elif how == "unlink":
        vnops.unlink(spill.mount.root, b"file", ROOT)
        spill.close(node)
    elif how == "overwrite":
        spill.bring_in([(node.uobj, 0)])
        spill.memory.stuck = True
        vnops.write(node, 0, memoryview(b"x"), ROOT)
    else:
        spill.truncate(node, BLOCK + FRAME)
    assert not spill.memory.stuck
    spill.check()
    spill.swap.close()


def test_page_out_is_tried_again_when_a_page_came_that_can_be_dropped() -> None:
    """Else a full swap would end all reading from it, once the reserve is used up."""
    spill = full()
    node = spill.files()[0]
    spill.bring_in(places_of(node))
    assert spill.get(node) == pattern(1, 2 * BLOCK)
    assert not spill.memory.stuck
    spill.page_out_all()
    assert spill.memory.counters.dropped_clean == 2
    spill.swap.close()


def test_page_out_is_tried_again_when_there_is_a_page_that_it_has_not_tried() -> None:
    spill = Spill(ram=64)
    spill.page_out_all()
    assert spill.memory.stuck  # there was nothing to free
    node = spill.file(data=pattern(1, 3 * BLOCK))
    assert node.uobj.swapped
    spill.check()
    spill.swap.close()


def test_after_a_failure_a_new_page_is_no_reason_to_try_again(spill: Spill) -> None:
    node = spill.file(data=pattern(1, FRAME))
    spill.page_out(fails=True)
    spill.put(node, pattern(2, FRAME), BLOCK)
    assert spill.memory.stuck
    spill.memory.retry()
    assert not spill.memory.stuck


def test_page_out_goes_on_as_long_as_some_victims_were_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tmpfs_core.pageout.SLICE", 2)
    spill = Spill(ram=64, swap=(1,))
    node = spill.file()
    for block in range(5):
        vnops.write(node, block * BLOCK, memoryview(pattern(1, 2 * FRAME)), ROOT)
    vnops.write(node, 5 * BLOCK, memoryview(b"fits"), ROOT)
    for tries in range(3):
        assert not spill.memory.stuck
        laundry = spill.begin_out()
        assert bool(laundry.transfers) == (tries == 2)
        spill.end_out(laundry)
    assert list(node.uobj.swapped) == [5]
    spill.page_out_all()
    assert spill.memory.stuck
    assert not Laundry(spill.memory).transfers
    spill.check()
    spill.swap.close()

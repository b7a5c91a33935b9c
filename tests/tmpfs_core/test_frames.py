"""frames: masks, the arena's accounting, and memory that goes back to the host."""

import errno
import mmap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmpfs_core import frames
from tmpfs_core.frames import (
    BLOCK,
    FRAME,
    FRAMES_PER_BLOCK,
    WHOLE,
    ZEROS,
    Arena,
    Page,
    frame_bits,
    whole_frame_bits,
)
from tmpfs_core.vmobject import VMObject

from .support import in_core, refused, resident

MIB = 1 << 20


def new(arena: Arena) -> Page:
    return arena.allocate(VMObject(7), 3)


def fill(arena: Arena, mask: int = 0xFFFF) -> Page:
    """A page with these frames in use and full of ones."""
    page = new(arena)
    page.mask = mask
    for frame in range(FRAMES_PER_BLOCK):
        if mask >> frame & 1:
            page.mem[frame * FRAME : (frame + 1) * FRAME] = b"\xff" * FRAME
    return page


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(0, BLOCK - 1), st.integers(1, BLOCK))
def test_frame_bits_names_each_frame_that_holds_a_byte_of_the_range(start: int, stop: int) -> None:
    if start >= stop:
        start, stop = stop - 1, start + 1
    touched = {byte // FRAME for byte in (*range(start, stop, FRAME), stop - 1)}
    assert frame_bits(start, stop) == sum(1 << frame for frame in touched)


@pytest.mark.parametrize(
    ("start", "stop", "bits"),
    [(0, 1, 1), (4095, 4096, 1), (4095, 4097, 3), (4096, 8192, 2), (0, BLOCK, 0xFFFF)],
)
def test_frame_bits_at_the_edges_of_frames(start: int, stop: int, bits: int) -> None:
    assert frame_bits(start, stop) == bits


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(0, BLOCK - 1), st.integers(1, BLOCK))
def test_whole_frame_bits_names_each_frame_that_the_range_fills(start: int, stop: int) -> None:
    if start >= stop:
        start, stop = stop - 1, start + 1
    filled = [f for f in range(16) if start <= f * FRAME and (f + 1) * FRAME <= stop]
    assert whole_frame_bits(start, stop) == sum(1 << frame for frame in filled)


def test_the_block_of_zeros_can_not_be_written() -> None:
    assert len(ZEROS) == BLOCK
    assert ZEROS.readonly
    assert not any(ZEROS)


def test_a_new_page_is_one_block_of_zeros_with_no_frame_in_use() -> None:
    page = new(Arena(4))
    assert page.mask == 0
    assert page.mem == ZEROS
    assert not page.mem.readonly


def test_a_new_page_knows_its_place_and_has_no_history() -> None:
    page = new(Arena(4))
    assert (page.key, page.pindex) == ((7, 3), 3)
    assert not page.dirty
    assert not page.ahead
    assert page.copy is None
    assert page.laundry is None


def test_pages_do_not_overlap() -> None:
    arena = Arena(3)
    pages = [new(arena) for _ in range(3)]
    for i, page in enumerate(pages):
        page.mem[:] = bytes([i + 1]) * BLOCK
    assert [set(page.mem) for page in pages] == [{1}, {2}, {3}]


def test_there_are_as_many_blocks_as_frames_again_and_again() -> None:
    arena = Arena(3)
    for _ in range(3):
        pages = [fill(arena, mask=1) for _ in range(3)]
        assert {page.slot for page in pages} == {0, 1, 2}
        assert arena.release(pages) == 3


def test_a_released_page_is_zeros_when_it_is_used_again() -> None:
    arena = Arena(FRAMES_PER_BLOCK)
    page = fill(arena)
    assert arena.release([page]) == FRAMES_PER_BLOCK
    again = new(arena)
    assert again.slot == page.slot
    assert again.mem == ZEROS


def test_release_clears_exactly_the_pages_it_is_given() -> None:
    arena = Arena(8 * FRAMES_PER_BLOCK)
    pages = [fill(arena) for _ in range(8)]
    doomed = [pages[i] for i in (6, 1, 2, 4)]  # alone, neighbours, and in no order
    assert arena.release(doomed) == 4 * FRAMES_PER_BLOCK
    for page in pages:
        assert set(page.mem) == ({0} if page in doomed else {0xFF})
    assert {new(arena).slot for _ in doomed} == {page.slot for page in doomed}


def test_releasing_nothing_frees_nothing() -> None:
    assert Arena(1).release([]) == 0


def test_release_counts_the_frames_in_use_only() -> None:
    arena = Arena(4)
    assert arena.release([fill(arena, mask=0b1001), fill(arena, mask=0b1)]) == 3


def test_dropped_frames_are_zeros_and_the_lower_ones_stay() -> None:
    arena = Arena(FRAMES_PER_BLOCK)
    page = fill(arena, mask=0b1011)
    assert arena.drop_frames(page, 1) == 2
    assert page.mask == 0b1
    assert page.mem[:FRAME] == b"\xff" * FRAME
    assert page.mem[FRAME:] == ZEROS[FRAME:]


@pytest.mark.parametrize(("first", "dropped"), [(0, 3), (2, 1), (4, 0), (16, 0)])
def test_drop_frames_counts_those_that_were_in_use(first: int, dropped: int) -> None:
    arena = Arena(FRAMES_PER_BLOCK)
    page = fill(arena, mask=0b1011)
    assert arena.drop_frames(page, first) == dropped
    assert page.mask.bit_count() == 3 - dropped


def test_an_unused_arena_costs_no_memory() -> None:
    before = resident()
    arena = Arena(1 << 16)  # 4 GiB of address space
    new(arena)
    assert resident() - before < 4 * MIB


def test_released_memory_goes_back_to_the_host() -> None:
    arena = Arena(32 * MIB // FRAME)
    before = resident()
    pages = [fill(arena) for _ in range(32 * MIB // BLOCK)]
    assert resident() - before > 30 * MIB
    arena.release(pages)
    assert resident() - before < 4 * MIB


def test_dropped_frames_go_back_to_the_host() -> None:
    arena = Arena(32 * MIB // FRAME)
    before = resident()
    pages = [fill(arena) for _ in range(32 * MIB // BLOCK)]
    for page in pages:
        arena.drop_frames(page, 1)
    assert resident() - before < 6 * MIB  # a sixteenth of 32 MiB stays


def test_a_frame_in_use_costs_one_frame_of_memory() -> None:
    arena = Arena(512)
    before = resident()
    for _ in range(512):
        fill(arena, mask=1 << 15)
    assert 1 * MIB < resident() - before < 6 * MIB


@pytest.mark.parametrize("frames", [1 << 40, 1 << 60])
def test_more_address_space_than_the_host_has_is_enomem(frames: int) -> None:
    with refused(errno.ENOMEM):
        Arena(frames)


def test_a_host_without_huge_pages_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Map(mmap.mmap):
        """Memory of a kernel built without CONFIG_TRANSPARENT_HUGEPAGE; see madvise(2)."""

        def madvise(self, option: int, *where: int) -> None:
            if option == mmap.MADV_NOHUGEPAGE:
                raise OSError(errno.EINVAL, "Invalid argument")
            super().madvise(option, *where)

    monkeypatch.setattr(mmap, "mmap", Map)
    arena = Arena(1)
    page = fill(arena, mask=1)
    arena.release([page])
    assert page.mem == ZEROS


def test_an_arena_of_no_frames_can_be_made() -> None:
    assert Arena(0).release([]) == 0


def test_when_very_many_pages_are_free_the_arena_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "MANY", 2)
    arena = Arena(3)
    owner = VMObject(1)
    pages = [arena.allocate(owner, pindex) for pindex in range(3)]
    pages[0].mask = 1
    pages[0].mem[0] = 7
    arena.release(pages[:1])  # its first frame stays there
    arena.release(pages[1:2])
    arena.release(pages[2:])
    assert [arena.allocate(owner, pindex).slot for pindex in range(3)] == [0, 1, 2]
    assert pages[0].mem[0] == 0


def test_a_small_page_leaves_its_frame_to_the_next_cleared() -> None:
    arena = Arena(4)
    page = new(arena)
    page.mask = 1
    page.mem[:FRAME] = b"x" * FRAME
    assert arena.release([page]) == 1
    assert in_core(page.mem) == 1
    again = new(arena)
    assert (again.slot, again.mask) == (page.slot, 0)
    assert again.mem == ZEROS


@pytest.mark.parametrize("mask", [0b10, 0b11])
def test_only_a_first_frame_alone_is_left_to_the_next(mask: int) -> None:
    arena = Arena(4)
    page = new(arena)
    page.mask = mask
    page.mem[: 2 * FRAME] = b"x" * 2 * FRAME
    arena.release([page])
    assert in_core(page.mem) == 0


def test_only_so_many_frames_are_left_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "WARM", 2)
    arena = Arena(4)
    pages = [new(arena) for _ in range(3)]
    for page in pages:
        page.mask = 1
        page.mem[0] = 7
    assert arena.release(pages) == 3
    assert [in_core(page.mem) for page in pages] == [1, 1, 0]


def whole(arena: Arena) -> Page:
    """A page all of whose frames are in use."""
    page = new(arena)
    page.mask = WHOLE
    page.mem[:] = b"x" * BLOCK
    return page


def test_a_retired_page_leaves_its_memory_to_one_that_will_be_filled() -> None:
    arena = Arena(64)
    page = whole(arena)
    assert arena.retire(page) == FRAMES_PER_BLOCK
    assert in_core(page.mem) == FRAMES_PER_BLOCK
    assert new(arena).mem == ZEROS
    filled = arena.allocate_to_fill(VMObject(7), 5)
    assert (filled.slot, filled.mask, filled.key) == (page.slot, 0, (7, 5))
    assert arena.allocate_to_fill(VMObject(7), 6).mem == ZEROS


def test_a_retired_page_in_part_goes_back_to_the_host() -> None:
    arena = Arena(64)
    page = whole(arena)
    page.mask = 0b110
    assert arena.retire(page) == 2
    assert in_core(page.mem) == 0


def test_only_so_many_retired_pages_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BERTHS_KEPT", 2)
    arena = Arena(64)
    pages = [whole(arena) for _ in range(3)]
    for page in pages:
        arena.retire(page)
    assert [in_core(page.mem) for page in pages] == [FRAMES_PER_BLOCK, FRAMES_PER_BLOCK, 0]
    monkeypatch.setattr(frames, "BERTHS", 2)
    assert arena.berth(2) is not None
    last = whole(arena)
    arena.retire(last)
    assert in_core(last.mem) == 0


def test_address_space_is_enough_for_all_that_there_can_be() -> None:
    arena = Arena(FRAMES_PER_BLOCK * 4)
    small = [new(arena) for _ in range(FRAMES_PER_BLOCK * 4)]
    for page in small:
        page.mask = 1
    arena.release(small[:64])  # they stay warm
    pages = [arena.allocate_to_fill(VMObject(7), pindex) for pindex in range(4)]
    berths = arena.berth(frames.BERTHS) or []
    assert len(berths) == frames.BERTHS
    mems = [page.mem for page in (*small, *pages)] + [berth.mem for berth in berths]
    assert {len(mem) for mem in mems} == {BLOCK}
    used = [page.slot for page in (*small[64:], *pages)] + [berth.slot for berth in berths]
    assert len(set(used)) == len(used)

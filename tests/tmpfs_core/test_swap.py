"""swap: slots, the files they are in, and bytes on their way to and from them."""

import errno
import gc
import mmap
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmpfs_core import swap as swap_module
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.swap import (
    IOV_MAX,
    Copy,
    Extent,
    Swap,
    SwapFile,
    Transfer,
    plan,
    read_in,
    read_now,
    stored_frames,
    write_out,
)

from .paging import pattern, swap_file
from .support import refused

STEP = 8
FULL = 0xFFFF


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A swap file grows by 8 frames."""
    monkeypatch.setattr(swap_module, "STEP", STEP)


@pytest.fixture
def make() -> Iterator[Callable[..., Swap]]:
    """Makes a swap of files with so many slots each; grown to so many, else all."""
    made: list[Swap] = []

    def make(*limits: int, grown: int | None = None) -> Swap:
        swap = Swap([swap_file(limit) for limit in limits])
        made.append(swap)
        while swap.ungrown and (grown is None or swap.free < grown):
            assert swap.grow()
        return swap

    yield make
    for swap in made:
        for file in swap.files:
            file.check()
        swap.close()


Make = Callable[..., Swap]


def runs(extents: list[Extent]) -> list[tuple[int, int]]:
    return [(start, length) for _, start, length in extents]


def take(swap: Swap, *counts: int) -> list[Copy]:
    return [
        Copy((1 << count) - 1, extents)
        for count, extents in zip(counts, swap.take(list(counts)), strict=True)
    ]


def numbers(swap: Swap) -> tuple[int, int, int]:
    return swap.used, swap.free, swap.ungrown


# The file


def test_the_file_has_no_name_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    file = SwapFile(str(tmp_path / "swap"), 3)
    assert os.listdir(tmp_path) == []
    facts = os.fstat(file.fd)
    assert (stat.S_IMODE(facts.st_mode), facts.st_nlink) == (0o600, 0)
    assert facts.st_size == 3 * FRAME
    assert not os.get_inheritable(file.fd)
    file.close()
    with refused(errno.EBADF):
        os.fstat(file.fd)


def test_no_umask_opens_the_file_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file = SwapFile(str(tmp_path / "swap"), 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.fstat(file.fd).st_mode) == 0o600
    file.close()


def test_only_the_first_step_is_preallocated(tmp_path: Path) -> None:
    file = SwapFile(str(tmp_path / "swap"), 3 * STEP)
    assert os.fstat(file.fd).st_blocks * 512 == STEP * FRAME
    assert (file.free, file.ungrown) == (STEP, 2 * STEP)
    file.grow()
    assert os.fstat(file.fd).st_blocks * 512 == 2 * STEP * FRAME
    file.close()


@pytest.mark.parametrize(
    ("path", "code"),
    [("missing/swap", errno.ENOENT), ("file", errno.EEXIST), ("file/swap", errno.ENOTDIR)],
)
def test_a_file_that_can_not_be_made_is_refused(tmp_path: Path, path: str, code: int) -> None:
    (tmp_path / "file").write_text("precious")
    with refused(code):
        SwapFile(str(tmp_path / path), 4)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write")
def test_a_folder_that_can_not_be_written_is_refused() -> None:
    with pytest.raises(OSError, match="/proc/self/swap"):
        SwapFile("/proc/self/swap", 4)


def test_without_space_for_the_first_step_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    before = os.listdir("/proc/self/fd")
    with refused(errno.ENOSPC):
        SwapFile(str(tmp_path / "swap"), 4)
    assert os.listdir(tmp_path) == []
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Slots


def test_blocks_that_are_taken_together_are_neighbours(make: Make) -> None:
    swap = make(4 * STEP)
    copies = take(swap, 16, 1, 3)
    assert [runs(copy.extents) for copy in copies] == [[(0, 16)], [(16, 1)], [(17, 3)]]
    assert numbers(swap) == (20, 12, 0)


def test_what_is_taken_next_follows(make: Make) -> None:
    swap = make(4 * STEP)
    take(swap, 5)
    assert runs(take(swap, 3)[0].extents) == [(5, 3)]


def test_taking_nothing_takes_nothing(make: Make) -> None:
    swap = make(STEP)
    assert swap.take([]) == []
    assert swap.take([0, 0]) == [[], []]
    assert swap.used == 0


def test_a_slot_that_was_given_is_taken_again_at_the_end_of_the_file(make: Make) -> None:
    swap = make(2 * STEP)
    first, _ = take(swap, 4, 12)
    swap.give(first)
    assert runs(take(swap, 4)[0].extents) == [(0, 4)]


def test_a_block_is_split_where_no_run_is_long_enough(make: Make) -> None:
    swap = make(2 * STEP)
    copies = take(swap, *[2] * 8)
    for copy in copies[::2]:
        swap.give(copy)
    (copy,) = take(swap, 7)
    copy.check(FULL)
    assert sorted(runs(copy.extents)) == [(0, 2), (4, 2), (8, 2), (12, 1)]


def test_single_slots_serve_when_nothing_else_is_left(make: Make) -> None:
    swap = make(4 * STEP)
    copies = take(swap, *[1] * 32)
    for copy in copies[1::2]:
        swap.give(copy)
    (copy,) = take(swap, 16)
    assert sorted(runs(copy.extents)) == [(slot, 1) for slot in range(1, 32, 2)]
    assert swap.free == 0


def test_several_files_are_one_space(make: Make) -> None:
    swap = make(STEP, STEP // 2)
    copies = take(swap, 5, 5, 2)
    assert swap.free == 0
    assert [{extent.file for extent in copy.extents} for copy in copies] == [
        {swap.files[0]},
        {*swap.files},
        {swap.files[1]},
    ]
    for copy in copies:
        swap.give(copy)
    assert swap.used == 0


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.randoms(use_true_random=False))
def test_no_slot_is_ever_in_two_copies(rng: random.Random) -> None:
    swap = Swap([swap_file(29), swap_file(13)])
    held: list[Copy] = []
    while swap.ungrown:
        swap.grow()
    for _ in range(60):
        if held and rng.random() < 0.5:
            swap.give(held.pop(rng.randrange(len(held))))
        else:
            counts = [rng.randint(1, 6) for _ in range(3)]
            while swap.free < sum(counts) and swap.grow():
                pass
            if swap.free >= sum(counts):
                held += take(swap, *counts)
        extents = [extent for copy in held for extent in copy.extents]
        slots = {(id(f), slot) for f, start, n in extents for slot in range(start, start + n)}
        assert len(slots) == swap.used == sum(extent.length for extent in extents)
        for file in swap.files:
            file.check()
            assert all(start + n <= file.limit for f, start, n in extents if f is file)
    swap.close()


# Growing and shrinking


def test_swap_grows_by_steps_up_to_its_limit(make: Make) -> None:
    swap = make(2 * STEP + 3, grown=0)
    grown = [numbers(swap)]
    while swap.grow():
        grown.append(numbers(swap))
    assert grown == [(0, 8, 11), (0, 16, 3), (0, 19, 0)]
    assert numbers(swap) == (0, 19, 0)


def test_a_step_is_given_back_when_none_of_its_slots_is_in_use(make: Make) -> None:
    swap = make(3 * STEP)
    one, two, three = take(swap, STEP, STEP, STEP)
    swap.give(two)
    assert numbers(swap) == (2 * STEP, 0, STEP)
    assert os.fstat(swap.files[0].fd).st_blocks * 512 == 2 * STEP * FRAME
    swap.give(one)
    assert numbers(swap) == (STEP, 0, 2 * STEP)
    swap.give(three)
    assert numbers(swap) == (0, STEP, 2 * STEP)  # the last one stays
    assert os.fstat(swap.files[0].fd).st_blocks * 512 == STEP * FRAME


def test_a_step_that_was_given_back_can_grow_again(make: Make) -> None:
    swap = make(2 * STEP)
    one, two = take(swap, STEP, STEP)
    swap.give(one)
    assert swap.grow()
    assert numbers(swap) == (STEP, STEP, 0)
    assert runs(take(swap, STEP)[0].extents) == [(0, STEP)]
    two.check(FULL)


def test_a_run_over_the_border_of_two_steps_counts_in_both(make: Make) -> None:
    swap = make(3 * STEP)
    _, over, rest = take(swap, STEP - 2, 4, 2 * STEP - 2)
    swap.give(rest)
    assert numbers(swap) == (STEP + 2, STEP - 2, STEP)
    swap.give(over)
    assert numbers(swap) == (STEP - 2, 2, 2 * STEP)


def test_where_one_file_has_no_room_another_grows(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = make(2 * STEP, 2 * STEP, grown=0)
    fallocate = os.posix_fallocate

    def full(fd: int, offset: int, count: int) -> None:
        if fd == swap.files[0].fd:
            no_space()
        fallocate(fd, offset, count)

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert swap.grow()
    assert [file.ungrown for file in swap.files] == [STEP, 0]
    assert not swap.grow()
    assert numbers(swap) == (0, 3 * STEP, STEP)


def test_on_a_disk_that_takes_nothing_back_the_step_stays(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Map(mmap.mmap):
        def madvise(self, option: int, *_: int) -> None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(mmap, "mmap", Map)
    swap = make(2 * STEP)
    one, two = take(swap, STEP, STEP)
    swap.give(one)
    assert numbers(swap) == (STEP, STEP, 0)
    swap.give(two)
    assert numbers(swap) == (0, 2 * STEP, 0)


# Trimming


@pytest.mark.parametrize(
    ("mask", "kept"),
    [
        (FULL, [(2, 4), (8, 2)]),
        (0b1111111, [(2, 4), (8, 1)]),
        (0b111111, [(2, 4)]),
        (0b111, [(2, 2)]),
        (0b1, []),
        (0, []),
    ],
)
def test_trimming_frees_the_slots_of_the_frames_that_go(
    make: Make, mask: int, kept: list[tuple[int, int]]
) -> None:
    swap = make(2 * STEP)
    file = swap.files[0]
    file.take(16)
    for start, length in ((0, 2), (6, 2), (10, 6)):
        file.give(start, length)
    copy = Copy(0b11110110, [Extent(file, 2, 4), Extent(file, 8, 2)])
    swap.trim(copy, mask)
    copy.check(mask & FULL)
    assert runs(copy.extents) == kept
    assert swap.used == sum(length for _, length in kept)


# Bytes


def test_frames_of_zeros_need_no_slot() -> None:
    mem = memoryview(bytearray(BLOCK))
    mem[2 * FRAME + 5] = 1
    mem[3 * FRAME] = 1
    mem[7 * FRAME - 1] = 1
    assert stored_frames(mem, FULL) == 0b1001100
    assert stored_frames(mem, 0b1000001) == 0b1000000
    assert stored_frames(mem, 0) == 0


def there_and_back(swap: Swap, copies: list[Copy]) -> None:
    """Write blocks to their copies; what comes back must be the same, and nothing else."""
    there = [memoryview(bytearray(pattern(i, BLOCK))) for i in range(len(copies))]
    back = [memoryview(bytearray(BLOCK)) for _ in copies]
    for transfer in plan(zip(there, copies, strict=True)):
        write_out(transfer)
    for transfer in plan(zip(back, copies, strict=True)):
        read_in(transfer)
    for mine, its, copy in zip(there, back, copies, strict=True):
        for frame in range(16):
            at = slice(frame * FRAME, (frame + 1) * FRAME)
            stored = copy.stored >> frame & 1
            assert bytes(its[at]) == (bytes(mine[at]) if stored else bytes(FRAME))


@pytest.mark.parametrize("stored", [FULL, 1, 0x8000, 0b1010101010101010, 0b0110000000001110])
def test_what_is_written_is_read_again(make: Make, stored: int) -> None:
    swap = make(4 * STEP)
    count = stored.bit_count()
    there_and_back(swap, [Copy(stored, extents) for extents in swap.take([count, count])])


@pytest.mark.parametrize("stored", [FULL, 0b0110111111111110])
def test_what_is_written_to_scattered_slots_is_read_again(make: Make, stored: int) -> None:
    swap = make(4 * STEP, 4 * STEP)
    copies = take(swap, *[1, 2] * 21)
    for copy in copies[::2]:
        swap.give(copy)
    there_and_back(swap, [Copy(stored, swap.take([stored.bit_count()])[0])])


def test_neighbours_go_in_one_call(make: Make) -> None:
    swap = make(8 * STEP)
    blocks = [memoryview(bytearray(BLOCK)) for _ in range(3)]
    copies = [Copy(FULL, extents) for extents in swap.take([16] * 3)]
    (transfer,) = plan(zip(blocks, copies, strict=True))
    assert (transfer.offset, len(transfer.views)) == (0, 3)
    apart = plan([(blocks[0], copies[0]), (blocks[2], copies[2])])
    assert [transfer.offset for transfer in apart] == [0, 2 * BLOCK]
    assert len(plan([(blocks[1], copies[1]), (blocks[0], copies[0])])) == 2


def test_the_end_of_one_file_is_no_neighbour_of_another(make: Make) -> None:
    swap = make(STEP, STEP)
    mem = memoryview(bytearray(BLOCK))
    transfers = plan([(mem, Copy(FULL, swap.take([16])[0]))])
    assert [transfer.file for transfer in transfers] == swap.files


def test_a_call_takes_no_more_buffers_than_the_kernel_does(make: Make) -> None:
    swap = make(STEP)
    view = memoryview(bytearray(FRAME))
    places = [(view, Copy(1, [Extent(swap.files[0], i, 1)])) for i in range(IOV_MAX + 1)]
    assert [len(transfer.views) for transfer in plan(places)] == [IOV_MAX, 1]


def in_bits(call: Callable[..., int], most: int) -> Callable[..., int]:
    """pwritev or preadv that moves at most so many bytes in a call."""

    def part(fd: int, views: list[memoryview], offset: int) -> int:
        return call(fd, [views[0][:most]], offset)

    return part


@pytest.mark.parametrize("most", [1000, FRAME, 5 * FRAME + 1])
def test_calls_that_move_only_some_of_it_are_continued(
    make: Make, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(os, "pwritev", in_bits(os.pwritev, most))
    monkeypatch.setattr(os, "preadv", in_bits(os.preadv, most))
    swap = make(4 * STEP)
    there_and_back(swap, [Copy(FULL, swap.take([16])[0]), Copy(0b101, swap.take([2])[0])])


def test_a_file_that_takes_no_bytes_is_eio(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    swap = make(STEP)
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    with refused(errno.EIO):
        write_out(Transfer(swap.files[0], 0, [memoryview(bytearray(FRAME))]))


def test_a_write_that_fails_names_the_file(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    swap = make(STEP)
    monkeypatch.setattr(os, "pwritev", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        write_out(Transfer(swap.files[0], 0, [memoryview(bytearray(FRAME))]))
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, swap.files[0].path)


@pytest.mark.parametrize("kept", [0, 1, FRAME, BLOCK - 1])
def test_a_file_that_was_truncated_behind_our_back_is_eio_and_no_signal(
    make: Make, kept: int
) -> None:
    swap = make(4 * STEP)
    copy = Copy(FULL, swap.take([16])[0])
    mem = memoryview(bytearray(pattern(1, BLOCK)))
    for transfer in plan([(mem, copy)]):
        write_out(transfer)
    os.ftruncate(swap.files[0].fd, kept)
    with refused(errno.EIO):
        read_in(plan([(mem, copy)])[0])
    swap.give(copy)  # what it gives back is not there any more: no harm
    assert swap.grow()
    there_and_back(swap, [Copy(FULL, swap.take([16])[0])])


def test_the_check_notices_a_wrong_count(make: Make) -> None:
    swap = make(STEP)
    swap.files[0].free -= 1
    with pytest.raises(AssertionError):
        swap.files[0].check()
    swap.files[0].free += 1


def test_reading_now_takes_what_is_cached_and_nothing_less(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = make(8)
    mem = memoryview(bytearray(pattern(1, BLOCK)))
    copy = Copy(0b11, *swap.take([2]))
    (transfer,) = plan([(mem, copy)])
    write_out(transfer)
    there = memoryview(bytearray(BLOCK))
    (back,) = plan([(there, copy)])
    real = os.preadv

    def preadv(most: int) -> Callable[[int, list[memoryview], int, int], int]:
        return lambda fd, views, at, flags: real(fd, [views[0][:most]], at)

    monkeypatch.setattr(os, "preadv", preadv(BLOCK))
    assert read_now(back)
    assert there[: 2 * FRAME] == mem[: 2 * FRAME]
    monkeypatch.setattr(os, "preadv", preadv(FRAME))
    assert not read_now(back)

    def not_cached(fd: int, views: list[memoryview], at: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", not_cached)
    assert not read_now(back)

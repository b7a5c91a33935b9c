"""vmobject: budgets, and the pages of one file with their exact accounting."""

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmpfs_core.frames import BLOCK, FRAME, Arena
from tmpfs_core.vmobject import Budget, VMObject

from .support import refused

FAR = (1 << 63) - 1


class Store:
    """An arena, its budget, and files in it."""

    def __init__(self, frames: int) -> None:
        self.arena = Arena(frames)
        self.budget = Budget(frames)

    def file(self) -> VMObject:
        return VMObject(self.arena, self.budget)


def put(file: VMObject, offset: int, data: bytes) -> int:
    done = file.write(offset, memoryview(data))
    file.check()
    return done


def get(file: VMObject, offset: int, count: int) -> bytes:
    return b"".join(file.read(offset, count))


def ones(count: int) -> bytes:
    return b"\xff" * count


@pytest.fixture
def store() -> Store:
    return Store(64)


@pytest.fixture
def file(store: Store) -> VMObject:
    return store.file()


# Budget


def test_a_budget_is_used_up_to_its_limit() -> None:
    budget = Budget(3)
    budget.take(2)
    budget.take(1)
    assert (budget.used, budget.free) == (3, 0)
    budget.give(2)
    assert (budget.used, budget.free) == (1, 2)


def test_a_budget_refuses_more_than_is_free_and_takes_nothing() -> None:
    budget = Budget(3)
    budget.take(2)
    with refused(errno.ENOSPC):
        budget.take(2)
    assert budget.used == 2


# Reading and writing


def test_a_hole_reads_as_zeros_and_costs_nothing(store: Store, file: VMObject) -> None:
    assert get(file, 5, 3 * BLOCK) == bytes(3 * BLOCK)
    assert file.frames == store.budget.used == 0


@pytest.mark.parametrize("offset", [0, 1, FRAME - 1, FRAME, BLOCK - 1, BLOCK, FAR - 10 * BLOCK])
@pytest.mark.parametrize("count", [1, 2, FRAME, FRAME + 1, BLOCK, BLOCK + 2, 2 * BLOCK])
def test_what_was_written_is_read_with_zeros_around_it(
    file: VMObject, offset: int, count: int
) -> None:
    data = bytes(i % 251 + 1 for i in range(count))
    assert put(file, offset, data) == count
    before = min(offset, 10)
    assert get(file, offset - before, before + count + 10) == bytes(before) + data + bytes(10)


@pytest.mark.parametrize(
    ("offset", "count", "frames"),
    [
        (0, 1, 1),
        (0, FRAME, 1),
        (0, FRAME + 1, 2),
        (FRAME - 1, 2, 2),
        (BLOCK - 1, 2, 2),
        (0, BLOCK, 16),
        (FRAME - 1, BLOCK, 17),
        (1 << 50, 1, 1),
    ],
)
def test_a_write_takes_just_the_frames_it_touches(
    store: Store, file: VMObject, offset: int, count: int, frames: int
) -> None:
    for _ in range(2):  # the second time they are there already
        put(file, offset, ones(count))
        assert file.frames == store.budget.used == frames


def test_writing_nothing_takes_nothing(store: Store, file: VMObject) -> None:
    assert put(file, 0, b"") == 0
    assert store.budget.used == 0


def test_reading_gives_one_view_a_block(file: VMObject) -> None:
    put(file, 0, ones(3 * BLOCK))
    assert [len(view) for view in file.read(BLOCK - 1, BLOCK + 2)] == [1, BLOCK, 1]
    assert [len(view) for view in file.read(7, 9)] == [9]


def test_views_show_the_live_page(file: VMObject) -> None:
    put(file, 0, b"old")
    (view,) = file.read(0, 3)
    put(file, 0, b"new")
    assert bytes(view) == b"new"


def test_two_files_do_not_share_pages(store: Store) -> None:
    one, two = store.file(), store.file()
    put(one, 0, b"1" * BLOCK)
    put(two, 0, b"2" * BLOCK)
    assert (get(one, 0, BLOCK), get(two, 0, BLOCK)) == (b"1" * BLOCK, b"2" * BLOCK)


# Running out


def test_exactly_the_budget_fits() -> None:
    store = Store(17)
    file = store.file()
    assert put(file, 0, ones(17 * FRAME)) == 17 * FRAME
    assert put(file, 17 * FRAME, b"x") == 0
    assert store.budget.free == 0


@pytest.mark.parametrize(
    ("offset", "stored"),
    [
        (0, 3 * FRAME),
        (100, 3 * FRAME - 100),
        (BLOCK - FRAME - 1, 2 * FRAME + 1),
        (FRAME, 3 * FRAME),
    ],
)
def test_a_write_that_does_not_fit_is_cut_at_the_end_of_the_last_frame(
    offset: int, stored: int
) -> None:
    store = Store(3)
    file = store.file()
    assert put(file, offset, ones(5 * BLOCK)) == stored
    assert file.frames == store.budget.used == 3
    assert get(file, offset, stored + 5) == ones(stored) + bytes(5)


def test_frames_that_the_file_holds_need_no_room() -> None:
    store = Store(2)
    file = store.file()
    put(file, 0, ones(10))
    put(file, 2 * FRAME, ones(10))
    assert store.budget.free == 0
    assert put(file, 0, b"a" * 3 * FRAME) == FRAME  # up to the hole
    for offset in (FRAME, FRAME + 5, 2 * FRAME - 1):
        assert put(file, offset, b"b") == 0  # in the hole
    assert put(file, 3 * FRAME - 1, b"cc") == 1  # over the end of a frame
    assert get(file, 0, 3 * FRAME) == b"a" * FRAME + bytes(FRAME) + ones(10) + bytes(4085) + b"c"


def test_a_file_without_room_makes_no_page() -> None:
    store = Store(1)
    put(store.file(), 0, b"x")
    late = store.file()
    assert put(late, 0, b"x") == 0
    assert late.frames == 0


def test_a_full_store_of_one_frame_files_spread_over_blocks() -> None:
    store = Store(40)
    file = store.file()
    for place in range(40):
        assert put(file, place * BLOCK * 3, b"x") == 1
    assert put(file, BLOCK, b"x") == 0
    assert file.frames == 40


# Truncating


def test_truncate_to_nothing_gives_all_back(store: Store, file: VMObject) -> None:
    put(file, FRAME, ones(2 * BLOCK))
    file.truncate(0)
    file.check()
    assert file.frames == store.budget.used == 0
    assert get(file, 0, 3 * BLOCK) == bytes(3 * BLOCK)


@pytest.mark.parametrize(
    ("size", "frames"),
    [
        (1, 1),
        (FRAME - 1, 1),
        (FRAME, 1),
        (FRAME + 1, 2),
        (BLOCK - 1, 16),
        (BLOCK, 16),
        (BLOCK + 1, 17),
        (2 * BLOCK, 32),
        (9 * BLOCK, 32),
    ],
)
def test_truncate_keeps_the_bytes_before_the_size_and_zeros_what_follows(
    store: Store, file: VMObject, size: int, frames: int
) -> None:
    put(file, 0, ones(2 * BLOCK))
    file.truncate(size)
    file.check()
    kept = min(size, 2 * BLOCK)
    assert get(file, 0, 3 * BLOCK) == ones(kept) + bytes(3 * BLOCK - kept)
    assert file.frames == store.budget.used == frames


def test_truncate_in_a_hole_frees_a_page_that_holds_nothing_any_more(
    store: Store, file: VMObject
) -> None:
    put(file, BLOCK + 5 * FRAME, b"x")
    file.truncate(BLOCK + FRAME + 1)
    file.check()
    assert file.frames == store.budget.used == 0


def test_truncate_does_not_fill_a_hole_at_the_new_end(store: Store, file: VMObject) -> None:
    put(file, 0, b"x")
    put(file, 2 * FRAME, b"y")
    file.truncate(FRAME + 100)
    file.check()
    assert file.frames == store.budget.used == 1


def test_freed_frames_read_as_zeros_in_another_file(store: Store, file: VMObject) -> None:
    put(file, 0, ones(64 * FRAME))
    file.truncate(0)
    other = store.file()
    for frame in range(64):
        put(other, frame * FRAME, b"x")
    assert get(other, 0, 64 * FRAME) == (b"x" + bytes(FRAME - 1)) * 64


def test_frames_freed_at_the_tail_of_a_page_read_as_zeros_again(file: VMObject) -> None:
    put(file, 0, ones(BLOCK))
    file.truncate(FRAME)
    put(file, BLOCK - 1, b"x")
    assert get(file, 0, BLOCK) == ones(FRAME) + bytes(BLOCK - FRAME - 1) + b"x"


def test_space_given_back_can_be_used_again_and_again() -> None:
    store = Store(20)
    for _ in range(50):
        file = store.file()
        assert put(file, FRAME // 2, ones(5 * BLOCK)) == 20 * FRAME - FRAME // 2
        file.truncate(FRAME)
        assert store.budget.used == 1
        file.truncate(0)
    assert store.budget.used == 0


# Any mixture

steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "truncate"]),
        st.sampled_from([0, FRAME, 3 * FRAME, BLOCK, BLOCK + 5 * FRAME, 2 * BLOCK]),
        st.integers(-2, 2),
        st.sampled_from([1, 3, FRAME - 1, FRAME, FRAME + 3, BLOCK, BLOCK + 7]),
    ),
    max_size=12,
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(steps)
def test_any_mixture_holds_the_frames_touched_since_the_last_truncation(
    mixture: list[tuple[str, int, int, int]],
) -> None:
    store = Store(40)
    file = store.file()
    data = bytearray(4 * BLOCK)
    touched: set[int] = set()
    for i, (kind, base, delta, count) in enumerate(mixture):
        offset = max(0, base + delta)
        if kind == "truncate":
            file.truncate(offset)
            file.check()
            data[offset:] = bytes(len(data) - offset)
            touched = {frame for frame in touched if frame * FRAME < offset}
        else:
            done = put(file, offset, bytes([i + 1]) * count)
            data[offset : offset + done] = bytes([i + 1]) * done
            touched |= set(range(offset // FRAME, -(-(offset + done) // FRAME)))
            if done < count:
                assert len(touched) == 40
                assert (offset + done) // FRAME not in touched
        assert get(file, 0, len(data)) == data
        assert file.frames == store.budget.used == len(touched)

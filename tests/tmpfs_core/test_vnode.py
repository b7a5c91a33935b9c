"""vnode: data that is all in RAM, in pages of an open file, with their exact accounting.

What happens to pages that go to swap is told by test_pageout.py.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmpfs_core import vnode
from tmpfs_core.accounting import Blocks
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.memory import Memory
from tmpfs_core.vmobject import Uobj
from tmpfs_core.vnode import Vnode

FAR = (1 << 63) - 1


class File:
    """A file that is open."""

    def __init__(self, ino: int, memory: Memory, budget: Blocks) -> None:
        self.uobj = Uobj(ino, memory, budget)
        self.vnode: Vnode | None = Vnode(self.uobj)

    @property
    def frames(self) -> int:
        return self.uobj.charged

    def read(self, offset: int, count: int) -> list[memoryview]:
        assert self.vnode is not None
        return vnode.read(self.vnode, offset, count)

    def write(self, offset: int, data: memoryview) -> int:
        assert self.vnode is not None
        return vnode.write(self.vnode, offset, data, len(data))

    def truncate(self, size: int) -> None:
        vnode.truncate(self.uobj, self.vnode, size)

    def close(self) -> None:
        assert self.vnode is not None
        self.vnode.inactive()
        self.vnode = None

    def open(self) -> None:
        self.vnode = Vnode(self.uobj)

    def check(self) -> None:
        vnode.check(self.uobj, self.vnode)


class Store:
    """RAM, a budget of as many frames, and files in it."""

    def __init__(self, frames: int) -> None:
        self.memory = Memory(frames)
        self.budget = Blocks(frames)
        self.files = 0

    def file(self) -> File:
        self.files += 1
        return File(self.files, self.memory, self.budget)


def put(file: File, offset: int, data: bytes) -> int:
    done = file.write(offset, memoryview(data))
    file.check()
    return done


def get(file: File, offset: int, count: int) -> bytes:
    return b"".join(file.read(offset, count))


def ones(count: int) -> bytes:
    return b"\xff" * count


@pytest.fixture
def store() -> Store:
    return Store(64)


@pytest.fixture
def file(store: Store) -> File:
    return store.file()


# Reading and writing


def test_a_hole_reads_as_zeros_and_costs_nothing(store: Store, file: File) -> None:
    assert get(file, 5, 3 * BLOCK) == bytes(3 * BLOCK)
    assert file.frames == store.budget.used == 0


@pytest.mark.parametrize("offset", [0, 1, FRAME - 1, FRAME, BLOCK - 1, BLOCK, FAR - 10 * BLOCK])
@pytest.mark.parametrize("count", [1, 2, FRAME, FRAME + 1, BLOCK, BLOCK + 2, 2 * BLOCK])
def test_what_was_written_is_read_with_zeros_around_it(file: File, offset: int, count: int) -> None:
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
    store: Store, file: File, offset: int, count: int, frames: int
) -> None:
    for _ in range(2):  # the second time they are there already
        put(file, offset, ones(count))
        assert file.frames == store.budget.used == frames


def test_writing_nothing_takes_nothing(store: Store, file: File) -> None:
    assert put(file, 0, b"") == 0
    assert store.budget.used == 0


def test_reading_gives_one_view_a_block(file: File) -> None:
    put(file, 0, ones(3 * BLOCK))
    assert [len(view) for view in file.read(BLOCK - 1, BLOCK + 2)] == [1, BLOCK, 1]
    assert [len(view) for view in file.read(7, 9)] == [9]


def test_views_show_the_live_page(file: File) -> None:
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


def truncate(file: File, size: int, opened: bool) -> None:
    """Truncate the file while it is open, or while it is not."""
    if not opened:
        file.close()
    file.truncate(size)
    file.check()
    if not opened:
        file.open()


either_way = pytest.mark.parametrize("opened", [True, False], ids=["open", "closed"])


@either_way
def test_truncate_to_nothing_gives_all_back(store: Store, file: File, opened: bool) -> None:
    put(file, FRAME, ones(2 * BLOCK))
    truncate(file, 0, opened)
    assert file.frames == store.budget.used == 0
    assert get(file, 0, 3 * BLOCK) == bytes(3 * BLOCK)


@either_way
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
    store: Store, file: File, size: int, frames: int, opened: bool
) -> None:
    put(file, 0, ones(2 * BLOCK))
    truncate(file, size, opened)
    kept = min(size, 2 * BLOCK)
    assert get(file, 0, 3 * BLOCK) == ones(kept) + bytes(3 * BLOCK - kept)
    assert file.frames == store.budget.used == frames


def test_truncate_in_a_hole_frees_a_page_that_holds_nothing_any_more(
    store: Store, file: File
) -> None:
    put(file, BLOCK + 5 * FRAME, b"x")
    file.truncate(BLOCK + FRAME + 1)
    file.check()
    assert file.frames == store.budget.used == 0


def test_truncate_does_not_fill_a_hole_at_the_new_end(store: Store, file: File) -> None:
    put(file, 0, b"x")
    put(file, 2 * FRAME, b"y")
    file.truncate(FRAME + 100)
    file.check()
    assert file.frames == store.budget.used == 1


def test_freed_frames_read_as_zeros_in_another_file(store: Store, file: File) -> None:
    put(file, 0, ones(64 * FRAME))
    file.truncate(0)
    other = store.file()
    for frame in range(64):
        put(other, frame * FRAME, b"x")
    assert get(other, 0, 64 * FRAME) == (b"x" + bytes(FRAME - 1)) * 64


def test_frames_freed_at_the_tail_of_a_page_read_as_zeros_again(file: File) -> None:
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


# Pages in use, and at rest


def numbers(store: Store) -> tuple[int, int]:
    """How many blocks have been moved in, and home."""
    counters = store.memory.counters
    assert counters.bytes_copied_by_moves == 0
    return counters.moved_in, counters.moved_home


def test_what_is_written_anew_is_in_use_without_a_move(store: Store, file: File) -> None:
    put(file, 0, ones(2 * BLOCK))
    assert file.vnode is not None
    assert (len(file.vnode.bufs), len(file.uobj.pages)) == (2, 0)
    assert numbers(store) == (0, 0)


def test_the_last_close_sends_all_pages_home_and_an_open_brings_none_back(
    store: Store, file: File
) -> None:
    put(file, 0, ones(2 * BLOCK))
    file.close()
    file.check()
    assert (len(file.uobj.pages), numbers(store)) == (2, (0, 2))
    file.open()
    assert file.vnode is not None
    assert (len(file.vnode.pages), numbers(store)) == (0, (0, 2))


def test_a_block_moves_in_when_it_is_read_or_written_and_only_then(
    store: Store, file: File
) -> None:
    put(file, 0, ones(3 * BLOCK))
    pages = dict(file.vnode.pages) if file.vnode else {}
    file.close()
    file.open()
    assert file.vnode is not None
    get(file, BLOCK, 1)
    put(file, 2 * BLOCK, b"x")
    assert file.vnode.pages == {1: pages[1], 2: pages[2]}
    assert file.uobj.pages == {0: pages[0]}
    get(file, BLOCK, BLOCK)  # it is there already
    assert numbers(store) == (2, 3)


def test_a_hole_gets_no_buffer_by_being_read(file: File) -> None:
    get(file, 0, 3 * BLOCK)
    assert file.vnode is not None
    assert not file.vnode.bufs
    file.check()


def test_a_buffer_is_dirty_exactly_when_its_page_is(file: File) -> None:
    put(file, 0, b"x")
    assert file.vnode is not None
    buf = file.vnode.bufs[0]
    assert buf.dirty
    assert buf.page.dirty
    assert buf.mem is buf.page.mem


def test_a_released_buffer_gives_its_page_home(store: Store, file: File) -> None:
    put(file, 0, ones(2 * BLOCK))
    assert file.vnode is not None
    page = file.vnode.pages[1]
    page.owner.rest(page)
    file.check()
    assert file.uobj.pages == {1: page}
    page.owner.rest(page)  # it is there
    assert (file.uobj.pages, numbers(store)) == ({1: page}, (0, 1))
    assert get(file, BLOCK, BLOCK) == ones(BLOCK)


def test_memory_knows_how_much_is_in_use(store: Store) -> None:
    one, two = store.file(), store.file()
    put(one, 0, ones(BLOCK))
    put(two, 0, ones(FRAME))
    assert store.memory.statistics()["in_use"] == BLOCK + FRAME
    one.close()
    assert store.memory.statistics()["in_use"] == FRAME
    assert store.memory.statistics()["resident"] == BLOCK + FRAME
    one.open()
    assert get(one, 0, 1) == b"\xff"
    assert store.memory.statistics()["in_use"] == BLOCK + FRAME
    for size, frames in ((FRAME + 1, 2), (1, 1), (0, 0)):
        one.truncate(size)
        assert store.memory.statistics()["in_use"] == FRAME + frames * FRAME


# What the check notices


def test_the_check_notices_a_place_in_two_states(file: File) -> None:
    put(file, 0, b"x")
    assert file.vnode is not None
    file.uobj.pages[0] = file.vnode.pages[0]
    with pytest.raises(AssertionError, match="I1"):
        file.check()


def test_the_check_notices_a_wrong_owner(file: File) -> None:
    put(file, 0, b"x")
    assert file.vnode is not None
    file.vnode.pages[0].owner = file.uobj
    with pytest.raises(AssertionError, match="I2"):
        file.check()


def test_the_check_notices_a_wrong_place(file: File) -> None:
    put(file, 0, b"x")
    assert file.vnode is not None
    file.vnode.pages[0].pindex = 1
    with pytest.raises(AssertionError, match="I2"):
        file.check()


def test_the_check_notices_a_clean_page_that_is_nowhere_else(file: File) -> None:
    put(file, 0, b"x")
    assert file.vnode is not None
    file.vnode.pages[0].dirty = False
    with pytest.raises(AssertionError, match="I4"):
        file.check()


def test_the_check_notices_an_unused_frame_that_is_not_zero(file: File) -> None:
    put(file, 0, b"x")
    assert file.vnode is not None
    file.vnode.pages[0].mem[FRAME] = 1
    with pytest.raises(AssertionError, match="I5"):
        file.check()


def test_the_check_notices_a_frame_that_is_not_charged(file: File) -> None:
    put(file, 0, b"x")
    file.uobj.charged = 0
    with pytest.raises(AssertionError, match="I6"):
        file.check()


def test_the_check_notices_a_page_in_use_without_a_buffer(file: File) -> None:
    put(file, 0, b"x")
    assert file.vnode is not None
    file.vnode.bufs.clear()
    with pytest.raises(AssertionError, match="I7"):
        file.check()


# Any mixture

steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "truncate", "truncate closed", "close"]),
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
        if kind == "close":
            file.close()
            file.open()
        elif kind != "write":
            truncate(file, offset, kind == "truncate")
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

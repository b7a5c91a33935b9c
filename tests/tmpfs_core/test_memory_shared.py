"""Several mounts on one memory, and several memories on one swap."""

import errno
import threading
from collections.abc import Iterator

import pytest

from tmpfs_core import swap as swap_module
from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.memory import Memory, reserve_for
from tmpfs_core.mount import Mount
from tmpfs_core.node import FileNode
from tmpfs_core.pageout import Arrival, Laundry
from tmpfs_core.swap import Swap, SwapFile

from .paging import pattern, places_of, swap_file
from .support import make_dir, make_file, peek, put, refused, used

DATA = pattern(1, BLOCK)


@pytest.fixture
def swap(small_steps: None) -> Iterator[Swap]:
    """32 blocks of swap, in two steps."""
    swap = Swap([swap_file(512)])
    yield swap
    assert swap.used == 0
    assert all(sharer.ram.used == 0 for sharer in swap.sharers if isinstance(sharer, Memory))
    swap.close()


def page_out_all(memory: Memory) -> None:
    memory.retry()
    while not memory.stuck:
        laundry = Laundry(memory)
        laundry.run()
        laundry.finish(done=True)


def bring_in(node: FileNode) -> None:
    arrival = Arrival(node.mount.memory, places_of(node))
    arrival.run()
    arrival.finish()


def clear(*mounts: Mount) -> None:
    for mount in mounts:
        for _ in mount.clear():
            pass
        mount.check()
        assert (mount.blocks.used, mount.inodes.used) == (0, 1)


# Several mounts on one memory


def test_each_mount_has_its_own_limits_within_the_ram_that_both_share() -> None:
    memory = Memory(24)
    small, large = (Mount(size * FRAME, 10, memory=memory) for size in (8, 20))
    assert put(make_file(small), bytes([1]) * 9 * FRAME) == 8 * FRAME
    node = make_file(large)
    assert put(node, bytes([2]) * 20 * FRAME) == 16 * FRAME  # what is left of the RAM
    with refused(errno.ENOSPC):
        put(node, b"x", 16 * FRAME)
    assert (used(small), used(large), memory.ram.used) == (8, 16, 24)
    vnops.unlink(small.root, b"file", ROOT)
    assert put(node, bytes([3]) * 9 * FRAME, 16 * FRAME) == 4 * FRAME  # what its size allows
    small.check()
    large.check()


def test_no_two_files_on_a_memory_have_the_same_number() -> None:
    memory = Memory(8)
    one, two = Mount(FRAME, 10, memory=memory), Mount(FRAME, 10, memory=memory)
    nodes = [
        one.root,
        two.root,
        *(make_file(mount, b"%d" % i) for i in range(3) for mount in (one, two)),
    ]
    assert len({node.ino for node in nodes}) == len(nodes)


def test_pages_of_both_go_to_swap_and_come_back(swap: Swap) -> None:
    memory = Memory(256, swap)
    mounts = [Mount(1 << 20, 10, memory=memory) for _ in range(2)]
    nodes = [make_file(mount, data=pattern(i, 2 * BLOCK)) for i, mount in enumerate(mounts)]
    page_out_all(memory)
    assert memory.ram.used == 0
    assert (memory.swapped, swap.used) == (64, 64)
    assert [mount.blocks.swapped for mount in mounts] == [32, 32]
    for i, node in enumerate(nodes):
        bring_in(node)
        assert peek(node) == pattern(i, 2 * BLOCK)
        node.mount.check()
    memory.replacement.check()
    clear(*mounts)


def test_nothing_is_linked_or_moved_from_one_mount_to_another(
    world_of_two: tuple[Mount, Mount],
) -> None:
    one, two = world_of_two
    for name in (b"file", b"dir"):
        entry = vnops.lookup(one.root, name, ROOT)
        with refused(errno.EXDEV):
            vnops.rename(entry, two.root, b"moved", ROOT)
        with refused(errno.EXDEV):
            vnops.link(entry.node, two.root, b"linked", ROOT)


@pytest.fixture
def world_of_two() -> Iterator[tuple[Mount, Mount]]:
    """Two mounts; the first has a file and a directory."""
    memory = Memory(64)
    one, two = Mount(64 * FRAME, 20, memory=memory), Mount(64 * FRAME, 20, memory=memory)
    make_file(one, data=b"data")
    make_dir(one.root)
    yield one, two
    one.check()
    two.check()


# The end of a mount


def test_clearing_a_mount_frees_all_that_it_held_and_nothing_else(swap: Swap) -> None:
    memory = Memory(256, swap)
    doomed, other = (Mount(1 << 20, 50, memory=memory) for _ in range(2))
    kept = make_file(other, data=DATA)
    page_out_all(memory)
    inner = make_dir(make_dir(doomed.root), b"inner")
    file = vnops.create(inner, b"file", 0o600, ROOT, 0).node
    put(file, pattern(2, 3 * BLOCK))
    page_out_all(memory)
    put(file, b"resident", 5 * BLOCK)
    vnops.link(file, doomed.root, b"link", ROOT)
    vnops.symlink(inner, b"symlink", b"x" * 200, ROOT, 0)
    vnops.mknod(inner, b"fifo", 0o010600, 0, ROOT, 0)
    freed: list[int] = []
    doomed.on_freed = freed.append
    steps = sum(1 for _ in doomed.clear())
    assert steps == 6  # two directories, two names of a file, a link, a fifo
    doomed.check()
    assert (doomed.blocks.used, doomed.inodes.used) == (0, 1)
    assert sum(freed) >= 5
    assert (memory.ram.used, memory.swapped, swap.used) == (0, 16, 16)
    bring_in(kept)
    assert peek(kept) == DATA
    clear(other)


def test_what_is_being_written_to_swap_when_its_mount_is_cleared_gives_its_slots_back(
    swap: Swap,
) -> None:
    memory = Memory(256, swap)
    mount = Mount(1 << 20, 10, memory=memory)
    make_file(mount, data=pattern(1, 2 * BLOCK))
    laundry = Laundry(memory)
    assert swap.used == 32
    clear(mount)
    laundry.run()
    laundry.finish(done=True)


def test_what_is_being_read_from_swap_when_its_mount_is_cleared_is_dropped(swap: Swap) -> None:
    memory = Memory(256, swap)
    mount = Mount(1 << 20, 10, memory=memory)
    node = make_file(mount, data=pattern(1, 2 * BLOCK))
    page_out_all(memory)
    arrival = Arrival(memory, places_of(node))
    clear(mount)
    arrival.run()
    arrival.finish()


# Several memories on one swap


def test_memories_share_a_swap_and_keep_to_their_own_ram(swap: Swap) -> None:
    memories = [Memory(128, swap), Memory(256, swap)]
    mounts = [Mount(1 << 20, 10, memory=memory) for memory in memories]
    nodes = [make_file(mount, data=pattern(i, 2 * BLOCK)) for i, mount in enumerate(mounts)]
    page_out_all(memories[0])
    assert [memory.ram.used for memory in memories] == [0, 32]
    assert [memory.statistics()["swapped"] for memory in memories] == [2 * BLOCK, 0]
    page_out_all(memories[1])
    assert swap.used == 64
    for i, node in enumerate(nodes):
        bring_in(node)
        assert peek(node) == pattern(i, 2 * BLOCK)
        assert memories[i].counters.paged_in == 2
        node.mount.check()
    clear(*mounts)


def test_pressure_is_told_to_the_pager_of_the_memory_that_has_it(swap: Swap) -> None:
    told: list[str] = []
    small, large = Memory(128, swap), Memory(512, swap)
    small.on_pressure = lambda: told.append("small")
    large.on_pressure = lambda: told.append("large")
    mounts = [Mount(1 << 20, 10, memory=memory) for memory in (small, large)]
    for mount in reversed(mounts):
        assert told == []
        node = make_file(mount)
        for block in range(4):
            put(node, DATA, block * BLOCK)
    assert set(told) == {"small"}
    clear(*mounts)


def test_slots_that_one_memory_frees_let_another_page_out_again() -> None:
    swap = Swap([swap_file(32)])
    first, second = Memory(128, swap), Memory(128, swap)
    filler, waiting = (Mount(1 << 20, 10, memory=memory) for memory in (first, second))
    make_file(filler, data=pattern(1, 2 * BLOCK))
    page_out_all(first)
    node = make_file(waiting, data=pattern(2, 2 * BLOCK))
    page_out_all(second)
    assert (second.stuck, swap.free) == (True, 0)
    vnops.unlink(filler.root, b"file", ROOT)
    assert not second.stuck
    page_out_all(second)
    assert len(node.uobj.swapped) == 2
    clear(filler, waiting)
    swap.close()


def test_a_memory_that_is_closed_is_not_told_any_more(swap: Swap) -> None:
    kept, gone = Memory(64, swap), Memory(64, swap)
    gone.close()
    assert swap.sharers == [kept]


def test_two_memories_that_run_out_of_slots_at_once_grow_the_swap_by_two_steps(
    small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pager grows it in a thread of its own; one step added twice would be free twice."""
    swap = Swap([swap_file(3 * swap_module.STEP)])
    both_want, grow, inside = threading.Barrier(2), SwapFile.grow, threading.Lock()

    def alone(file: SwapFile) -> None:
        assert inside.acquire(blocking=False), "two threads grow a file at a time"
        grow(file)
        inside.release()

    monkeypatch.setattr(SwapFile, "grow", alone)
    grown: list[bool] = []

    def want() -> None:
        both_want.wait()
        grown.append(swap.grow())

    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert grown == [True, True]
    assert (swap.free, swap.ungrown) == (3 * swap_module.STEP, 0)
    swap.files[0].check()
    swap.close()


# A memory of another size


def test_a_memory_that_shrinks_is_as_one_that_was_made_smaller(swap: Swap) -> None:
    memory, smaller = Memory(2048, swap), Memory(512, swap)
    memory.resize(512)
    for name in ("reserve", "low", "high", "io_max", "writable"):
        assert getattr(memory, name) == getattr(smaller, name)
    assert memory.reserve == reserve_for(512)


def test_a_memory_that_grows_again_can_be_filled() -> None:
    memory = Memory(32)
    mount = Mount(1 << 20, 10, memory=memory)
    memory.resize(8)
    node = make_file(mount)
    assert put(node, b"x" * BLOCK) == 8 * FRAME
    memory.resize(32)
    assert put(node, b"x" * 2 * BLOCK) == 2 * BLOCK
    assert memory.ram.free == 0
    mount.check()

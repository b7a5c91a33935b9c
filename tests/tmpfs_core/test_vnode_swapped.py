"""vnode: what operations on files that are in swap ask for, and do."""

import errno
from collections.abc import Callable, Iterator

import pytest

from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.node import FileNode
from tmpfs_core.vnode import NotResident

from .paging import Calls, Spill, pattern, places_of
from .support import refused


@pytest.fixture
def exact(small_steps: None) -> Iterator[Callable[[int], Spill]]:
    """Makes a mount of so many frames, with RAM and swap enough."""
    made: list[Spill] = []

    def make(size: int) -> Spill:
        made.append(Spill(ram=256, swap=(256,), size=size))
        return made[-1]

    yield make
    for spill in made:
        spill.end()


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
    return NotResident(node.mount.memory, [])


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


# A mount whose size is used up, while some of it is in swap


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

"""page-out and page-in when RAM and swap are full.

After every step the invariants of all files, of RAM and of swap are checked (Spill.check).
"""

import errno
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.node import FileNode

from .paging import Spill, pattern
from .support import refused


@pytest.fixture
def full(small_steps: None) -> Iterator[tuple[Spill, dict[FileNode, bytes]]]:
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
    spill.end()


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
        node = vnops.lookup(spill.mount.root, name, ROOT).node
        assert isinstance(node, FileNode)
        vnops.unlink(spill.mount.root, name, ROOT)
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

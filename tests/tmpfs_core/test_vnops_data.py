"""vnops: what is read, written and truncated."""

import errno

import pytest

from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.mount import Mount

from .support import (
    USER,
    Clock,
    get,
    make_file,
    peek,
    put,
    refused,
    snapshot,
    used,
)

SIZE_MAX = vnops.SIZE_MAX


def test_a_read_ends_at_the_end_of_the_file(mount: Mount) -> None:
    node = make_file(mount, data=b"hello")
    assert get(node, 1, 100) == b"ello"
    assert get(node, 1, 2) == b"el"
    assert get(node, 0, 0) == b""
    for offset in (5, 6, FRAME, SIZE_MAX, (1 << 64) - 1):
        assert get(node, offset, 10) == b""


def test_a_write_behind_the_end_leaves_a_hole_of_zeros(mount: Mount) -> None:
    node = make_file(mount, data=b"hello")
    put(node, b"far", 3 * BLOCK)
    assert node.size == 3 * BLOCK + 3
    assert peek(node) == b"hello" + bytes(3 * BLOCK - 5) + b"far"
    assert used(mount) == 2


def test_a_write_in_the_middle_does_not_change_the_size(mount: Mount) -> None:
    node = make_file(mount, data=b"hello")
    put(node, b"ipp", 1)
    assert (node.size, peek(node)) == (5, b"hippo")


def test_an_appending_write_goes_to_the_end_wherever_it_points(mount: Mount) -> None:
    node = make_file(mount, data=b"hello")
    for offset in (0, 2, SIZE_MAX, 1 << 64):
        assert put(node, b"!", offset, append=True) == 1
    assert peek(node) == b"hello!!!!"


def test_writing_nothing_changes_nothing(mount: Mount, clock: Clock) -> None:
    node = make_file(mount, data=b"hello")
    vnops.setattr(node, ROOT, mode=0o6755)
    before = snapshot(mount)
    clock.tick()
    assert put(node, b"", 100, cred=USER) == 0
    assert put(node, b"", SIZE_MAX, cred=USER) == 0
    assert snapshot(mount) == before


def test_a_write_that_does_not_fit_is_short_then_refused(clock: Clock) -> None:
    mount = Mount(size=20 * FRAME, nr_inodes=2)
    node = make_file(mount)
    assert put(node, b"x" * (20 * FRAME), 100) == 20 * FRAME - 100
    assert node.size == 20 * FRAME
    with refused(errno.ENOSPC):
        put(node, b"x", node.size)
    mount.check()


def test_a_file_reaches_to_the_largest_size_and_no_further(mount: Mount) -> None:
    node = make_file(mount)
    assert put(node, b"abc", SIZE_MAX - 2) == 2
    assert node.size == SIZE_MAX
    assert get(node, SIZE_MAX - 3, 10) == b"\0ab"
    with refused(errno.EFBIG):
        put(node, b"x", append=True)
    assert used(mount) == 1


def test_a_file_can_be_made_as_large_as_can_be_for_nothing(mount: Mount) -> None:
    node = make_file(mount, data=b"x")
    vnops.setattr(node, ROOT, size=SIZE_MAX)
    assert (node.size, used(mount)) == (SIZE_MAX, 1)
    assert get(node, SIZE_MAX - 5, 10) == bytes(5)
    vnops.setattr(node, ROOT, size=1)
    assert peek(node) == b"x"


@pytest.mark.parametrize(
    "size", [0, 1, FRAME - 1, FRAME, FRAME + 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1]
)
def test_what_was_cut_off_reads_as_zeros_when_the_file_grows_again(mount: Mount, size: int) -> None:
    node = make_file(mount, data=b"x" * (2 * BLOCK))
    vnops.setattr(node, ROOT, size=size)
    vnops.setattr(node, ROOT, size=2 * BLOCK)
    assert peek(node) == b"x" * size + bytes(2 * BLOCK - size)
    assert used(mount) == -(-size // FRAME)


def test_freed_space_shows_no_old_data_to_the_next_file() -> None:
    mount = Mount(size=32 * FRAME, nr_inodes=3)
    make_file(mount, b"old", b"secret" * 20_000)
    vnops.unlink(mount.root, b"old", ROOT)
    node = make_file(mount, b"new")
    for frame in range(32):
        put(node, b"!", frame * FRAME + 100)
    assert set(peek(node)) == set(b"\0!")

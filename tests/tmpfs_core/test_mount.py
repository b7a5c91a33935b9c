"""mount: limits, statfs, the root, and a check that notices what is wrong."""

import errno
import gc
import stat

import pytest

from tmpfs_core import vnops, xattr
from tmpfs_core.access import ROOT
from tmpfs_core.frames import FRAME
from tmpfs_core.mount import Mount
from tmpfs_core.node import vref

from .support import inodes_used, make_dir, make_file, peek, put, refused, resident, used

MIB = 1 << 20

# Making one


def test_a_new_mount_has_all_blocks_and_all_inodes_but_the_root_s() -> None:
    numbers = Mount(size=10 * FRAME, nr_inodes=5).statfs()
    assert (numbers.bsize, numbers.blocks, numbers.bfree) == (FRAME, 10, 10)
    assert (numbers.files, numbers.ffree, numbers.namelen) == (5, 4, 255)


def test_a_size_is_rounded_down_to_frames() -> None:
    assert Mount(size=3 * FRAME - 1, nr_inodes=1).statfs().blocks == 2


def test_the_root_has_the_mode_and_the_owner_asked_for() -> None:
    root = Mount(size=0, nr_inodes=1, mode=0o2750, uid=7, gid=8).root
    assert (root.mode, root.uid, root.gid) == (stat.S_IFDIR | 0o2750, 7, 8)


def test_the_root_is_sticky_and_open_to_all_by_default() -> None:
    root = Mount(size=0, nr_inodes=1).root
    assert (root.mode, root.uid, root.gid) == (stat.S_IFDIR | 0o1777, 0, 0)


def test_a_mode_can_not_change_the_root_s_type() -> None:
    assert Mount(size=0, nr_inodes=1, mode=0o100777).root.mode == stat.S_IFDIR | 0o777


def test_the_root_is_its_own_parent(mount: Mount) -> None:
    assert (mount.root.nlink, mount.root.size) == (2, 40)


def test_a_size_beyond_the_host_s_address_space_is_enomem() -> None:
    with refused(errno.ENOMEM):
        Mount(size=1 << 55, nr_inodes=1)


def test_generations_differ_between_mounts_and_numbers_do_not_repeat() -> None:
    mount = Mount(size=0, nr_inodes=1)
    identities = [mount.next_identity() for _ in range(100)]
    assert len({ino for ino, _ in identities}) == len({gen for _, gen in identities}) == 100
    assert all(0 <= gen < 1 << 32 for _, gen in identities)
    starts = {Mount(size=0, nr_inodes=1).root.gen for _ in range(8)}
    assert len(starts) > 1


# Limits


def test_no_byte_fits_into_no_space() -> None:
    mount = Mount(size=0, nr_inodes=2)
    node = make_file(mount)
    with refused(errno.ENOSPC):
        put(node, b"x")
    mount.check()


@pytest.mark.parametrize("frames", [1, 15, 16, 17, 40])
def test_exactly_size_bytes_fit_then_nothing(frames: int) -> None:
    mount = Mount(size=frames * FRAME, nr_inodes=2)
    node = make_file(mount)
    assert put(node, bytes(frames * FRAME + 1)) == frames * FRAME
    with refused(errno.ENOSPC):
        put(node, b"x", frames * FRAME)
    assert put(node, b"y" * FRAME) == FRAME  # what is there can be written again
    assert mount.statfs().bfree == 0
    mount.check()


def test_space_is_shared_by_all_files() -> None:
    mount = Mount(size=5 * FRAME, nr_inodes=10)
    for i in range(5):
        make_file(mount, b"%d" % i, b"x")
    late = make_file(mount, b"late")
    with refused(errno.ENOSPC):
        put(late, b"x")
    vnops.unlink(mount.root, b"3", ROOT)
    assert put(late, b"x") == 1
    mount.check()


def test_a_full_mount_can_always_be_emptied() -> None:
    mount = Mount(size=2 * FRAME, nr_inodes=4)
    node = make_file(mount, b"a", bytes(FRAME))
    xattr.setxattr(node, b"user.x", b"1", ROOT)
    make_file(mount, b"b")
    vnops.link(node, mount.root, b"c", ROOT)
    assert (mount.statfs().bfree, mount.statfs().ffree) == (0, 0)
    for name in (b"a", b"b", b"c"):
        vnops.unlink(mount.root, name, ROOT)
    assert (used(mount), inodes_used(mount)) == (0, 1)
    mount.check()


def test_each_node_and_each_further_link_counts_as_an_inode(mount: Mount) -> None:
    counts = [inodes_used(mount)]
    node = make_file(mount, b"a")
    counts.append(inodes_used(mount))
    vnops.link(node, mount.root, b"b", ROOT)
    counts.append(inodes_used(mount))
    make_dir(mount.root, b"d")
    counts.append(inodes_used(mount))
    vnops.unlink(mount.root, b"a", ROOT)
    counts.append(inodes_used(mount))
    vnops.unlink(mount.root, b"b", ROOT)
    counts.append(inodes_used(mount))
    assert counts == [1, 2, 3, 4, 3, 2]


# Memory goes back to the host


def written(mount: Mount, name: bytes, size: int) -> None:
    """A file of ``size`` bytes, none of them zero."""
    node = make_file(mount, name)
    piece = b"\xaa" * MIB
    for offset in range(0, size, MIB):
        assert put(node, piece, offset) == MIB


def test_a_deleted_file_s_memory_goes_back_to_the_host() -> None:
    mount = Mount(size=32 * MIB, nr_inodes=4)
    written(mount, b"big", 32 * MIB)
    before = resident()
    vnops.unlink(mount.root, b"big", ROOT)
    assert before - resident() > 26 * MIB


def test_a_truncated_file_s_memory_goes_back_to_the_host() -> None:
    mount = Mount(size=32 * MIB, nr_inodes=4)
    before = resident()
    written(mount, b"big", 32 * MIB)
    vnops.setattr(vnops.lookup(mount.root, b"big", ROOT).node, ROOT, size=MIB)
    assert resident() - before < 7 * MIB


def test_memory_that_is_used_again_is_not_taken_twice() -> None:
    mount = Mount(size=32 * MIB, nr_inodes=4)
    before = resident()
    written(mount, b"big", 32 * MIB)
    vnops.unlink(mount.root, b"big", ROOT)
    written(mount, b"again", 32 * MIB)
    assert 30 * MIB < resident() - before < 38 * MIB


def test_a_mount_that_is_dropped_gives_its_memory_back() -> None:
    before = resident()
    mount = Mount(size=32 * MIB, nr_inodes=4)
    written(mount, b"big", 32 * MIB)
    del mount
    gc.collect()
    assert resident() - before < 6 * MIB


def test_no_file_sees_what_another_left_in_memory() -> None:
    mount = Mount(size=MIB, nr_inodes=4)
    written(mount, b"secret", MIB)
    vnops.unlink(mount.root, b"secret", ROOT)
    node = make_file(mount)
    for offset in range(0, MIB, FRAME):
        put(node, b"x", offset)
    assert peek(node).count(b"\xaa") == 0


# The check


def test_the_check_passes_on_a_tree_with_everything_in_it(mount: Mount) -> None:
    directory = make_dir(make_dir(mount.root, b"a"), b"b")
    node = make_file(mount, data=bytes(70_000))
    vnops.link(node, directory, b"also", ROOT)
    xattr.setxattr(node, b"user.x", bytes(5000), ROOT)
    vnops.symlink(directory, b"s", b"t", ROOT, 0)
    held = make_file(mount, b"held", b"x")
    vref(held)
    vnops.unlink(mount.root, b"held", ROOT)
    mount.check()


def test_the_check_notices_frames_that_are_not_charged(mount: Mount) -> None:
    make_file(mount, data=b"x")
    mount.blocks.give(1)
    with pytest.raises(AssertionError, match="1 frames held, 0 charged"):
        mount.check()
    mount.blocks.take(1)


def test_the_check_notices_an_inode_that_is_not_charged(mount: Mount) -> None:
    make_file(mount)
    mount.inodes.give(1)
    with pytest.raises(AssertionError):
        mount.check()
    mount.inodes.take(1)


def test_the_check_notices_a_wrong_link_count(mount: Mount) -> None:
    node = make_file(mount)
    node.nlink += 1
    with pytest.raises(AssertionError):
        mount.check()
    node.nlink -= 1


def test_the_check_notices_a_directory_s_wrong_size(mount: Mount) -> None:
    mount.root.size += 1
    with pytest.raises(AssertionError):
        mount.check()
    mount.root.size -= 1

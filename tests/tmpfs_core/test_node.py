"""node: identity, versions, relatime, and how long a node lives."""

import errno
import stat

import pytest

from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import FRAME
from tmpfs_core.mount import Mount
from tmpfs_core.node import FileNode, Node, vref, vrele

from .support import (
    DAY,
    SECOND,
    Clock,
    get,
    inodes_used,
    make_dir,
    make_file,
    peek,
    put,
    refused,
    times,
    used,
)

# What a new node is


def test_a_new_node_has_one_moment_for_all_its_times(mount: Mount, clock: Clock) -> None:
    moment = clock.tick()
    node = make_file(mount)
    assert times(node) == (moment, moment, moment)
    assert node.btime == moment


def test_a_new_file_is_empty_and_takes_no_memory(mount: Mount) -> None:
    node = make_file(mount)
    assert (node.size, node.blocks, node.nlink, node.refs) == (0, 0, 1, 0)
    assert used(mount) == 0
    assert not node.is_dir


def test_a_new_directory_has_two_links_and_forty_bytes(mount: Mount) -> None:
    node = make_dir(mount.root)
    assert node.is_dir
    assert (node.size, node.blocks, node.nlink) == (40, 0, 2)
    assert stat.S_ISDIR(node.mode)


def test_a_symlink_is_as_long_as_its_target(mount: Mount) -> None:
    node = vnops.symlink(mount.root, b"l", b"12345", ROOT, 0).node
    assert (node.size, node.blocks, node.nlink) == (5, 0, 1)
    assert node.mode == stat.S_IFLNK | 0o777


def test_no_two_nodes_share_a_number_also_after_removals(mount: Mount) -> None:
    identities = set()
    for _ in range(100):
        node = make_file(mount, b"same")
        identities.add((node.ino, node.gen))
        vnops.unlink(mount.root, b"same", ROOT)
    inos, gens = zip(*identities, strict=True)
    assert len(set(inos)) == len(set(gens)) == 100
    assert mount.root.ino not in inos


# Blocks


@pytest.mark.parametrize(
    ("offset", "count", "blocks"),
    [(0, 1, 8), (0, 4096, 8), (0, 4097, 16), (4095, 2, 16), (1 << 40, 1, 8), (65535, 2, 16)],
)
def test_blocks_counts_512_bytes_of_each_frame_held(
    mount: Mount, offset: int, count: int, blocks: int
) -> None:
    node = make_file(mount)
    put(node, bytes(count), offset)
    assert node.blocks == blocks
    assert used(mount) * 8 == blocks


# Versions


def test_a_version_starts_at_1_and_grows_with_each_change_of_data(mount: Mount) -> None:
    node = make_file(mount)
    versions = [node.version]
    put(node, b"x")
    versions.append(node.version)
    vnops.setattr(node, ROOT, size=0)
    versions.append(node.version)
    assert versions == [1, 2, 3]


def test_a_version_stays_when_no_data_changes(mount: Mount) -> None:
    node = make_file(mount, data=b"x")
    version = node.version
    get(node, 0, 1)
    vnops.setattr(node, ROOT, mode=0o600, uid=1, gid=1, atime=1, mtime=1)
    vnops.link(node, mount.root, b"other", ROOT)
    assert node.version == version


def test_a_directory_s_version_grows_with_its_names(mount: Mount) -> None:
    directory = make_dir(mount.root)
    versions = [directory.version]
    entry = vnops.create(directory, b"a", 0o644, ROOT, 0)
    versions.append(directory.version)
    vnops.rename(entry, directory, b"b", ROOT)
    versions.append(directory.version)
    vnops.unlink(directory, b"b", ROOT)
    versions.append(directory.version)
    assert versions == sorted(set(versions))


def test_a_version_skips_0_when_it_wraps(mount: Mount) -> None:
    node = make_file(mount)
    node.version = 0xFFFFFFFF
    node.modified()
    assert node.version == 1


# relatime


def test_the_first_read_after_a_change_is_noted(mount: Mount, clock: Clock) -> None:
    node = make_file(mount, data=b"x")
    clock.tick()
    put(node, b"y")
    moment = clock.tick()
    get(node, 0, 1)
    assert node.atime == moment


def test_a_second_read_is_not_noted_on_the_same_day(mount: Mount, clock: Clock) -> None:
    node = make_file(mount, data=b"x")
    first = clock.tick()
    get(node, 0, 1)
    clock.tick(DAY - 1)
    get(node, 0, 1)
    assert node.atime == first


def test_a_read_a_day_later_is_noted(mount: Mount, clock: Clock) -> None:
    node = make_file(mount, data=b"x")
    clock.tick()
    get(node, 0, 1)
    moment = clock.tick(DAY)
    get(node, 0, 1)
    assert node.atime == moment


def test_a_read_after_a_change_of_attributes_is_noted(mount: Mount, clock: Clock) -> None:
    node = make_file(mount, data=b"x")
    clock.tick()
    get(node, 0, 1)
    clock.tick()
    vnops.setattr(node, ROOT, mode=0o600)
    moment = clock.tick()
    get(node, 0, 1)
    assert node.atime == moment


def test_a_read_is_noted_while_the_atime_is_not_behind_a_mtime_in_the_future(
    mount: Mount, clock: Clock
) -> None:
    node = make_file(mount, data=b"x")
    future = clock.time + 10 * DAY
    vnops.setattr(node, ROOT, atime=future, mtime=future)
    moment = clock.tick()
    get(node, 0, 1)
    assert node.atime == moment


def test_a_read_changes_no_other_time(mount: Mount, clock: Clock) -> None:
    node = make_file(mount, data=b"x")
    _, mtime, ctime = times(node)
    clock.tick(DAY + SECOND)
    get(node, 0, 1)
    assert times(node)[1:] == (mtime, ctime)


# Life


def test_a_file_without_name_and_holder_goes_at_once(mount: Mount) -> None:
    make_file(mount, data=bytes(10_000))
    vnops.unlink(mount.root, b"file", ROOT)
    assert used(mount) == 0
    assert inodes_used(mount) == 1


def test_a_file_that_goes_is_told_of_once_with_its_pages_at_rest(mount: Mount) -> None:
    told: list[int] = []
    node = make_file(mount)
    put(node, bytes(3 * FRAME))
    mount.on_freed = told.append
    vnops.unlink(mount.root, b"file", ROOT)
    assert told == [1 + 1]  # one page holds the three frames


def test_an_unlinked_file_stays_usable_while_it_is_held(mount: Mount) -> None:
    node = make_file(mount, data=b"first")
    vref(node)
    vnops.unlink(mount.root, b"file", ROOT)
    assert (node.nlink, list(mount.orphans)) == (0, [node.ino])
    assert put(node, b" and more", 5) == 9
    vnops.setattr(node, ROOT, mode=0o600)
    assert peek(node) == b"first and more"
    assert (used(mount), inodes_used(mount)) == (1, 2)
    mount.check()
    vrele(node)
    assert (used(mount), inodes_used(mount)) == (0, 1)
    assert mount.orphans == {}


def test_the_last_of_several_holders_lets_a_node_go(mount: Mount) -> None:
    node = make_file(mount, data=b"x")
    vref(node)
    vref(node)
    vnops.unlink(mount.root, b"file", ROOT)
    vrele(node)
    assert peek(node) == b"x"
    assert used(mount) == 1
    vrele(node)
    assert used(mount) == 0


def test_letting_go_of_a_node_with_a_name_frees_nothing(mount: Mount) -> None:
    node = make_file(mount, data=b"x")
    vref(node)
    vrele(node)
    assert vnops.lookup(mount.root, b"file", ROOT).node is node
    assert peek(node) == b"x"


def test_a_node_held_and_with_another_name_is_no_orphan(mount: Mount) -> None:
    node = make_file(mount)
    vref(node)
    vnops.link(node, mount.root, b"other", ROOT)
    vnops.unlink(mount.root, b"file", ROOT)
    assert mount.orphans == {}
    vrele(node)
    assert node.nlink == 1


def test_a_removed_directory_that_is_held_is_empty_and_takes_no_names(mount: Mount) -> None:
    directory = make_dir(mount.root)
    vref(directory)
    vnops.rmdir(mount.root, b"dir", ROOT)
    assert directory.nlink == 0
    assert list(vnops.readdir(directory, 0)) == []
    with refused(errno.ENOENT):
        vnops.create(directory, b"x", 0o644, ROOT, 0)
    mount.check()
    vrele(directory)
    assert inodes_used(mount) == 1


def test_a_replaced_file_that_is_held_keeps_its_data(mount: Mount) -> None:
    old = make_file(mount, b"old", b"old data")
    vref(old)
    make_file(mount, b"new", b"new data")
    vnops.rename(vnops.lookup(mount.root, b"new", ROOT), mount.root, b"old", ROOT)
    assert peek(old) == b"old data"
    assert peek(vnops.lookup(mount.root, b"old", ROOT).node) == b"new data"
    mount.check()
    vrele(old)
    assert used(mount) == 1


# Locks


def test_a_node_has_one_table_of_locks_made_when_first_wanted(mount: Mount) -> None:
    node: Node = make_file(mount)
    assert node.locks is None
    table = node.range_locks()
    assert node.range_locks() is table
    assert node.locks is table


def test_only_regular_files_hold_pages(mount: Mount) -> None:
    assert isinstance(make_file(mount), FileNode)
    assert not isinstance(vnops.mknod(mount.root, b"p", stat.S_IFIFO, 0, ROOT, 0).node, FileNode)

"""vnops: rename."""

import errno

import pytest

from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import FRAME
from tmpfs_core.mount import Mount
from tmpfs_core.node import DirNode

from .support import (
    Clock,
    World,
    inodes_used,
    make_dir,
    make_file,
    names,
    peek,
    put,
    refused,
    snapshot,
    used,
)


def test_rename_changes_the_entry_in_place(world: World) -> None:
    vnops.rename(world.file, world.empty.node, b"new", ROOT)
    assert (world.file.name, world.file.parent) == (b"new", world.empty.node)
    assert vnops.lookup(world.empty.node, b"new", ROOT) is world.file
    with refused(errno.ENOENT):
        vnops.lookup(world.root, b"file", ROOT)


def test_rename_in_one_directory(world: World) -> None:
    vnops.rename(world.inner, world.full.node, b"outer", ROOT)
    assert isinstance(world.full.node, DirNode)
    assert names(world.full.node) == [b"outer"]
    assert world.full.node.size == 60


def test_rename_replaces_a_file_and_frees_it(world: World) -> None:
    put(world.inner.node, bytes(5 * FRAME))
    node, before = world.file.node, inodes_used(world.mount)
    vnops.rename(world.file, world.full.node, b"inner", ROOT)
    assert vnops.lookup(world.full.node, b"inner", ROOT).node is node
    assert world.inner.parent is None
    assert used(world.mount) == 1
    assert inodes_used(world.mount) == before - 1


def test_rename_replaces_anything_that_is_no_directory(world: World) -> None:
    vnops.rename(world.symlink, world.root, b"fifo", ROOT)
    assert vnops.lookup(world.root, b"fifo", ROOT).node is world.symlink.node
    vnops.rename(world.file, world.root, b"fifo", ROOT)
    assert names(world.root).count(b"fifo") == 1


def test_rename_replaces_an_empty_directory(world: World) -> None:
    before = world.root.nlink
    vnops.rename(world.full, world.root, b"empty", ROOT)
    assert vnops.lookup(world.root, b"empty", ROOT).node is world.full.node
    assert world.root.nlink == before - 1
    assert world.empty.node.nlink == 0


def test_rename_over_one_of_several_names_takes_one_link_away(world: World) -> None:
    node, before = world.file.node, inodes_used(world.mount)
    vnops.rename(world.inner, world.root, b"file", ROOT)
    assert node.nlink == 1
    assert peek(node) == b"hello"
    assert inodes_used(world.mount) == before - 1


@pytest.mark.parametrize("name", [b"file", b"other"])
def test_rename_to_a_name_of_the_same_file_does_nothing(
    world: World, clock: Clock, name: bytes
) -> None:
    before = snapshot(world.mount)
    clock.tick()
    vnops.rename(world.file, world.root, name, ROOT)
    assert snapshot(world.mount) == before


def test_rename_of_a_directory_to_its_own_name_does_nothing(world: World, clock: Clock) -> None:
    before = snapshot(world.mount)
    clock.tick()
    vnops.rename(world.full, world.root, b"full", ROOT)
    assert snapshot(world.mount) == before


def test_rename_can_not_put_a_directory_below_itself(mount: Mount) -> None:
    top = make_dir(mount.root, b"top")
    middle = make_dir(top, b"middle")
    low = make_dir(middle, b"low")
    for place in (top, middle, low):
        with refused(errno.EINVAL):
            vnops.rename(top.entry, place, b"x", ROOT)
    vnops.rename(low.entry, mount.root, b"low", ROOT)
    vnops.rename(top.entry, low, b"top", ROOT)  # now it is possible
    with refused(errno.EINVAL):
        vnops.rename(low.entry, middle, b"x", ROOT)


def test_rename_over_a_directory_above_is_refused(mount: Mount) -> None:
    top = make_dir(mount.root, b"top")
    low = make_dir(top, b"low")
    with refused(errno.ENOTEMPTY):
        vnops.rename(low.entry, mount.root, b"top", ROOT)


def test_rename_needs_no_space() -> None:
    mount = Mount(size=0, nr_inodes=2)
    make_file(mount, b"a")
    vnops.rename(vnops.lookup(mount.root, b"a", ROOT), mount.root, b"b", ROOT)
    assert names(mount.root) == [b"b"]


def chain(parent: DirNode, *names: bytes) -> DirNode:
    """The last of directories that are made one in the other."""
    for name in names:
        node = vnops.mkdir(parent, name, 0o755, ROOT, 0).node
        assert isinstance(node, DirNode)
        parent = node
    return parent


def test_no_directory_can_be_moved_too_deep_with_what_is_in_it() -> None:
    mount = Mount(1 << 20, 100, max_depth=4)
    deep, other = chain(mount.root, b"a", b"b", b"c"), chain(mount.root, b"d", b"e")
    top = vnops.lookup(mount.root, b"d", ROOT)
    with refused(errno.ENAMETOOLONG):
        vnops.rename(top, deep, b"d", ROOT)
    vnops.rename(top, vnops.lookup(mount.root, b"a", ROOT).node, b"d", ROOT)
    chain(other, b"f")
    with refused(errno.ENAMETOOLONG):
        chain(other, b"f2", b"g")
    mount.check()


def test_what_is_not_so_high_any_more_may_be_moved_again() -> None:
    mount = Mount(1 << 20, 100, max_depth=4)
    deep, other = chain(mount.root, b"a", b"b"), chain(mount.root, b"d", b"e", b"f")
    top = vnops.lookup(mount.root, b"d", ROOT)
    with refused(errno.ENAMETOOLONG):
        vnops.rename(top, deep, b"d", ROOT)
    assert other.entry.parent is not None
    vnops.rmdir(other.entry.parent, b"f", ROOT)
    vnops.rename(top, deep, b"d", ROOT)
    mount.check()

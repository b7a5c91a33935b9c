"""vnops: names and what they stand for; every refusal, and that it then changes nothing."""

import errno
import stat
from collections.abc import Callable

import pytest

from tmpfs_core import vnops
from tmpfs_core.access import ROOT, Cred
from tmpfs_core.frames import FRAME
from tmpfs_core.mount import Mount
from tmpfs_core.node import DirNode, FileNode, SymlinkNode

from .support import (
    MAKERS,
    USER,
    Clock,
    Make,
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

SIZE_MAX = vnops.SIZE_MAX
LONGEST = b"x" * 255
TOO_LONG = b"x" * 256


# Refusals: every errno that a docstring tells of

Refusal = tuple[str, int, Callable[[World], object]]

REFUSALS: list[Refusal] = [
    ("lookup in a file", errno.ENOTDIR, lambda w: vnops.lookup(w.file.node, b"x", ROOT)),
    ("lookup in a symlink", errno.ENOTDIR, lambda w: vnops.lookup(w.symlink.node, b"x", ROOT)),
    ("lookup of no entry", errno.ENOENT, lambda w: vnops.lookup(w.root, b"none", ROOT)),
    (
        "lookup in a removed directory",
        errno.ENOENT,
        lambda w: vnops.lookup(w.gone_dir.node, b"x", ROOT),
    ),
    ("lookup of a long name", errno.ENAMETOOLONG, lambda w: vnops.lookup(w.root, TOO_LONG, ROOT)),
    ("symlink to nothing", errno.ENOENT, lambda w: vnops.symlink(w.root, b"x", b"", ROOT, 0)),
    (
        "symlink to a path too long",
        errno.ENAMETOOLONG,
        lambda w: vnops.symlink(w.root, b"x", b"t" * 4096, ROOT, 0),
    ),
    ("symlink to a NUL", errno.EINVAL, lambda w: vnops.symlink(w.root, b"x", b"a\0", ROOT, 0)),
    ("mknod of a symlink", errno.EINVAL, lambda w: vnops.mknod(w.root, b"x", 0o120777, 0, ROOT, 0)),
    ("mknod of no type", errno.EINVAL, lambda w: vnops.mknod(w.root, b"x", 0o030777, 0, ROOT, 0)),
    ("link of a directory", errno.EPERM, lambda w: vnops.link(w.empty.node, w.root, b"x", ROOT)),
    (
        "link of a directory to a name in use",
        errno.EEXIST,
        lambda w: vnops.link(w.empty.node, w.root, b"file", ROOT),
    ),
    (
        "link of an unlinked file",
        errno.ENOENT,
        lambda w: vnops.link(w.gone.node, w.root, b"x", ROOT),
    ),
    (
        "link to its own name",
        errno.EEXIST,
        lambda w: vnops.link(w.file.node, w.root, b"file", ROOT),
    ),
    ("unlink in a file", errno.ENOTDIR, lambda w: vnops.unlink(w.file.node, b"x", ROOT)),
    ("unlink of no entry", errno.ENOENT, lambda w: vnops.unlink(w.root, b"none", ROOT)),
    ("unlink of a long name", errno.ENAMETOOLONG, lambda w: vnops.unlink(w.root, TOO_LONG, ROOT)),
    ("unlink of a directory", errno.EISDIR, lambda w: vnops.unlink(w.root, b"empty", ROOT)),
    ("unlink of .", errno.EISDIR, lambda w: vnops.unlink(w.root, b".", ROOT)),
    ("unlink of ..", errno.EISDIR, lambda w: vnops.unlink(w.full.node, b"..", ROOT)),
    ("rmdir in a file", errno.ENOTDIR, lambda w: vnops.rmdir(w.file.node, b"x", ROOT)),
    ("rmdir of no entry", errno.ENOENT, lambda w: vnops.rmdir(w.root, b"none", ROOT)),
    ("rmdir of a long name", errno.ENAMETOOLONG, lambda w: vnops.rmdir(w.root, TOO_LONG, ROOT)),
    ("rmdir of a file", errno.ENOTDIR, lambda w: vnops.rmdir(w.root, b"file", ROOT)),
    ("rmdir of a symlink", errno.ENOTDIR, lambda w: vnops.rmdir(w.root, b"symlink", ROOT)),
    ("rmdir of a full one", errno.ENOTEMPTY, lambda w: vnops.rmdir(w.root, b"full", ROOT)),
    ("rmdir of .", errno.EINVAL, lambda w: vnops.rmdir(w.root, b".", ROOT)),
    ("rmdir of ..", errno.ENOTEMPTY, lambda w: vnops.rmdir(w.full.node, b"..", ROOT)),
    ("remove of what is gone", errno.ENOENT, lambda w: vnops.remove(w.gone, ROOT)),
    ("remove of a directory that is gone", errno.ENOENT, lambda w: vnops.remove(w.gone_dir, ROOT)),
    ("remove of the root", errno.EBUSY, lambda w: vnops.remove(w.root.entry, ROOT)),
    ("remove of a full one", errno.ENOTEMPTY, lambda w: vnops.remove(w.full, ROOT)),
    ("rename of what is gone", errno.ENOENT, lambda w: vnops.rename(w.gone, w.root, b"x", ROOT)),
    (
        "rename of the root",
        errno.EBUSY,
        lambda w: vnops.rename(w.root.entry, w.empty.node, b"x", ROOT),
    ),
    ("rename into a file", errno.ENOTDIR, lambda w: vnops.rename(w.inner, w.file.node, b"x", ROOT)),
    (
        "rename into a removed directory",
        errno.ENOENT,
        lambda w: vnops.rename(w.file, w.gone_dir.node, b"x", ROOT),
    ),
    ("rename to .", errno.EBUSY, lambda w: vnops.rename(w.file, w.root, b".", ROOT)),
    ("rename to ..", errno.EBUSY, lambda w: vnops.rename(w.file, w.root, b"..", ROOT)),
    (
        "rename to a long name",
        errno.ENAMETOOLONG,
        lambda w: vnops.rename(w.file, w.root, TOO_LONG, ROOT),
    ),
    ("rename to no name", errno.EINVAL, lambda w: vnops.rename(w.file, w.root, b"", ROOT)),
    ("rename to a path", errno.EINVAL, lambda w: vnops.rename(w.file, w.root, b"a/b", ROOT)),
    ("rename to a NUL", errno.EINVAL, lambda w: vnops.rename(w.file, w.root, b"a\0", ROOT)),
    (
        "rename of a directory over a file",
        errno.ENOTDIR,
        lambda w: vnops.rename(w.empty, w.root, b"file", ROOT),
    ),
    (
        "rename of a directory over a symlink",
        errno.ENOTDIR,
        lambda w: vnops.rename(w.empty, w.root, b"symlink", ROOT),
    ),
    (
        "rename of a file over a directory",
        errno.EISDIR,
        lambda w: vnops.rename(w.file, w.root, b"empty", ROOT),
    ),
    (
        "rename over a full directory",
        errno.ENOTEMPTY,
        lambda w: vnops.rename(w.empty, w.root, b"full", ROOT),
    ),
    ("rename into itself", errno.EINVAL, lambda w: vnops.rename(w.full, w.full.node, b"x", ROOT)),
    ("readdir of a file", errno.ENOTDIR, lambda w: vnops.readdir(w.file.node, 0)),
    ("readlink of a file", errno.EINVAL, lambda w: vnops.readlink(w.file.node)),
    ("readlink of a directory", errno.EINVAL, lambda w: vnops.readlink(w.root)),
    ("open of a directory", errno.EISDIR, lambda w: vnops.open(w.root)),
    ("open of a fifo", errno.EINVAL, lambda w: vnops.open(w.fifo.node)),
    ("open of a symlink", errno.EINVAL, lambda w: vnops.open(w.symlink.node)),
    ("read of a directory", errno.EISDIR, lambda w: vnops.read(w.root, 0, 1)),
    ("read of a fifo", errno.EINVAL, lambda w: vnops.read(w.fifo.node, 0, 1)),
    ("read of a symlink", errno.EINVAL, lambda w: vnops.read(w.symlink.node, 0, 1)),
    ("write to a directory", errno.EISDIR, lambda w: put(w.root, b"x")),
    ("write to a fifo", errno.EINVAL, lambda w: put(w.fifo.node, b"x")),
    ("write at the largest size", errno.EFBIG, lambda w: put(w.file.node, b"x", SIZE_MAX)),
    ("write far behind it", errno.EFBIG, lambda w: put(w.file.node, b"x", (1 << 64) - 1)),
    ("truncate a directory", errno.EISDIR, lambda w: vnops.setattr(w.root, ROOT, size=0, mode=0)),
    ("truncate a fifo", errno.EINVAL, lambda w: vnops.setattr(w.fifo.node, ROOT, size=0, uid=5)),
    (
        "truncate to more than the largest size",
        errno.EFBIG,
        lambda w: vnops.setattr(w.file.node, ROOT, size=SIZE_MAX + 1, gid=5),
    ),
]


@pytest.mark.parametrize(
    ("code", "operation"), [it[1:] for it in REFUSALS], ids=[it[0] for it in REFUSALS]
)
def test_a_refused_operation_tells_why_and_changes_nothing(
    world: World, clock: Clock, code: int, operation: Callable[[World], object]
) -> None:
    before = snapshot(world.mount)
    clock.tick()
    with refused(code):
        operation(world)
    assert snapshot(world.mount) == before


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(
    ("code", "where", "name"),
    [
        (errno.ENOTDIR, "file", b"x"),
        (errno.ENOTDIR, "symlink", b"x"),
        (errno.ENOENT, "gone_dir", b"x"),
        (errno.ENAMETOOLONG, "empty", TOO_LONG),
        (errno.EINVAL, "empty", b""),
        (errno.EINVAL, "empty", b"a/b"),
        (errno.EINVAL, "empty", b"a\0b"),
        (errno.EEXIST, "empty", b"."),
        (errno.EEXIST, "empty", b".."),
        (errno.EEXIST, "full", b"inner"),
    ],
)
def test_a_name_that_can_not_be_made_is_refused(
    world: World, clock: Clock, make: Make, code: int, where: str, name: bytes
) -> None:
    before = snapshot(world.mount)
    clock.tick()
    with refused(code):
        make(getattr(world, where).node, name)
    assert snapshot(world.mount) == before


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_without_an_inode_left_nothing_is_made_but_an_existing_name_is_told_first(
    make: Make, clock: Clock
) -> None:
    mount = Mount(size=FRAME, nr_inodes=2)
    make_file(mount)
    before = snapshot(mount)
    clock.tick()
    with refused(errno.ENOSPC):
        make(mount.root, b"new")
    with refused(errno.EEXIST):
        make(mount.root, b"file")
    assert snapshot(mount) == before
    mount.check()


def test_a_write_of_which_no_byte_fits_changes_nothing(clock: Clock) -> None:
    mount = Mount(size=FRAME, nr_inodes=2)
    node = make_file(mount, data=bytes(FRAME))
    vnops.setattr(node, ROOT, mode=0o6755)
    before = snapshot(mount)
    clock.tick()
    with refused(errno.ENOSPC):
        put(node, b"x", FRAME, cred=USER)
    assert snapshot(mount) == before


# Making


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_what_is_made_is_found_by_its_name(world: World, make: Make) -> None:
    entry = make(world.empty.node, LONGEST)
    assert vnops.lookup(world.empty.node, LONGEST, ROOT) is entry
    assert (entry.name, entry.parent) == (LONGEST, world.empty.node)


@pytest.mark.parametrize(
    ("kind", "type_bits"),
    [
        ("create", stat.S_IFREG | 0o644),
        ("mkdir", stat.S_IFDIR | 0o755),
        ("symlink", stat.S_IFLNK | 0o777),
        ("fifo", stat.S_IFIFO | 0o644),
        ("socket", stat.S_IFSOCK | 0o644),
        ("device", stat.S_IFCHR | 0o644),
    ],
)
def test_each_kind_has_its_type_and_mode(mount: Mount, kind: str, type_bits: int) -> None:
    node = MAKERS[kind](mount.root, b"x").node
    assert node.mode == type_bits
    assert isinstance(node, DirNode) == (kind == "mkdir")
    assert isinstance(node, FileNode) == (kind == "create")
    assert isinstance(node, SymlinkNode) == (kind == "symlink")


def test_a_new_file_belongs_to_who_made_it(mount: Mount) -> None:
    for node in (
        vnops.create(mount.root, b"a", 0o640, Cred(7), 8).node,
        vnops.mkdir(mount.root, b"b", 0o640, Cred(7), 8).node,
        vnops.symlink(mount.root, b"c", b"t", Cred(7), 8).node,
        vnops.mknod(mount.root, b"d", stat.S_IFIFO, 0, Cred(7), 8).node,
    ):
        assert (node.uid, node.gid) == (7, 8)


def test_a_mode_s_type_bits_do_not_change_what_is_made(mount: Mount) -> None:
    assert vnops.create(mount.root, b"a", 0o120644, ROOT, 0).node.mode == 0o100644
    assert vnops.mkdir(mount.root, b"b", 0o100755, ROOT, 0).node.mode == 0o040755


@pytest.mark.parametrize("mode", [0o644, stat.S_IFREG | 0o644])
def test_mknod_of_no_type_or_regular_makes_a_file(mount: Mount, mode: int) -> None:
    node = vnops.mknod(mount.root, b"x", mode, 77, ROOT, 0).node
    assert isinstance(node, FileNode)
    assert (node.mode, node.rdev) == (stat.S_IFREG | 0o644, 0)
    assert put(node, b"x") == 1


@pytest.mark.parametrize(
    ("kind", "rdev"),
    [(stat.S_IFCHR, 77), (stat.S_IFBLK, 77), (stat.S_IFIFO, 0), (stat.S_IFSOCK, 0)],
)
def test_only_devices_have_a_device_number(mount: Mount, kind: int, rdev: int) -> None:
    node = vnops.mknod(mount.root, b"x", kind | 0o600, 77, ROOT, 0).node
    assert (node.mode, node.rdev) == (kind | 0o600, rdev)


def test_a_symlink_is_read_as_it_was_made(mount: Mount) -> None:
    for name, target in ((b"a", b"t"), (b"b", b"../\xff/" * 10), (b"c", b"t" * 4095)):
        assert vnops.readlink(vnops.symlink(mount.root, name, target, ROOT, 0).node) == target


def test_a_long_symbolic_link_takes_a_frame_and_gives_it_back(mount: Mount) -> None:
    before = mount.blocks.used
    vnops.symlink(mount.root, b"short", b"x" * 127, ROOT, 0)
    entry = vnops.symlink(mount.root, b"long", b"x" * 128, ROOT, 0)
    assert (mount.blocks.used, entry.node.blocks) == (before + 1, 8)
    mount.check()
    vnops.unlink(mount.root, b"long", ROOT)
    assert mount.blocks.used == before


def test_a_long_symbolic_link_that_does_not_fit_takes_no_inode() -> None:
    mount = Mount(0, 10)
    with pytest.raises(OSError, match="No space"):
        vnops.symlink(mount.root, b"long", b"x" * 128, ROOT, 0)
    mount.check()
    assert mount.inodes.used == 1


# Set-group-id directories


def test_in_a_setgid_directory_everything_gets_its_group(mount: Mount) -> None:
    directory = make_dir(mount.root)
    vnops.setattr(directory, ROOT, gid=50, mode=0o2775)
    for kind in ("create", "mkdir", "symlink", "fifo"):
        assert MAKERS[kind](directory, kind.encode()).node.gid == 50
    assert vnops.mknod(directory, b"regular", 0o644, 0, ROOT, 9).node.gid == 50


def test_a_directory_in_a_setgid_directory_is_setgid_too(mount: Mount) -> None:
    directory = make_dir(mount.root, mode=0o2775)
    assert make_dir(directory, b"sub", mode=0o755).mode == 0o042755
    assert vnops.create(directory, b"file", 0o644, ROOT, 0).node.mode == 0o100644


def test_in_other_directories_the_maker_s_group_counts(mount: Mount) -> None:
    directory = make_dir(mount.root)
    vnops.setattr(directory, ROOT, gid=50)
    assert vnops.create(directory, b"file", 0o644, ROOT, 8).node.gid == 8
    assert make_dir(directory, b"sub").mode == 0o040755


# Links and removal


def test_a_link_is_the_same_file_under_another_name(mount: Mount) -> None:
    node = make_file(mount, data=b"data")
    entry = vnops.link(node, make_dir(mount.root), b"other", ROOT)
    assert entry.node is node
    assert node.nlink == 2
    assert used(mount) == 1


def test_a_file_goes_with_its_last_name(mount: Mount) -> None:
    node = make_file(mount, b"a", b"data")
    vnops.link(node, mount.root, b"b", ROOT)
    vnops.unlink(mount.root, b"a", ROOT)
    assert (node.nlink, peek(node)) == (1, b"data")
    vnops.unlink(mount.root, b"b", ROOT)
    assert (used(mount), inodes_used(mount)) == (0, 1)


@pytest.mark.parametrize("kind", ["create", "symlink", "fifo", "socket", "device"])
def test_unlink_removes_what_is_no_directory(mount: Mount, kind: str) -> None:
    MAKERS[kind](mount.root, b"x")
    vnops.unlink(mount.root, b"x", ROOT)
    with refused(errno.ENOENT):
        vnops.lookup(mount.root, b"x", ROOT)
    assert inodes_used(mount) == 1


def test_rmdir_removes_a_directory_once_it_is_empty(mount: Mount) -> None:
    directory = make_dir(mount.root)
    vnops.create(directory, b"x", 0o644, ROOT, 0)
    with refused(errno.ENOTEMPTY):
        vnops.rmdir(mount.root, b"dir", ROOT)
    vnops.unlink(directory, b"x", ROOT)
    vnops.rmdir(mount.root, b"dir", ROOT)
    assert names(mount.root) == []


@pytest.mark.parametrize("kind", ["create", "mkdir", "symlink", "fifo"])
def test_remove_takes_whatever_has_the_name(mount: Mount, kind: str) -> None:
    entry = MAKERS[kind](mount.root, b"x")
    vnops.remove(entry, ROOT)
    assert entry.parent is None
    assert names(mount.root) == []


def test_a_name_can_be_used_again(mount: Mount) -> None:
    first = make_file(mount, data=b"first")
    vnops.unlink(mount.root, b"file", ROOT)
    second = make_file(mount)
    assert second.ino != first.ino
    assert peek(second) == b""


# Directories: sizes and links


def test_a_directory_grows_by_20_bytes_an_entry(mount: Mount) -> None:
    sizes = [mount.root.size]
    for i in range(3):
        make_file(mount, b"%d" % i)
        sizes.append(mount.root.size)
    vnops.unlink(mount.root, b"1", ROOT)
    sizes.append(mount.root.size)
    assert sizes == [40, 60, 80, 100, 80]


def test_a_directory_s_links_are_its_name_itself_and_its_subdirectories(mount: Mount) -> None:
    make_file(mount)
    directory = make_dir(mount.root)
    make_dir(mount.root, b"second")
    make_dir(directory, b"deeper")
    assert (mount.root.nlink, directory.nlink) == (4, 3)
    vnops.rmdir(directory, b"deeper", ROOT)
    vnops.rmdir(mount.root, b"second", ROOT)
    assert (mount.root.nlink, directory.nlink) == (3, 2)


def test_moving_a_directory_moves_the_link_of_its_dotdot(mount: Mount) -> None:
    one, two = make_dir(mount.root, b"1"), make_dir(mount.root, b"2")
    moved = make_dir(one, b"moved")
    vnops.rename(moved.entry, two, b"moved", ROOT)
    assert (one.nlink, two.nlink, moved.nlink) == (2, 3, 2)
    assert (one.size, two.size) == (40, 60)


# Listing


def test_a_listing_goes_on_behind_any_cookie_and_across_changes(mount: Mount) -> None:
    for i in range(6):
        make_file(mount, b"%d" % i)
    first = [entry for entry, _ in zip(vnops.readdir(mount.root, 0), range(3), strict=False)]
    vnops.unlink(mount.root, b"2", ROOT)
    vnops.unlink(mount.root, b"4", ROOT)
    make_file(mount, b"new")
    rest = [entry.name for entry in vnops.readdir(mount.root, first[-1].cookie)]
    assert ([entry.name for entry in first], rest) == ([b"0", b"1", b"2"], [b"3", b"5", b"new"])


def test_a_renamed_entry_is_listed_at_the_end(mount: Mount) -> None:
    for name in (b"a", b"b", b"c"):
        make_file(mount, name)
    vnops.rename(vnops.lookup(mount.root, b"a", ROOT), mount.root, b"z", ROOT)
    assert [entry.name for entry in vnops.readdir(mount.root, 0)] == [b"b", b"c", b"z"]

"""xattr: names, values, namespaces, and what they are charged."""

import errno
import stat
from collections.abc import Callable

import pytest

from tmpfs_core import vnops, xattr
from tmpfs_core.access import ROOT
from tmpfs_core.frames import FRAME
from tmpfs_core.mount import Mount
from tmpfs_core.node import Node, vref, vrele

from .support import Clock, World, make_dir, make_file, put, refused, snapshot, times, used

MAKERS: dict[str, Callable[[Mount], Node]] = {
    "file": make_file,
    "directory": lambda mount: make_dir(mount.root),
    "symlink": lambda mount: vnops.symlink(mount.root, b"l", b"t", ROOT, 0).node,
    "fifo": lambda mount: vnops.mknod(mount.root, b"p", stat.S_IFIFO, 0, ROOT, 0).node,
    "device": lambda mount: vnops.mknod(mount.root, b"c", stat.S_IFCHR, 5, ROOT, 0).node,
}


@pytest.fixture
def node(mount: Mount) -> Node:
    return make_file(mount)


# Values


@pytest.mark.parametrize("value", [b"", b"v", b"\0\xff", bytes(xattr.VALUE_MAX)])
def test_a_value_is_read_as_it_was_set(node: Node, value: bytes) -> None:
    xattr.setxattr(node, b"user.a", value, ROOT)
    assert xattr.getxattr(node, b"user.a", ROOT) == value


def test_a_value_is_replaced_by_the_next(node: Node) -> None:
    xattr.setxattr(node, b"user.a", b"long value", ROOT)
    xattr.setxattr(node, b"user.a", b"short", ROOT)
    assert xattr.getxattr(node, b"user.a", ROOT) == b"short"
    assert xattr.listxattr(node, ROOT) == b"user.a\0"


def test_all_names_are_listed_each_followed_by_a_nul(node: Node) -> None:
    assert xattr.listxattr(node, ROOT) == b""
    for name in (b"user.b", b"trusted.a", b"security.c"):
        xattr.setxattr(node, name, b"v", ROOT)
    names = xattr.listxattr(node, ROOT).split(b"\0")
    assert sorted(names) == [b"", b"security.c", b"trusted.a", b"user.b"]


def test_a_removed_attribute_is_gone(node: Node) -> None:
    xattr.setxattr(node, b"user.a", b"1", ROOT)
    xattr.setxattr(node, b"user.b", b"2", ROOT)
    xattr.removexattr(node, b"user.a", ROOT)
    with refused(errno.ENODATA):
        xattr.getxattr(node, b"user.a", ROOT)
    assert xattr.listxattr(node, ROOT) == b"user.b\0"


def test_two_files_do_not_share_attributes(mount: Mount) -> None:
    one, two = make_file(mount, b"1"), make_file(mount, b"2")
    xattr.setxattr(one, b"user.a", b"1", ROOT)
    with refused(errno.ENODATA):
        xattr.getxattr(two, b"user.a", ROOT)


# Create and replace


def test_create_sets_a_new_attribute_only(node: Node) -> None:
    xattr.setxattr(node, b"user.a", b"1", ROOT, create=True)
    with refused(errno.EEXIST):
        xattr.setxattr(node, b"user.a", b"2", ROOT, create=True)
    assert xattr.getxattr(node, b"user.a", ROOT) == b"1"


def test_replace_sets_an_existing_attribute_only(node: Node) -> None:
    with refused(errno.ENODATA):
        xattr.setxattr(node, b"user.a", b"1", ROOT, replace=True)
    xattr.setxattr(node, b"user.a", b"1", ROOT)
    xattr.setxattr(node, b"user.a", b"2", ROOT, replace=True)
    assert xattr.getxattr(node, b"user.a", ROOT) == b"2"


# Namespaces


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", [b"trusted.a", b"security.selinux"])
def test_trusted_and_security_go_on_every_kind_of_file(
    mount: Mount, kind: str, name: bytes
) -> None:
    node = MAKERS[kind](mount)
    xattr.setxattr(node, name, b"v", ROOT)
    assert xattr.getxattr(node, name, ROOT) == b"v"
    xattr.removexattr(node, name, ROOT)
    assert xattr.listxattr(node, ROOT) == b""


@pytest.mark.parametrize("kind", MAKERS)
def test_user_attributes_go_on_files_and_directories_only(mount: Mount, kind: str) -> None:
    node = MAKERS[kind](mount)
    if kind in ("file", "directory"):
        xattr.setxattr(node, b"user.a", b"v", ROOT)
        assert xattr.getxattr(node, b"user.a", ROOT) == b"v"
        return
    with refused(errno.EPERM):
        xattr.setxattr(node, b"user.a", b"v", ROOT)
    with refused(errno.ENODATA):
        xattr.getxattr(node, b"user.a", ROOT)
    with refused(errno.EPERM):
        xattr.removexattr(node, b"user.a", ROOT)


@pytest.mark.parametrize("name", xattr.ACLS)
def test_acls_go_on_a_directory_but_not_on_a_symlink(mount: Mount, name: bytes) -> None:
    directory = make_dir(mount.root)
    xattr.setxattr(directory, name, b"acl", ROOT)
    assert xattr.getxattr(directory, name, ROOT) == b"acl"
    link = MAKERS["symlink"](mount)
    with refused(errno.EOPNOTSUPP):
        xattr.setxattr(link, name, b"acl", ROOT)
    with refused(errno.EOPNOTSUPP):
        xattr.getxattr(link, name, ROOT)


@pytest.mark.parametrize(
    "name", [b"plain", b"other.a", b"system.a", b"system.posix_acl", b"User.a", b".a", b"user"]
)
def test_other_namespaces_are_not_supported(node: Node, name: bytes) -> None:
    for operation in (
        lambda: xattr.setxattr(node, name, b"v", ROOT),
        lambda: xattr.getxattr(node, name, ROOT),
        lambda: xattr.removexattr(node, name, ROOT),
    ):
        with refused(errno.EOPNOTSUPP):
            operation()


@pytest.mark.parametrize("name", [b"user.", b"trusted.", b"security."])
def test_a_namespace_alone_is_no_name(node: Node, name: bytes) -> None:
    with refused(errno.EINVAL):
        xattr.setxattr(node, name, b"v", ROOT)
    with refused(errno.EINVAL):
        xattr.getxattr(node, name, ROOT)


# Lengths


def test_a_name_may_have_255_bytes_and_not_one_more(node: Node) -> None:
    name = b"user." + b"x" * 250
    xattr.setxattr(node, name, b"v", ROOT)
    assert xattr.getxattr(node, name, ROOT) == b"v"
    with refused(errno.ERANGE):
        xattr.setxattr(node, name + b"x", b"v", ROOT)


@pytest.mark.parametrize("name", [b"", b"other." + b"x" * 250])
def test_a_bad_length_is_told_before_the_namespace(node: Node, name: bytes) -> None:
    with refused(errno.ERANGE):
        xattr.setxattr(node, name, b"v", ROOT)
    with refused(errno.ERANGE):
        xattr.getxattr(node, name, ROOT)


def test_a_name_can_not_hold_the_nul_that_ends_it_in_a_list(node: Node) -> None:
    with refused(errno.EINVAL):
        xattr.setxattr(node, b"user.a\0user.b", b"v", ROOT)
    assert xattr.listxattr(node, ROOT) == b""


def test_a_value_may_have_64_kib_and_not_one_byte_more(node: Node) -> None:
    with refused(errno.E2BIG):
        xattr.setxattr(node, b"user.a", bytes(xattr.VALUE_MAX + 1), ROOT)
    assert xattr.listxattr(node, ROOT) == b""


# Charges


@pytest.mark.parametrize(
    ("length", "frames"),
    [(0, 1), (1, 1), (FRAME - 6, 1), (FRAME - 5, 2), (2 * FRAME - 6, 2), (xattr.VALUE_MAX, 17)],
)
def test_names_and_values_are_charged_rounded_up_to_frames(
    mount: Mount, length: int, frames: int
) -> None:
    node = make_file(mount)
    xattr.setxattr(node, b"user.a", bytes(length), ROOT)  # the name has 6 bytes
    assert used(mount) == frames
    assert node.blocks == 0  # st_blocks is of the data
    xattr.removexattr(node, b"user.a", ROOT)
    assert used(mount) == 0


def test_a_node_s_attributes_share_a_frame(mount: Mount) -> None:
    node = make_file(mount)
    for i in range(10):
        xattr.setxattr(node, b"user.%d" % i, b"v", ROOT)
    assert used(mount) == 1


def test_charges_shrink_with_the_values(mount: Mount) -> None:
    node = make_file(mount)
    charged = []
    for length in (9000, 5000, 1):
        xattr.setxattr(node, b"user.a", bytes(length), ROOT)
        charged.append(used(mount))
    assert charged == [3, 2, 1]


def test_attributes_of_a_removed_node_are_given_back(mount: Mount) -> None:
    for name, kind in ((b"file", "file"), (b"dir", "directory"), (b"l", "symlink")):
        node = MAKERS[kind](mount)
        xattr.setxattr(node, b"trusted.a", bytes(5000), ROOT)
        vref(node)
        vnops.remove(vnops.lookup(mount.root, name, ROOT), ROOT)
        assert used(mount) == 2
        vrele(node)
        assert used(mount) == 0


def test_an_attribute_that_does_not_fit_changes_nothing() -> None:
    mount = Mount(size=3 * FRAME, nr_inodes=3)
    node = make_file(mount, data=bytes(FRAME))
    xattr.setxattr(node, b"user.a", b"old", ROOT)
    for name in (b"user.a", b"user.b"):
        with refused(errno.ENOSPC):
            xattr.setxattr(node, name, bytes(3 * FRAME), ROOT)
    assert xattr.getxattr(node, b"user.a", ROOT) == b"old"
    assert xattr.listxattr(node, ROOT) == b"user.a\0"
    assert used(mount) == 2
    mount.check()


def test_in_a_full_mount_a_value_changes_within_its_frames() -> None:
    mount = Mount(size=FRAME, nr_inodes=2)
    node = make_file(mount)
    xattr.setxattr(node, b"user.a", b"old", ROOT)
    xattr.setxattr(node, b"user.a", bytes(FRAME - 6), ROOT)
    with refused(errno.ENOSPC):
        put(node, b"x")
    xattr.removexattr(node, b"user.a", ROOT)
    assert put(node, b"x") == 1
    mount.check()


# Times, and nothing changes on failure


def test_setting_and_removing_change_the_ctime_only(mount: Mount, clock: Clock) -> None:
    node = make_file(mount)
    atime, mtime, _ = times(node)
    version = node.version
    moment = clock.tick()
    xattr.setxattr(node, b"user.a", b"v", ROOT)
    assert times(node) == (atime, mtime, moment)
    moment = clock.tick()
    xattr.removexattr(node, b"user.a", ROOT)
    assert times(node) == (atime, mtime, moment)
    assert node.version == version


def test_reading_and_listing_change_no_time(mount: Mount, clock: Clock) -> None:
    node = make_file(mount)
    xattr.setxattr(node, b"user.a", b"v", ROOT)
    before = times(node)
    clock.tick()
    xattr.getxattr(node, b"user.a", ROOT)
    xattr.listxattr(node, ROOT)
    assert times(node) == before


def test_a_refused_operation_changes_nothing(world: World, clock: Clock) -> None:
    node = world.file.node
    xattr.setxattr(node, b"user.a", b"v", ROOT)
    before = snapshot(world.mount)
    clock.tick()
    refusals: list[tuple[int, Callable[[], object]]] = [
        (errno.EEXIST, lambda: xattr.setxattr(node, b"user.a", b"", ROOT, create=True)),
        (errno.ENODATA, lambda: xattr.setxattr(node, b"user.b", b"", ROOT, replace=True)),
        (errno.ENODATA, lambda: xattr.removexattr(node, b"user.b", ROOT)),
        (errno.E2BIG, lambda: xattr.setxattr(node, b"user.a", bytes(xattr.VALUE_MAX + 1), ROOT)),
        (errno.EPERM, lambda: xattr.setxattr(world.fifo.node, b"user.a", b"", ROOT)),
        (errno.EOPNOTSUPP, lambda: xattr.setxattr(node, b"other.a", b"", ROOT)),
    ]
    for code, operation in refusals:
        with refused(code):
            operation()
        assert snapshot(world.mount) == before

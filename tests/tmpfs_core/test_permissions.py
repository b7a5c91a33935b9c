"""permissions: who may do what.  That Linux says the same is tested in tests/kernel."""

import errno
import stat
import struct
from collections.abc import Callable
from contextlib import nullcontext, suppress

import pytest

from tmpfs_core import acl, permissions, vnops, xattr
from tmpfs_core.access import ROOT, Cred
from tmpfs_core.frames import FRAME
from tmpfs_core.mount import Mount
from tmpfs_core.node import Node
from tmpfs_core.permissions import EXECUTE, NOW, READ, WRITE

from .support import (
    World,
    inodes_used,
    make_dir,
    make_file,
    names,
    put,
    refused,
    snapshot,
    used,
)

ME = Cred(1001, gid=2001, groups=frozenset({2002}), checked=True)
SUPERUSER = Cred(0, checked=True)
READONLY = Cred(0, readonly=True)


def acl_of(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


#: rw- for user 1001, and no more than a mode says else.
NAMED = acl_of((1, 6, ~0 & 0xFFFFFFFF), (2, 6, 1001), (4, 0, 0), (16, 6, 0), (32, 0, 0))


def node_of(mount: Mount, mode: int, uid: int, gid: int, name: bytes = b"x") -> Node:
    node = make_file(mount, name)
    vnops.setattr(node, ROOT, uid=uid, gid=gid)
    vnops.setattr(node, ROOT, mode=mode)
    return node


def allowed(node: Node, cred: Cred) -> set[int]:
    """What the user may do of all that can be wanted."""
    found = set()
    for wanted in range(1, 8):
        with suppress(PermissionError):
            permissions.require(node, cred, wanted)
            found.add(wanted)
    return found


ALL = set(range(1, 8))


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "cred", "expected"),
    [
        (0o077, 1001, 2001, ME, set()),  # only the owner's bits count for the owner
        (0o600, 1001, 2001, ME, {2, 4, 6}),
        (0o707, 1, 2001, ME, set()),
        (0o050, 1, 2001, ME, {1, 4, 5}),
        (0o050, 1, 2002, ME, {1, 4, 5}),
        (0o770, 1, 2003, ME, set()),
        (0o001, 1, 2003, ME, {1}),
        (0o000, 1, 1, SUPERUSER, {2, 4, 6}),  # root runs what nobody may run neither
        (0o010, 1, 1, SUPERUSER, ALL),
        (0o000, 1, 1, Cred(1001), ALL),  # it was checked elsewhere
    ],
)
def test_owner_group_and_others(
    mount: Mount, mode: int, uid: int, gid: int, cred: Cred, expected: set[int]
) -> None:
    assert allowed(node_of(mount, mode, uid, gid), cred) == expected


def test_an_acl_names_users_and_its_mask_is_in_the_mode(mount: Mount) -> None:
    node = node_of(mount, 0o600, 1, 1)
    xattr.setxattr(node, acl.ACCESS, NAMED, SUPERUSER)
    assert stat.S_IMODE(node.mode) == 0o660
    assert allowed(node, ME) == {2, 4, 6}
    vnops.setattr(node, ROOT, mode=0o640)
    assert allowed(node, ME) == {4}
    vnops.setattr(node, ROOT, mode=0o600)
    assert allowed(node, ME) == set()


def test_an_acl_that_is_none_allows_nothing(mount: Mount) -> None:
    node = node_of(mount, 0o666, 1, 1)
    xattr.setxattr(node, acl.ACCESS, b"no acl", ROOT)
    with refused(errno.EINVAL):
        permissions.require(node, ME, READ)


def test_root_does_all_in_a_directory_without_any_bit(mount: Mount) -> None:
    directory = make_dir(mount.root, mode=0)
    assert allowed(directory, SUPERUSER) == ALL


# What refuses a user all, and what is readonly refuses everybody

Change = tuple[str, Callable[[World, Cred], object]]

CHANGES: list[Change] = [
    ("create", lambda w, cred: vnops.create(w.root, b"x", 0o644, cred, 0)),
    ("mkdir", lambda w, cred: vnops.mkdir(w.root, b"x", 0o755, cred, 0)),
    ("symlink", lambda w, cred: vnops.symlink(w.root, b"x", b"t", cred, 0)),
    ("mknod", lambda w, cred: vnops.mknod(w.root, b"x", stat.S_IFIFO, 0, cred, 0)),
    ("link", lambda w, cred: vnops.link(w.file.node, w.root, b"x", cred)),
    ("unlink", lambda w, cred: vnops.unlink(w.root, b"file", cred)),
    ("rmdir", lambda w, cred: vnops.rmdir(w.root, b"empty", cred)),
    ("remove", lambda w, cred: vnops.remove(w.file, cred)),
    ("rename", lambda w, cred: vnops.rename(w.file, w.root, b"x", cred)),
    ("rename over", lambda w, cred: vnops.rename(w.file, w.root, b"symlink", cred)),
    ("rename out", lambda w, cred: vnops.rename(w.inner, w.root, b"x", cred)),
    ("chmod", lambda w, cred: vnops.setattr(w.file.node, cred, mode=0o600)),
    ("chown", lambda w, cred: vnops.setattr(w.file.node, cred, uid=1001)),
    ("chgrp", lambda w, cred: vnops.setattr(w.file.node, cred, gid=2001)),
    ("truncate", lambda w, cred: vnops.setattr(w.file.node, cred, size=0)),
    ("utimes", lambda w, cred: vnops.setattr(w.file.node, cred, atime=1, mtime=1)),
    ("touch", lambda w, cred: vnops.setattr(w.file.node, cred, atime=NOW, mtime=NOW)),
    ("touch of one", lambda w, cred: vnops.setattr(w.file.node, cred, mtime=NOW)),
    ("open to write", lambda w, cred: permissions.require(w.file.node, cred, WRITE)),
    ("setxattr", lambda w, cred: xattr.setxattr(w.file.node, b"user.b", b"", cred)),
    ("removexattr", lambda w, cred: xattr.removexattr(w.file.node, b"user.a", cred)),
    ("trusted", lambda w, cred: xattr.setxattr(w.file.node, b"trusted.a", b"", cred)),
    ("security", lambda w, cred: xattr.setxattr(w.file.node, b"security.a", b"", cred)),
    ("setfacl", lambda w, cred: xattr.setxattr(w.file.node, acl.ACCESS, NAMED, cred)),
]


@pytest.mark.parametrize(("what", "change"), CHANGES)
def test_a_stranger_changes_nothing(
    world: World, what: str, change: Callable[[World, Cred], object]
) -> None:
    vnops.setattr(world.root, ROOT, mode=0o755)
    xattr.setxattr(world.file.node, b"user.a", b"", ROOT)
    before = snapshot(world.mount)
    with pytest.raises(PermissionError):
        change(world, ME)
    assert snapshot(world.mount) == before


@pytest.mark.parametrize("cred", [READONLY, Cred(0, checked=True, readonly=True)])
@pytest.mark.parametrize(("what", "change"), CHANGES)
def test_nobody_changes_what_is_readonly(
    world: World, what: str, change: Callable[[World, Cred], object], cred: Cred
) -> None:
    xattr.setxattr(world.file.node, b"user.a", b"", ROOT)
    before = snapshot(world.mount)
    with refused(errno.EROFS):
        change(world, cred)
    assert snapshot(world.mount) == before


@pytest.mark.parametrize(("what", "change"), CHANGES)
def test_root_may_change_all_of_it(
    world: World, what: str, change: Callable[[World, Cred], object]
) -> None:
    xattr.setxattr(world.file.node, b"user.a", b"", ROOT)
    change(world, SUPERUSER)


def test_who_is_readonly_reads(world: World) -> None:
    permissions.require(world.file.node, READONLY, READ)
    assert vnops.lookup(world.root, b"file", READONLY) is world.file
    assert xattr.listxattr(world.file.node, READONLY) == b""


# What a directory, an owner and a namespace have of their own


@pytest.mark.parametrize(
    ("mode", "owner", "inner", "refusal"),
    [
        (0o1777, 1, 1, errno.EPERM),
        (0o1777, 1, 1001, None),
        (0o1777, 1001, 1, None),
        (0o0777, 1, 1, None),
        (0o1755, 1, 1001, errno.EACCES),
    ],
)
def test_in_a_sticky_directory_an_owner_removes_and_nobody_else(
    mount: Mount, mode: int, owner: int, inner: int, refusal: int | None
) -> None:
    directory = make_dir(mount.root)
    vnops.create(directory, b"a", 0o644, Cred(inner), 0)
    kept = vnops.create(directory, b"b", 0o644, Cred(inner), 0)
    vnops.setattr(directory, ROOT, mode=mode, uid=owner)
    with nullcontext() if refusal is None else refused(refusal):
        vnops.rename(kept, directory, b"c", ME)
    with nullcontext() if refusal is None else refused(refusal):
        vnops.unlink(directory, b"a", ME)
    assert names(directory) == ([b"a", b"b"] if refusal else [b"c"])


def test_root_alone_makes_devices(mount: Mount) -> None:
    mount.root.mode = stat.S_IFDIR | 0o777
    for mode, rdev in ((stat.S_IFCHR, 259), (stat.S_IFBLK, 0)):
        with refused(errno.EPERM):
            vnops.mknod(mount.root, b"x", mode, rdev, ME, 0)
        vnops.mknod(mount.root, b"%d" % mode, mode, rdev, SUPERUSER, 0)
    vnops.mknod(mount.root, b"whiteout", stat.S_IFCHR, 0, ME, 0)


def test_an_owner_gives_to_his_groups_and_to_nobody_else(mount: Mount) -> None:
    node = node_of(mount, 0o644, ME.uid, 1)
    for uid, gid in ((1, None), (None, 2003), (ME.uid, 2003)):
        with refused(errno.EPERM):
            vnops.setattr(node, ME, uid=uid, gid=gid)
    vnops.setattr(node, ME, uid=ME.uid, gid=1)  # as they are
    for gid in (2001, 2002):
        vnops.setattr(node, ME, gid=gid)
        assert (node.uid, node.gid) == (ME.uid, gid)
    vnops.setattr(node, ME, atime=1, mtime=2)
    assert (node.atime, node.mtime) == (1, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda node: vnops.setattr(node, ME, mode=0o2755),
        lambda node: vnops.setattr(node, ME, uid=ME.uid),
        lambda node: put(node, b"data", cred=ME),
        lambda node: xattr.setxattr(node, acl.ACCESS, NAMED, ME),
        lambda node: xattr.setxattr(node, acl.ACCESS, acl.VERSION, ME),
        lambda node: xattr.removexattr(node, acl.ACCESS, ME),
    ],
)
def test_set_group_id_of_a_foreign_group_goes_with_each_change(
    mount: Mount, change: Callable[[Node], object]
) -> None:
    foreign = node_of(mount, 0o2644, ME.uid, 1)
    change(foreign)
    assert not foreign.mode & stat.S_ISGID
    own = node_of(mount, 0o2644, ME.uid, 2002, b"own")
    change(own)
    assert own.mode & stat.S_ISGID


def test_a_setgid_directory_gives_its_group_but_no_setgid_program_of_it(mount: Mount) -> None:
    vnops.setattr(mount.root, ROOT, mode=0o2777, gid=1)
    file = vnops.create(mount.root, b"f", 0o2755, ME, 2001).node
    assert (file.gid, stat.S_IMODE(file.mode)) == (1, 0o755)
    directory = vnops.mkdir(mount.root, b"d", 0o755, ME, 2001).node
    assert (directory.gid, stat.S_IMODE(directory.mode)) == (1, 0o2755)


def test_attributes_of_users_go_on_another_s_sticky_directory_by_its_owner_only(
    mount: Mount,
) -> None:
    directory = make_dir(mount.root)
    vnops.setattr(directory, ROOT, mode=0o1777)
    with refused(errno.EPERM):
        xattr.setxattr(directory, b"user.a", b"", ME)
    vnops.setattr(directory, ROOT, uid=ME.uid)
    xattr.setxattr(directory, b"user.a", b"", ME)


def test_a_file_has_no_default_acl_and_can_not_have_one(mount: Mount) -> None:
    node = node_of(mount, 0o644, ME.uid, 1)
    for cred in (ME, SUPERUSER, ROOT):
        with refused(errno.EACCES):
            xattr.setxattr(node, acl.DEFAULT, NAMED, cred)
        xattr.removexattr(node, acl.DEFAULT, cred)
    assert node.xattrs is None


def test_an_acl_that_says_no_more_than_a_mode_becomes_one(mount: Mount) -> None:
    node = node_of(mount, 0o600, ME.uid, 2001)
    xattr.setxattr(node, acl.ACCESS, NAMED, ME)
    assert xattr.getxattr(node, acl.ACCESS, ME) == NAMED
    plain = acl_of((1, 7, 0), (4, 5, 0), (32, 1, 0))
    xattr.setxattr(node, acl.ACCESS, plain, ME)
    assert (node.xattrs, stat.S_IMODE(node.mode)) == (None, 0o751)


# What hangs on a sysctl with Linux (fs.protected_hardlinks), and what no system call asks for


def test_another_s_file_may_be_linked(mount: Mount) -> None:
    node = node_of(mount, 0o6700, 1, 1)
    assert vnops.link(node, mount.root, b"y", ME).node is node


def test_a_search_needs_execution_and_tells_nothing_without(mount: Mount) -> None:
    directory = make_dir(mount.root, mode=0o766)
    for name in (b"none", b"x" * 256):
        with refused(errno.EACCES):
            vnops.lookup(directory, name, ME)
    permissions.require(directory, ME, READ | WRITE)
    with refused(errno.EACCES):
        permissions.require(directory, ME, EXECUTE)


@pytest.mark.parametrize(
    ("cred", "asked", "gid"),
    [(ME, 2001, 2001), (ME, 2002, 2002), (ME, 2003, 2001), (ME, 0, 2001), (SUPERUSER, 7, 7)],
)
def test_a_new_file_is_of_a_group_of_its_owner(
    mount: Mount, cred: Cred, asked: int, gid: int
) -> None:
    for node in (
        vnops.create(mount.root, b"f", 0o644, cred, asked).node,
        vnops.mkdir(mount.root, b"d", 0o755, cred, asked).node,
        vnops.symlink(mount.root, b"l", b"t", cred, asked).node,
    ):
        assert (node.uid, node.gid) == (cred.uid, gid)


def test_inherited_acls_are_charged_or_nothing_is_made() -> None:
    mount = Mount(size=2 * FRAME, nr_inodes=10)
    xattr.setxattr(mount.root, acl.DEFAULT, NAMED, SUPERUSER)
    made = vnops.mkdir(mount.root, b"d", 0o777, ME, 2001).node
    assert made.xattrs == {acl.ACCESS: acl.with_mode(NAMED, 0o660), acl.DEFAULT: NAMED}
    assert used(mount) == 2
    for make in (vnops.create, vnops.mkdir):
        with refused(errno.ENOSPC):
            make(mount.root, b"x", 0o666, ME, 2001)
    assert inodes_used(mount) == 2
    vnops.rmdir(mount.root, b"d", SUPERUSER)
    assert used(mount) == 1
    mount.check()


def test_who_is_not_checked_gets_no_acl_from_here(mount: Mount) -> None:
    xattr.setxattr(mount.root, acl.DEFAULT, NAMED, SUPERUSER)
    node = vnops.create(mount.root, b"f", 0o666, Cred(1001), 5).node
    assert (node.xattrs, node.mode, node.gid) == (None, 0o100666, 5)


def test_who_has_it_open_to_write_may_cut_it(mount: Mount) -> None:
    node = node_of(mount, 0o444, 1, 1)
    with refused(errno.EACCES):
        vnops.setattr(node, ME, size=0, mtime=NOW)
    vnops.setattr(node, ME, size=0, mtime=NOW, writable=True)
    with refused(errno.EPERM):
        vnops.setattr(node, ME, size=0, mtime=5, writable=True)

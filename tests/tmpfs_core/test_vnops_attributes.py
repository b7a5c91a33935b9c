"""vnops: modes, owners and times."""

import stat
from collections.abc import Callable

import pytest

from tmpfs_core import vnops, xattr
from tmpfs_core.access import ROOT
from tmpfs_core.mount import Mount
from tmpfs_core.node import Node, vref, vrele

from .support import (
    MAKERS,
    USER,
    Clock,
    World,
    get,
    make_dir,
    make_file,
    peek,
    put,
    times,
)

# Modes and owners


def test_set_user_and_group_id_go_when_a_user_writes(mount: Mount) -> None:
    node = make_file(mount)
    vnops.setattr(node, ROOT, mode=0o6755)
    put(node, b"x", cred=ROOT)
    assert node.mode == 0o106755
    put(node, b"x", cred=USER)
    assert node.mode == 0o100755


def test_set_user_and_group_id_go_when_a_user_truncates(mount: Mount) -> None:
    node = make_file(mount)
    vnops.setattr(node, ROOT, mode=0o6755)
    vnops.setattr(node, ROOT, size=5)
    assert node.mode == 0o106755
    vnops.setattr(node, USER, size=5)
    assert node.mode == 0o100755


@pytest.mark.parametrize(("uid", "gid"), [(5, None), (None, 5), (5, 5)])
def test_set_user_and_group_id_go_with_the_owner_also_for_root(
    mount: Mount, uid: int | None, gid: int | None
) -> None:
    node = make_file(mount)
    vnops.setattr(node, ROOT, mode=0o6755)
    vnops.setattr(node, ROOT, uid=uid, gid=gid)
    assert node.mode == 0o100755


def test_a_directory_keeps_its_bits_when_its_owner_changes(mount: Mount) -> None:
    directory = make_dir(mount.root, mode=0o6755)
    vnops.setattr(directory, USER, uid=5, gid=5)
    assert (directory.mode, directory.uid, directory.gid) == (0o046755, 5, 5)


def test_a_mode_set_with_an_owner_is_the_one_that_stays(mount: Mount) -> None:
    node = make_file(mount)
    vnops.setattr(node, ROOT, mode=0o6755, uid=5)
    assert (node.mode, node.uid) == (0o106755, 5)


def test_chmod_changes_permissions_but_not_the_type(world: World) -> None:
    for entry in (world.file, world.empty, world.fifo):
        kind = stat.S_IFMT(entry.node.mode)
        vnops.setattr(entry.node, ROOT, mode=0o177777)
        assert entry.node.mode == kind | 0o7777


def test_what_is_not_asked_for_is_not_changed(mount: Mount) -> None:
    node = make_file(mount, data=b"hello")
    vnops.setattr(node, ROOT, uid=5)
    vnops.setattr(node, ROOT, gid=6)
    vnops.setattr(node, ROOT, mode=0o600)
    assert (node.mode, node.uid, node.gid, node.size) == (0o100600, 5, 6, 5)


def test_all_attributes_can_change_at_once(mount: Mount, clock: Clock) -> None:
    node = make_file(mount, data=b"hello")
    moment = clock.tick()
    vnops.setattr(node, USER, mode=0o4700, uid=5, gid=6, size=2, atime=1, mtime=2)
    assert (node.mode, node.uid, node.gid, peek(node)) == (0o104700, 5, 6, b"he")
    assert times(node) == (1, 2, moment)


# Times: which of (atime, mtime, ctime) an operation sets to now

A, M, C = "atime", "mtime", "ctime"


def changed(node: Node, clock: Clock, operation: Callable[[], object]) -> set[str]:
    """Which times of ``node`` became now."""
    before = times(node)
    moment = clock.tick()
    operation()
    found = set()
    for name, old, new in zip((A, M, C), before, times(node), strict=True):
        assert new in (old, moment)
        if new != old:
            found.add(name)
    return found


OF_THE_FILE: list[tuple[str, set[str], Callable[[World], object]]] = [
    ("lookup", set(), lambda w: vnops.lookup(w.root, b"file", ROOT)),
    ("read", {A}, lambda w: get(w.file.node, 0, 1)),
    ("read at the end", {A}, lambda w: get(w.file.node, 5, 1)),
    ("read of no bytes", set(), lambda w: get(w.file.node, 0, 0)),
    ("write", {M, C}, lambda w: put(w.file.node, b"x")),
    ("truncate", {M, C}, lambda w: vnops.setattr(w.file.node, ROOT, size=1)),
    ("extend", {M, C}, lambda w: vnops.setattr(w.file.node, ROOT, size=100)),
    ("chmod", {C}, lambda w: vnops.setattr(w.file.node, ROOT, mode=0o600)),
    ("chown", {C}, lambda w: vnops.setattr(w.file.node, ROOT, uid=1, gid=1)),
    ("link", {C}, lambda w: vnops.link(w.file.node, w.root, b"x", ROOT)),
    ("unlink of one name", {C}, lambda w: vnops.unlink(w.root, b"other", ROOT)),
    ("rename", {C}, lambda w: vnops.rename(w.file, w.empty.node, b"x", ROOT)),
    ("rename over one name", {C}, lambda w: vnops.rename(w.inner, w.root, b"other", ROOT)),
]

OF_THE_ROOT: list[tuple[str, set[str], Callable[[World], object]]] = [
    ("lookup", set(), lambda w: vnops.lookup(w.root, b"file", ROOT)),
    ("readdir", {A}, lambda w: vnops.readdir(w.root, 0)),
    ("create", {M, C}, lambda w: MAKERS["create"](w.root, b"x")),
    ("mkdir", {M, C}, lambda w: MAKERS["mkdir"](w.root, b"x")),
    ("symlink", {M, C}, lambda w: MAKERS["symlink"](w.root, b"x")),
    ("mknod", {M, C}, lambda w: MAKERS["fifo"](w.root, b"x")),
    ("link", {M, C}, lambda w: MAKERS["link"](w.root, b"x")),
    ("unlink", {M, C}, lambda w: vnops.unlink(w.root, b"file", ROOT)),
    ("rmdir", {M, C}, lambda w: vnops.rmdir(w.root, b"empty", ROOT)),
    ("remove", {M, C}, lambda w: vnops.remove(w.fifo, ROOT)),
    ("rename in it", {M, C}, lambda w: vnops.rename(w.file, w.root, b"x", ROOT)),
    ("rename out of it", {M, C}, lambda w: vnops.rename(w.file, w.empty.node, b"x", ROOT)),
    ("rename into it", {M, C}, lambda w: vnops.rename(w.inner, w.root, b"x", ROOT)),
    ("write to a file in it", set(), lambda w: put(w.file.node, b"x")),
    ("create in a subdirectory", set(), lambda w: MAKERS["create"](w.empty.node, b"x")),
]


@pytest.mark.parametrize(
    ("which", "operation"), [it[1:] for it in OF_THE_FILE], ids=[it[0] for it in OF_THE_FILE]
)
def test_times_of_a_file(
    world: World, clock: Clock, which: set[str], operation: Callable[[World], object]
) -> None:
    assert changed(world.file.node, clock, lambda: operation(world)) == which


@pytest.mark.parametrize(
    ("which", "operation"), [it[1:] for it in OF_THE_ROOT], ids=[it[0] for it in OF_THE_ROOT]
)
def test_times_of_a_directory(
    world: World, clock: Clock, which: set[str], operation: Callable[[World], object]
) -> None:
    assert changed(world.root, clock, lambda: operation(world)) == which


def test_times_of_what_lost_its_last_name(world: World, clock: Clock) -> None:
    for entry in (world.fifo, world.empty, world.symlink):
        vref(entry.node)
        assert changed(entry.node, clock, lambda: vnops.remove(entry, ROOT)) == {C}  # noqa: B023
        vrele(entry.node)


def test_times_of_what_a_rename_replaced(world: World, clock: Clock) -> None:
    vref(world.inner.node)
    assert changed(
        world.inner.node, clock, lambda: vnops.rename(world.file, world.full.node, b"inner", ROOT)
    ) == {C}
    vrele(world.inner.node)


def test_times_of_a_symlink_that_is_read(world: World, clock: Clock) -> None:
    assert changed(world.symlink.node, clock, lambda: vnops.readlink(world.symlink.node)) == {A}


def test_times_that_are_set_are_kept_exactly_and_the_ctime_is_now(
    mount: Mount, clock: Clock
) -> None:
    node = make_file(mount)
    moment = clock.tick()
    vnops.setattr(node, ROOT, atime=123_456_789)
    vnops.setattr(node, ROOT, mtime=987_654_321)
    assert times(node) == (123_456_789, 987_654_321, moment)


def test_a_birth_time_never_changes(world: World, clock: Clock) -> None:
    node = world.file.node
    born = node.btime
    clock.tick()
    put(node, b"x")
    vnops.setattr(node, ROOT, mode=0o600, atime=1, mtime=1)
    vnops.rename(world.file, world.root, b"x", ROOT)
    assert node.btime == born


def test_the_mode_changes_beside_an_acl_that_is_none(mount: Mount) -> None:
    node = vnops.create(mount.root, b"file", 0o600, ROOT, 0).node
    xattr.setxattr(node, b"system.posix_acl_access", b"", ROOT)
    vnops.setattr(node, ROOT, mode=0o644)
    assert stat.S_IMODE(node.mode) == 0o644

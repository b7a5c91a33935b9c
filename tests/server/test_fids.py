"""fids: what a client holds, and what becomes of it when a fid goes."""

import errno
from collections.abc import Iterator

import pytest

from server.exports import Export
from server.fids import Client, Fid, Stale, XattrDraft, XattrValue
from server.limits import FID_BYTES, Limits
from server.wire import constants as c
from tmpfs_core import vnops, xattr
from tmpfs_core.access import ROOT
from tmpfs_core.directory import Dirent
from tmpfs_core.locks import Lock
from tmpfs_core.mount import Mount

from .peer import client_of, raises_errno, room_of


@pytest.fixture
def client(mount: Mount) -> Iterator[Client]:
    client = client_of(mount, lock_wait=1.0)
    yield client
    client.reset()


@pytest.fixture
def file(mount: Mount) -> Dirent:
    entry = vnops.create(mount.root, b"file", 0o644, ROOT, 0)
    vnops.open(entry.node)
    vnops.write(entry.node, 0, memoryview(b"data"), ROOT)
    vnops.close(entry.node)
    return entry


def is_held(entry: Dirent) -> bool:
    return entry.node.refs > 0


# The table


def test_a_fid_is_found_by_its_number(client: Client, file: Dirent) -> None:
    fid = Fid(file, ROOT)
    client.enter(7, fid)
    assert client.get(7) is fid


def test_there_is_no_fid_of_another_number(client: Client, file: Dirent) -> None:
    client.enter(7, Fid(file, ROOT))
    with raises_errno(errno.EBADF):
        client.get(8)


def test_a_fid_that_stands_for_an_attribute_is_no_place_in_the_tree(
    client: Client, file: Dirent
) -> None:
    fid = Fid(file, ROOT)
    fid.xattr = XattrValue(b"")
    client.enter(7, fid)
    with raises_errno(errno.EBADF):
        client.get(7)


def test_only_a_number_in_use_is_refused_for_a_new_fid(client: Client, file: Dirent) -> None:
    client.enter(7, Fid(file, ROOT))
    client.require_free(8)
    with raises_errno(errno.EBADF):
        client.require_free(7)


def test_a_fid_holds_its_node_until_it_is_clunked(client: Client, file: Dirent) -> None:
    client.enter(7, Fid(file, ROOT))
    assert is_held(file)
    client.clunk(7)
    assert not is_held(file)


def test_a_fid_entered_again_lets_go_of_what_it_was(
    client: Client, mount: Mount, file: Dirent
) -> None:
    client.enter(7, Fid(file, ROOT))
    client.enter(7, Fid(mount.root.entry, ROOT))
    assert not is_held(file)
    assert client.get(7).node is mount.root


def test_a_fid_entered_again_for_the_same_orphan_keeps_it(
    client: Client, mount: Mount, file: Dirent
) -> None:
    client.enter(7, Fid(file, ROOT))
    vnops.unlink(mount.root, b"file", ROOT)
    client.enter(7, Fid(file, ROOT))
    assert is_held(file)
    mount.check()


def test_clunking_the_last_fid_of_an_orphan_frees_it(
    client: Client, mount: Mount, file: Dirent
) -> None:
    client.enter(7, Fid(file, ROOT))
    client.enter(8, Fid(file, ROOT))
    vnops.unlink(mount.root, b"file", ROOT)
    client.clunk(7)
    assert mount.statfs().bfree < mount.statfs().blocks
    client.clunk(8)
    assert mount.statfs().bfree == mount.statfs().blocks


def test_clunking_gives_the_fid_a_last_time_and_then_refuses(client: Client, file: Dirent) -> None:
    fid = Fid(file, ROOT)
    client.enter(7, fid)
    assert client.clunk(7) is fid
    with raises_errno(errno.EBADF):
        client.clunk(7)


def test_clunking_releases_the_locks_taken_through_the_fid(client: Client, file: Dirent) -> None:
    fids = [Fid(file, ROOT), Fid(file, ROOT)]
    locks = file.node.range_locks()
    for number, fid in enumerate(fids):
        client.enter(number, fid)
        locks.acquire(Lock(number, number + 1, True, "owner", fid))
    client.clunk(0)
    assert [lock.handle for lock in locks.held] == [fids[1]]


def test_a_reset_forgets_every_fid(client: Client, mount: Mount, file: Dirent) -> None:
    client.enter(1, Fid(file, ROOT))
    client.enter(2, Fid(mount.root.entry, ROOT))
    client.reset()
    assert not client.fids
    assert not is_held(file)


# Access of an open fid


@pytest.mark.parametrize(
    ("flags", "readable", "writable"),
    [
        (None, False, False),
        (c.O_RDONLY, True, False),
        (c.O_WRONLY, False, True),
        (c.O_RDWR, True, True),
        (c.O_RDONLY | c.O_APPEND, True, False),
        (c.O_WRONLY | c.O_TRUNC, False, True),
    ],
)
def test_the_flags_say_what_may_be_done(
    file: Dirent, flags: int | None, readable: bool, writable: bool
) -> None:
    fid = Fid(file, ROOT)
    fid.flags = flags
    for allowed, require in ((readable, fid.require_readable), (writable, fid.require_writable)):
        if allowed:
            require()
        else:
            with raises_errno(errno.EBADF):
                require()


@pytest.mark.parametrize(
    ("flags", "appends"), [(None, False), (c.O_WRONLY, False), (c.O_WRONLY | c.O_APPEND, True)]
)
def test_the_flags_say_whether_writes_go_to_the_end(
    file: Dirent, flags: int | None, appends: bool
) -> None:
    fid = Fid(file, ROOT)
    fid.flags = flags
    assert fid.appends == appends


# Attributes being read and written


def test_a_value_is_read_in_pieces() -> None:
    value = XattrValue(b"abcdef")
    assert value.read(0, 4) == b"abcd"
    assert value.read(4, 4) == b"ef"
    assert value.read(6, 4) == b""


def draft(size: int, create: bool = False, replace: bool = False) -> XattrDraft:
    return XattrDraft(b"user.a", size, create, replace)


def test_a_draft_takes_its_bytes_in_order_and_commits_them(file: Dirent) -> None:
    it = draft(6)
    assert it.write(0, memoryview(b"abcd")) == 4
    assert it.write(4, memoryview(b"ef")) == 2
    it.commit(file.node, ROOT)
    assert xattr.getxattr(file.node, b"user.a", ROOT) == b"abcdef"


@pytest.mark.parametrize("offset", [1, 3, (1 << 64) - 1])
def test_a_draft_refuses_bytes_out_of_order(offset: int) -> None:
    it = draft(6)
    it.write(0, memoryview(b"ab"))
    with raises_errno(errno.EINVAL):
        it.write(offset, memoryview(b"x"))
    assert it.value == b"ab"


def test_a_draft_refuses_more_than_was_announced() -> None:
    it = draft(2)
    with raises_errno(errno.ENOSPC):
        it.write(0, memoryview(b"abc"))
    assert it.value == b""


def test_an_unfinished_draft_is_not_committed(file: Dirent) -> None:
    it = draft(3)
    it.write(0, memoryview(b"ab"))
    with raises_errno(errno.EIO):
        it.commit(file.node, ROOT)
    assert file.node.xattrs is None


# Exports


def test_a_client_is_one_of_an_export_from_its_attach_to_its_end(
    client: Client, mount: Mount
) -> None:
    export = Export("x", mount)
    client.attach(1, export, ROOT)
    client.attach(2, export, ROOT)
    client.clunk(1)
    assert export.clients == {client}
    client.reset()
    assert export.clients == set()


def test_fids_of_an_export_that_was_removed_let_go_of_their_nodes(
    client: Client, mount: Mount, file: Dirent
) -> None:
    export, other = Export("x", mount), Export("y", Mount(4096, 10))
    client.attach(1, export, ROOT)
    client.attach(2, other, ROOT)
    held = Fid(file, ROOT)
    client.enter(3, held)
    client.acquire(file.node.range_locks(), Lock(0, 1, True, "owner", held))
    client.expel(export)
    assert not is_held(file)
    assert not file.node.range_locks().held
    assert {n for n, fid in client.fids.items() if isinstance(fid.xattr, Stale)} == {1, 3}
    assert (export.clients, other.clients) == (set(), {client})
    for number in (1, 3):
        with raises_errno(errno.ESTALE):
            client.get(number)
        client.clunk(number)
    assert mount.root.refs == 0
    client.attach(4, export, ROOT)  # as it would be if it came back
    assert export.clients == {client}


# Limits


def test_one_fid_too_many_is_refused(mount: Mount) -> None:
    client = client_of(mount, 1.0, Limits(max_fids=40))
    for number in range(40):
        client.enter(number, Fid(mount.root.entry, ROOT))
    with raises_errno(errno.EMFILE):
        client.enter(40, Fid(mount.root.entry, ROOT))
    client.enter(39, Fid(mount.root.entry, ROOT))  # in place of another
    client.clunk(0)
    client.enter(40, Fid(mount.root.entry, ROOT))
    client.reset()
    assert mount.root.refs == 0


def test_the_room_for_fids_is_shared_and_given_back(mount: Mount) -> None:
    state = room_of(100 * FID_BYTES)
    one, other = (client_of(mount, 1.0, state=state) for _ in range(2))
    for number in range(96):
        one.enter(number, Fid(mount.root.entry, ROOT))
    with raises_errno(errno.ENFILE):
        other.enter(0, Fid(mount.root.entry, ROOT))
    for number in range(96):
        one.clunk(number)
    other.enter(0, Fid(mount.root.entry, ROOT))
    one.reset()
    other.reset()
    assert state.free == 100 * FID_BYTES


def test_locks_are_counted_however_they_are_cut(mount: Mount, file: Dirent) -> None:
    state = room_of()
    free = state.free
    client = client_of(mount, 1.0, Limits(max_locks=3), state)
    fid = Fid(file, ROOT)
    client.enter(1, fid)
    locks = file.node.range_locks()
    client.acquire(locks, Lock(0, 100, True, "owner", fid))
    client.release(locks, Lock(10, 20, True, "owner", fid))
    client.release(locks, Lock(30, 40, True, "owner", fid))
    assert client.locks == len(locks.held) == 3
    with raises_errno(errno.ENOLCK):
        client.release(locks, Lock(50, 60, True, "owner", fid))
    with raises_errno(errno.ENOLCK):
        client.acquire(locks, Lock(200, 201, True, "owner", fid))
    client.release(locks, Lock(0, 10, True, "owner", fid))  # which leaves one less
    assert client.locks == len(locks.held) == 2
    client.reset()
    assert client.locks == 0
    assert state.free == free


def test_attributes_that_are_read_and_written_are_counted(mount: Mount, file: Dirent) -> None:
    state = room_of()
    free = state.free
    client = client_of(mount, 1.0, Limits(max_xattr_bytes=100), state)
    fids = [Fid(file, ROOT) for _ in range(3)]
    for number, fid in enumerate(fids):
        client.enter(number, fid)
    client.hold_xattr(fids[0], XattrValue(bytes(60)))
    with raises_errno(errno.ENOSPC):
        client.hold_xattr(fids[1], XattrDraft(b"user.a", 35, create=False, replace=False))
    assert fids[1].xattr is None
    client.hold_xattr(fids[1], XattrDraft(b"user.a", 34, create=False, replace=False))
    client.clunk(0)
    client.hold_xattr(fids[2], XattrValue(bytes(60)))
    client.reset()
    assert state.free == free

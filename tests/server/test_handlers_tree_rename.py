"""handlers of the tree: rename, by both requests."""

import errno
from collections.abc import Callable

import pytest

from server.wire import constants as c
from server.wire import messages as m

from .peer import ROOT, Peer, raises_errno

Rename = Callable[[Peer, int, bytes, int, bytes], None]


def by_fid(peer: Peer, old_parent: int, old: bytes, new_parent: int, new: bytes) -> None:
    fid = peer.walk(old, start=old_parent)
    peer.call(m.Trename(fid, new_parent, new))


def by_name(peer: Peer, old_parent: int, old: bytes, new_parent: int, new: bytes) -> None:
    peer.call(m.Trenameat(old_parent, old, new_parent, new))


both = pytest.mark.parametrize("rename", [by_fid, by_name])


@both
def test_rename_in_a_directory(peer: Peer, rename: Rename) -> None:
    file = peer.create(b"old")
    rename(peer, ROOT, b"old", ROOT, b"new")
    assert peer.names() == [b"new"]
    assert peer.stat(peer.walk(b"new")).qid == peer.stat(file).qid


@both
def test_rename_across_directories(peer: Peer, rename: Rename) -> None:
    here, there = peer.mkdir(b"here"), peer.mkdir(b"there")
    moved = peer.mkdir(b"moved", here)
    peer.create(b"file", parent=moved)
    rename(peer, here, b"moved", there, b"renamed")
    assert peer.names(b"here") == []
    assert peer.names(b"there", b"renamed") == [b"file"]
    assert (peer.stat(here).nlink, peer.stat(there).nlink) == (2, 3)


@both
def test_rename_replaces_a_file(peer: Peer, rename: Rename) -> None:
    peer.create(b"new", b"new data")
    replaced = peer.create(b"old", b"old data")
    rename(peer, ROOT, b"new", ROOT, b"old")
    assert peer.names() == [b"old"]
    assert peer.read(peer.open(b"old")) == b"new data"
    assert peer.read(replaced) == b"old data"
    assert peer.stat(replaced).nlink == 0


@both
def test_rename_replaces_an_empty_directory(peer: Peer, rename: Rename) -> None:
    peer.create(b"file", parent=peer.mkdir(b"dir"))
    peer.mkdir(b"empty")
    rename(peer, ROOT, b"dir", ROOT, b"empty")
    assert peer.names() == [b"empty"]
    assert peer.names(b"empty") == [b"file"]


@both
@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"dir", b"full", errno.ENOTEMPTY),
        (b"dir", b"file", errno.ENOTDIR),
        (b"file", b"dir", errno.EISDIR),
        (b"missing", b"new", errno.ENOENT),
    ],
)
def test_rename_refuses(peer: Peer, rename: Rename, old: bytes, new: bytes, code: int) -> None:
    peer.create(b"file")
    peer.mkdir(b"dir")
    peer.create(b"inner", parent=peer.mkdir(b"full"))
    with raises_errno(code):
        rename(peer, ROOT, old, ROOT, new)
    assert peer.names() == [b"file", b"dir", b"full"]


@both
def test_a_directory_does_not_move_into_itself(peer: Peer, rename: Rename) -> None:
    outer = peer.mkdir(b"outer")
    inner = peer.mkdir(b"inner", outer)
    for target in (outer, inner):
        with raises_errno(errno.EINVAL):
            rename(peer, ROOT, b"outer", target, b"name")
    assert peer.names(b"outer", b"inner") == []


@both
def test_rename_to_another_name_of_the_same_file_does_nothing(peer: Peer, rename: Rename) -> None:
    file = peer.create(b"one")
    peer.call(m.Tlink(ROOT, file, b"two"))
    before = peer.listing(peer.open(flags=c.O_RDONLY))
    rename(peer, ROOT, b"one", ROOT, b"two")
    rename(peer, ROOT, b"two", ROOT, b"two")
    assert peer.listing(peer.open(flags=c.O_RDONLY)) == before


def test_the_root_is_not_renamed(peer: Peer) -> None:
    with raises_errno(errno.EBUSY):
        peer.call(m.Trename(ROOT, peer.mkdir(b"dir"), b"name"))


def test_a_fid_without_a_name_is_not_renamed(peer: Peer) -> None:
    file = peer.create(b"file")
    peer.unlink(b"file")
    with raises_errno(errno.ENOENT):
        peer.call(m.Trename(file, ROOT, b"name"))


def test_a_fid_follows_what_it_stands_for(peer: Peer) -> None:
    directory = peer.mkdir(b"dir")
    file = peer.create(b"file", b"data", parent=directory)
    peer.call(m.Trenameat(ROOT, b"dir", ROOT, b"moved"))
    assert peer.read(file) == b"data"
    peer.create(b"other", parent=directory)
    assert peer.names(b"moved") == [b"file", b"other"]

"""handlers of the tree: listings."""

import errno
import stat

import pytest

from server.wire import constants as c
from server.wire import messages as m

from .peer import ROOT, UNKNOWN, MakePeer, Peer, raises_errno


def test_a_listing_has_qids_types_and_growing_cookies(peer: Peer) -> None:
    directory = peer.mkdir(b"dir")
    fids = {b".": directory, b"..": ROOT, b"file": peer.create(b"file", parent=directory)}
    fids[b"sub"] = peer.mkdir(b"sub", directory)
    for name, kind in ((b"fifo", stat.S_IFIFO), (b"char", stat.S_IFCHR)):
        peer.call(m.Tmknod(directory, name, kind, 0, 0, 0))
        fids[name] = peer.walk(b"dir", name)
    records = peer.listing(peer.open(b"dir", flags=c.O_RDONLY))
    assert [name for *_, name in records] == list(fids)
    for qid, _, kind, name in records:
        assert qid == peer.stat(fids[name]).qid._replace(version=0)
        assert kind == peer.stat(fids[name]).mode >> 12
    cookies = [cookie for _, cookie, _, _ in records]
    assert cookies == sorted(set(cookies))


def test_the_root_is_its_own_parent_in_a_listing(peer: Peer) -> None:
    dot, dot_dot = peer.listing(peer.open(flags=c.O_RDONLY))
    assert dot[0] == dot_dot[0] == peer.stat(ROOT).qid._replace(version=0)


def test_a_listing_shows_what_came_and_went_since_the_last(peer: Peer) -> None:
    here, there = peer.mkdir(b"here"), peer.mkdir(b"there")
    top = peer.mkdir(b"top", here)
    directory = peer.open(b"here", b"top", flags=c.O_RDONLY)

    def names() -> list[bytes]:
        return [name for *_, name in peer.listing(directory)][2:]

    peer.create(b"a", parent=top)
    assert names() == names() == [b"a"]
    peer.create(b"b", parent=top)
    assert names() == [b"a", b"b"]
    peer.call(m.Trenameat(top, b"a", top, b"c"))
    assert names() == [b"b", b"c"]
    peer.unlink(b"b", top)
    assert names() == [b"c"]
    before = peer.listing(directory)[1]
    peer.call(m.Trenameat(here, b"top", there, b"top"))
    after = peer.listing(directory)[1]
    assert (before[0].path, after[0].path) == (peer.stat(here).qid.path, peer.stat(there).qid.path)


def test_a_listing_with_less_room_is_no_part_of_one_with_more(peer: Peer) -> None:
    for number in range(9):
        peer.create(b"%d" % number)
    directory = peer.open(flags=c.O_RDONLY)
    whole = peer.call(m.Treaddir(directory, 0, 4096)).data
    part = peer.call(m.Treaddir(directory, 0, 100)).data
    assert part == whole[: len(part)]
    assert 0 < len(part) <= 100
    assert peer.call(m.Treaddir(directory, 0, 4096)).data == whole


@pytest.mark.parametrize("count", [m.RECORD_SIZE + 8, 100, 4096, 0xFFFFFFFF])
def test_a_listing_comes_in_pieces_of_any_size(peers: MakePeer, count: int) -> None:
    peer = peers(msize=c.MSIZE_MIN)
    names = [b"name %d" % number for number in range(200)]
    for name in names:
        peer.call(m.Tmknod(ROOT, name, 0, 0, 0, 0))
    records = peer.listing(peer.open(flags=c.O_RDONLY), count=count)
    assert [name for *_, name in records] == [b".", b"..", *names]


@pytest.mark.parametrize("count", [0, 1, m.RECORD_SIZE])
def test_room_for_not_one_record_is_refused(peer: Peer, count: int) -> None:
    directory = peer.open(flags=c.O_RDONLY)
    with raises_errno(errno.EINVAL):
        peer.call(m.Treaddir(directory, 0, count))


def test_the_end_of_a_listing_needs_no_room(peer: Peer) -> None:
    directory = peer.open(flags=c.O_RDONLY)
    assert peer.call(m.Treaddir(directory, 2, 0)).data == b""


def test_a_cookie_resumes_behind_its_entry_even_when_that_has_gone(peer: Peer) -> None:
    for number in range(50):
        peer.create(b"%d" % number)
    directory = peer.open(flags=c.O_RDONLY)
    records = peer.listing(directory)
    cookie = next(cookie for _, cookie, _, name in records if name == b"20")
    for number in range(40):
        peer.unlink(b"%d" % number)
    peer.create(b"late")
    rest = [name for *_, name in peer.listing(directory, cookie)]
    assert rest == [b"%d" % number for number in range(40, 50)] + [b"late"]


def test_cookies_stay_valid_while_the_directory_is_emptied(peer: Peer) -> None:
    names = {b"%d" % number for number in range(100)}
    for name in names:
        peer.create(name)
    directory = peer.open(flags=c.O_RDONLY)
    seen, offset = set(), 0
    while data := peer.call(m.Treaddir(directory, offset, 100)).data:
        for _, offset, _, name in m.split_records(data):  # noqa: B007 the last cookie is used
            if name in names:
                seen.add(name)
                peer.unlink(name)
    assert seen == names
    assert peer.names() == []


def test_a_directory_must_be_open_to_be_listed(peer: Peer) -> None:
    for fid in (ROOT, UNKNOWN):
        with raises_errno(errno.EBADF):
            peer.call(m.Treaddir(fid, 0, 4096))


def test_a_file_has_no_listing(peer: Peer) -> None:
    with raises_errno(errno.ENOTDIR):
        peer.call(m.Treaddir(peer.create(b"file"), 0, 4096))


def test_a_removed_directory_is_empty(peer: Peer) -> None:
    peer.mkdir(b"gone")
    gone = peer.open(b"gone", flags=c.O_RDONLY)
    peer.unlink(b"gone", flags=c.AT_REMOVEDIR)
    assert [name for *_, name in peer.listing(gone)] == [b".", b".."]
    assert peer.stat(gone).nlink == 0

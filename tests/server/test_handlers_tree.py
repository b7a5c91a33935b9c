"""handlers of the tree: attach, walk and fids."""

import errno
import stat
from collections.abc import Callable

import pytest

from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message

from .peer import ROOT, UNKNOWN, Peer, raises_errno


def is_fid(peer: Peer, fid: int) -> bool:
    peer.send(m.Tgetattr(fid, c.GETATTR_ALL))
    return peer.reply(1) != m.Rlerror(errno.EBADF)


# Attach


def test_attach_gives_the_root(peer: Peer) -> None:
    qid = peer.attach(1)
    assert qid.type == c.QTDIR
    assert peer.stat(1).qid == qid
    assert stat.S_ISDIR(peer.stat(1).mode)


@pytest.mark.parametrize("aname", [b"", b"/"])
def test_the_whole_tree_has_two_names(peer: Peer, aname: bytes) -> None:
    assert peer.call(m.Tattach(1, c.NOFID, b"", aname, 0)).qid == peer.stat(ROOT).qid


def test_there_is_no_other_tree(peer: Peer) -> None:
    with raises_errno(errno.ENOENT):
        peer.call(m.Tattach(1, c.NOFID, b"", b"/other", 0))
    assert not is_fid(peer, 1)


def test_attach_needs_no_authentication_and_takes_none(peer: Peer) -> None:
    with raises_errno(errno.EBADF):
        peer.call(m.Tattach(1, ROOT, b"", b"", 0))


def test_tauth_is_refused_and_the_client_goes_on(peer: Peer) -> None:
    with raises_errno(errno.EOPNOTSUPP):
        peer.call(m.Tauth(1, b"root", b"", 0))
    peer.attach(1)


def test_attach_refuses_a_fid_in_use(peer: Peer) -> None:
    fid = peer.create(b"file")
    with raises_errno(errno.EBADF):
        peer.attach(fid)
    assert stat.S_ISREG(peer.stat(fid).mode)


@pytest.mark.parametrize(
    ("uname", "n_uname", "uid"), [(b"root", 1234, 1234), (b"root", c.NONUNAME, 0)]
)
def test_who_attaches_owns_what_it_makes(peer: Peer, uname: bytes, n_uname: int, uid: int) -> None:
    peer.call(m.Tattach(1, c.NOFID, uname, b"", n_uname))
    assert peer.stat(peer.create(b"file", parent=1)).uid == uid


def test_several_users_attach_on_one_connection(peer: Peer) -> None:
    for uid in (1, 2):
        peer.attach(uid, uid)
    for uid in (1, 2):
        fid = peer.mkdir(b"of %d" % uid, parent=peer.walk(start=uid))
        assert peer.stat(fid).uid == uid


# Walk


def test_a_walk_without_names_makes_another_fid(peer: Peer) -> None:
    file = peer.create(b"file")
    peer.call(m.Twalk(file, 1, []))
    peer.clunk(file)
    assert stat.S_ISREG(peer.stat(1).mode)


def test_a_walk_to_itself_changes_nothing(peer: Peer) -> None:
    file = peer.create(b"file", b"data")
    assert peer.call(m.Twalk(file, file, [])).qids == []
    assert peer.read(file) == b"data"  # it is still open


def test_a_walk_gives_the_qid_of_each_element(peer: Peer) -> None:
    outer = peer.mkdir(b"outer")
    inner = peer.mkdir(b"inner", parent=outer)
    file = peer.create(b"file", parent=inner)
    walked = peer.call(m.Twalk(ROOT, 1, [b"outer", b"inner", b"file"]))
    assert walked.qids == [peer.stat(fid).qid for fid in (outer, inner, file)]
    assert peer.stat(1).qid == walked.qids[-1]


def test_sixteen_elements_are_walked_at_once(peer: Peer) -> None:
    parent = ROOT
    for _ in range(16):
        parent = peer.mkdir(b"d", parent)
    assert len(peer.call(m.Twalk(ROOT, 1, [b"d"] * 16)).qids) == 16
    assert peer.stat(1).qid == peer.stat(parent).qid


def test_seventeen_elements_are_refused(peer: Peer) -> None:
    with raises_errno(errno.EINVAL):
        peer.call(m.Twalk(ROOT, 1, [b".."] * 17))
    assert not is_fid(peer, 1)


def test_a_partial_walk_tells_how_far_and_makes_no_fid(peer: Peer) -> None:
    there = peer.mkdir(b"there")
    walked = peer.call(m.Twalk(ROOT, 1, [b"there", b"missing", b"more"]))
    assert walked.qids == [peer.stat(there).qid]
    with raises_errno(errno.EBADF):
        peer.clunk(1)  # as v9fs does


def test_the_number_of_a_failed_walk_can_be_used_again(peer: Peer) -> None:
    peer.mkdir(b"there")
    with raises_errno(errno.ENOENT):
        peer.call(m.Twalk(ROOT, 1, [b"missing"]))
    peer.call(m.Twalk(ROOT, 1, [b"there", b"missing"]))
    assert len(peer.call(m.Twalk(ROOT, 1, [b"there"])).qids) == 1


@pytest.mark.parametrize("name", [b"missing", b"."])
def test_a_first_element_that_is_not_there_is_enoent(peer: Peer, name: bytes) -> None:
    with raises_errno(errno.ENOENT):
        peer.call(m.Twalk(ROOT, 1, [name, b"more"]))


def test_a_walk_refuses_a_newfid_in_use(peer: Peer) -> None:
    directory = peer.mkdir(b"there")
    file = peer.create(b"file", b"data")
    with raises_errno(errno.EBADF):
        peer.call(m.Twalk(ROOT, file, [b"there"]))
    with raises_errno(errno.EBADF):
        peer.call(m.Twalk(directory, ROOT, []))
    assert peer.read(file) == b"data"


def test_a_walk_can_move_its_own_fid(peer: Peer) -> None:
    there = peer.mkdir(b"there")
    fid = peer.walk()
    peer.call(m.Twalk(fid, fid, [b"there"]))
    assert peer.stat(fid).qid == peer.stat(there).qid


def test_a_partial_walk_does_not_move_its_own_fid(peer: Peer) -> None:
    peer.mkdir(b"there")
    fid = peer.walk()
    peer.call(m.Twalk(fid, fid, [b"there", b"missing"]))
    assert peer.stat(fid).qid == peer.stat(ROOT).qid


def test_a_walk_from_an_unknown_fid_is_refused(peer: Peer) -> None:
    with raises_errno(errno.EBADF):
        peer.call(m.Twalk(UNKNOWN, 1, []))


def test_a_walk_may_start_at_an_open_fid(peer: Peer) -> None:
    peer.mkdir(b"there")
    opened = peer.open(flags=c.O_RDONLY)
    fid = peer.walk(b"there", start=opened)
    peer.call(m.Tlopen(fid, c.O_RDONLY))  # the new fid is not open yet


def test_an_open_fid_can_not_be_moved(peer: Peer) -> None:
    peer.mkdir(b"there")
    opened = peer.open(flags=c.O_RDONLY)
    with raises_errno(errno.EINVAL):
        peer.call(m.Twalk(opened, opened, [b"there"]))
    assert peer.stat(opened).qid == peer.stat(ROOT).qid


def test_a_file_has_nothing_below_it(peer: Peer) -> None:
    file = peer.create(b"file")
    for name in (b"x", b".."):
        with raises_errno(errno.ENOTDIR):
            peer.call(m.Twalk(file, 1, [name]))
        assert len(peer.call(m.Twalk(ROOT, 1, [b"file", name])).qids) == 1


def test_dot_dot_stops_at_the_root(peer: Peer) -> None:
    inner = peer.mkdir(b"inner", parent=peer.mkdir(b"outer"))
    root = peer.stat(ROOT).qid
    assert peer.call(m.Twalk(inner, 1, [b".."] * 4)).qids[1:] == [root] * 3
    assert peer.call(m.Twalk(ROOT, 2, [b"..", b"outer", b".."])).qids[::2] == [root] * 2


def test_dot_dot_leads_to_where_the_directory_is_now(peer: Peer) -> None:
    inner = peer.mkdir(b"inner", parent=peer.mkdir(b"old"))
    new = peer.mkdir(b"new")
    peer.call(m.Trename(inner, new, b"inner"))
    assert peer.stat(peer.walk(b"..", start=inner)).qid == peer.stat(new).qid


def test_a_removed_directory_leads_nowhere(peer: Peer) -> None:
    gone = peer.mkdir(b"gone")
    peer.unlink(b"gone", flags=c.AT_REMOVEDIR)
    for name in (b"..", b"x"):
        with raises_errno(errno.ENOENT):
            peer.walk(name, start=gone)


# Clunk and remove


@pytest.mark.parametrize("request_of", [m.Tclunk, m.Tremove])
def test_an_unknown_fid_can_not_be_let_go(peer: Peer, request_of: Callable[[int], Message]) -> None:
    with raises_errno(errno.EBADF):
        peer.call(request_of(UNKNOWN))


def test_a_fid_is_clunked_once(peer: Peer) -> None:
    fid = peer.walk()
    peer.clunk(fid)
    with raises_errno(errno.EBADF):
        peer.clunk(fid)
    peer.call(m.Twalk(ROOT, fid, []))


def test_remove_takes_the_name_and_the_fid(peer: Peer) -> None:
    fid = peer.create(b"file")
    peer.call(m.Tremove(fid))
    assert not peer.exists(b"file")
    assert not is_fid(peer, fid)


def test_remove_takes_an_empty_directory(peer: Peer) -> None:
    peer.call(m.Tremove(peer.mkdir(b"dir")))
    assert peer.names() == []


def test_remove_takes_the_name_that_the_fid_was_reached_by(peer: Peer) -> None:
    file = peer.create(b"first")
    peer.call(m.Tlink(ROOT, file, b"second"))
    peer.call(m.Tremove(peer.walk(b"second")))
    assert peer.names() == [b"first"]


def test_remove_follows_a_rename(peer: Peer) -> None:
    file = peer.create(b"old")
    peer.call(m.Trenameat(ROOT, b"old", ROOT, b"new"))
    peer.create(b"old")
    peer.call(m.Tremove(file))
    assert peer.names() == [b"old"]


def test_a_failed_remove_takes_the_fid_nevertheless(peer: Peer) -> None:
    full = peer.mkdir(b"full")
    peer.create(b"file", parent=full)
    with raises_errno(errno.ENOTEMPTY):
        peer.call(m.Tremove(full))
    assert not is_fid(peer, full)
    assert peer.exists(b"full", b"file")


def test_the_root_can_not_be_removed(peer: Peer) -> None:
    fid = peer.walk()
    with raises_errno(errno.EBUSY):
        peer.call(m.Tremove(fid))
    assert not is_fid(peer, fid)


def test_a_name_is_removed_once(peer: Peer) -> None:
    fids = [peer.create(b"file"), peer.walk(b"file")]
    peer.call(m.Tremove(fids[0]))
    with raises_errno(errno.ENOENT):
        peer.call(m.Tremove(fids[1]))
    assert not is_fid(peer, fids[1])

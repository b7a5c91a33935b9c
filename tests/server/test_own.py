"""own: what this project's own client can ask for besides 9P2000.L."""

import errno

import pytest

from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message
from server.wire.entries import split_entries, split_two
from server.wire.own import Tcreateplus, Treaddirplus
from tmpfs_core.access import Cred

from .peer import ROOT, UNKNOWN, MakePeer, Peer, raises_errno

#: Bytes of an entry whose name has one letter.
ENTRY = 8 + 1 + 2 + 1 + 153


@pytest.fixture
def own(peers: MakePeer) -> Peer:
    """A client of the dialect, with some names in the root."""
    peer = peers(begin=False)
    begun = m.Tversion(1 << 20, c.VERSION_OWN)
    assert peer.call(begun, c.NOTAG) == m.Rversion(1 << 20, c.VERSION_OWN)
    peer.call(m.Tattach(ROOT, c.NOFID, b"root", b"", 0))
    for name in (b"a", b"b", b"c"):
        peer.write(peer.create(name), b"data of " + name)
    peer.mkdir(b"d")
    return peer


def whole(peer: Peer, fid: int, count: int) -> list[tuple[bytes, m.Rgetattr]]:
    """All that is in a directory, so many bytes at a time."""
    found = []
    offset, end = 0, 0
    while not end:
        reply = peer.call(Treaddirplus(fid, offset, count))
        end = reply.end
        assert len(reply.data) <= count
        for offset, _, name, fields in split_entries(reply.data):  # noqa: B007 the last is used
            found.append((name, m.Rgetattr(*fields)))
    return found


# Tattach


@pytest.mark.parametrize(
    ("version", "uname", "n_uname", "checked"),
    [
        (c.VERSION_OWN, b"daemon", c.NONUNAME, True),
        (c.VERSION_OWN, b"", 1, False),
        (c.VERSION, b"daemon", c.NONUNAME, False),
    ],
)
def test_who_comes_by_name_is_checked(
    peers: MakePeer, version: bytes, uname: bytes, n_uname: int, checked: bool
) -> None:
    peer = peers(begin=False)
    peer.call(m.Tversion(1 << 20, version), c.NOTAG)
    peer.call(m.Tattach(ROOT, c.NOFID, uname, b"", n_uname))
    cred = peer.session.client.fids[ROOT].cred
    assert (cred.uid, cred.checked) == (1, checked)


def test_who_tells_no_name_is_who_he_was_proven_to_be(own: Peer) -> None:
    own.call(m.Tattach(1, c.NOFID, b"", b"", c.NONUNAME))
    assert own.session.client.peer.uid == 0
    cred = own.session.client.fids[1].cred
    assert (cred.uid, cred.checked) == (0, True)


# Treaddirplus


@pytest.mark.parametrize("count", [ENTRY, 2 * ENTRY, 3 * ENTRY + 1, 1 << 24])
def test_a_directory_is_read_with_attributes(own: Peer, count: int) -> None:
    names = (b"a", b"b", b"c", b"d")
    assert whole(own, ROOT, count) == [(name, own.stat(own.walk(name))) for name in names]


def test_its_fid_may_be_open_and_need_not(own: Peer) -> None:
    assert whole(own, own.open(flags=c.O_RDONLY), 4096) == whole(own, ROOT, 4096)


def test_it_tells_what_has_extended_attributes(own: Peer) -> None:
    def having() -> list[bytes]:
        data = own.call(Treaddirplus(ROOT, 0, 4096)).data
        return [name for _, xattrs, name, _ in split_entries(data) if xattrs]

    assert having() == []
    draft = own.walk(b"b")
    own.call(m.Txattrcreate(draft, b"user.a", 1, 0))
    own.write(draft, b"x")
    own.clunk(draft)
    assert having() == [b"b"]
    removal = own.walk(b"b")
    own.call(m.Txattrcreate(removal, b"user.a", 0, c.XATTR_REPLACE))
    own.clunk(removal)
    assert having() == []


def test_an_empty_directory_ends_at_once(own: Peer) -> None:
    reply = own.call(Treaddirplus(own.walk(b"d"), 0, 0))
    assert (reply.end, reply.data) == (1, b"")


def test_what_does_not_fit_is_refused(own: Peer) -> None:
    with raises_errno(errno.EINVAL):
        own.call(Treaddirplus(ROOT, 0, ENTRY - 1))


def test_a_reply_is_no_larger_than_agreed_on(own: Peer) -> None:
    own.call(m.Tversion(4096, c.VERSION_OWN), c.NOTAG)
    own.call(m.Tattach(ROOT, c.NOFID, b"root", b"", 0))
    for number in range(100):
        own.create(b"%d" % number)
    assert len(whole(own, ROOT, 4096 - c.IOHDRSZ)) == 104
    assert not own.call(Treaddirplus(ROOT, 0, 1 << 31)).end


def test_only_directories_have_it(own: Peer) -> None:
    with raises_errno(errno.ENOTDIR):
        own.call(Treaddirplus(own.walk(b"a"), 0, 4096))
    with raises_errno(errno.EBADF):
        own.call(Treaddirplus(UNKNOWN, 0, 4096))


@pytest.mark.parametrize(
    ("mode", "allowed"), [(0o755, True), (0o754, False), (0o751, False), (0o705, True)]
)
def test_it_is_for_who_may_read_and_search(own: Peer, mode: int, allowed: bool) -> None:
    directory = own.walk(b"d")
    own.call(m.Tsetattr(directory, c.SETATTR_MODE, mode, 0, 0, 0, 0, 0, 0, 0))
    own.session.client.fids[directory].cred = Cred(1001, gid=2001, checked=True)
    request = Treaddirplus(directory, 0, 4096)
    if allowed:
        assert own.call(request).end
    else:
        with raises_errno(errno.EACCES):
            own.call(request)


# Tcreateplus

NEW = 77


def createplus(name: bytes, flags: int = c.O_RDWR, newfid: int = NEW) -> Tcreateplus:
    return Tcreateplus(ROOT, newfid, name, flags, 0o640, 50)


def test_a_file_is_made_and_told_of(own: Peer) -> None:
    reply = own.call(createplus(b"new"))
    made, directory = (m.Rgetattr(*fields) for fields in split_two(reply.data))
    assert made == own.stat(NEW) == own.stat(own.walk(b"new"))
    assert (made.mode & 0o7777, made.gid) == (0o640, 50)
    assert directory == own.stat(ROOT)
    assert own.write(NEW, b"data") == 4


def test_what_is_there_is_opened(own: Peer) -> None:
    own.call(createplus(b"a"))
    assert own.read(NEW) == b"data of a"
    own.clunk(NEW)
    own.call(createplus(b"a", c.O_RDWR | c.O_TRUNC))
    assert own.read(NEW) == b""


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (createplus(b"a", c.O_RDWR | c.O_EXCL), errno.EEXIST),
        (createplus(b"d"), errno.EISDIR),
        (createplus(b"new", c.O_ACCMODE), errno.EINVAL),
        (createplus(b"x/y"), errno.EINVAL),
    ],
)
def test_what_is_refused_leaves_no_fid(own: Peer, request_: Tcreateplus, code: int) -> None:
    with raises_errno(code):
        own.call(request_)
    assert NEW not in own.session.client.fids
    own.call(createplus(b"other"))


def test_the_fid_must_be_new(own: Peer) -> None:
    file = own.walk(b"a")
    for newfid in (file, ROOT, c.NOFID):
        with raises_errno(errno.EBADF):
            own.call(createplus(b"new", newfid=newfid))
    assert own.stat(file)
    with raises_errno(errno.EBADF):
        own.call(Tcreateplus(UNKNOWN, NEW, b"new", c.O_RDWR, 0o644, 0))
    with raises_errno(errno.ENOENT):
        own.walk(b"new")


@pytest.mark.parametrize("request_", [Treaddirplus(ROOT, 0, 4096), createplus(b"new")])
def test_who_speaks_9p2000_l_has_neither(peer: Peer, request_: Message) -> None:
    peer.feed(request_.frame(1))
    assert peer.reply(1) == m.Rlerror(errno.EOPNOTSUPP)

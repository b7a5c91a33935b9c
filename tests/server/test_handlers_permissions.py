"""handlers pass on whose behalf a fid acts: what he may not do, nor anybody who is readonly.

All rules are tested in tests/tmpfs_core and tests/kernel; here each request is, once.
"""

import errno
import stat
from collections.abc import Callable

import pytest

from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message
from tmpfs_core.access import Cred

from .peer import ROOT, Peer, raises_errno

USER = Cred(1001, gid=2001, checked=True)
READONLY = Cred(0, readonly=True)

#: Fids: of a directory of root, of a file of root in it, and the place where attributes are read.
DIRECTORY, FILE, VALUE = 50, 51, 52


@pytest.fixture
def become(peer: Peer) -> Callable[[Cred], None]:
    """What makes the user of the fids another one."""
    peer.mkdir(b"d")
    peer.clunk(peer.create(b"f", b"data", parent=peer.walk(b"d")))
    peer.call(m.Twalk(ROOT, DIRECTORY, [b"d"]))
    peer.call(m.Twalk(ROOT, FILE, [b"d", b"f"]))

    def become(cred: Cred) -> None:
        for fid in (DIRECTORY, FILE):
            peer.session.client.fids[fid].cred = cred

    return become


def _setattr(valid: int) -> Message:
    return m.Tsetattr(FILE, valid, 0, 0, 0, 0, 0, 0, 0, 0)


CHANGES: dict[str, tuple[Message, int]] = {
    "lopen to write": (m.Tlopen(FILE, c.O_RDWR), errno.EACCES),
    "lopen to truncate": (m.Tlopen(FILE, c.O_TRUNC), errno.EACCES),
    "lcreate": (m.Tlcreate(DIRECTORY, b"x", c.O_RDONLY, 0o644, 0), errno.EACCES),
    "lcreate of what is there": (m.Tlcreate(DIRECTORY, b"f", c.O_RDWR, 0o644, 0), errno.EACCES),
    "mkdir": (m.Tmkdir(DIRECTORY, b"x", 0o755, 0), errno.EACCES),
    "symlink": (m.Tsymlink(DIRECTORY, b"x", b"t", 0), errno.EACCES),
    "mknod": (m.Tmknod(DIRECTORY, b"x", stat.S_IFIFO, 0, 0, 0), errno.EACCES),
    "link": (m.Tlink(DIRECTORY, FILE, b"x"), errno.EACCES),
    "rename": (m.Trename(FILE, DIRECTORY, b"x"), errno.EACCES),
    "renameat": (m.Trenameat(DIRECTORY, b"f", DIRECTORY, b"x"), errno.EACCES),
    "unlinkat": (m.Tunlinkat(DIRECTORY, b"f", 0), errno.EACCES),
    "unlinkat of a directory": (m.Tunlinkat(DIRECTORY, b"f", c.AT_REMOVEDIR), errno.EACCES),
    "remove": (m.Tremove(FILE), errno.EACCES),
    "setattr of the mode": (_setattr(c.SETATTR_MODE), errno.EPERM),
    "setattr of the size": (_setattr(c.SETATTR_SIZE), errno.EACCES),
    "setattr of the times": (_setattr(c.SETATTR_ATIME | c.SETATTR_MTIME), errno.EACCES),
}


@pytest.mark.parametrize("request_name", CHANGES)
def test_a_user_and_a_readonly_export_are_refused_each_change(
    peer: Peer, become: Callable[[Cred], None], request_name: str
) -> None:
    request, code = CHANGES[request_name]
    for cred, refusal in ((USER, code), (READONLY, errno.EROFS)):
        become(cred)
        with raises_errno(refusal):
            peer.call(request)
        if isinstance(request, m.Tremove):  # it forgets its fid in any case
            peer.call(m.Twalk(ROOT, FILE, [b"d", b"f"]))
    assert peer.names(b"d") == [b"f"]
    assert peer.read(peer.open(b"d", b"f")) == b"data"


@pytest.mark.parametrize(("cred", "code"), [(USER, errno.EACCES), (READONLY, errno.EROFS)])
def test_an_attribute_is_refused_when_it_is_complete(
    peer: Peer, become: Callable[[Cred], None], cred: Cred, code: int
) -> None:
    become(cred)
    peer.call(m.Txattrcreate(FILE, b"user.a", 0, 0))
    with raises_errno(code):
        peer.clunk(FILE)


def test_reading_is_checked_where_it_begins(peer: Peer, become: Callable[[Cred], None]) -> None:
    peer.call(m.Tsetattr(FILE, c.SETATTR_MODE, 0o600, 0, 0, 0, 0, 0, 0, 0))
    peer.call(m.Tsetattr(DIRECTORY, c.SETATTR_MODE, 0o711, 0, 0, 0, 0, 0, 0, 0))
    become(USER)
    peer.call(m.Twalk(DIRECTORY, 60, [b"f"]))
    for request in (
        m.Tlopen(FILE, c.O_RDONLY),
        m.Tlopen(DIRECTORY, c.O_RDONLY),
        m.Txattrwalk(FILE, VALUE, b"user.a"),
    ):
        with raises_errno(errno.EACCES):
            peer.call(request)
    with raises_errno(errno.ENODATA):
        peer.call(m.Txattrwalk(FILE, VALUE, b"trusted.a"))
    peer.call(m.Tsetattr(peer.walk(b"d"), c.SETATTR_MODE, 0o700, 0, 0, 0, 0, 0, 0, 0))
    for name in (b"f", b".."):
        with raises_errno(errno.EACCES):
            peer.call(m.Twalk(DIRECTORY, 61, [name]))


@pytest.mark.parametrize("last", [b"f", b".."])
@pytest.mark.parametrize("closed", range(4))
def test_a_walk_searches_each_directory_on_its_way(
    peer: Peer, become: Callable[[Cred], None], closed: int, last: bytes
) -> None:
    """What may not be searched ends it there; there is a new fid after a whole walk only."""
    way = [peer.walk(b"d")]
    for name in (b"1", b"2", b"3"):
        way.append(peer.mkdir(name, parent=way[-1]))
    peer.clunk(peer.create(b"f", parent=way[-1]))
    become(USER)
    names = [b"1", b"2", b"3", last]
    assert len(peer.call(m.Twalk(DIRECTORY, 60, names)).qids) == 4
    peer.clunk(60)
    peer.call(m.Tsetattr(way[closed], c.SETATTR_MODE, 0o766, 0, 0, 0, 0, 0, 0, 0))
    if closed:
        assert len(peer.call(m.Twalk(DIRECTORY, 60, names)).qids) == closed
    else:
        with raises_errno(errno.EACCES):
            peer.call(m.Twalk(DIRECTORY, 60, names))
    with raises_errno(errno.EBADF):
        peer.clunk(60)


def test_who_made_a_file_writes_it_whatever_its_mode(
    peer: Peer, become: Callable[[Cred], None]
) -> None:
    peer.call(m.Tsetattr(DIRECTORY, c.SETATTR_MODE, 0o777, 0, 0, 0, 0, 0, 0, 0))
    become(USER)
    peer.call(m.Tlcreate(DIRECTORY, b"x", c.O_RDWR | c.O_TRUNC, 0o400, 2001))
    assert peer.write(DIRECTORY, b"data") == 4
    peer.call(m.Tsetattr(DIRECTORY, c.SETATTR_SIZE | c.SETATTR_MTIME, 0, 0, 0, 2, 0, 0, 0, 0))
    assert peer.read(DIRECTORY) == b"da"
    attributes = peer.stat(DIRECTORY)
    assert (attributes.uid, attributes.gid) == (1001, 2001)

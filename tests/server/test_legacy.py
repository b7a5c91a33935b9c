"""legacy: 9P2000 and 9P2000.u on the same files as 9P2000.L, which looks at what they did."""

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, Self

import pytest

from server.errors import ProtocolError
from server.identity import group_name, user_name
from server.wire import constants as c
from server.wire import legacy as old
from server.wire import messages as m
from server.wire.codec import Qid, Record
from tmpfs_core.mount import Mount

from .peer import ROOT, MakePeer, Peer, raises_errno

KEEP = (c.KEEP32, c.KEEP64)
USER = 54321  # nobody of that number has a name
FOOL = 54322
ROOT_NAME, ROOT_GROUP = user_name(0), group_name(0)


class OldPeer:
    """A client of one of the dialects, on a peer that has only begun."""

    def __init__(self, peer: Peer, unix: bool) -> None:
        self.peer = peer
        self.unix = unix
        self.record: type[Record] = old.StatUnix if unix else old.Stat
        self.call = peer.call
        self.walk = peer.walk
        self.clunk = peer.clunk
        self.read = peer.read
        self.write = peer.write

    def begin(self, msize: int = 1 << 20, uname: bytes = ROOT_NAME, uid: int = 0) -> Self:
        version = c.VERSION_UNIX if self.unix else c.VERSION_PLAIN
        assert self.call(m.Tversion(msize, version), c.NOTAG) == m.Rversion(msize, version)
        self.attach(ROOT, uname, uid)
        return self

    def attach(self, fid: int, uname: bytes = ROOT_NAME, uid: int = 0, aname: bytes = b"") -> Qid:
        if self.unix:
            attach: Any = m.Tattach(fid, c.NOFID, uname, aname, uid)
        else:
            attach = old.TattachPlain(fid, c.NOFID, uname, aname)
        qid: Qid = self.call(attach).qid
        return qid

    def open(self, *names: bytes, mode: int = c.ORDWR, start: int = ROOT) -> int:
        fid = self.walk(*names, start=start)
        self.call(old.Topen(fid, mode))
        return fid

    def create(
        self,
        name: bytes,
        perm: int = 0o644,
        mode: int = c.ORDWR,
        extension: bytes = b"",
        parent: int = ROOT,
    ) -> int:
        fid = self.walk(start=parent)
        if self.unix:
            self.call(old.TcreateUnix(fid, name, perm, mode, extension))
        else:
            self.call(old.Tcreate(fid, name, perm, mode))
        return fid

    def mkdir(self, name: bytes, perm: int = 0o755, parent: int = ROOT) -> int:
        fid = self.create(name, c.DMDIR | perm, c.OREAD, parent=parent)
        self.clunk(fid)
        return self.walk(name, start=parent)

    def stat(self, fid: int) -> Any:
        (told,) = self.split(self.call(old.Tstat(fid)).stat)
        return told

    def wstat(self, fid: int, **changes: Any) -> None:
        """Change these and keep the rest."""
        values: dict[str, Any] = {
            **dict.fromkeys(("dev", "mode", "atime", "mtime", "n_uid", "n_gid", "n_muid"), KEEP[0]),
            **dict.fromkeys(("name", "uid", "gid", "muid", "extension"), b""),
            **{"type": 0xFFFF, "qid": Qid(0xFF, *KEEP), "length": KEEP[1]},
        }
        values |= changes
        fields = (values[name] for name in self.record.__match_args__)
        self.call(old.Twstat(fid, self.record.pack(*fields)))

    def split(self, data: bytes) -> list[Any]:
        """The stats that these bytes are."""
        told = []
        at = 0
        while at < len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2], "little")
            told.append(self.record(*self.record.unpack(data, at + 2, end)))
            at = end
        return told

    def listing(self, fid: int, count: int = 1 << 20) -> list[Any]:
        """All stats of an open directory."""
        told: list[Any] = []
        offset = 0
        while data := self.read(fid, offset, count):
            assert len(data) <= count
            told += self.split(data)
            offset += len(data)
        return told

    def names(self, *path: bytes, count: int = 1 << 20) -> list[bytes]:
        fid = self.open(*path, mode=c.OREAD)
        names = [told.name for told in self.listing(fid, count)]
        self.clunk(fid)
        return names


@pytest.fixture
def linux(peers: MakePeer) -> Peer:
    """A client of 9P2000.L."""
    return peers()


@pytest.fixture
def plain(peers: MakePeer) -> OldPeer:
    return OldPeer(peers(begin=False), unix=False).begin()


@pytest.fixture
def unix(peers: MakePeer) -> OldPeer:
    return OldPeer(peers(begin=False), unix=True).begin()


@pytest.fixture(params=["plain", "unix"])
def client(request: pytest.FixtureRequest) -> OldPeer:
    """One of each."""
    made: OldPeer = request.getfixturevalue(request.param)
    return made


# The session


def test_a_client_attaches_to_the_root(client: OldPeer, mount: Mount) -> None:
    assert client.attach(5).path == mount.root.ino
    with raises_errno(errno.ENOENT):
        client.attach(6, aname=b"nowhere")
    with raises_errno(errno.EBADF):
        client.attach(5)


def test_no_authentication_is_needed(plain: OldPeer, unix: OldPeer) -> None:
    with raises_errno(errno.EOPNOTSUPP):
        plain.call(old.TauthPlain(9, b"root", b""))
    with raises_errno(errno.EOPNOTSUPP):
        unix.call(m.Tauth(9, b"root", b"", 0))


def test_requests_of_another_dialect_are_refused(client: OldPeer) -> None:
    for request in (m.Tstatfs(ROOT), m.Tgetattr(ROOT, 1), m.Tlopen(ROOT, 0)):
        with raises_errno(errno.EOPNOTSUPP):
            client.call(request)


def test_the_requests_of_the_old_dialects_are_none_of_9p2000_l(linux: Peer) -> None:
    for request in (old.Tstat(ROOT), old.Topen(ROOT, 0), old.Twstat(ROOT, b"")):
        with raises_errno(errno.EOPNOTSUPP):
            linux.call(request)


def test_an_error_is_its_text_and_in_9p2000_u_its_number(plain: OldPeer, unix: OldPeer) -> None:
    for client in (plain, unix):
        client.peer.send(m.Tclunk(99))
    assert plain.peer.reply(1) == old.Rerror(b"Bad file descriptor")
    assert unix.peer.reply(1) == old.RerrorUnix(b"Bad file descriptor", errno.EBADF)


def test_an_unknown_fid_is_refused(client: OldPeer) -> None:
    requests = (old.Tstat(99), old.Topen(99, 0), m.Tread(99, 0, 1), m.Twrite(99, 0, b"x"))
    for request in (*requests, m.Tclunk(99), m.Tremove(99)):
        with raises_errno(errno.EBADF):
            client.call(request)
    with raises_errno(errno.EBADF):
        client.wstat(99)


# Who may do what


def test_permissions_are_checked_though_the_client_is_trusted(unix: OldPeer, linux: Peer) -> None:
    file = linux.create(b"mine", b"data")
    linux.call(m.Tsetattr(file, c.SETATTR_MODE, 0o600, 0, 0, 0, 0, 0, 0, 0))
    unix.attach(5, b"", USER)
    fid = unix.walk(b"mine", start=5)
    for mode in (c.OREAD, c.OWRITE, c.ORDWR, c.OEXEC, c.OREAD | c.OTRUNC):
        with raises_errno(errno.EACCES):
            unix.call(old.Topen(fid, mode))
    with raises_errno(errno.EPERM):
        unix.wstat(fid, mode=0o666)
    assert linux.read(file) == b"data"


def test_a_user_without_a_name_is_nobody_in_9p2000(plain: OldPeer, linux: Peer) -> None:
    plain.attach(5, b"nobody-of-that-name")
    file = plain.create(b"file", parent=5)
    assert plain.stat(file).uid == user_name(65534)
    assert linux.stat(linux.walk(b"file")).uid == 65534


def test_what_may_be_executed_can_be_read_to_execute_it(unix: OldPeer) -> None:
    fid = unix.create(b"tool", 0o711)
    unix.write(fid, b"#!")
    unix.attach(5, b"", USER)
    with raises_errno(errno.EACCES):
        unix.open(b"tool", mode=c.OREAD, start=5)
    with raises_errno(errno.EACCES):
        unix.open(b"tool", mode=c.OEXEC | c.OTRUNC, start=5)
    opened = unix.open(b"tool", mode=c.OEXEC, start=5)
    assert unix.read(opened) == b"#!"
    with raises_errno(errno.EBADF):
        unix.write(opened, b"x")


# Opening and data


def test_data_comes_back(client: OldPeer, linux: Peer) -> None:
    fid = client.create(b"file")
    assert client.write(fid, b"some data") == 9
    assert client.write(fid, b"D", 5) == 1
    assert client.read(fid) == b"some Data"
    assert client.read(fid, 5, 2) == b"Da"
    assert client.read(fid, 9) == b""
    client.clunk(fid)
    assert linux.read(linux.open(b"file")) == b"some Data"


@pytest.mark.parametrize(
    ("mode", "reads", "writes"),
    [(c.OREAD, True, False), (c.OWRITE, False, True), (c.ORDWR, True, True)],
)
def test_a_mode_says_what_a_fid_may_do(
    client: OldPeer, mode: int, reads: bool, writes: bool
) -> None:
    client.create(b"file")
    fid = client.open(b"file", mode=mode | c.OCEXEC)
    for may, request in ((reads, m.Tread(fid, 0, 1)), (writes, m.Twrite(fid, 0, b"x"))):
        if may:
            client.call(request)
        else:
            with raises_errno(errno.EBADF):
                client.call(request)
    with raises_errno(errno.EINVAL):
        client.call(old.Topen(fid, mode))


def test_otrunc_empties_a_file(client: OldPeer) -> None:
    client.write(client.create(b"file"), b"data")
    fid = client.open(b"file", mode=c.OWRITE | c.OTRUNC)
    assert client.stat(fid).length == 0


def test_oappend_is_of_9p2000_u_alone(plain: OldPeer, unix: OldPeer) -> None:
    unix.write(unix.create(b"file"), b"one")
    fid = unix.open(b"file", mode=c.ORDWR | c.OAPPEND)
    unix.write(fid, b"two", 0)
    assert unix.read(fid) == b"onetwo"
    with raises_errno(errno.EINVAL):
        plain.open(b"file", mode=c.ORDWR | c.OAPPEND)


@pytest.mark.parametrize("mode", [0x04, 0x08])
def test_a_mode_that_is_none_is_refused(client: OldPeer, mode: int) -> None:
    client.create(b"file")
    with raises_errno(errno.EINVAL):
        client.open(b"file", mode=mode)
    with raises_errno(errno.EINVAL):
        client.create(b"other", mode=mode)
    assert client.names() == [b"file"]


@pytest.mark.parametrize("mode", [c.OWRITE, c.ORDWR, c.OTRUNC, c.OEXEC, c.ORCLOSE])
def test_a_directory_is_opened_to_read_alone(client: OldPeer, mode: int) -> None:
    fid = client.mkdir(b"d")
    with raises_errno(errno.EISDIR):
        client.call(old.Topen(fid, mode))
    with raises_errno(errno.EINVAL):
        client.create(b"e", c.DMDIR | 0o755, mode)
    client.call(old.Topen(fid, c.OREAD))
    with raises_errno(errno.EBADF):
        client.write(fid, b"x")
    with raises_errno(errno.EINVAL):
        client.call(old.Topen(fid, c.OREAD))


def test_orclose_removes_the_file_with_the_fid(client: OldPeer, linux: Peer) -> None:
    fid = client.create(b"file", mode=c.ORDWR | c.ORCLOSE)
    client.write(fid, b"data")
    again = client.open(b"file", mode=c.OREAD | c.ORCLOSE)
    client.clunk(fid)
    assert not linux.exists(b"file")
    assert client.read(again) == b"data"
    client.clunk(again)  # its name is gone already


def test_orclose_removes_the_file_when_the_client_goes(client: OldPeer, linux: Peer) -> None:
    client.create(b"file", mode=c.ORDWR | c.ORCLOSE)
    assert linux.exists(b"file")
    client.peer.close()
    assert not linux.exists(b"file")


def test_orclose_needs_the_right_to_remove(unix: OldPeer, linux: Peer) -> None:
    linux.call(m.Tsetattr(linux.create(b"f"), c.SETATTR_MODE, 0o666, 0, 0, 0, 0, 0, 0, 0))
    unix.attach(5, b"", USER)
    with raises_errno(errno.EPERM):  # the root is sticky
        unix.open(b"f", mode=c.OREAD | c.ORCLOSE, start=5)
    unix.clunk(unix.open(b"f", mode=c.OREAD, start=5))
    fid = unix.walk(b"f")
    linux.unlink(b"f")
    with raises_errno(errno.ENOENT):
        unix.call(old.Topen(fid, c.OREAD | c.ORCLOSE))


# Names


def test_a_created_file_is_open_and_there(client: OldPeer, linux: Peer) -> None:
    fid = client.create(b"file", 0o640)
    assert client.stat(fid).name == b"file"
    assert linux.stat(linux.walk(b"file")).mode == stat.S_IFREG | 0o640
    with raises_errno(errno.EEXIST):
        client.create(b"file")
    for name in (b".", b".."):
        with raises_errno(errno.EEXIST):
            client.create(name)
    with raises_errno(errno.EINVAL):
        client.create(b"a/b")
    with raises_errno(errno.EBADF):  # of an open fid there is no second one by walking
        client.call(old.Topen(99, 0))


def test_a_fid_that_is_open_creates_nothing(client: OldPeer) -> None:
    fid = client.open(mode=c.OREAD)
    request = (
        old.TcreateUnix(fid, b"a", 0o644, 0, b"")
        if client.unix
        else old.Tcreate(fid, b"a", 0o644, 0)
    )
    with raises_errno(errno.EINVAL):
        client.call(request)
    assert client.names() == []


def test_a_directory_is_made_and_open_to_read(client: OldPeer, linux: Peer) -> None:
    fid = client.create(b"d", c.DMDIR | 0o750, c.OREAD)
    assert client.read(fid) == b""
    assert linux.stat(linux.walk(b"d")).mode == stat.S_IFDIR | 0o750
    qid = client.stat(fid).qid
    assert qid.type == c.QTDIR
    client.create(b"f", parent=client.walk(b"d"))
    assert client.names(b"d") == [b"f"]


@pytest.mark.parametrize("perm", [c.DMAPPEND | 0o644, c.DMEXCL | 0o644, 0o4755])
def test_modes_that_no_file_here_has_are_refused(client: OldPeer, perm: int) -> None:
    with raises_errno(errno.EOPNOTSUPP):
        client.create(b"file", perm)
    fid = client.create(b"other")
    with raises_errno(errno.EOPNOTSUPP):
        client.wstat(fid, mode=perm)
    assert client.names() == [b"other"]


def test_in_9p2000_a_file_gets_no_more_than_its_directory_has(
    plain: OldPeer, unix: OldPeer
) -> None:
    top = plain.mkdir(b"d", 0o750)
    assert plain.stat(plain.create(b"f", 0o666, parent=top)).mode == 0o640
    assert plain.stat(plain.create(b"x", 0o777, parent=top)).mode == 0o751
    assert plain.stat(plain.mkdir(b"e", 0o777, parent=top)).mode == c.DMDIR | 0o750
    assert unix.stat(unix.create(b"u", 0o666, parent=unix.walk(b"d"))).mode == 0o666


def test_in_9p2000_a_file_gets_the_group_of_its_directory(
    plain: OldPeer, unix: OldPeer, linux: Peer
) -> None:
    top = linux.mkdir(b"d")
    linux.call(m.Tsetattr(top, c.SETATTR_GID, 0, 0, USER, 0, 0, 0, 0, 0))
    assert plain.stat(plain.create(b"a", parent=plain.walk(b"d"))).gid == b"%d" % USER
    assert unix.stat(unix.create(b"b", parent=unix.walk(b"d"))).n_gid == 0


def test_what_is_removed_is_gone_with_its_fid(client: OldPeer) -> None:
    fid = client.create(b"file")
    client.call(m.Tremove(fid))
    assert client.names() == []
    with raises_errno(errno.EBADF):
        client.stat(fid)
    top = client.mkdir(b"d")
    client.create(b"f", parent=top)
    with raises_errno(errno.ENOTEMPTY):
        client.call(m.Tremove(top))
    with raises_errno(errno.EBADF):
        client.stat(top)


# Special files


@pytest.mark.parametrize(
    ("perm", "extension", "mode", "rdev"),
    [
        (c.DMSYMLINK, b"to", stat.S_IFLNK | 0o777, 0),
        (c.DMNAMEDPIPE | 0o640, b"", stat.S_IFIFO | 0o640, 0),
        (c.DMSOCKET | 0o640, b"", stat.S_IFSOCK | 0o640, 0),
        (c.DMDEVICE | 0o640, b"c 1 3", stat.S_IFCHR | 0o640, os.makedev(1, 3)),
        (c.DMDEVICE | 0o640, b"b 259 70000", stat.S_IFBLK | 0o640, os.makedev(259, 70000)),
    ],
)
def test_9p2000_u_has_all_kinds_of_file(
    unix: OldPeer, linux: Peer, perm: int, extension: bytes, mode: int, rdev: int
) -> None:
    fid = unix.create(b"file", perm, c.OREAD, extension)
    found = linux.stat(linux.walk(b"file"))
    assert (found.mode, found.rdev) == (mode, rdev)
    told = unix.stat(fid)
    assert told.mode == perm | mode & 0o777
    assert told.extension == extension or mode & 0o777 == 0o640
    assert unix.stat(unix.walk(b"file")) == told
    with raises_errno(errno.ELOOP if perm == c.DMSYMLINK else errno.ENXIO):
        unix.call(old.Topen(fid, c.OREAD))


def test_a_hard_link_names_the_fid_of_its_file(unix: OldPeer, linux: Peer) -> None:
    file = unix.create(b"file")
    fid = unix.create(b"link", c.DMLINK, c.OREAD, b"%d\n" % file)
    assert linux.stat(linux.walk(b"link")).nlink == 2
    assert unix.stat(fid).qid == unix.stat(file).qid
    assert unix.stat(fid).extension == b"HARDLINKCOUNT 2"
    assert unix.stat(fid).name == b"link"
    with raises_errno(errno.EBADF):
        unix.create(b"other", c.DMLINK, c.OREAD, b"99")
    directory = unix.mkdir(b"d")
    with raises_errno(errno.EPERM):
        unix.create(b"other", c.DMLINK, c.OREAD, b"%d" % directory)


@pytest.mark.parametrize(
    ("perm", "extension", "code"),
    [
        (c.DMLINK, b"", errno.EINVAL),
        (c.DMLINK, b"-1", errno.EINVAL),
        (c.DMLINK, b"9" * 5000, errno.EINVAL),
        (c.DMDEVICE, b"", errno.EINVAL),
        (c.DMDEVICE, b"c 1", errno.EINVAL),
        (c.DMDEVICE, b"x 1 3", errno.EINVAL),
        (c.DMDEVICE, b"c 1 three", errno.EINVAL),
        (c.DMSYMLINK, b"", errno.ENOENT),
        (c.DMSYMLINK | c.DMDEVICE, b"c 1 3", errno.EINVAL),
    ],
)
def test_an_extension_that_is_none_makes_nothing(
    unix: OldPeer, perm: int, extension: bytes, code: int
) -> None:
    with raises_errno(code):
        unix.create(b"file", perm, c.OREAD, extension)
    assert unix.names() == []


def test_9p2000_has_files_and_directories_alone(plain: OldPeer, linux: Peer) -> None:
    for perm in (c.DMSYMLINK, c.DMLINK, c.DMDEVICE, c.DMNAMEDPIPE, c.DMSOCKET):
        with raises_errno(errno.EOPNOTSUPP):
            plain.create(b"file", perm, c.OREAD)
    linux.call(m.Tsymlink(ROOT, b"link", b"to", 0))
    linux.call(m.Tmknod(ROOT, b"pipe", stat.S_IFIFO | 0o644, 0, 0, 0))
    assert plain.stat(plain.walk(b"link")).mode == 0o777
    assert plain.stat(plain.walk(b"pipe")).mode == 0o644
    with raises_errno(errno.ELOOP):
        plain.open(b"link")
    with raises_errno(errno.ENXIO):
        plain.open(b"pipe")


# Reading directories


def test_a_directory_is_read_as_the_stats_of_its_entries(client: OldPeer) -> None:
    fids = [client.create(b"a"), client.mkdir(b"b"), client.create(b"c", 0o600)]
    directory = client.open(mode=c.OREAD)
    assert client.listing(directory) == [client.stat(fid) for fid in fids]


@pytest.mark.parametrize("count", [100, 150, 1000, 4096])
def test_a_directory_is_read_in_whole_records(client: OldPeer, count: int) -> None:
    names = [b"file-%d" % number for number in range(60)]
    for name in names:
        client.clunk(client.create(name))
    assert client.names(count=count) == names


def test_a_directory_goes_on_where_the_last_read_ended_or_from_its_beginning(
    client: OldPeer,
) -> None:
    for name in (b"a", b"b", b"c"):
        client.create(name)
    fid = client.open(mode=c.OREAD)
    first = client.read(fid, 0, 150)
    assert len(client.split(first)) in (1, 2)
    for offset in (1, len(first) - 1, len(first) + 1):
        with raises_errno(errno.ESPIPE):
            client.read(fid, offset)
    rest = client.read(fid, len(first))
    assert client.read(fid, len(first) + len(rest)) == b""
    assert client.read(fid) == first + rest


def test_a_count_too_small_for_one_record_is_refused(client: OldPeer) -> None:
    client.create(b"file")
    fid = client.open(mode=c.OREAD)
    with raises_errno(errno.EINVAL):
        client.read(fid, 0, 50)
    assert len(client.listing(fid)) == 1


def test_what_stays_is_read_once_while_a_directory_changes(client: OldPeer) -> None:
    for number in range(20):
        client.clunk(client.create(b"%02d" % number))
    fid = client.open(mode=c.OREAD)
    first = client.read(fid, 0, 700)
    seen = [told.name for told in client.split(first)]
    client.call(m.Tremove(client.walk(seen[-1])))
    client.call(m.Tremove(client.walk(b"15")))
    client.create(b"new")
    seen += [told.name for told in client.split(client.read(fid, len(first)))]
    assert seen == [b"%02d" % number for number in range(20) if number != 15] + [b"new"]


def test_who_may_not_read_a_directory_does_not(unix: OldPeer) -> None:
    unix.mkdir(b"d", 0o711)
    unix.attach(5, b"", USER)
    with raises_errno(errno.EACCES):
        unix.open(b"d", mode=c.OREAD, start=5)


# stat


def test_the_stat_of_a_file(client: OldPeer, linux: Peer, mount: Mount) -> None:
    fid = client.create(b"file", 0o640)
    client.write(fid, b"data")
    known = linux.stat(linux.walk(b"file"))
    told = client.stat(fid)
    assert (told.type, told.dev, told.qid, told.mode) == (0, 0, known.qid, 0o640)
    assert (told.atime, told.mtime, told.length) == (known.atime_sec, known.mtime_sec, 4)
    assert (told.name, told.uid, told.gid, told.muid) == (b"file", ROOT_NAME, ROOT_GROUP, ROOT_NAME)
    if client.unix:
        assert (told.n_uid, told.n_gid, told.n_muid) == (0, 0, 0)
        assert told.extension == b"HARDLINKCOUNT 1"


def test_the_stat_of_a_directory(client: OldPeer) -> None:
    client.create(b"f", parent=client.mkdir(b"d", 0o750))
    told = client.stat(client.walk(b"d"))
    assert (told.mode, told.length, told.qid.type) == (c.DMDIR | 0o750, 0, c.QTDIR)
    root = client.stat(ROOT)
    assert (root.name, root.length) == (b"/", 0)
    assert root.mode & 0o777 == 0o777


def test_a_user_without_a_name_is_his_number(client: OldPeer, linux: Peer) -> None:
    file = linux.create(b"file")
    linux.call(m.Tsetattr(file, c.SETATTR_UID | c.SETATTR_GID, 0, USER, FOOL, 0, 0, 0, 0, 0))
    told = client.stat(client.walk(b"file"))
    assert (told.uid, told.gid) == (b"%d" % USER, b"%d" % FOOL)
    if client.unix:
        assert (told.n_uid, told.n_gid) == (USER, FOOL)


@pytest.mark.parametrize(("time", "told"), [(-1, 0), (1 << 32, (1 << 32) - 2), (7, 7)])
def test_a_time_beyond_32_bits_is_the_nearest(
    client: OldPeer, linux: Peer, time: int, told: int
) -> None:
    file = linux.create(b"file")
    valid = c.SETATTR_MTIME | c.SETATTR_MTIME_SET | c.SETATTR_ATIME | c.SETATTR_ATIME_SET
    linux.call(m.Tsetattr(file, valid, 0, 0, 0, 0, time, 0, time, 0))
    found = client.stat(client.walk(b"file"))
    assert (found.atime, found.mtime) == (told, told)


def test_9p2000_u_tells_the_bits_above_the_permissions(unix: OldPeer, plain: OldPeer) -> None:
    perm = c.DMSETUID | c.DMSETGID | c.DMSETVTX | 0o755
    fid = unix.create(b"file", perm)
    assert unix.stat(fid).mode == perm
    assert plain.stat(plain.walk(b"file")).mode == 0o755


# wstat


def test_nothing_to_change_is_fsync(client: OldPeer, linux: Peer) -> None:
    fid = client.create(b"file")
    before = linux.stat(linux.walk(b"file"))
    client.wstat(fid)
    assert linux.stat(linux.walk(b"file")) == before


def test_a_stat_written_back_changes_nothing(client: OldPeer, linux: Peer) -> None:
    client.create(b"f")
    client.mkdir(b"d")
    for name in (b"f", b"d"):
        fid = client.walk(name)
        told = client.stat(fid)
        client.call(old.Twstat(fid, client.record.pack(*vars_of(told))))
        again = client.stat(fid)
        again.qid = again.qid._replace(version=told.qid.version)  # its size was set
        assert again == told
    assert client.names() == [b"f", b"d"]


def vars_of(told: Any) -> list[Any]:
    return [getattr(told, name) for name in told.__match_args__]


def test_all_that_can_be_changed_is(client: OldPeer, linux: Peer) -> None:
    fid = client.create(b"file")
    client.write(fid, b"some data")
    changes = {"mode": 0o600, "atime": 7, "mtime": 8, "length": 4, "name": b"new"}
    client.wstat(fid, **changes, uid=b"%d" % USER, gid=b"%d" % FOOL)
    told = linux.stat(linux.walk(b"new"))
    assert told.mode == stat.S_IFREG | 0o600
    assert (told.atime_sec, told.mtime_sec, told.size) == (7, 8, 4)
    assert (told.uid, told.gid) == (USER, FOOL)
    assert client.stat(fid).name == b"new"
    assert linux.read(linux.open(b"new")) == b"some"
    assert not linux.exists(b"file")


def test_numbers_count_before_names_in_9p2000_u(unix: OldPeer) -> None:
    fid = unix.create(b"file")
    unix.wstat(fid, n_uid=USER, n_gid=FOOL, uid=b"root", gid=b"root")
    assert (unix.stat(fid).n_uid, unix.stat(fid).n_gid) == (USER, FOOL)
    unix.wstat(fid, uid=ROOT_NAME, gid=ROOT_GROUP)
    assert (unix.stat(fid).n_uid, unix.stat(fid).n_gid) == (0, 0)


@pytest.mark.parametrize("name", [b"nobody-of-that-name", b"-1", b"4294967295", b"9" * 5000])
def test_who_is_unknown_owns_nothing(client: OldPeer, name: bytes) -> None:
    fid = client.create(b"file")
    for change in ({"uid": name}, {"gid": name}):
        with raises_errno(errno.EINVAL):
            client.wstat(fid, **change, length=7)
    assert client.stat(fid).length == 0


def test_in_9p2000_the_other_bits_stay(plain: OldPeer, unix: OldPeer) -> None:
    unix.create(b"file", c.DMSETVTX | 0o644)
    plain.wstat(plain.walk(b"file"), mode=0o600)
    fid = unix.walk(b"file")
    assert unix.stat(fid).mode == c.DMSETVTX | 0o600
    unix.wstat(fid, mode=0o640 | c.DMSETUID)
    assert unix.stat(fid).mode == 0o640 | c.DMSETUID


def test_a_directory_stays_one(client: OldPeer) -> None:
    file, directory = client.create(b"f"), client.mkdir(b"d")
    with raises_errno(errno.EPERM):
        client.wstat(file, mode=c.DMDIR | 0o644)
    with raises_errno(errno.EPERM):
        client.wstat(directory, mode=0o755)
    client.wstat(directory, mode=c.DMDIR | 0o700)
    assert client.stat(directory).mode == c.DMDIR | 0o700
    with raises_errno(errno.EISDIR):
        client.wstat(directory, length=5)


def test_a_name_that_is_taken_is_refused_in_9p2000_and_replaced_in_9p2000_u(
    plain: OldPeer, unix: OldPeer, linux: Peer
) -> None:
    linux.create(b"old", b"old")
    linux.create(b"new", b"new")
    with raises_errno(errno.EEXIST):
        plain.wstat(plain.walk(b"new"), name=b"old", mode=0o600)
    assert linux.stat(linux.walk(b"new")).mode & 0o777 == 0o644
    unix.wstat(unix.walk(b"new"), name=b"old")
    assert linux.names() == [b"old"]
    assert linux.read(linux.open(b"old")) == b"new"


def test_the_root_has_no_other_name(client: OldPeer) -> None:
    with raises_errno(errno.EBUSY):
        client.wstat(ROOT, name=b"new")
    client.wstat(ROOT, name=b"/")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": b"a/b"}, errno.EINVAL),
        ({"name": b".."}, errno.EBUSY),
        ({"name": b"x" * 256}, errno.ENAMETOOLONG),
        ({"mode": c.DMAPPEND}, errno.EOPNOTSUPP),
        ({"length": 1 << 63}, errno.EFBIG),
        ({"gid": b"nobody-of-that-name"}, errno.EINVAL),
    ],
)
def test_a_wstat_that_is_refused_changes_nothing(
    client: OldPeer, linux: Peer, change: dict[str, Any], code: int
) -> None:
    fid = client.create(b"file")
    client.write(fid, b"data")
    before = linux.stat(linux.walk(b"file"))
    everything = {"name": b"new", "mode": 0o600, "length": 2, "mtime": 5}
    with raises_errno(code):
        client.wstat(fid, **(everything | change))
    assert linux.stat(linux.walk(b"file")) == before
    assert not linux.exists(b"new")


def test_a_directory_that_holds_something_is_not_replaced_nor_anything_changed(
    unix: OldPeer,
) -> None:
    unix.create(b"f", parent=unix.mkdir(b"full"))
    fid = unix.mkdir(b"d")
    with raises_errno(errno.ENOTEMPTY):
        unix.wstat(fid, name=b"full", mode=c.DMDIR | 0o700)
    assert unix.stat(fid).mode == c.DMDIR | 0o755
    unix.call(m.Tremove(unix.walk(b"full", b"f")))
    unix.wstat(fid, name=b"full", mode=c.DMDIR | 0o700)
    assert unix.names() == [b"full"]


def test_another_user_changes_nothing_of_a_file(unix: OldPeer) -> None:
    unix.create(b"file", 0o644)
    unix.attach(5, b"", USER)
    fid = unix.walk(b"file", start=5)
    for change, code in (
        ({"mode": 0o777}, errno.EPERM),
        ({"n_uid": USER}, errno.EPERM),
        ({"length": 0}, errno.EACCES),
        ({"mtime": 5}, errno.EPERM),
        ({"name": b"mine"}, errno.EPERM),
    ):
        with raises_errno(code):
            unix.wstat(fid, **change)


def test_a_file_without_a_name_gets_none(client: OldPeer, linux: Peer) -> None:
    fid = client.create(b"file")
    linux.unlink(b"file")
    with raises_errno(errno.ENOENT):
        client.wstat(fid, name=b"new", length=5)
    assert client.stat(fid).length == 0
    client.wstat(fid, length=5)
    assert client.stat(fid).length == 5


Cut = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "cut",
    [
        lambda told: b"",
        lambda told: told[:1],
        lambda told: told[:-1],
        lambda told: told + b"\0",
        lambda told: (len(told) + 4).to_bytes(2, "little") + told[2:],
        lambda told: (len(told) - 4).to_bytes(2, "little") + told[2:-2],
    ],
)
def test_a_malformed_stat_ends_the_connection(client: OldPeer, cut: Cut) -> None:
    fid = client.create(b"file")
    told = client.call(old.Tstat(fid)).stat
    with pytest.raises(ProtocolError):
        client.call(old.Twstat(fid, cut(told)))


def test_a_stat_of_the_other_dialect_is_malformed(plain: OldPeer, unix: OldPeer) -> None:
    told = plain.call(old.Tstat(ROOT)).stat
    with pytest.raises(ProtocolError):
        unix.call(old.Twstat(ROOT, told))

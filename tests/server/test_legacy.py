"""legacy: 9P2000 and 9P2000.u on the same files as 9P2000.L, which looks at what they did."""

import errno
import os
import stat

import pytest

from server.identity import group_name, user_name
from server.wire import constants as c
from server.wire import legacy as old
from server.wire import messages as m
from tmpfs_core.mount import Mount

from .oldpeer import OldPeer
from .peer import ROOT, Peer, raises_errno

USER = 54321  # nobody of that number has a name
FOOL = 54322
ROOT_GROUP = group_name(0)


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

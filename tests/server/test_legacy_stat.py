"""legacy: reading directories, stat and wstat, in 9P2000 and 9P2000.u."""

import errno
import stat
from collections.abc import Callable
from typing import Any

import pytest

from server.errors import ProtocolError
from server.identity import group_name
from server.wire import constants as c
from server.wire import legacy as old
from server.wire import messages as m
from tmpfs_core.mount import Mount

from .oldpeer import ROOT_NAME, OldPeer
from .peer import ROOT, Peer, raises_errno

USER = 54321  # nobody of that number has a name
FOOL = 54322
ROOT_GROUP = group_name(0)


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

"""handlers of attributes: every field of Tgetattr, each bit of Tsetattr."""

import errno
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest

from server.wire import constants as c
from server.wire import messages as m

from .peer import ROOT, UNKNOWN, MakePeer, Peer, raises_errno

SECOND = 10**9
LONG_AGO = 1000  # seconds since the epoch

NAMED = ("mode", "uid", "gid", "size", "atime_sec", "atime_nsec", "mtime_sec", "mtime_nsec")


def setattr_of(peer: Peer, fid: int, valid: int, **values: int) -> None:
    """Set the attributes that ``valid`` names; the other fields hold rubbish."""
    fields = {**dict.fromkeys(NAMED, 0o7070), **values}
    peer.call(m.Tsetattr(fid, valid, *(fields[name] for name in NAMED)))


def age(peer: Peer, fid: int) -> None:
    """Let atime and mtime be long ago."""
    setattr_of(
        peer,
        fid,
        c.SETATTR_ATIME | c.SETATTR_ATIME_SET | c.SETATTR_MTIME | c.SETATTR_MTIME_SET,
        **{"atime_sec": LONG_AGO, "atime_nsec": 0, "mtime_sec": LONG_AGO, "mtime_nsec": 0},
    )


def ns(attributes: Any, which: str) -> int:
    """One of the four times in ns."""
    seconds: int = getattr(attributes, f"{which}_sec")
    rest: int = getattr(attributes, f"{which}_nsec")
    assert rest < SECOND
    return seconds * SECOND + rest


def changed(before: Any, after: Any) -> set[str]:
    """The fields that differ, times whole."""
    names = {name.removesuffix("_sec").removesuffix("_nsec") for name in m.Rgetattr.__match_args__}
    return {
        name
        for name in names
        if (
            ns(before, name) != ns(after, name)
            if name.endswith("time")
            else getattr(before, name) != getattr(after, name)
        )
    }


# Tgetattr


def test_all_fields_are_valid(peer: Peer) -> None:
    for mask in (0, c.GETATTR_BASIC, 0x17FF, c.GETATTR_ALL, (1 << 64) - 1):
        assert peer.call(m.Tgetattr(ROOT, mask)).valid == c.GETATTR_ALL


def test_the_attributes_of_a_new_file(peer: Peer) -> None:
    before = time.time_ns()
    file = peer.create(b"file")
    after = time.time_ns()
    made = peer.stat(file)
    assert made.mode == stat.S_IFREG | 0o644
    assert (made.uid, made.gid, made.nlink, made.rdev) == (0, 0, 1, 0)
    assert (made.size, made.blocks, made.blksize) == (0, 0, 65536)
    assert made.data_version == made.qid.version == 1
    times = {ns(made, which) for which in ("atime", "mtime", "ctime", "btime")}
    assert len(times) == 1
    assert before <= times.pop() <= after


def test_size_and_blocks_count_what_is_held(peer: Peer) -> None:
    file = peer.create(b"file", b"x")
    assert (peer.stat(file).size, peer.stat(file).blocks) == (1, 8)
    peer.write(file, b"x", 1 << 40)
    assert (peer.stat(file).size, peer.stat(file).blocks) == ((1 << 40) + 1, 16)


def test_no_two_files_share_an_identity(peer: Peer) -> None:
    seen = set()
    for _ in range(50):
        file = peer.create(b"file")
        seen.add((peer.stat(file).qid.path, peer.stat(file).gen))
        peer.call(m.Tremove(file))
    assert len({path for path, _ in seen}) == len({gen for _, gen in seen}) == 50


def test_an_identity_is_the_same_for_everyone_and_ever(peers: MakePeer) -> None:
    one, other = peers(), peers()
    file = one.create(b"file")
    before = one.stat(file)
    one.write(file, b"data")
    one.call(m.Trenameat(ROOT, b"file", ROOT, b"renamed"))
    seen = other.stat(other.walk(b"renamed"))
    assert (seen.qid.path, seen.gen) == (before.qid.path, before.gen)


def test_getattr_needs_a_fid(peer: Peer) -> None:
    with raises_errno(errno.EBADF):
        peer.stat(UNKNOWN)


# What operations change


def write(peer: Peer, file: int) -> None:
    peer.write(file, b"data")


def read(peer: Peer, file: int) -> None:
    peer.read(file)


def truncate(peer: Peer, file: int) -> None:
    setattr_of(peer, file, c.SETATTR_SIZE, size=0)


def link(peer: Peer, file: int) -> None:
    peer.call(m.Tlink(ROOT, file, b"link"))


def rename(peer: Peer, file: int) -> None:
    peer.call(m.Trename(file, ROOT, b"renamed"))


def fsync(peer: Peer, file: int) -> None:
    peer.call(m.Tfsync(file, 0))


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (write, {"mtime", "ctime", "qid", "data_version"}),
        (read, {"atime"}),
        (truncate, {"mtime", "ctime", "qid", "data_version", "size", "blocks"}),
        (link, {"ctime", "nlink"}),
        (rename, {"ctime"}),
        (fsync, set()),
    ],
    ids=lambda it: getattr(it, "__name__", ""),
)
def test_an_operation_changes_these_fields(
    peer: Peer, operation: Callable[[Peer, int], None], expected: set[str]
) -> None:
    file = peer.create(b"file", b"1234")
    age(peer, file)
    before = peer.stat(file)
    operation(peer, file)
    assert changed(before, peer.stat(file)) == expected


def test_the_version_grows_with_each_change_of_data(peer: Peer) -> None:
    file = peer.create(b"file")
    versions = [peer.stat(file).data_version]
    for _ in range(3):
        peer.write(file, b"x")
        versions.append(peer.stat(file).data_version)
    assert versions == sorted(set(versions))
    assert peer.stat(file).qid.version == versions[-1]


@pytest.mark.parametrize("name", [b"new", b"old"])
def test_a_directory_changes_when_names_come_and_go(peer: Peer, name: bytes) -> None:
    peer.create(b"old")
    age(peer, ROOT)
    before = peer.stat(ROOT)
    if name == b"new":
        peer.create(b"new")
    else:
        peer.unlink(b"old")
    assert changed(before, peer.stat(ROOT)) == {"mtime", "ctime", "qid", "data_version", "size"}


# Tsetattr


@pytest.mark.parametrize(
    ("valid", "value", "field", "expected"),
    [
        (c.SETATTR_MODE, {"mode": 0o7123}, "mode", stat.S_IFREG | 0o7123),
        (c.SETATTR_MODE, {"mode": stat.S_IFDIR | 0o100}, "mode", stat.S_IFREG | 0o100),
        (c.SETATTR_UID, {"uid": 4_000_000_000}, "uid", 4_000_000_000),
        (c.SETATTR_GID, {"gid": 7}, "gid", 7),
    ],
)
def test_one_attribute_is_set_and_no_other(
    peer: Peer, valid: int, value: dict[str, int], field: str, expected: int
) -> None:
    file = peer.create(b"file", b"data")
    before = peer.stat(file)
    setattr_of(peer, file, valid, **value)
    after = peer.stat(file)
    assert getattr(after, field) == expected
    assert changed(before, after) == {field, "ctime"}


@pytest.mark.parametrize(("size", "data"), [(2, b"da"), (6, b"data\0\0"), (4, b"data"), (0, b"")])
def test_the_size_is_set(peer: Peer, size: int, data: bytes) -> None:
    file = peer.create(b"file", b"data")
    setattr_of(peer, file, c.SETATTR_SIZE, size=size)
    assert peer.stat(file).size == size
    assert peer.read(file) == data


def test_what_was_cut_off_does_not_come_back(peer: Peer) -> None:
    file = peer.create(b"file", b"x" * 10000)
    setattr_of(peer, file, c.SETATTR_SIZE, size=1)
    setattr_of(peer, file, c.SETATTR_SIZE, size=10000)
    assert peer.read(file) == b"x" + bytes(9999)


@pytest.mark.parametrize(
    ("which", "bits"),
    [
        ("atime", c.SETATTR_ATIME | c.SETATTR_ATIME_SET),
        ("mtime", c.SETATTR_MTIME | c.SETATTR_MTIME_SET),
    ],
)
@pytest.mark.parametrize(
    ("sec", "nsec"),
    [(1, 999_999_999), (0, 0), (-1, 1), (1 << 40, 5), (-(1 << 63), 0), ((1 << 63) - 1, SECOND - 1)],
)
def test_a_time_is_set_to_the_nanosecond(
    peer: Peer, which: str, bits: int, sec: int, nsec: int
) -> None:
    file = peer.create(b"file")
    before = peer.stat(file)
    setattr_of(peer, file, bits, **{f"{which}_sec": sec, f"{which}_nsec": nsec})
    after = peer.stat(file)
    assert (getattr(after, f"{which}_sec"), getattr(after, f"{which}_nsec")) == (sec, nsec)
    assert changed(before, after) == {which, "ctime"}


@pytest.mark.parametrize(("which", "bit"), [("atime", c.SETATTR_ATIME), ("mtime", c.SETATTR_MTIME)])
def test_a_time_without_its_set_bit_becomes_now(peer: Peer, which: str, bit: int) -> None:
    file = peer.create(b"file")
    age(peer, file)
    before = peer.stat(file)
    start = time.time_ns()
    setattr_of(peer, file, bit)
    after = peer.stat(file)
    assert start <= ns(after, which) <= time.time_ns()
    assert changed(before, after) == {which, "ctime"}


@pytest.mark.parametrize("bits", [c.SETATTR_ATIME_SET, c.SETATTR_MTIME_SET, c.SETATTR_CTIME, 0])
def test_a_set_bit_alone_sets_no_time(peer: Peer, bits: int) -> None:
    file = peer.create(b"file")
    before = peer.stat(file)
    setattr_of(peer, file, bits)
    assert changed(before, peer.stat(file)) <= {"ctime"}


def test_ctime_can_be_made_now(peer: Peer) -> None:
    file = peer.create(b"file")
    start = time.time_ns()
    setattr_of(peer, file, c.SETATTR_CTIME)
    assert start <= ns(peer.stat(file), "ctime") <= time.time_ns()


def test_all_attributes_at_once(peer: Peer) -> None:
    file = peer.create(b"file", b"data")
    setattr_of(
        peer,
        file,
        0x1FF,
        **dict(zip(NAMED, (0o600, 1, 2, 3, 4, 5, 6, 7), strict=True)),
    )
    after = peer.stat(file)
    assert (after.mode, after.uid, after.gid, after.size) == (stat.S_IFREG | 0o600, 1, 2, 3)
    assert (ns(after, "atime"), ns(after, "mtime")) == (4 * SECOND + 5, 6 * SECOND + 7)


def test_a_new_owner_takes_privilege_bits_away(peer: Peer) -> None:
    file = peer.create(b"file")
    setattr_of(peer, file, c.SETATTR_MODE, mode=0o6755)
    setattr_of(peer, file, c.SETATTR_UID, uid=5)
    assert peer.stat(file).mode == stat.S_IFREG | 0o755


@pytest.mark.parametrize(
    ("valid", "values", "code"),
    [
        (c.SETATTR_SIZE, {"size": 1 << 63}, errno.EFBIG),
        (c.SETATTR_SIZE, {"size": (1 << 64) - 1}, errno.EFBIG),
        (c.SETATTR_ATIME | c.SETATTR_ATIME_SET, {"atime_nsec": SECOND}, errno.EINVAL),
        (c.SETATTR_MTIME | c.SETATTR_MTIME_SET, {"mtime_nsec": (1 << 64) - 1}, errno.EINVAL),
    ],
)
def test_a_value_that_can_not_be_changes_nothing(
    peer: Peer, valid: int, values: dict[str, int], code: int
) -> None:
    file = peer.create(b"file", b"data")
    before = peer.stat(file)
    with raises_errno(code):
        setattr_of(peer, file, valid | c.SETATTR_MODE, mode=0o777, **values)
    assert peer.stat(file) == before


def test_only_a_file_has_a_size_to_set(peer: Peer) -> None:
    peer.call(m.Tmknod(ROOT, b"fifo", stat.S_IFIFO, 0, 0, 0))
    for fid, code in ((ROOT, errno.EISDIR), (peer.walk(b"fifo"), errno.EINVAL)):
        with raises_errno(code):
            setattr_of(peer, fid, c.SETATTR_SIZE, size=0)


def test_setattr_needs_a_fid(peer: Peer) -> None:
    with raises_errno(errno.EBADF):
        setattr_of(peer, UNKNOWN, c.SETATTR_MODE)

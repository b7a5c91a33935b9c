"""handlers of the tree: names, and what they are made for."""

import errno
import stat
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message
from tmpfs_core.mount import Mount

from .peer import ROOT, UNKNOWN, MakePeer, Peer, peers_of, raises_errno

# Names, with every request that makes one

Namer = Callable[[Peer, int, bytes], Any]


def _link(peer: Peer, parent: int, name: bytes) -> None:
    peer.call(m.Tlink(parent, peer.walk(b"source"), name))


def _rename(peer: Peer, parent: int, name: bytes) -> None:
    peer.call(m.Trename(peer.walk(b"source"), parent, name))


NAMERS: dict[str, Namer] = {
    "lcreate": lambda peer, parent, name: peer.create(name, parent=parent),
    "mkdir": lambda peer, parent, name: peer.call(m.Tmkdir(parent, name, 0o755, 0)),
    "symlink": lambda peer, parent, name: peer.call(m.Tsymlink(parent, name, b"target", 0)),
    "mknod": lambda peer, parent, name: peer.call(
        m.Tmknod(parent, name, stat.S_IFIFO | 0o600, 0, 0, 0)
    ),
    "link": _link,
    "rename": _rename,
    "renameat": lambda peer, parent, name: peer.call(m.Trenameat(ROOT, b"source", parent, name)),
}
every_namer = pytest.mark.parametrize("make", NAMERS.values(), ids=NAMERS)
every_maker = pytest.mark.parametrize(
    "make", [NAMERS[name] for name in list(NAMERS)[:5]], ids=list(NAMERS)[:5]
)


@every_namer
def test_a_name_may_have_255_bytes(peer: Peer, make: Namer) -> None:
    peer.create(b"source")
    make(peer, ROOT, b"x" * 255)
    assert b"x" * 255 in peer.names()


@every_namer
@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"x" * 256, errno.ENAMETOOLONG),
        (b"x" * 60000, errno.ENAMETOOLONG),
        (b"", errno.EINVAL),
        (b"a/b", errno.EINVAL),
        (b"/", errno.EINVAL),
        (b"a\0b", errno.EINVAL),
        (b"\0", errno.EINVAL),
    ],
    ids=["256", "60000", "empty", "a/b", "slash", "a NUL b", "NUL"],
)
def test_a_name_that_can_not_be_is_refused(peer: Peer, make: Namer, name: bytes, code: int) -> None:
    peer.create(b"source")
    with raises_errno(code):
        make(peer, ROOT, name)
    assert peer.names() == [b"source"]


@pytest.mark.parametrize(
    ("name", "code"),
    [(b"x" * 256, errno.ENAMETOOLONG), (b"a/b", errno.EINVAL), (b"", errno.EINVAL)],
    ids=["256", "slash", "empty"],
)
@pytest.mark.parametrize(
    "request_of",
    [
        lambda name: m.Twalk(ROOT, 1, [name]),
        lambda name: m.Tunlinkat(ROOT, name, 0),
        lambda name: m.Tunlinkat(ROOT, name, c.AT_REMOVEDIR),
        lambda name: m.Trenameat(ROOT, name, ROOT, b"new"),
    ],
    ids=["walk", "unlink", "rmdir", "renameat"],
)
def test_a_name_that_can_not_be_is_not_looked_up(
    peer: Peer, request_of: Callable[[bytes], Message], name: bytes, code: int
) -> None:
    with raises_errno(code):
        peer.call(request_of(name))


@every_maker
@pytest.mark.parametrize("name", [b"taken", b".", b".."])
def test_a_name_that_is_taken_is_refused(peer: Peer, make: Namer, name: bytes) -> None:
    peer.create(b"source")
    peer.create(b"taken", b"data")
    with raises_errno(errno.EEXIST):
        make(peer, ROOT, name)
    assert peer.read(peer.open(b"taken")) == b"data"


@pytest.mark.parametrize("name", [b".", b".."])
@pytest.mark.parametrize("make", [NAMERS["rename"], NAMERS["renameat"]], ids=["at fid", "at name"])
def test_nothing_is_renamed_to_dot_or_dot_dot(peer: Peer, make: Namer, name: bytes) -> None:
    peer.create(b"source")
    with raises_errno(errno.EBUSY):
        make(peer, ROOT, name)


@every_namer
def test_a_name_needs_a_directory(peer: Peer, make: Namer) -> None:
    peer.create(b"source")
    peer.create(b"file")
    with raises_errno(errno.ENOTDIR):
        make(peer, peer.walk(b"file"), b"name")


@every_namer
def test_a_removed_directory_takes_no_name(peer: Peer, make: Namer) -> None:
    peer.create(b"source")
    gone = peer.mkdir(b"gone")
    peer.unlink(b"gone", flags=c.AT_REMOVEDIR)
    with raises_errno(errno.ENOENT):
        make(peer, gone, b"name")


@every_namer
def test_a_name_needs_a_known_fid(peer: Peer, make: Namer) -> None:
    peer.create(b"source")
    with raises_errno(errno.EBADF):
        make(peer, UNKNOWN, b"name")


name_bytes = st.binary(min_size=1, max_size=255).map(lambda it: it.translate(None, b"/\0"))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(name_bytes.filter(lambda it: it not in (b"", b".", b"..")), unique=True))
def test_any_byte_but_slash_and_nul_survives_in_a_name(names: list[bytes]) -> None:
    with peers_of(Mount(1 << 20, 100)) as make:
        peer = make()
        for name in names:
            peer.call(m.Tmkdir(ROOT, name, 0o755, 0))
        assert peer.names() == names
        assert all(peer.exists(name) for name in names)


def test_each_single_byte_is_a_name_of_its_own(peer: Peer) -> None:
    names = [bytes([byte]) for byte in range(1, 256) if byte not in b"./"]
    for name in names:
        peer.call(m.Tsymlink(ROOT, name, b"to " + name, 0))
    assert peer.names() == names
    assert peer.call(m.Treadlink(peer.walk(b"\xff"))).target == b"to \xff"


def test_no_inode_left_is_enospc(peer: Peer) -> None:
    directory = peer.mkdir(b"dir")
    peer.create(b"source")
    for number in range(peer.statfs().ffree):
        peer.call(m.Tmkdir(directory, b"%d" % number, 0o755, 0))
    for name, make in NAMERS.items():
        if "rename" not in name:
            with raises_errno(errno.ENOSPC):
                make(peer, ROOT, b"new")
    peer.unlink(b"0", directory, c.AT_REMOVEDIR)
    peer.create(b"new")
    assert peer.names() == [b"dir", b"source", b"new"]


# Directories


def test_mkdir_makes_an_empty_directory(peer: Peer) -> None:
    peer.attach(1, 1000)
    qid = peer.call(m.Tmkdir(1, b"dir", 0o1750, 50)).qid
    made = peer.stat(peer.walk(b"dir"))
    assert (made.qid, qid.type) == (qid, c.QTDIR)
    assert (made.mode, made.uid, made.gid) == (stat.S_IFDIR | 0o1750, 1000, 50)
    assert made.nlink == 2
    assert peer.names(b"dir") == []


def test_a_directory_counts_its_subdirectories(peer: Peer) -> None:
    before = peer.stat(ROOT).nlink
    peer.mkdir(b"dir")
    peer.create(b"file")
    assert peer.stat(ROOT).nlink == before + 1
    peer.unlink(b"dir", flags=c.AT_REMOVEDIR)
    assert peer.stat(ROOT).nlink == before


def test_a_set_group_id_directory_hands_its_group_down(peer: Peer) -> None:
    peer.call(m.Tmkdir(ROOT, b"shared", stat.S_ISGID | 0o775, 77))
    shared = peer.walk(b"shared")
    for make in (NAMERS["lcreate"], NAMERS["mkdir"], NAMERS["symlink"], NAMERS["mknod"]):
        make(peer, shared, b"new")
        assert peer.stat(peer.walk(b"shared", b"new")).gid == 77
        peer.call(m.Tremove(peer.walk(b"shared", b"new")))
    assert peer.stat(peer.mkdir(b"sub", shared)).mode & stat.S_ISGID


def test_only_an_empty_directory_is_removed(peer: Peer) -> None:
    full = peer.mkdir(b"full")
    peer.create(b"file", parent=full)
    with raises_errno(errno.ENOTEMPTY):
        peer.unlink(b"full", flags=c.AT_REMOVEDIR)
    peer.unlink(b"file", full)
    peer.unlink(b"full", flags=c.AT_REMOVEDIR)
    assert peer.names() == []


@pytest.mark.parametrize(
    ("name", "flags", "code"),
    [
        (b"dir", 0, errno.EISDIR),
        (b"file", c.AT_REMOVEDIR, errno.ENOTDIR),
        (b"missing", 0, errno.ENOENT),
        (b"missing", c.AT_REMOVEDIR, errno.ENOENT),
        (b".", c.AT_REMOVEDIR, errno.EINVAL),
        (b"..", c.AT_REMOVEDIR, errno.ENOTEMPTY),
        (b"file", 0x1, errno.EINVAL),
        (b"dir", c.AT_REMOVEDIR | 0x1000, errno.EINVAL),
    ],
)
def test_unlinkat_refuses(peer: Peer, name: bytes, flags: int, code: int) -> None:
    peer.mkdir(b"dir")
    peer.create(b"file")
    with raises_errno(code):
        peer.unlink(name, flags=flags)
    assert peer.names() == [b"dir", b"file"]


@pytest.mark.parametrize("flags", [0, c.AT_REMOVEDIR])
def test_unlinkat_needs_a_directory(peer: Peer, flags: int) -> None:
    file = peer.create(b"file")
    with raises_errno(errno.ENOTDIR):
        peer.unlink(b"name", parent=file, flags=flags)


# Symbolic links


def test_a_symbolic_link_keeps_its_target_to_the_byte(peer: Peer) -> None:
    target = b"../any/\xff\xfe bytes\n"
    peer.attach(1, 1000)
    qid = peer.call(m.Tsymlink(1, b"link", target, 50)).qid
    fid = peer.walk(b"link")
    assert peer.call(m.Treadlink(fid)).target == target
    made = peer.stat(fid)
    assert (made.qid, qid.type) == (qid, c.QTSYMLINK)
    assert (made.mode, made.uid, made.gid) == (stat.S_IFLNK | 0o777, 1000, 50)
    assert made.size == len(target)


@pytest.mark.parametrize(
    ("target", "code"),
    [(b"", errno.ENOENT), (b"x" * 4096, errno.ENAMETOOLONG), (b"a\0b", errno.EINVAL)],
    ids=["empty", "4096", "NUL"],
)
def test_a_target_that_can_not_be_is_refused(peer: Peer, target: bytes, code: int) -> None:
    with raises_errno(code):
        peer.call(m.Tsymlink(ROOT, b"link", target, 0))
    assert peer.names() == []


def test_a_target_is_read_if_it_fits_into_a_message(peer: Peer, peers: MakePeer) -> None:
    small = peers(msize=c.MSIZE_MIN)
    for size in (c.MSIZE_MIN - 9, c.MSIZE_MIN - 8, 4095):
        peer.call(m.Tsymlink(ROOT, b"%d" % size, b"x" * size, 0))
        assert peer.call(m.Treadlink(peer.walk(b"%d" % size))).target == b"x" * size
        fid = small.walk(b"%d" % size)
        if size == c.MSIZE_MIN - 9:
            assert small.call(m.Treadlink(fid)).target == b"x" * size
        else:
            with raises_errno(errno.EMSGSIZE):
                small.call(m.Treadlink(fid))


def test_only_a_symbolic_link_is_read(peer: Peer) -> None:
    for fid in (ROOT, peer.create(b"file")):
        with raises_errno(errno.EINVAL):
            peer.call(m.Treadlink(fid))


# Special files

KINDS = {
    "fifo": (stat.S_IFIFO, 0),
    "socket": (stat.S_IFSOCK, 0),
    "char": (stat.S_IFCHR, 0x0501),
    "block": (stat.S_IFBLK, 0x0501),
    "regular": (stat.S_IFREG, 0),
    "regular by default": (0, 0),
}


@pytest.mark.parametrize(("kind", "rdev"), KINDS.values(), ids=KINDS)
def test_mknod_makes_each_kind(peer: Peer, kind: int, rdev: int) -> None:
    peer.attach(1, 1000)
    qid = peer.call(m.Tmknod(1, b"node", kind | 0o640, 5, 1, 50)).qid
    made = peer.stat(peer.walk(b"node"))
    assert (made.qid, qid.type) == (qid, c.QTFILE)
    assert made.mode == (kind or stat.S_IFREG) | 0o640
    assert (made.uid, made.gid, made.nlink, made.rdev) == (1000, 50, 1, rdev)


def test_a_device_keeps_large_numbers(peer: Peer) -> None:
    peer.call(m.Tmknod(ROOT, b"node", stat.S_IFBLK | 0o600, 0xFFF, 0xFFFFF, 0))
    rdev = peer.stat(peer.walk(b"node")).rdev
    assert rdev == 0xFFF00 | 0xFF | 0xFFF00 << 12  # Linux' new_encode_dev


@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFLNK, 0o130000, 0o170000])
def test_mknod_makes_no_other_kind(peer: Peer, kind: int) -> None:
    with raises_errno(errno.EINVAL):
        peer.call(m.Tmknod(ROOT, b"node", kind | 0o600, 0, 0, 0))


# Hard links


def test_a_link_is_another_name_of_the_same_file(peer: Peer) -> None:
    file = peer.create(b"first", b"data")
    directory = peer.mkdir(b"dir")
    peer.call(m.Tlink(directory, file, b"second"))
    second = peer.open(b"dir", b"second")
    assert peer.stat(second) == peer.stat(file)
    assert peer.stat(file).nlink == 2
    peer.write(second, b"DATA")
    peer.unlink(b"first")
    assert peer.stat(second).nlink == 1
    assert peer.read(second) == b"DATA"


def test_a_directory_has_one_name(peer: Peer) -> None:
    with raises_errno(errno.EPERM):
        peer.call(m.Tlink(ROOT, peer.mkdir(b"dir"), b"other"))


def test_a_file_without_a_name_gets_none_again(peer: Peer) -> None:
    file = peer.create(b"file")
    peer.unlink(b"file")
    with raises_errno(errno.ENOENT):
        peer.call(m.Tlink(ROOT, file, b"other"))

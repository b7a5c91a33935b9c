"""handlers of the tree: attach, walk, fids, names, directories."""

import errno
import pwd
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

from .peer import ROOT, MakePeer, Peer, peers_of, raises_errno

NOBODY = 65534
UNKNOWN = 9999  # a fid that nobody made


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
    ("uname", "n_uname", "uid"),
    [
        (b"", 1234, 1234),
        (b"root", 1234, 1234),
        (b"root", c.NONUNAME, 0),
        (pwd.getpwuid(0).pw_name.encode(), c.NONUNAME, 0),
        (b"no such user", c.NONUNAME, NOBODY),
        (b"", c.NONUNAME, NOBODY),
        (b"\xff\0", c.NONUNAME, NOBODY),
    ],
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


# Rename, by both requests

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


# Listings


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
        assert qid == peer.stat(fids[name]).qid
        assert kind == peer.stat(fids[name]).mode >> 12
    cookies = [cookie for _, cookie, _, _ in records]
    assert cookies == sorted(set(cookies))


def test_the_root_is_its_own_parent_in_a_listing(peer: Peer) -> None:
    dot, dot_dot = peer.listing(peer.open(flags=c.O_RDONLY))
    assert dot[0] == dot_dot[0] == peer.stat(ROOT).qid


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

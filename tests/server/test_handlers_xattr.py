"""handlers of extended attributes: walk, list, create, replace, remove."""

import errno
import stat

import pytest

from server.wire import constants as c
from server.wire import messages as m
from tmpfs_core.mount import Mount

from .peer import ROOT, UNKNOWN, MakePeer, Peer, peers_of, raises_errno

VALUE_MAX = 65536
ACL = b"system.posix_acl_access"


def setxattr(peer: Peer, fid: int, name: bytes, value: bytes, flags: int = 0) -> None:
    """As v9fs does it: on a clone of the fid, the errors coming with its clunk."""
    clone = draft(peer, fid, name, len(value), flags)
    step = 60000
    for offset in range(0, len(value), step):
        peer.write(clone, value[offset : offset + step], offset)
    peer.clunk(clone)


def draft(peer: Peer, fid: int, name: bytes, size: int, flags: int = 0) -> int:
    """A new fid that takes the value of an attribute."""
    clone = peer.walk(start=fid)
    peer.call(m.Txattrcreate(clone, name, size, flags))
    return clone


def getxattr(peer: Peer, fid: int, name: bytes) -> bytes:
    """The value of an attribute, or the list if there is no name."""
    newfid = fid + 1000
    size = peer.call(m.Txattrwalk(fid, newfid, name)).size
    value = b""
    while piece := peer.read(newfid, len(value)):
        value += piece
    peer.clunk(newfid)
    assert len(value) == size
    return value


def removexattr(peer: Peer, fid: int, name: bytes) -> None:
    setxattr(peer, fid, name, b"", c.XATTR_REPLACE)


def listxattr(peer: Peer, fid: int) -> list[bytes]:
    names = getxattr(peer, fid, b"")
    assert names[-1:] in (b"", b"\0")
    return names.split(b"\0")[:-1]


@pytest.fixture
def file(peer: Peer) -> int:
    """A fid, not open, of a file."""
    peer.clunk(peer.create(b"file", b"data"))
    return peer.walk(b"file")


# Reading and writing


@pytest.mark.parametrize("name", [b"user.a", b"trusted.a", b"security.selinux", ACL])
def test_an_attribute_of_each_namespace(peer: Peer, file: int, name: bytes) -> None:
    setxattr(peer, file, name, b"value")
    assert getxattr(peer, file, name) == b"value"
    assert listxattr(peer, file) == [name]


def test_only_a_directory_has_a_default_acl(peer: Peer, file: int) -> None:
    directory = peer.mkdir(b"d")
    setxattr(peer, directory, b"system.posix_acl_default", b"value")
    assert getxattr(peer, directory, b"system.posix_acl_default") == b"value"
    clone = draft(peer, file, b"system.posix_acl_default", 5)
    peer.write(clone, b"value")
    with raises_errno(errno.EACCES):
        peer.clunk(clone)


def test_attributes_are_set_and_read_through_an_open_fid_as_well(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"value")
    assert getxattr(peer, peer.open(b"file"), b"user.a") == b"value"


def test_any_bytes_are_a_value(peer: Peer, file: int) -> None:
    value = bytes(range(256))
    setxattr(peer, file, b"user.\xff\xfe/", value)
    assert getxattr(peer, file, b"user.\xff\xfe/") == value


def test_a_value_is_replaced(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"a long value")
    setxattr(peer, file, b"user.a", b"short")
    assert getxattr(peer, file, b"user.a") == b"short"


def test_an_empty_value_is_a_value(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"")
    assert getxattr(peer, file, b"user.a") == b""
    assert listxattr(peer, file) == [b"user.a"]


def test_a_list_has_all_names(peer: Peer, file: int) -> None:
    assert listxattr(peer, file) == []
    names = [b"user.%d" % number for number in range(30)]
    for name in names:
        setxattr(peer, file, name, b"x")
    assert sorted(listxattr(peer, file)) == sorted(names)


def test_others_see_an_attribute(peers: MakePeer, peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"value")
    other = peers()
    assert getxattr(other, other.walk(b"file"), b"user.a") == b"value"


def test_setting_an_attribute_changes_ctime_and_not_the_data(peer: Peer, file: int) -> None:
    before = peer.stat(file)
    setxattr(peer, file, b"user.a", b"value")
    after = peer.stat(file)
    assert (after.ctime_sec, after.ctime_nsec) != (before.ctime_sec, before.ctime_nsec)
    assert (after.mtime_nsec, after.data_version) == (before.mtime_nsec, before.data_version)


def test_64_kib_are_the_largest_value(peers: MakePeer) -> None:
    peer = peers(msize=c.MSIZE_MIN)
    file = peer.walk(start=ROOT)
    value = bytes(range(256)) * 256
    clone = draft(peer, file, b"user.large", VALUE_MAX)
    for offset in range(0, VALUE_MAX, 4000):
        peer.write(clone, value[offset : offset + 4000], offset)
    peer.clunk(clone)
    assert getxattr(peer, file, b"user.large") == value


def test_a_value_is_read_at_any_offset(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"value")
    peer.call(m.Txattrwalk(file, 1, b"user.a"))
    assert peer.read(1, 2, 2) == b"lu"
    for offset in (5, 1 << 63, (1 << 64) - 1):
        assert peer.read(1, offset) == b""


def test_a_value_being_read_stays_what_it_was(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"old")
    peer.call(m.Txattrwalk(file, 1, b"user.a"))
    setxattr(peer, file, b"user.a", b"new")
    assert peer.read(1) == b"old"


# Create, replace, remove


def test_create_refuses_what_is_there(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"old", c.XATTR_CREATE)
    with raises_errno(errno.EEXIST):
        setxattr(peer, file, b"user.a", b"new", c.XATTR_CREATE)
    assert getxattr(peer, file, b"user.a") == b"old"


def test_replace_refuses_what_is_not_there(peer: Peer, file: int) -> None:
    with raises_errno(errno.ENODATA):
        setxattr(peer, file, b"user.a", b"new", c.XATTR_REPLACE)
    setxattr(peer, file, b"user.a", b"old")
    setxattr(peer, file, b"user.a", b"new", c.XATTR_REPLACE)
    assert getxattr(peer, file, b"user.a") == b"new"


def test_an_attribute_is_removed(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"a")
    setxattr(peer, file, b"user.b", b"b")
    removexattr(peer, file, b"user.a")
    assert listxattr(peer, file) == [b"user.b"]
    with raises_errno(errno.ENODATA):
        getxattr(peer, file, b"user.a")


def test_what_is_not_there_is_not_removed(peer: Peer, file: int) -> None:
    with raises_errno(errno.ENODATA):
        removexattr(peer, file, b"user.a")


def test_an_empty_acl_removes_the_acl(peer: Peer, file: int) -> None:
    setxattr(peer, file, ACL, b"acl")
    for _ in range(2):  # also when there is none
        setxattr(peer, file, ACL, b"")
        assert listxattr(peer, file) == []


# Refusals


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"user.missing", errno.ENODATA),
        (b"nothing", errno.EOPNOTSUPP),
        (b"system.other", errno.EOPNOTSUPP),
        (b"unknown.a", errno.EOPNOTSUPP),
        (b"user.", errno.EINVAL),
        (b"user." + b"x" * 251, errno.ERANGE),
    ],
)
def test_a_name_that_is_not_there_is_not_read(
    peer: Peer, file: int, name: bytes, code: int
) -> None:
    with raises_errno(code):
        peer.call(m.Txattrwalk(file, 1, name))
    with raises_errno(errno.EBADF):
        peer.clunk(1)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"", errno.ERANGE),
        (b"nothing", errno.EOPNOTSUPP),
        (b"system.other", errno.EOPNOTSUPP),
        (b"user.", errno.EINVAL),
        (b"user." + b"x" * 251, errno.ERANGE),
    ],
)
def test_the_clunk_tells_why_a_name_can_not_be(
    peer: Peer, file: int, name: bytes, code: int
) -> None:
    clone = draft(peer, file, name, 1)
    peer.write(clone, b"x")
    with raises_errno(code):
        peer.clunk(clone)
    with raises_errno(errno.EBADF):
        peer.clunk(clone)  # it is gone nevertheless
    assert listxattr(peer, file) == []


def test_the_longest_name(peer: Peer, file: int) -> None:
    name = b"user." + b"x" * 250
    setxattr(peer, file, name, b"value")
    assert listxattr(peer, file) == [name]


def test_a_name_with_a_nul_would_garble_the_list(peer: Peer, file: int) -> None:
    with raises_errno(errno.EINVAL):
        setxattr(peer, file, b"user.a\0user.b", b"value")
    assert listxattr(peer, file) == []


@pytest.mark.parametrize("size", [VALUE_MAX + 1, (1 << 64) - 1])
def test_a_value_that_is_too_large_is_e2big(peer: Peer, file: int, size: int) -> None:
    with raises_errno(errno.E2BIG):
        draft(peer, file, b"user.a", size)


def test_user_attributes_belong_to_files_and_directories(peer: Peer) -> None:
    peer.call(m.Tmknod(ROOT, b"fifo", stat.S_IFIFO, 0, 0, 0))
    peer.call(m.Tsymlink(ROOT, b"link", b"target", 0))
    for name in (b"fifo", b"link"):
        fid = peer.walk(name)
        with raises_errno(errno.EPERM):
            setxattr(peer, fid, b"user.a", b"x")
        setxattr(peer, fid, b"trusted.a", b"x")
        assert listxattr(peer, fid) == [b"trusted.a"]


def test_unknown_flags_are_refused(peer: Peer, file: int) -> None:
    with raises_errno(errno.EINVAL):
        draft(peer, file, b"user.a", 1, flags=4)


def test_an_open_fid_takes_no_attribute(peer: Peer) -> None:
    with raises_errno(errno.EINVAL):
        peer.call(m.Txattrcreate(peer.create(b"file"), b"user.a", 1, 0))


@pytest.mark.parametrize("name", [b"user.a", b""])
def test_reading_needs_a_free_newfid(peer: Peer, file: int, name: bytes) -> None:
    setxattr(peer, file, b"user.a", b"x")
    for newfid in (file, ROOT):
        with raises_errno(errno.EBADF):
            peer.call(m.Txattrwalk(file, newfid, name))
    assert peer.stat(file).size == 4


def test_attributes_need_a_known_fid(peer: Peer) -> None:
    with raises_errno(errno.EBADF):
        peer.call(m.Txattrwalk(UNKNOWN, 1, b"user.a"))
    with raises_errno(errno.EBADF):
        peer.call(m.Txattrcreate(UNKNOWN, b"user.a", 1, 0))


# A fid that stands for an attribute


def test_a_draft_takes_its_value_in_order(peer: Peer, file: int) -> None:
    clone = draft(peer, file, b"user.a", 4)
    assert peer.write(clone, b"ab", 0) == 2
    with raises_errno(errno.EINVAL):
        peer.write(clone, b"x", 3)
    with raises_errno(errno.ENOSPC):
        peer.write(clone, b"cde", 2)
    peer.write(clone, b"cd", 2)
    peer.clunk(clone)
    assert getxattr(peer, file, b"user.a") == b"abcd"


def test_an_unfinished_draft_changes_nothing(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"old")
    clone = draft(peer, file, b"user.a", 4)
    peer.write(clone, b"new")
    with raises_errno(errno.EIO):
        peer.clunk(clone)
    assert getxattr(peer, file, b"user.a") == b"old"


def test_a_draft_is_forgotten_with_its_connection(peers: MakePeer, peer: Peer, file: int) -> None:
    other = peers()
    clone = draft(other, other.walk(b"file"), b"user.a", 3)
    other.write(clone, b"new")
    other.close()
    assert listxattr(peer, file) == []


def test_a_value_can_not_be_written_nor_a_draft_read(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"value")
    peer.call(m.Txattrwalk(file, 1, b"user.a"))
    with raises_errno(errno.EBADF):
        peer.write(1, b"x")
    with raises_errno(errno.EBADF):
        peer.read(draft(peer, file, b"user.b", 1))


def test_an_attribute_is_no_place_in_the_tree(peer: Peer, file: int) -> None:
    value = 1
    setxattr(peer, file, b"user.a", b"value")
    peer.call(m.Txattrwalk(file, value, b"user.a"))
    for fid in (value, draft(peer, file, b"user.b", 1)):
        for request in (
            m.Tgetattr(fid, c.GETATTR_ALL),
            m.Tlopen(fid, c.O_RDONLY),
            m.Twalk(fid, 2, []),
            m.Treaddir(fid, 0, 4096),
            m.Tfsync(fid, 0),
            m.Txattrwalk(fid, 2, b""),
            m.Txattrcreate(fid, b"user.c", 1, 0),
        ):
            with raises_errno(errno.EBADF):
                peer.call(request)


def test_removing_an_attributes_fid_removes_no_file(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"value")
    peer.call(m.Txattrwalk(file, 1, b"user.a"))
    for fid in (1, draft(peer, file, b"user.b", 1)):
        with raises_errno(errno.EBADF):
            peer.call(m.Tremove(fid))
    assert peer.names() == [b"file"]


def test_an_attributes_fid_holds_its_file(peer: Peer, file: int) -> None:
    setxattr(peer, file, b"user.a", b"value")
    peer.call(m.Txattrwalk(file, 1, b"user.a"))
    peer.unlink(b"file")
    peer.clunk(file)
    assert peer.read(1) == b"value"
    assert peer.statfs().ffree == 998
    peer.clunk(1)
    assert peer.statfs().ffree == 999


# Space


def test_attributes_take_blocks_and_give_them_back(peer: Peer, file: int) -> None:
    free = peer.statfs().bfree
    setxattr(peer, file, b"user.a", b"x" * 5000)
    assert peer.statfs().bfree == free - 2
    setxattr(peer, file, b"user.a", b"x" * 10)
    assert peer.statfs().bfree == free - 1
    removexattr(peer, file, b"user.a")
    assert peer.statfs().bfree == free
    setxattr(peer, file, b"user.a", b"x")
    peer.call(m.Tremove(file))
    assert peer.statfs().bfree == free + 1  # the byte of data went, too


def test_an_attribute_that_does_not_fit_is_enospc() -> None:
    with peers_of(Mount(2 * 4096, 10)) as make:
        peer = make()
        setxattr(peer, ROOT, b"user.a", b"old")
        with raises_errno(errno.ENOSPC):
            setxattr(peer, ROOT, b"user.a", b"x" * VALUE_MAX)
        assert getxattr(peer, ROOT, b"user.a") == b"old"

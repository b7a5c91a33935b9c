"""handlers of data: open, create, read, write, statfs, and files without a name."""

import errno
import os
import stat
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.wire import constants as c
from server.wire import messages as m
from tmpfs_core.mount import Mount

from .peer import O_NOFOLLOW, ROOT, UNKNOWN, MakePeer, Peer, peers_of, raises_errno

FRAME = 4096
LAST = (1 << 63) - 1  # the largest size of a file


def used(peer: Peer) -> int:
    """Blocks in use according to Tstatfs."""
    numbers = peer.statfs()
    blocks: int = numbers.blocks - numbers.bfree
    return blocks


def inodes(peer: Peer) -> int:
    """Inodes in use according to Tstatfs."""
    numbers = peer.statfs()
    count: int = numbers.files - numbers.ffree
    return count


# Tlopen


def test_open_gives_the_qid_and_leaves_the_unit_to_msize(peer: Peer) -> None:
    peer.create(b"file")
    fid = peer.walk(b"file")
    opened = peer.call(m.Tlopen(fid, c.O_RDWR))
    assert opened.qid == peer.stat(fid).qid
    assert opened.iounit == 0


def test_an_open_fid_is_not_opened_again(peer: Peer) -> None:
    with raises_errno(errno.EINVAL):
        peer.call(m.Tlopen(peer.create(b"file"), c.O_RDONLY))


def test_an_unknown_fid_is_not_opened(peer: Peer) -> None:
    with raises_errno(errno.EBADF):
        peer.call(m.Tlopen(UNKNOWN, c.O_RDONLY))


def test_there_are_three_access_modes(peer: Peer) -> None:
    peer.create(b"file")
    with raises_errno(errno.EINVAL):
        peer.open(b"file", flags=c.O_ACCMODE)


@pytest.mark.parametrize("flags", [c.O_RDONLY, c.O_RDONLY | c.O_DIRECTORY | O_NOFOLLOW])
def test_a_directory_is_opened_for_reading(peer: Peer, flags: int) -> None:
    peer.open(flags=flags)


@pytest.mark.parametrize("flags", [c.O_WRONLY, c.O_RDWR, c.O_RDONLY | c.O_TRUNC])
def test_a_directory_is_not_opened_for_writing(peer: Peer, flags: int) -> None:
    with raises_errno(errno.EISDIR):
        peer.open(flags=flags)


def test_o_directory_opens_nothing_else(peer: Peer) -> None:
    peer.create(b"file")
    peer.call(m.Tsymlink(ROOT, b"link", b"file", 0))
    for name in (b"file", b"link"):
        with raises_errno(errno.ENOTDIR):
            peer.open(name, flags=c.O_RDONLY | c.O_DIRECTORY)


@pytest.mark.parametrize("flags", [c.O_RDONLY, c.O_RDONLY | O_NOFOLLOW])
def test_a_symbolic_link_is_not_opened(peer: Peer, flags: int) -> None:
    peer.call(m.Tsymlink(ROOT, b"link", b"target", 0))
    with raises_errno(errno.ELOOP):
        peer.open(b"link", flags=flags)


def test_o_nofollow_opens_a_file(peer: Peer) -> None:
    peer.create(b"file", b"data")
    assert peer.read(peer.open(b"file", flags=c.O_RDONLY | O_NOFOLLOW)) == b"data"


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
def test_a_special_file_is_opened_by_the_client_alone(peer: Peer, kind: int) -> None:
    peer.call(m.Tmknod(ROOT, b"node", kind | 0o666, 1, 3, 0))
    with raises_errno(errno.ENXIO):
        peer.open(b"node", flags=c.O_RDONLY)


def test_a_failed_open_leaves_the_fid_as_it_was(peer: Peer) -> None:
    fid = peer.walk()
    with raises_errno(errno.EISDIR):
        peer.call(m.Tlopen(fid, c.O_RDWR))
    peer.call(m.Tlopen(fid, c.O_RDONLY))


def test_o_trunc_empties_the_file(peer: Peer) -> None:
    peer.create(b"file", b"x" * 3 * FRAME)
    assert used(peer) == 3
    fid = peer.open(b"file", flags=c.O_WRONLY | c.O_TRUNC)
    assert peer.stat(fid).size == 0
    assert used(peer) == 0


def test_without_o_trunc_the_data_stays(peer: Peer) -> None:
    peer.create(b"file", b"data")
    assert peer.read(peer.open(b"file", flags=c.O_RDWR)) == b"data"


# Tlcreate


def test_create_turns_the_fid_into_the_open_file(peer: Peer) -> None:
    peer.attach(1, 1000)
    created = peer.call(m.Tlcreate(1, b"file", c.O_RDWR, 0o4640, 50))
    made = peer.stat(1)
    assert (made.qid, created.iounit) == (created.qid, 0)
    assert (made.mode, made.uid, made.gid) == (stat.S_IFREG | 0o4640, 1000, 50)
    assert (made.nlink, made.size, made.blocks) == (1, 0, 0)
    peer.write(1, b"data")
    assert peer.read(1) == b"data"


def test_create_opens_with_the_flags_asked_for(peer: Peer) -> None:
    fid = peer.create(b"file", flags=c.O_WRONLY)
    peer.write(fid, b"data")
    with raises_errno(errno.EBADF):
        peer.read(fid)


def test_o_excl_refuses_a_name_that_is_taken(peer: Peer) -> None:
    peer.create(b"file", b"data")
    fid = peer.walk()
    with raises_errno(errno.EEXIST):
        peer.call(m.Tlcreate(fid, b"file", c.O_RDWR | c.O_EXCL, 0o600, 0))
    assert stat.S_ISDIR(peer.stat(fid).mode)  # the fid is still the directory


def test_without_o_excl_create_opens_what_is_there(peer: Peer) -> None:
    first = peer.create(b"file", b"data")
    fid = peer.walk()
    created = peer.call(m.Tlcreate(fid, b"file", c.O_RDWR, 0o600, 0))
    assert created.qid == peer.stat(first).qid
    assert peer.read(fid) == b"data"
    assert peer.stat(fid).mode == stat.S_IFREG | 0o644  # the mode is for a new file


def test_a_new_file_has_one_time_even_if_it_is_truncated(peer: Peer) -> None:
    """As Linux has it; clients see by it that the file is new."""
    fid = peer.walk()
    peer.call(m.Tlcreate(fid, b"file", c.O_RDWR | c.O_TRUNC, 0o600, 0))
    found = peer.stat(fid)
    born = found.btime_sec, found.btime_nsec
    assert born == (found.ctime_sec, found.ctime_nsec) == (found.mtime_sec, found.mtime_nsec)


def test_create_truncates_what_is_there_if_asked(peer: Peer) -> None:
    peer.create(b"file", b"data")
    fid = peer.walk()
    peer.call(m.Tlcreate(fid, b"file", c.O_RDWR | c.O_TRUNC, 0o600, 0))
    assert peer.read(fid) == b""


@pytest.mark.parametrize(
    ("name", "flags", "code"),
    [
        (b"dir", c.O_RDWR, errno.EISDIR),
        (b"link", c.O_RDWR, errno.ELOOP),
        (b"link", c.O_RDWR | c.O_EXCL, errno.EEXIST),
        (b"fifo", c.O_RDWR, errno.ENXIO),
        (b"new", c.O_RDWR | c.O_DIRECTORY, errno.EINVAL),
        (b"new", c.O_ACCMODE, errno.EINVAL),
    ],
)
def test_create_refuses(peer: Peer, name: bytes, flags: int, code: int) -> None:
    peer.mkdir(b"dir")
    peer.call(m.Tsymlink(ROOT, b"link", b"target", 0))
    peer.call(m.Tmknod(ROOT, b"fifo", stat.S_IFIFO, 0, 0, 0))
    fid = peer.walk()
    with raises_errno(code):
        peer.call(m.Tlcreate(fid, name, flags, 0o600, 0))
    assert stat.S_ISDIR(peer.stat(fid).mode)
    assert peer.names() == [b"dir", b"link", b"fifo"]


def test_create_needs_a_fid_that_is_not_open(peer: Peer) -> None:
    fid = peer.open(flags=c.O_RDONLY)
    with raises_errno(errno.EINVAL):
        peer.call(m.Tlcreate(fid, b"new", c.O_RDWR, 0o600, 0))


# Who may read and write


@pytest.mark.parametrize("flags", [c.O_RDONLY, c.O_WRONLY, c.O_RDWR])
def test_a_fid_does_what_it_was_opened_for(peer: Peer, flags: int) -> None:
    peer.create(b"file", b"data")
    fid = peer.open(b"file", flags=flags)
    if flags == c.O_RDONLY:
        with raises_errno(errno.EBADF):
            peer.write(fid, b"x")
    else:
        assert peer.write(fid, b"x") == 1
    if flags == c.O_WRONLY:
        with raises_errno(errno.EBADF):
            peer.read(fid)
    else:
        assert peer.read(fid)[1:] == b"ata"


def test_a_fid_must_be_open(peer: Peer) -> None:
    peer.create(b"file")
    for fid in (peer.walk(b"file"), UNKNOWN):
        with raises_errno(errno.EBADF):
            peer.read(fid)
        with raises_errno(errno.EBADF):
            peer.write(fid, b"x")


def test_a_directory_has_no_bytes(peer: Peer) -> None:
    fid = peer.open(flags=c.O_RDONLY)
    with raises_errno(errno.EISDIR):
        peer.read(fid)
    with raises_errno(errno.EBADF):
        peer.write(fid, b"x")


# Data


writes = st.lists(
    st.tuples(st.integers(0, 200_000), st.integers(0, 140_000), st.integers(1, 255)), max_size=6
)
cuts = st.lists(st.tuples(st.integers(0, 350_000), st.integers(0, 140_000)), max_size=6)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(writes, st.none() | st.integers(0, 350_000), cuts)
def test_a_file_holds_what_was_written(
    written: list[tuple[int, int, int]], size: int | None, read: list[tuple[int, int]]
) -> None:
    expected = bytearray()
    with peers_of(Mount(16 << 20, 100)) as make:
        peer = make()
        file = peer.create(b"file")
        for offset, length, byte in written:
            data = bytes([byte]) * length
            assert peer.write(file, data, offset) == length
            if data:
                expected.extend(bytes(max(0, offset + length - len(expected))))
                expected[offset : offset + length] = data
        if size is not None:
            peer.call(m.Tsetattr(file, c.SETATTR_SIZE, 0, 0, 0, size, 0, 0, 0, 0))
            expected = expected[:size].ljust(size, b"\0")
        assert peer.stat(file).size == len(expected)
        for offset, length in read:
            assert peer.read(file, offset, length) == expected[offset : offset + length]


@pytest.mark.parametrize("count", [1, FRAME, 32768, 32769, 65536, 200_000])
def test_reads_of_any_size_across_blocks(peer: Peer, count: int) -> None:
    data = os.urandom(300_000)
    file = peer.create(b"file", data)
    for offset in (0, 131072 - count // 2, 300_000 - count):
        assert peer.read(file, offset, count) == data[offset : offset + count]


def test_a_read_is_no_larger_than_a_message(peers: MakePeer) -> None:
    peer = peers(msize=8192)
    file = peer.create(b"file")
    peer.write(file, b"x" * 8000)
    peer.write(file, b"x" * 8000, 8000)
    assert len(peer.read(file, 0, 0xFFFFFFFF)) == 8192 - c.IOHDRSZ


def test_a_write_may_fill_a_message(peers: MakePeer) -> None:
    peer = peers(msize=8192)
    file = peer.create(b"file")
    assert peer.write(file, b"x" * (8192 - 23)) == 8192 - 23


@pytest.mark.parametrize("offset", [4, 5, LAST, LAST + 1, (1 << 64) - 1])
def test_nothing_is_read_at_or_behind_the_end(peer: Peer, offset: int) -> None:
    file = peer.create(b"file", b"data")
    assert peer.read(file, offset, 0xFFFFFFFF) == b""


def test_a_read_stops_at_the_end(peer: Peer) -> None:
    assert peer.read(peer.create(b"file", b"data"), 2, 100) == b"ta"


def test_a_read_of_nothing(peer: Peer) -> None:
    assert peer.read(peer.create(b"file", b"data"), 0, 0) == b""


def test_a_hole_reads_as_zeros_and_costs_nothing(peer: Peer) -> None:
    file = peer.create(b"file")
    peer.write(file, b"end", 1 << 62)
    assert peer.stat(file).size == (1 << 62) + 3
    assert used(peer) == 1
    assert peer.read(file, (1 << 62) - 5, 8) == b"\0\0\0\0\0end"
    assert peer.read(file, 1 << 61, 100_000) == bytes(100_000)


def test_the_last_byte_of_the_largest_file(peer: Peer) -> None:
    file = peer.create(b"file")
    assert peer.write(file, b"abc", LAST - 1) == 1
    assert peer.stat(file).size == LAST
    assert peer.read(file, LAST - 2) == b"\0a"


@pytest.mark.parametrize("offset", [LAST, LAST + 1, (1 << 64) - 1])
def test_a_write_behind_the_largest_offset_is_efbig(peer: Peer, offset: int) -> None:
    file = peer.create(b"file", b"data")
    with raises_errno(errno.EFBIG):
        peer.write(file, b"x", offset)
    assert peer.read(file) == b"data"


def test_an_empty_write_changes_nothing(peer: Peer) -> None:
    file = peer.create(b"file", b"data")
    before = peer.stat(file)
    assert peer.write(file, b"", 100) == 0
    assert peer.stat(file) == before


def test_others_see_a_write_at_once(peers: MakePeer) -> None:
    writer, reader = peers(), peers()
    file = writer.create(b"file")
    other = reader.open(b"file", flags=c.O_RDONLY)
    writer.write(file, b"data")
    assert reader.read(other) == b"data"


# Append


def test_appends_go_to_the_end_whatever_offset_they_name(peer: Peer) -> None:
    peer.create(b"file", b"data")
    fid = peer.open(b"file", flags=c.O_RDWR | c.O_APPEND)
    assert peer.write(fid, b"+1", 0) == 2
    assert peer.write(fid, b"+2", (1 << 64) - 1) == 2
    assert peer.read(fid) == b"data+1+2"


def test_appends_of_several_clients_do_not_overwrite_each_other(peers: MakePeer) -> None:
    writers = [peers() for _ in range(3)]
    flags = c.O_WRONLY | c.O_APPEND
    fids = [writers[0].create(b"log", flags=flags)]
    fids += [writer.open(b"log", flags=flags) for writer in writers[1:]]
    lines = [b"%d from %d\n" % (number, who) for number in range(20) for who in range(3)]
    for number, line in enumerate(lines):
        writers[number % 3].write(fids[number % 3], line, offset=0)
    assert writers[0].read(writers[0].open(b"log")) == b"".join(lines)


def test_an_append_follows_a_truncation(peer: Peer) -> None:
    fid = peer.create(b"file", b"long data", flags=c.O_RDWR | c.O_APPEND)
    peer.open(b"file", flags=c.O_WRONLY | c.O_TRUNC)
    peer.write(fid, b"new")
    assert peer.read(fid) == b"new"


# What a write changes besides


def test_a_write_of_a_user_takes_privilege_bits_away(peer: Peer) -> None:
    file = peer.create(b"file")
    peer.attach(1, 1000)
    peer.call(m.Tsetattr(file, c.SETATTR_MODE, 0o6755, 0, 0, 0, 0, 0, 0, 0))
    peer.write(file, b"by root")
    assert peer.stat(file).mode & 0o7777 == 0o6755
    peer.write(peer.open(b"file", flags=c.O_WRONLY, start=1), b"by a user")
    assert peer.stat(file).mode & 0o7777 == 0o755


# Space


@pytest.fixture
def small() -> Iterator[Peer]:
    """A peer of a file system of four frames and ten inodes."""
    with peers_of(Mount(4 * FRAME, 10)) as make:
        yield make()


def test_a_full_file_system_takes_what_fits_and_then_refuses(small: Peer) -> None:
    file = small.create(b"file")
    assert small.write(file, b"x" * 5 * FRAME) == 4 * FRAME
    with raises_errno(errno.ENOSPC):
        small.write(file, b"x", 4 * FRAME)
    assert small.stat(file).size == 4 * FRAME
    assert small.write(file, b"y", 0) == 1  # what is held can be overwritten


def test_space_comes_back_with_truncation_and_removal(small: Peer) -> None:
    for name in (b"a", b"b"):
        small.create(name, b"x" * 2 * FRAME)
    assert small.statfs().bfree == 0
    small.clunk(small.open(b"a", flags=c.O_WRONLY | c.O_TRUNC))
    assert small.statfs().bfree == 2
    small.call(m.Tremove(small.walk(b"b")))
    assert small.statfs().bfree == 2  # the fid that made it is still open


# Tstatfs


def test_statfs_tells_limits_and_what_is_free(small: Peer) -> None:
    numbers = small.statfs()
    assert (numbers.type, numbers.bsize, numbers.namelen) == (c.V9FS_MAGIC, FRAME, 255)
    assert (numbers.blocks, numbers.bfree, numbers.bavail) == (4, 4, 4)
    assert (numbers.files, numbers.ffree) == (10, 9)


def test_statfs_counts_blocks_and_inodes(small: Peer) -> None:
    file = small.create(b"file", b"x" * (FRAME + 1))
    small.call(m.Tlink(ROOT, file, b"link"))
    assert (used(small), inodes(small)) == (2, 3)
    numbers = small.call(m.Tstatfs(file))
    assert (numbers.bfree, numbers.bavail, numbers.ffree) == (2, 2, 7)


def test_statfs_needs_a_fid(peer: Peer) -> None:
    with raises_errno(errno.EBADF):
        peer.call(m.Tstatfs(UNKNOWN))


def test_all_clients_see_one_file_system(peers: MakePeer) -> None:
    one, other = peers(), peers()
    assert one.statfs() == other.statfs()
    one.create(b"file", b"x")
    assert used(other) == 1


# Tfsync


@pytest.mark.parametrize("datasync", [0, 1])
def test_fsync_is_always_done_already(peer: Peer, datasync: int) -> None:
    peer.call(m.Tfsync(peer.create(b"file", b"data"), datasync))


def test_fsync_needs_a_fid(peer: Peer) -> None:
    with raises_errno(errno.EBADF):
        peer.call(m.Tfsync(UNKNOWN, 0))


# Files without a name


def test_an_unlinked_file_serves_every_fid_that_holds_it(peers: MakePeer) -> None:
    peer, other = peers(), peers()
    written = peer.create(b"file", b"x" * 3 * FRAME)
    walked, read = peer.walk(b"file"), other.open(b"file", flags=c.O_RDONLY)
    peer.unlink(b"file")
    assert not peer.exists(b"file")

    assert peer.write(written, b"data") == 4
    assert other.read(read, 0, 5) == b"datax"
    opened_later = peer.walk(start=walked)
    peer.call(m.Tlopen(opened_later, c.O_RDWR))
    peer.call(m.Tsetattr(walked, c.SETATTR_SIZE, 0, 0, 0, FRAME, 0, 0, 0, 0))
    assert used(peer) == 1
    for by, fid in ((peer, written), (peer, walked), (peer, opened_later), (other, read)):
        assert (by.stat(fid).nlink, by.stat(fid).size) == (0, FRAME)


def test_an_unlinked_file_vanishes_with_its_last_fid(peers: MakePeer) -> None:
    peer, other = peers(), peers()
    fids = [peer.create(b"file", b"x" * 3 * FRAME), peer.walk(b"file")]
    elsewhere = other.walk(b"file")
    peer.unlink(b"file")
    for fid in fids:
        peer.clunk(fid)
        assert (used(peer), inodes(peer)) == (3, 2)
    other.clunk(elsewhere)
    assert (used(peer), inodes(peer)) == (0, 1)


def test_a_file_that_was_replaced_serves_who_holds_it(peer: Peer) -> None:
    old = peer.create(b"file", b"old")
    peer.create(b"new", b"new")
    peer.call(m.Trenameat(ROOT, b"new", ROOT, b"file"))
    assert peer.read(old) == b"old"
    assert used(peer) == 2
    peer.clunk(old)
    assert used(peer) == 1


def test_a_new_file_of_the_same_name_is_another_file(peer: Peer) -> None:
    old = peer.create(b"file", b"old")
    peer.unlink(b"file")
    new = peer.create(b"file", b"new")
    assert peer.read(old) == b"old"
    assert peer.stat(old).qid.path != peer.stat(new).qid.path


def test_a_connection_that_ends_frees_its_unlinked_files(peers: MakePeer) -> None:
    peer, other = peers(), peers()
    peer.create(b"file", b"x" * FRAME)
    other.unlink(b"file")
    assert (used(other), inodes(other)) == (1, 2)
    peer.close()
    assert (used(other), inodes(other)) == (0, 1)

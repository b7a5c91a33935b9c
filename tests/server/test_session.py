"""session: versions, tags, flushes and framing, without a socket."""

import asyncio
import errno
import struct
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from server.errors import ProtocolError
from server.fids import Client
from server.handlers import HANDLERS
from server.meter import SAMPLED
from server.session import BATCH, CARGO_MIN, PATIENCE
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import HEADER, Message
from tests.tmpfs_core.paging import Spill
from tests.tmpfs_core.support import no_berth_is_taken
from tmpfs_core.frames import FRAME
from tmpfs_core.memory import Memory
from tmpfs_core.mount import Mount
from tmpfs_core.vnode import NotResident

from .peer import DEFAULT, ROOT, MakePeer, Peer, peers_of, raises_errno
from .strategies import requests
from .test_handlers_locks import BLOCKED, GRANTED, UNLOCK, lock, tlock, wait

#: What net/9p/client.c and fs/9p send.
V9FS = {
    *("Tversion", "Tattach", "Tflush", "Twalk", "Tlopen", "Tlcreate", "Tread", "Twrite"),
    *("Tclunk", "Tremove", "Tgetattr", "Tsetattr", "Tstatfs", "Treaddir", "Treadlink"),
    *("Tsymlink", "Tlink", "Tmknod", "Tmkdir", "Trename", "Trenameat", "Tunlinkat"),
    *("Txattrwalk", "Txattrcreate", "Tfsync", "Tlock", "Tgetlock"),
}

SUPPORTED = {*HANDLERS, m.Tversion.TYPE, m.Tflush.TYPE}


@pytest.fixture
def new(peers: MakePeer) -> Peer:
    """A peer that has said nothing yet."""
    return peers(begin=False)


def is_over(peer: Peer) -> bool:
    """Whether there is no session: requests are refused until there was a Tversion."""
    peer.send(m.Tstatfs(ROOT))
    return peer.reply(1) == m.Rlerror(errno.EPROTO)


# All messages


def test_every_message_of_v9fs_is_answered(peer: Peer) -> None:
    file, other = peer.create(b"file"), 1
    script: list[Message] = [
        m.Twalk(ROOT, other, []),
        m.Tlcreate(other, b"made", c.O_RDWR, 0o600, 0),
        m.Twrite(other, 0, b"data"),
        m.Tread(other, 0, 10),
        m.Tfsync(other, 0),
        m.Tlock(other, UNLOCK, 0, 0, 0, 1, b"host"),
        m.Tgetlock(other, UNLOCK, 0, 0, 1, b"host"),
        m.Tgetattr(other, c.GETATTR_ALL),
        m.Tsetattr(other, c.SETATTR_MODE, 0o600, 0, 0, 0, 0, 0, 0, 0),
        m.Tclunk(other),
        m.Tmkdir(ROOT, b"dir", 0o700, 0),
        m.Tsymlink(ROOT, b"symlink", b"to", 0),
        m.Tmknod(ROOT, b"fifo", 0o010600, 0, 0, 0),
        m.Tlink(ROOT, file, b"link"),
        m.Trename(file, ROOT, b"renamed"),
        m.Trenameat(ROOT, b"renamed", ROOT, b"again"),
        m.Tunlinkat(ROOT, b"link", 0),
        m.Twalk(ROOT, other, [b"symlink"]),
        m.Treadlink(other),
        m.Txattrwalk(other, 2, b""),
        m.Txattrcreate(other, b"trusted.a", 0, 0),
        m.Tremove(file),
        m.Tstatfs(ROOT),
        m.Tlopen(ROOT, c.O_RDONLY),
        m.Treaddir(ROOT, 0, 4096),
        m.Tflush(77),
        m.Tversion(8192, c.VERSION),
        m.Tattach(ROOT, c.NOFID, b"", b"", 0),
    ]
    for request in script:
        peer.call(request)
    assert {type(request).__name__ for request in script} == V9FS
    assert len(V9FS) == 27


@pytest.mark.parametrize("number", sorted(set(range(256)) - SUPPORTED))
def test_any_other_type_is_eopnotsupp_and_the_connection_goes_on(peer: Peer, number: int) -> None:
    body = b"whatever it holds"
    peer.feed(HEADER.pack(7 + len(body), number, 5) + body)
    assert peer.settle() == [(5, m.Rlerror(errno.EOPNOTSUPP))]
    peer.statfs()


# Tversion


@pytest.mark.parametrize(
    ("asked", "offered", "agreed"),
    [
        (4096, 65536, 4096),
        (8192, 65536, 8192),
        (65536, 65536, 65536),
        (65537, 65536, 65536),
        (0xFFFFFFFF, 65536, 65536),
        (0xFFFFFFFF, 4096, 4096),
    ],
)
def test_the_smaller_msize_counts(peers: MakePeer, asked: int, offered: int, agreed: int) -> None:
    answer = peers(msize=offered, begin=False).call(m.Tversion(asked, c.VERSION), c.NOTAG)
    assert answer == m.Rversion(agreed, c.VERSION)


@pytest.mark.parametrize("msize", [0, 23, 4095])
def test_an_msize_under_4096_is_refused(new: Peer, msize: int) -> None:
    with raises_errno(errno.EINVAL):
        new.call(m.Tversion(msize, c.VERSION), c.NOTAG)
    assert is_over(new)
    new.begin()


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (c.VERSION_PLAIN, c.VERSION_PLAIN),
        (c.VERSION_UNIX, c.VERSION_UNIX),
        (b"9P2000.l", c.VERSION_PLAIN),
        (b"9P2000.L ", c.VERSION_PLAIN),
        (b"9P2000.", c.VERSION_PLAIN),
    ],
)
def test_a_version_is_answered_with_the_most_of_it_that_is_known(
    new: Peer, asked: bytes, answered: bytes
) -> None:
    assert new.call(m.Tversion(8192, asked), c.NOTAG) == m.Rversion(8192, answered)
    with raises_errno(errno.EOPNOTSUPP):
        new.statfs()
    new.begin()
    new.statfs()


@pytest.mark.parametrize(
    "version", [b"", b"9P", b"9P2001", b"9P2000 ", b"9p2000", b"unknown", b"\xff" * 200]
)
def test_an_unknown_version_is_answered_unknown(new: Peer, version: bytes) -> None:
    answer = new.call(m.Tversion(8192, version), c.NOTAG)
    assert answer == m.Rversion(8192, c.VERSION_UNKNOWN)
    assert is_over(new)
    new.begin()


@pytest.mark.parametrize("version", [c.VERSION_PLAIN, c.VERSION_UNIX])
def test_an_msize_that_is_refused_is_so_in_the_dialect_asked_for(new: Peer, version: bytes) -> None:
    new.call(m.Tversion(8192, version), c.NOTAG)
    with raises_errno(errno.EINVAL):
        new.call(m.Tversion(4095, version), c.NOTAG)
    new.call(m.Tversion(8192, b"unknown"), c.NOTAG)
    with raises_errno(errno.EPROTO):
        new.statfs()


def test_nothing_is_served_before_the_version(new: Peer) -> None:
    assert is_over(new)
    with raises_errno(errno.EPROTO):
        new.attach(ROOT)
    with raises_errno(errno.EPROTO):
        new.call(m.Tflush(1))
    new.begin()


@pytest.mark.parametrize("version", [c.VERSION, b"9P2000"])
def test_another_version_ends_what_was_before(peers: MakePeer, version: bytes) -> None:
    peer, other = peers(), peers()
    peer.create(b"file", b"x" * 4096)
    other.unlink(b"file")
    peer.call(m.Tversion(8192, version), c.NOTAG)
    assert other.statfs().bfree == other.statfs().blocks
    peer.begin()
    with raises_errno(errno.EBADF):
        peer.clunk(100)  # the fid of the file


def test_another_version_drops_what_waits_and_frees_its_tag(peer: Peer) -> None:
    file = peer.create(b"file")
    lock(peer, file, proc=1)
    wait(peer, file, proc=2)
    peer.begin()
    assert peer.settle() == []
    peer.call(m.Tstatfs(ROOT), tag=2)


def test_another_version_changes_msize(peer: Peer) -> None:
    file = peer.begin(8192).create(b"file", b"x" * 8000)
    assert len(peer.read(file)) == 8000
    file = peer.begin(4096).open(b"file")
    assert len(peer.read(file)) == 4096 - c.IOHDRSZ


# Frames


def test_a_frame_may_be_as_large_as_agreed(peer: Peer) -> None:
    file = peer.begin(8192).create(b"file")
    assert peer.write(file, b"x" * (8192 - 23)) == 8192 - 23
    with pytest.raises(ProtocolError, match="8193"):
        peer.write(file, b"x" * (8192 - 22))


def test_before_the_version_a_frame_is_small(new: Peer) -> None:
    new.call(m.Tversion(8192, b"x" * (4096 - 13)), c.NOTAG)
    with pytest.raises(ProtocolError, match="4097"):
        new.call(m.Tversion(8192, b"x" * (4097 - 13)), c.NOTAG)


@pytest.mark.parametrize("size", [0, 1, 6, (1 << 20) + 1, 0xFFFFFFFF])
def test_a_size_that_can_not_be_is_refused_as_soon_as_it_is_seen(peer: Peer, size: int) -> None:
    with pytest.raises(ProtocolError, match=str(size)):
        peer.feed(struct.pack("<IBH", size, m.Tclunk.TYPE, 1))


@pytest.mark.parametrize(
    "frame",
    [
        HEADER.pack(7, m.Tclunk.TYPE, 1),
        HEADER.pack(10, m.Tclunk.TYPE, 1) + b"\0\0\0",
        HEADER.pack(12, m.Tclunk.TYPE, 1) + bytes(5),
        HEADER.pack(8, m.Tflush.TYPE, 1) + b"\0",
        HEADER.pack(13, m.Tversion.TYPE, 1) + struct.pack("<IH", 8192, 1),
        HEADER.pack(17, m.Twalk.TYPE, 1) + struct.pack("<IIH", 0, 1, 1),
        HEADER.pack(23, m.Twrite.TYPE, 1) + struct.pack("<IQI", 0, 0, 1),
    ],
    ids=["empty", "short", "trailing", "Tflush", "Tversion", "Twalk", "Twrite"],
)
def test_a_frame_that_can_not_be_parsed_is_a_protocol_error(peer: Peer, frame: bytes) -> None:
    peer.send(m.Tstatfs(ROOT), tag=7)
    with pytest.raises(ProtocolError):
        peer.feed(m.Tstatfs(ROOT).frame(8) + frame + m.Tstatfs(ROOT).frame(9))
    assert [tag for tag, _ in peer.settle()] == [7, 8]


def test_requests_come_in_pieces_of_any_size(peers: MakePeer) -> None:
    first = peers()
    stream = b"".join(
        request.frame(tag)
        for tag, request in enumerate(
            [m.Tmkdir(ROOT, b"dir", 0o755, 0), m.Twalk(ROOT, 1, [b"dir"]), m.Tclunk(1)]
        )
    )
    for cut in range(len(stream) + 1):
        for piece in (stream[:cut], stream[cut:]):
            first.feed(piece)
        kinds = [type(reply) for _, reply in first.settle()]
        assert kinds == [m.Rmkdir, m.Rwalk, m.Rclunk]
        assert not first.unread
        first.unlink(b"dir", flags=c.AT_REMOVEDIR)


def test_requests_come_byte_by_byte(peer: Peer) -> None:
    for byte in m.Tmkdir(ROOT, b"dir", 0o755, 0).frame(3):
        assert peer.arrived == []
        peer.feed(bytes([byte]))
    assert [tag for tag, _ in peer.settle()] == [3]


def test_a_session_tells_how_much_it_needs(peer: Peer) -> None:
    frame = m.Twrite(9, 0, b"x" * 10000).frame(1)
    peer.feed(frame[:6])
    assert peer.session.needed >= len(frame[:6])
    peer.feed(frame[6:7])
    assert peer.session.needed == len(frame)


def test_replies_come_in_the_order_of_the_requests(peer: Peer) -> None:
    peer.feed(b"".join(m.Tstatfs(ROOT).frame(tag) for tag in range(1000, 0, -1)))
    assert [tag for tag, _ in peer.arrived] == list(range(1000, 0, -1))


def test_a_pass_ends_after_so_many_requests(peer: Peer) -> None:
    frame = m.Tstatfs(ROOT).frame(1)
    data = memoryview(bytearray(frame * (BATCH + 1)))
    assert peer.session.receive(data, 0, len(data)) == BATCH * len(frame)
    assert peer.session.needed == 0
    assert peer.session.receive(data, BATCH * len(frame), len(data)) == len(data)


def test_a_pass_ends_after_a_reply_that_shows_live_pages(peer: Peer) -> None:
    file = peer.create(b"file", b"old" * 20000)
    read, write = m.Tread(file, 0, 60000).frame(1), m.Twrite(file, 0, b"new").frame(2)
    data = memoryview(bytearray(read + write))
    assert peer.session.receive(data, 0, len(data)) == len(read)
    assert b"".join(peer.session.out)[7 + 4 :] == b"old" * 20000
    peer.session.out.clear()
    assert peer.session.receive(data, len(read), len(data)) == len(data)


def test_a_pass_does_not_pile_up_large_replies(peers: MakePeer) -> None:
    msize = 65536
    peer = peers(msize)
    for number in range(900):
        peer.call(m.Tmknod(ROOT, b"%050d" % number, 0, 0, 0, 0))
    directory = peer.open(flags=c.O_RDONLY)
    data = memoryview(bytearray(m.Treaddir(directory, 0, msize).frame(1) * BATCH))
    peer.session.receive(data, 0, len(data))
    waiting = sum(map(len, peer.session.out))
    peer.session.out.clear()
    assert msize // 2 < waiting < 20 * msize


def test_a_read_shows_the_file_before_the_write_that_follows_it(peer: Peer) -> None:
    file = peer.create(b"file", b"old" * 10000)
    peer.feed(m.Tread(file, 0, 30000).frame(1) + m.Twrite(file, 0, b"new" * 10000).frame(2))
    assert peer.reply(1) == m.Rread(b"old" * 10000)
    assert peer.read(file) == b"new" * 10000


# Handlers that fail


def memory_of(client: Client) -> Memory:
    return client.exports.get(b"").mount.memory


def replace_fsync(monkeypatch: pytest.MonkeyPatch, handler: Callable[..., object]) -> None:
    """Let Tfsync be handled so."""
    monkeypatch.setitem(HANDLERS, m.Tfsync.TYPE, (m.Tfsync.call, handler))


def test_an_unforeseen_exception_is_eio_and_one_line(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(*_: object) -> NoReturn:
        raise RuntimeError("a bug")

    replace_fsync(monkeypatch, handler)
    with capture_logs() as logs, raises_errno(errno.EIO):
        peer.call(m.Tfsync(ROOT, 0))
    assert [line["log_level"] for line in logs] == ["error"]
    peer.statfs()


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(errno.ENOSPC, ""), errno.ENOSPC), (RuntimeError(), errno.EIO)]
)
def test_a_request_that_waits_may_fail(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    async def handler(*_: object) -> NoReturn:
        await asyncio.sleep(0)
        raise error

    replace_fsync(monkeypatch, handler)
    with capture_logs(), raises_errno(code):
        peer.call(m.Tfsync(ROOT, 0))
    peer.call(m.Tstatfs(ROOT))  # the tag is free again


# Tags, and Tflush


@pytest.fixture
def slow(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Peer:
    """A peer whose Tfsync of a fid is not answered until Tremove of the same fid is."""
    events: dict[int, asyncio.Event] = {}

    async def handler(client: Client, tag: int, fid: int, datasync: int) -> bytes:
        await events.setdefault(fid, asyncio.Event()).wait()
        return m.Rfsync.pack(tag)

    def release(client: Client, tag: int, fid: int) -> bytes:
        events.setdefault(fid, asyncio.Event()).set()
        return m.Rremove.pack(tag)

    replace_fsync(monkeypatch, handler)
    monkeypatch.setitem(HANDLERS, m.Tremove.TYPE, (m.Tremove.call, release))
    return peer


def finish(fid: int) -> bytes:
    """The frame that lets the requests waiting on ``fid`` be answered."""
    return m.Tremove(fid).frame(99)


def tags(peer: Peer) -> list[tuple[int, str]]:
    """What has arrived, as (tag, type)."""
    return [(tag, type(reply).__name__) for tag, reply in peer.settle()]


def test_a_tag_in_flight_is_refused_and_its_request_goes_on(slow: Peer) -> None:
    slow.send(m.Tfsync(5, 0), tag=1)
    slow.send(m.Tstatfs(ROOT), tag=1)
    assert slow.settle() == [(1, m.Rlerror(errno.EINVAL))]
    slow.feed(finish(5))
    assert tags(slow) == [(99, "Rremove"), (1, "Rfsync")]


def test_a_tag_is_free_once_it_is_answered(slow: Peer) -> None:
    for _ in range(3):
        slow.feed(m.Tfsync(5, 0).frame(1) + finish(5))
        assert (1, "Rfsync") in tags(slow)


def test_requests_that_wait_are_answered_when_they_are_done(slow: Peer) -> None:
    for tag in (1, 2, 3):
        slow.send(m.Tfsync(tag, 0), tag)
    for tag in (2, 3, 1):
        slow.feed(finish(tag))
        assert tags(slow) == [(99, "Rremove"), (tag, "Rfsync")]


@pytest.mark.parametrize("oldtag", [7, 1, c.NOTAG])
def test_a_flush_of_nothing_is_answered_at_once(peer: Peer, oldtag: int) -> None:
    peer.call(m.Tflush(oldtag), tag=1)


def test_a_flush_of_what_was_just_answered_comes_behind_it(peer: Peer) -> None:
    peer.feed(m.Tstatfs(ROOT).frame(1) + m.Tflush(1).frame(2))
    assert tags(peer) == [(1, "Rstatfs"), (2, "Rflush")]


def test_a_flushed_request_is_not_answered_and_frees_its_tag(slow: Peer) -> None:
    slow.send(m.Tfsync(5, 0), tag=1)
    slow.send(m.Tflush(1), tag=2)
    assert tags(slow) == [(2, "Rflush")]
    slow.call(m.Tstatfs(ROOT), tag=1)
    slow.call(m.Tstatfs(ROOT), tag=2)


@pytest.mark.parametrize("steps", range(6))
def test_a_flush_at_any_moment_tells_the_truth(peer: Peer, steps: int) -> None:
    """Either the lock was granted, which is told before Rflush, or it is not held."""
    file = peer.create(b"file")
    lock(peer, file, proc=1)
    wait(peer, file, proc=2)
    peer.feed(tlock(file, UNLOCK, proc=1).frame(1))
    arrived = peer.settle(steps)
    peer.send(m.Tflush(2), tag=3)
    arrived += peer.settle()
    granted = (2, m.Rlock(GRANTED)) in arrived
    assert [tag for tag, _ in arrived] == ([1, 2, 3] if granted else [1, 3])
    assert lock(peer, file, proc=4) == (BLOCKED if granted else GRANTED)


def test_several_flushes_of_a_request_are_answered_in_order(slow: Peer) -> None:
    slow.feed(m.Tfsync(5, 0).frame(1) + b"".join(m.Tflush(1).frame(tag) for tag in (4, 2, 3)))
    assert tags(slow) == [(4, "Rflush"), (2, "Rflush"), (3, "Rflush")]


def test_a_flush_of_a_flush_comes_behind_it(slow: Peer) -> None:
    slow.feed(m.Tfsync(5, 0).frame(1) + m.Tflush(1).frame(2) + m.Tflush(2).frame(3))
    assert tags(slow) == [(2, "Rflush"), (3, "Rflush")]


def test_the_tag_of_a_flush_in_flight_is_taken(slow: Peer) -> None:
    frames = m.Tfsync(5, 0).frame(1) + m.Tflush(1).frame(2) + m.Tstatfs(ROOT).frame(2)
    slow.feed(frames)
    assert tags(slow) == [(2, "Rlerror"), (2, "Rflush")]


def test_a_flush_touches_no_other_request(slow: Peer) -> None:
    slow.feed(m.Tfsync(5, 0).frame(1) + m.Tfsync(6, 0).frame(2) + m.Tflush(1).frame(3))
    assert tags(slow) == [(3, "Rflush")]
    slow.feed(finish(6))
    assert tags(slow) == [(99, "Rremove"), (2, "Rfsync")]


def test_only_so_many_requests_may_wait(slow: Peer) -> None:
    most = DEFAULT.max_requests
    slow.feed(b"".join(m.Tfsync(5, 0).frame(tag) for tag in range(1000, 1000 + most + 1)))
    assert slow.settle() == [(1000 + most, m.Rlerror(errno.EAGAIN))]
    slow.call(m.Tstatfs(ROOT))
    slow.feed(finish(5))
    assert len(slow.settle()) == most + 1


# Requests that need what is not in RAM


def test_a_request_that_was_tried_often_enough_is_tried_for_one_block(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    memory = memory_of(peer.session.client)

    def handler(client: Client, tag: int, *_: object) -> bytes:
        seen.append(memory.frugal)
        if not memory.frugal:
            raise NotResident(memory_of(client), [], 5)
        return m.Rfsync.pack(tag)

    async def provide(absent: NotResident) -> None:
        assert (absent.frames, memory.frugal) == (5, False)

    replace_fsync(monkeypatch, handler)
    monkeypatch.setattr(peer.session, "_provide", provide)
    peer.call(m.Tfsync(ROOT, 0))
    assert seen == [False] * (1 + PATIENCE) + [True]
    assert not memory.frugal


def test_what_is_provided_at_once_and_still_not_enough_is_waited_for(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def handler(client: Client, tag: int, *_: object) -> bytes:
        steps.append("try")
        if "wait" not in steps:
            raise NotResident(memory_of(client), [], 5)
        return m.Rfsync.pack(tag)

    def provide_now(absent: NotResident) -> bool:
        steps.append("now")
        return True

    async def provide(absent: NotResident) -> None:
        steps.append("wait")

    replace_fsync(monkeypatch, handler)
    monkeypatch.setattr(peer.session, "_provide_now", provide_now)
    monkeypatch.setattr(peer.session, "_provide", provide)
    peer.call(m.Tfsync(ROOT, 0))
    assert steps == ["try", "now", "try", "wait", "try"]


def test_what_can_not_be_provided_is_the_reply(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(client: Client, *_: object) -> NoReturn:
        raise NotResident(memory_of(client), [], 5)

    async def provide(absent: NotResident) -> None:
        raise OSError(errno.ENOMEM, "")

    replace_fsync(monkeypatch, handler)
    monkeypatch.setattr(peer.session, "_provide", provide)
    with raises_errno(errno.ENOMEM):
        peer.call(m.Tfsync(ROOT, 0))
    assert not peer.session.congested


# The end


def test_closing_cancels_what_waits_and_answers_nothing(slow: Peer) -> None:
    slow.send(m.Tfsync(5, 0), tag=1)
    slow.send(m.Tflush(1), tag=2)
    slow.close()
    assert slow.arrived == []


# Anything that comes

PRELUDE: list[Message] = [
    m.Twalk(ROOT, 1, []),
    m.Tlcreate(1, b"a", c.O_RDWR, 0o600, 0),
    m.Tmkdir(ROOT, b"b", 0o700, 0),
    m.Twalk(ROOT, 2, [b"b"]),
    m.Twalk(ROOT, 3, []),
    m.Tlopen(3, c.O_RDONLY),
]


def survives(data: bytes, *, begin: bool) -> None:
    """Let these bytes come in; at worst the connection ends, and the file system is whole."""
    with capture_logs() as logs, peers_of(Mount(1 << 16, 20)) as make:
        peer = make(msize=8192, lock_wait=0.0, begin=begin)
        try:
            peer.feed(data)
        except ProtocolError:
            pass
        else:
            peer.settle()
    assert not logs, "an exception that nobody foresaw"


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_end_a_connection_at_worst(data: bytes, begin: bool) -> None:
    survives(data, begin=begin)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(requests(), max_size=40))
def test_any_requests_leave_the_file_system_whole(script: list[Message]) -> None:
    frames = [request.frame(tag % 5) for tag, request in enumerate(PRELUDE + script)]
    survives(b"".join(frames), begin=True)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.data(), st.lists(requests(), min_size=1, max_size=8))
def test_mutated_frames_end_a_connection_at_worst(
    data: st.DataObject, script: list[Message]
) -> None:
    stream = bytearray(b"".join(request.frame(1) for request in PRELUDE + script))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(stream) - 1))
        stream[place] = data.draw(st.integers(0, 255))
    del stream[data.draw(st.integers(0, len(stream))) :]
    survives(bytes(stream), begin=True)


def test_a_large_write_is_refused_even_if_that_shows_only_when_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spill = Spill(ram=64)
    with peers_of(spill.mount) as make:
        peer = make()
        file = peer.create(b"file")
        while spill.memory.writable:
            peer.write(file, bytes(FRAME), peer.stat(file).size)

        def provide_now(absent: NotResident) -> bool:
            assert absent.frames
            peer.session.client.clunk(file)  # as if somebody had, meanwhile
            return True

        monkeypatch.setattr(peer.session, "_provide_now", provide_now)
        frame = memoryview(m.Twrite(file, 1 << 20, bytes(2 * CARGO_MIN)).frame(1))
        assert peer.session.receive(frame, 0, 100) == 100
        cargo = peer.session.cargo
        assert cargo is not None
        cargo.fill(frame[100:])
        peer.session.landed()
        peer._collect()
        assert peer.reply(1) == m.Rlerror(errno.EBADF)
        assert no_berth_is_taken(spill.memory.arena)
    spill.swap.close()


# What is counted


def test_requests_are_counted_by_type_and_by_client(peer: Peer) -> None:
    before = peer.session.requests
    for _ in range(3):
        peer.statfs()
    assert peer.session.requests == before + 3
    assert peer.meter.tallies[m.Tstatfs.TYPE].count == 3


@pytest.mark.parametrize("kind", [4, 255])
def test_what_is_no_request_is_counted_too(peer: Peer, kind: int) -> None:
    peer.feed(HEADER.pack(7, kind, 1))
    assert peer.reply(1) == m.Rlerror(errno.EOPNOTSUPP)
    assert peer.meter.tallies[kind].refused == {errno.EOPNOTSUPP: 1}


def test_refusals_are_counted_with_their_errno(peer: Peer) -> None:
    for name in (b"missing", b"lost"):
        with raises_errno(errno.ENOENT):
            peer.call(m.Tunlinkat(ROOT, name, 0))
    with raises_errno(errno.EBADF):
        peer.clunk(9999)
    assert peer.meter.tallies[m.Tunlinkat.TYPE].refused == {errno.ENOENT: 2}
    assert peer.meter.tallies[m.Tclunk.TYPE].refused == {errno.EBADF: 1}


def test_a_request_that_waits_has_its_time_taken_when_it_is_answered(peer: Peer) -> None:
    fid = peer.create(b"file")
    assert lock(peer, fid) == GRANTED
    wait(peer, fid, proc=2)
    tally = peer.meter.tallies[m.Tlock.TYPE]
    assert (peer.session.waiting, tally.count, sum(tally.buckets)) == (1, 2, 0)
    assert lock(peer, fid, UNLOCK) == GRANTED
    peer.reply(2)
    assert (peer.session.waiting, sum(tally.buckets)) == (0, 1)


def test_one_of_many_requests_has_its_time_taken(peer: Peer) -> None:
    for _ in range(SAMPLED):
        peer.statfs()
    assert sum(peer.meter.tallies[m.Tstatfs.TYPE].buckets) == SAMPLED


def test_a_large_write_is_counted_when_all_of_it_is_here(peer: Peer) -> None:
    fid = peer.create(b"file")
    frame = m.Twrite(fid, 0, bytes(2 * CARGO_MIN)).frame(7)
    tally = peer.meter.tallies[m.Twrite.TYPE]
    session, before = peer.session, peer.session.requests
    assert session.receive(memoryview(frame), 0, CARGO_MIN) == CARGO_MIN
    assert session.cargo is not None
    assert (session.requests, tally.count) == (before, 0)
    session.cargo.fill(memoryview(frame)[CARGO_MIN:])
    session.landed()
    assert (session.requests, tally.count) == (before + 1, 1)

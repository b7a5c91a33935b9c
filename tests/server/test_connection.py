"""connection: real sockets; what comes in pieces, in heaps, or does not get away."""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from io import FileIO
from threading import Thread

import pytest
from structlog.testing import capture_logs

from server import connection as connection_module
from server.connection import SCRATCH, Buffers, Connection, Replies
from server.handover import give
from server.limits import Limits
from server.room import Room
from server.session import BATCH, CARGO_MIN, Session
from server.spin import Spin
from server.watch import Watch
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import HEADER
from tests.tmpfs_core.support import no_berth_is_taken
from tmpfs_core import frames
from tmpfs_core.mount import Mount

from .peer import (
    DEFAULT,
    GUARD,
    ROOT,
    SocketPeer,
    all_is_there,
    client_of,
    nothing_now,
    raises_errno,
)
from .test_handlers_locks import tlock

MSIZE = 1 << 20
STATFS = m.Tstatfs(ROOT)


class Carrier:
    """Carries bytes between a client's socket and pipes, as sshd does.

    Attributes:
        given: the ends of the pipes that are for a server.
    """

    def __init__(self, sock: socket.socket) -> None:
        incoming, to_server = os.pipe()
        from_server, outgoing = os.pipe()
        self.given = incoming, outgoing
        self._sock = sock
        self._threads = [
            Thread(target=self._inwards, args=(to_server,)),
            Thread(target=self._outwards, args=(from_server,)),
        ]
        for thread in self._threads:
            thread.start()

    def _inwards(self, to_server: int) -> None:
        with FileIO(to_server, "w") as pipe, suppress(BrokenPipeError):
            while data := self._sock.recv(1 << 16):
                while data:
                    data = data[pipe.write(data) :]

    def _outwards(self, from_server: int) -> None:
        with FileIO(from_server) as pipe, suppress(BrokenPipeError):
            while data := pipe.read(1 << 16):
                self._sock.sendall(data)
            self._sock.shutdown(socket.SHUT_WR)

    def join(self) -> None:
        """Wait until both ends have ended."""
        for thread in self._threads:
            thread.join(GUARD)
        self._sock.close()


class Link:
    """Connections to test, each with a peer at its other end.

    Attributes:
        gone: how often a connection told that it has ended.
        ended: set when one has.
        failures: what callbacks of the loop raised.
    """

    def __init__(self, mount: Mount, limits: Limits = DEFAULT) -> None:
        self.gone = 0
        self.ended = asyncio.Event()
        self.failures: list[dict[str, object]] = []
        self.connections: list[Connection] = []
        self.peers: list[SocketPeer] = []
        self.handed_over: list[tuple[Carrier, socket.socket]] = []
        self._mount = mount
        loop = asyncio.get_running_loop()
        self.room = Room(limits.request_bytes, loop.call_soon)
        self.watch = Watch(self.connections, lambda _, look: self.looks.append(look))
        self.looks: list[Callable[[], None]] = []
        self._limits = limits
        self._buffers = Buffers(self.room)
        self._replies = Replies(limits.reply_bytes)
        self._spin = Spin(loop.call_soon)

    async def connect(
        self,
        pair: tuple[socket.socket, socket.socket] | None = None,
    ) -> SocketPeer:
        """A peer of a new connection; ``pair``: its server's and client's sockets."""
        ours, theirs = pair or socket.socketpair()
        self.serve(ours)
        if theirs.family == socket.AF_UNIX:
            peer = SocketPeer(*await asyncio.open_unix_connection(sock=theirs))
        else:
            peer = SocketPeer(*await asyncio.open_connection(sock=theirs))
        self.peers.append(peer)
        return peer

    async def hand_over(self) -> SocketPeer:
        """A peer of a new connection, for whom somebody has given the server pipes."""
        ours, theirs = socket.socketpair()
        self.serve(ours)
        near, far = socket.socketpair()
        carrier = Carrier(far)
        assert await asyncio.to_thread(give, theirs, *carrier.given)
        for descriptor in carrier.given:
            os.close(descriptor)
        self.handed_over.append((carrier, theirs))
        peer = SocketPeer(*await asyncio.open_unix_connection(sock=near))
        self.peers.append(peer)
        return peer

    async def part(self) -> None:
        """Close all peers."""
        for peer in self.peers:
            await peer.close()
        for carrier, sock in self.handed_over:
            await asyncio.to_thread(carrier.join)
            sock.close()
        self.peers.clear()
        self.handed_over.clear()

    def serve(self, sock: socket.socket) -> None:
        """Serve the client at the other end of ``sock``."""
        loop = asyncio.get_running_loop()

        def make_session(ready: Callable[[], None]) -> Session:
            client = client_of(self._mount, 3600.0, self._limits)
            return Session(
                client, MSIZE, loop.create_task, nothing_now, all_is_there, ready, self.room
            )

        sock.setblocking(False)
        self.connections.append(
            Connection(
                sock,
                "peer",
                sock.family == socket.AF_UNIX,
                self._limits,
                self._buffers,
                self._replies,
                self._spin,
                self.watch,
                make_session,
                self._ended,
            )
        )

    async def begin(self) -> SocketPeer:
        return await (await self.connect()).begin(MSIZE)

    def replies_queued(self) -> int:
        """Bytes of replies that nobody takes."""
        return self._replies._total

    def _ended(self, connection: Connection) -> None:
        assert connection in self.connections
        self.gone += 1
        self.ended.set()


@pytest.fixture
async def link(mount: Mount) -> AsyncIterator[Link]:
    """Connections; when they are over, nothing may be left, and no callback may have failed."""
    link = Link(mount)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: link.failures.append(context))
    yield link
    for connection in link.connections:
        connection.close("the test is over")
    await link.part()
    assert link.gone == len(link.connections)
    assert no_berth_is_taken(mount.memory.arena)
    assert not link.failures
    assert not mount.orphans


@pytest.fixture(params=["socket", "pipes"])
async def peer(request: pytest.FixtureRequest, link: Link) -> SocketPeer:
    """A peer on a unix socket, or on pipes, that has agreed on 1 MiB and attached fid ROOT."""
    connect = link.connect if request.param == "socket" else link.hand_over
    return await (await connect()).begin(MSIZE)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        return listening.accept()[0], theirs


def narrow_pair() -> tuple[socket.socket, socket.socket]:
    """Sockets that hold very little on the way to the client."""
    pair = socket.socketpair()
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return pair


async def pump(steps: int = 20) -> None:
    """Let everything happen that can."""
    for _ in range(steps):
        await asyncio.sleep(0)


async def tags(peer: SocketPeer, count: int) -> list[int]:
    """The tags of the next replies."""
    return [(await peer.reply())[0] for _ in range(count)]


# In pieces and in heaps


@pytest.mark.parametrize("pair_of", [socket.socketpair, tcp_pair])
async def test_a_request_and_its_reply(
    link: Link, pair_of: Callable[[], tuple[socket.socket, socket.socket]]
) -> None:
    peer = await (await link.connect(pair_of())).begin()
    file = await peer.create(b"file", b"data")
    assert (await peer.call(m.Tread(file, 0, 10))).data == b"data"


async def test_who_has_handed_over_sees_the_end(link: Link) -> None:
    peer = await (await link.hand_over()).begin(MSIZE)
    link.connections[0].close("the test says so")
    _, sock = link.handed_over[0]
    assert await asyncio.to_thread(sock.recv, 1) == b""
    assert await peer.is_dropped()


async def test_the_connection_ends_with_who_has_handed_over(link: Link) -> None:
    peer = await (await link.hand_over()).begin(MSIZE)
    _, sock = link.handed_over[0]
    sock.shutdown(socket.SHUT_WR)
    await until_gone(link)
    assert await peer.is_dropped()


async def test_no_descriptor_is_left_of_what_was_handed_over(link: Link) -> None:
    async def once() -> int:
        link.ended.clear()
        await (await link.hand_over()).begin(MSIZE)
        await link.part()
        await until_gone(link)
        return len(os.listdir("/proc/self/fd"))

    before = await once()
    assert await once() == before


async def test_requests_come_byte_by_byte(peer: SocketPeer) -> None:
    for byte in STATFS.frame(1) + m.Tmkdir(ROOT, b"dir", 0o755, 0).frame(2):
        peer.feed(bytes([byte]))
        await pump()
    assert await tags(peer, 2) == [1, 2]


async def test_requests_are_cut_at_every_place(peer: SocketPeer) -> None:
    stream = b"".join(STATFS.frame(tag) for tag in (1, 2, 3))
    for cut in range(len(stream)):
        peer.feed(stream[:cut])
        await pump()
        peer.feed(stream[cut:])
        assert await tags(peer, 3) == [1, 2, 3]


async def test_several_requests_in_one_send(peer: SocketPeer) -> None:
    peer.feed(b"".join(STATFS.frame(tag) for tag in range(100)))
    assert await tags(peer, 100) == list(range(100))


async def test_more_requests_in_one_send_than_one_pass_handles(peer: SocketPeer) -> None:
    count = 3 * BATCH + 5
    peer.feed(b"".join(STATFS.frame(tag) for tag in range(count)) + STATFS.frame(9999)[:8])
    assert await tags(peer, count) == list(range(count))
    peer.feed(STATFS.frame(9999)[8:])
    assert await tags(peer, 1) == [9999]


async def test_other_connections_have_their_turn_between_passes(link: Link) -> None:
    busy, other = await link.begin(), await link.begin()
    log = await busy.create(b"log", flags=c.O_WRONLY | c.O_APPEND)
    same = await other.open(b"log")
    count = 20 * BATCH
    busy.feed(b"".join(m.Twrite(log, 0, b".").frame(1) for _ in range(count)))
    assert await other.size(same) < count
    assert await tags(busy, count) == [1] * count
    assert await other.size(same) == count


@pytest.mark.parametrize("size", [SCRATCH - 1, SCRATCH, SCRATCH + 1, MSIZE])
async def test_large_frames(peer: SocketPeer, size: int) -> None:
    data = os.urandom(size - 23)
    file = await peer.create(b"file")
    for _ in range(2):  # the second time in a buffer that was used before
        assert (await peer.call(m.Twrite(file, 0, data))).count == len(data)
        read = (await peer.call(m.Tread(file, 0, MSIZE))).data
        assert read == data[: MSIZE - c.IOHDRSZ]
        data = data[::-1]


async def test_a_large_frame_with_small_ones_around_it(peer: SocketPeer) -> None:
    file = await peer.create(b"file")
    small = b"".join(STATFS.frame(tag) for tag in range(2, 50))
    for _ in range(6):
        peer.feed(STATFS.frame(0) + m.Twrite(file, 0, b"x" * 400_000).frame(1) + small)
        assert await tags(peer, 50) == list(range(50))
    assert await peer.size(file) == 400_000


async def test_large_frames_of_several_connections_interleave(link: Link) -> None:
    peers = [await link.begin() for _ in range(3)]
    files = [await peer.create(b"%d" % i) for i, peer in enumerate(peers)]
    contents = [os.urandom(500_000) for _ in peers]
    frames = [m.Twrite(file, 0, data).frame(1) for file, data in zip(files, contents, strict=True)]
    step = 100_003
    for at in range(0, len(frames[0]), step):
        for peer, frame in zip(peers, frames, strict=True):
            peer.feed(frame[at : at + step])
            await pump()
    for peer, file, data in zip(peers, files, contents, strict=True):
        assert await tags(peer, 1) == [1]
        assert (await peer.call(m.Tread(file, 0, MSIZE))).data == data


# Large writes, whose data is received where it will stay


async def test_others_are_served_while_a_large_write_comes_in(link: Link, mount: Mount) -> None:
    slow, other = await link.begin(), await link.begin()
    file = await slow.create(b"file", b"before")
    same = await other.open(b"file")
    data = os.urandom(5 * CARGO_MIN)
    frame = m.Twrite(file, 3, data).frame(1)
    for at in range(0, len(frame) - 1, CARGO_MIN - 1):
        slow.feed(frame[at : min(at + CARGO_MIN - 1, len(frame) - 1)])
        assert (await other.call(m.Tread(same, 0, 100))).data == b"before"
    assert not no_berth_is_taken(mount.memory.arena)
    slow.feed(frame[-1:])
    assert await tags(slow, 1) == [1]
    assert (await other.call(m.Tread(same, 0, MSIZE))).data == b"bef" + data


async def test_large_writes_at_all_offsets_and_at_the_end(peer: SocketPeer) -> None:
    file = await peer.create(b"file")
    log = await peer.create(b"log", flags=c.O_RDWR | c.O_APPEND)
    expected = bytearray()
    for size in (MSIZE - 24, CARGO_MIN * 3, MSIZE - 100, MSIZE - 24):
        data = os.urandom(size)
        assert (await peer.call(m.Twrite(file, len(expected), data))).count == size
        assert (await peer.call(m.Twrite(log, 0, data))).count == size
        expected += data
    for at in range(0, len(expected), 900_001):
        for fid in (file, log):
            read = await peer.call(m.Tread(fid, at, 900_001))
            assert read.data == expected[at : at + 900_001]


async def test_a_large_write_that_never_becomes_whole_changes_nothing(link: Link) -> None:
    peer, other = await link.begin(), await link.begin()
    file = await peer.create(b"file", b"before")
    same = await other.open(b"file")
    peer.feed(m.Twrite(file, 0, bytes(5 * CARGO_MIN)).frame(1)[:-1])
    await other.size(same)
    await peer.close()
    await link.ended.wait()
    assert (await other.call(m.Tread(same, 0, 100))).data == b"before"


async def test_a_large_write_is_refused_as_any_other(peer: SocketPeer) -> None:
    await peer.create(b"file")
    readable = await peer.open(b"file", flags=c.O_RDONLY)
    directory = 5
    await peer.call(m.Twalk(ROOT, directory, []))
    for fid in (readable, directory, 999):
        with raises_errno(errno.EBADF):
            await peer.call(m.Twrite(fid, 0, bytes(5 * CARGO_MIN)))
    assert await peer.size(readable) == 0


async def test_a_large_write_whose_tag_is_taken_is_refused(link: Link) -> None:
    peer, other = await link.begin(), await link.begin()
    file = await peer.create(b"file")
    same = await other.open(b"file")
    await other.call(tlock(same, c.LOCK_TYPE_WRLCK))
    peer.send(tlock(file, c.LOCK_TYPE_WRLCK, flags=c.LOCK_FLAGS_BLOCK), 7)
    await peer.size(file)
    peer.send(m.Twrite(file, 0, bytes(5 * CARGO_MIN)), 7)
    assert await peer.reply() == (7, m.Rlerror(errno.EINVAL))
    assert await peer.size(file) == 0


@pytest.mark.parametrize("count", [5 * CARGO_MIN - 1, 5 * CARGO_MIN + 1])
async def test_a_large_write_with_a_wrong_count_ends_the_connection(link: Link, count: int) -> None:
    peer = await link.begin()
    file = await peer.create(b"file")
    frame = bytearray(m.Twrite(file, 0, bytes(5 * CARGO_MIN)).frame(1))
    struct.pack_into("<I", frame, 19, count)
    with capture_logs() as logs:
        peer.feed(bytes(frame))
        await link.ended.wait()
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["protocol error"]


async def test_where_no_berth_is_left_a_large_write_is_received_whole(
    peer: SocketPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "BERTHS", 0)
    file = await peer.create(b"file")
    data = os.urandom(5 * CARGO_MIN)
    assert (await peer.call(m.Twrite(file, 0, data))).count == len(data)
    assert (await peer.call(m.Tread(file, 0, MSIZE))).data == data


class Narrow(socket.socket):
    """A socket that takes at most four buffers in one system call."""

    def sendmsg(self, buffers, *args):  # type: ignore[no-untyped-def]
        if len(buffers) > 4:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        return super().sendmsg(buffers, *args)


async def test_more_replies_than_one_system_call_takes(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "IOV_MAX", 4)
    ours, theirs = socket.socketpair()
    peer = await (await link.connect((Narrow(fileno=ours.detach()), theirs))).begin()
    peer.feed(b"".join(STATFS.frame(tag) for tag in range(100)))
    assert await tags(peer, 100) == list(range(100))


class Spurious(socket.socket):
    """A socket whose every second call would block: the loop woke it up for nothing."""

    calls = 0

    def _would_block(self) -> None:
        self.calls += 1
        if self.calls % 2:
            raise BlockingIOError(errno.EAGAIN, "not yet")

    def recv_into(self, *args, **options):  # type: ignore[no-untyped-def]
        self._would_block()
        return super().recv_into(*args, **options)

    def sendmsg(self, *args):  # type: ignore[no-untyped-def]
        self._would_block()
        return super().sendmsg(*args)

    def send(self, *args):  # type: ignore[no-untyped-def]
        self._would_block()
        return super().send(*args)


async def test_a_socket_that_is_not_ready_after_all_is_tried_again(link: Link) -> None:
    ours, theirs = socket.socketpair()
    spurious = Spurious(fileno=ours.detach())
    peer = await (await link.connect((spurious, theirs))).begin()
    file = await peer.create(b"file", b"x" * 300_000)
    assert (await peer.call(m.Tread(file, 0, MSIZE))).data == b"x" * 300_000


class Starved(socket.socket):
    """A socket that there is no memory to read from, or to send to."""

    fails = ""

    def recv_into(self, *args, **options):  # type: ignore[no-untyped-def]
        self._fail("recv_into")
        return super().recv_into(*args, **options)

    def recvmsg_into(self, *args):  # type: ignore[no-untyped-def]
        self._fail("recvmsg_into")
        return super().recvmsg_into(*args)

    def sendmsg(self, *args):  # type: ignore[no-untyped-def]
        self._fail("sendmsg")
        return super().sendmsg(*args)

    def _fail(self, call: str) -> None:
        if call == self.fails:
            raise MemoryError


@pytest.mark.parametrize("call", ["recv_into", "recvmsg_into", "sendmsg"])
async def test_who_needs_memory_that_is_not_there_is_dropped_and_others_go_on(
    link: Link, call: str
) -> None:
    ours, theirs = socket.socketpair()
    starved = Starved(fileno=ours.detach())
    peer, other = await (await link.connect((starved, theirs))).begin(), await link.begin()
    file = await peer.create(b"file", b"before")
    starved.fails = call
    with capture_logs() as logs:
        peer.send(m.Twrite(file, 0, bytes(5 * CARGO_MIN)))
        assert await peer.is_dropped()
        await other.call(STATFS)
    assert [line["event"] for line in logs] == ["out of memory", "client gone"]


# Replies that nobody reads


async def test_a_client_that_does_not_read_is_not_read_from(link: Link) -> None:
    stuck, other = await (await link.connect(narrow_pair())).begin(), await link.begin()
    file = await stuck.create(b"file", b"x" * 65536)
    log = await stuck.create(b"log", flags=c.O_WRONLY | c.O_APPEND)
    same = await other.open(b"log")
    count = 300
    stuck.feed(
        b"".join(
            m.Tread(file, 0, 65536).frame(1) + m.Twrite(log, 0, b".").frame(2) for _ in range(count)
        )
    )
    for _ in range(200):  # the server has time enough
        await other.call(STATFS)
    handled = await other.size(same)
    assert handled < count
    for _ in range(200):
        await other.call(STATFS)
    assert await other.size(same) == handled

    assert await tags(stuck, 2 * count) == [1, 2] * count
    assert await other.size(same) == count


async def test_a_reply_under_way_does_not_change_with_its_file(link: Link) -> None:
    slow, other = await (await link.connect(narrow_pair())).begin(), await link.begin()
    file = await slow.create(b"file", b"old!" * 200_000)
    same = await other.open(b"file")
    slow.send(m.Tread(file, 0, 800_000))
    start = await slow.reader.readexactly(HEADER.size)  # so the server has begun to send
    await other.call(m.Twrite(same, 0, b"new?" * 200_000))
    rest = await slow.reader.readexactly(HEADER.unpack(start)[0] - HEADER.size)
    assert rest[4:] == b"old!" * 200_000


async def test_replies_of_waiting_requests_queue_behind_unread_ones(link: Link) -> None:
    slow, other = await (await link.connect(narrow_pair())).begin(), await link.begin()
    file = await slow.create(b"file", b"x" * 900_000)
    same = await other.open(b"file")
    await other.call(tlock(same))
    slow.feed(tlock(file, flags=c.LOCK_FLAGS_BLOCK).frame(1) + m.Tread(file, 0, 900_000).frame(2))
    await pump()
    await other.call(m.Tclunk(same))  # the lock comes free while the data is under way
    await pump()
    assert sorted(await tags(slow, 2)) == [1, 2]


# The end


async def test_a_half_closed_client_gets_all_its_replies(link: Link, peer: SocketPeer) -> None:
    count = 2 * BATCH + 1
    peer.feed(b"".join(STATFS.frame(tag) for tag in range(count)))
    peer.writer.write_eof()
    assert await tags(peer, count) == list(range(count))
    assert await peer.is_dropped()
    assert link.gone == 1


async def test_a_half_closed_client_gets_large_replies_too(link: Link) -> None:
    peer = await (await link.connect(narrow_pair())).begin()
    file = await peer.create(b"file", b"x" * 900_000)
    peer.feed(b"".join(m.Tread(file, 0, 900_000).frame(tag) for tag in range(5)))
    peer.writer.write_eof()
    assert await tags(peer, 5) == list(range(5))
    assert await peer.is_dropped()


async def test_the_end_within_a_frame_ends_the_connection(peer: SocketPeer) -> None:
    peer.feed(STATFS.frame(1) + STATFS.frame(2)[:-1])
    peer.writer.write_eof()
    assert await tags(peer, 1) == [1]
    assert await peer.is_dropped()


async def test_a_client_that_leaves_is_logged_with_the_reason(link: Link) -> None:
    with capture_logs() as logs:
        peer = await link.begin()
        peer.writer.write_eof()
        assert await peer.is_dropped()
    assert logs == [
        {"event": "client connected", "log_level": "info", "peer": "peer"},
        {"event": "client gone", "log_level": "info", "peer": "peer", "why": "end of input"},
    ]


async def test_a_reset_is_logged_with_the_reason(link: Link) -> None:
    ours, theirs = tcp_pair()
    peer = await (await link.connect((ours, theirs))).begin()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with capture_logs() as logs:
        peer.abort()
        await until_gone(link)
    assert [line["why"] for line in logs] == [os.strerror(errno.ECONNRESET)]


async def until_gone(link: Link) -> None:
    """Wait until one connection has ended."""
    await asyncio.wait_for(link.ended.wait(), GUARD)


@pytest.mark.parametrize("count", [1, 2 * BATCH])
async def test_a_client_that_leaves_before_its_replies(link: Link, count: int) -> None:
    ours, theirs = socket.socketpair()
    link.serve(ours)
    theirs.send(m.Tversion(MSIZE, c.VERSION).frame(c.NOTAG) + STATFS.frame(1) * count)
    theirs.close()
    await until_gone(link)
    await pump()
    assert not link.failures


async def test_a_client_that_leaves_replies_unread(link: Link) -> None:
    peer = await (await link.connect(narrow_pair())).begin()
    file = await peer.create(b"file", b"x" * 900_000)
    peer.feed(b"".join(m.Tread(file, 0, 900_000).frame(tag) for tag in range(5)))
    await pump()
    peer.abort()
    await until_gone(link)


async def test_a_connection_that_ends_lets_go_of_everything(link: Link) -> None:
    leaving, other = await link.begin(), await link.begin()
    file = await leaving.create(b"file", b"x" * 4096)
    same = await other.open(b"file")
    await leaving.call(tlock(file))
    await other.call(m.Tunlinkat(ROOT, b"file", 0))
    leaving.writer.write_eof()
    await other.call(tlock(same, flags=c.LOCK_FLAGS_BLOCK))
    await other.call(m.Tclunk(same))
    numbers = await other.call(STATFS)
    assert numbers.bfree == numbers.blocks
    assert numbers.files - numbers.ffree == 1


async def test_a_connection_that_ends_drops_its_waiting_requests(link: Link) -> None:
    leaving, other = await link.begin(), await link.begin()
    file = await leaving.create(b"file")
    same = await other.open(b"file")
    await other.call(tlock(same))
    leaving.send(tlock(file, flags=c.LOCK_FLAGS_BLOCK), 5)
    await leaving.call(STATFS)
    leaving.writer.write_eof()
    assert await leaving.is_dropped()
    await other.call(tlock(same, c.LOCK_TYPE_UNLCK))
    assert (await other.call(tlock(same, proc=2))).status == c.LOCK_SUCCESS


async def test_a_protocol_error_is_one_warning_and_the_end(link: Link, peer: SocketPeer) -> None:
    with capture_logs() as logs:
        peer.feed(STATFS.frame(1) + HEADER.pack(0, 0, 0) + STATFS.frame(2))
        assert await tags(peer, 1) == [1]
        assert await peer.is_dropped()
    assert [line["event"] for line in logs] == ["protocol error", "client gone"]
    assert [line["log_level"] for line in logs] == ["warning", "info"]
    assert link.gone == 1


async def test_a_protocol_error_behind_replies_that_nobody_takes(link: Link) -> None:
    peer = await link.begin()
    file = await peer.create(b"file", b"x" * 900_000)
    peer.feed(m.Tread(file, 0, 900_000).frame(1) + HEADER.pack(0, 0, 0))
    assert await tags(peer, 1) == [1]
    assert await peer.is_dropped()


# Stopping


async def test_finishing_an_idle_connection_ends_it(link: Link, peer: SocketPeer) -> None:
    link.connections[0].finish()
    assert link.gone == 1
    assert await peer.is_dropped()


async def test_finishing_answers_what_has_come_in(link: Link) -> None:
    peer = await (await link.connect(narrow_pair())).begin()
    file = await peer.create(b"file", b"x" * 900_000)
    peer.send(m.Tread(file, 0, 900_000), 1)
    peer.send(STATFS, 2)
    await pump()
    link.connections[0].finish()
    assert link.gone == 0
    tag, reply = await peer.reply()
    assert (tag, len(m.Rread.frame(reply, 1))) == (1, 900_000 + 11)
    assert await tags(peer, 1) == [2]
    assert await peer.is_dropped()


async def test_who_was_answered_while_finishing_is_closed_when_he_closes(link: Link) -> None:
    """Before, what he has not read yet would be lost with what he still sends."""
    ours, theirs = tcp_pair()
    peer = await (await link.connect((ours, theirs))).begin()
    lock = await peer.create(b"lock")
    peer.send(tlock(lock, c.LOCK_TYPE_WRLCK), 1)
    peer.send(tlock(lock, c.LOCK_TYPE_WRLCK, proc=2, flags=c.LOCK_FLAGS_BLOCK), 2)
    while not link.connections[0].session._waiting:
        await pump()
    peer.feed(b"".join(STATFS.frame(tag) for tag in range(10, 20)))
    await peer.writer.drain()
    link.connections[0].finish()
    assert await tags(peer, 11) == [1, *range(10, 20)]
    assert link.gone == 0
    peer.feed(STATFS.frame(3))
    assert await peer.is_dropped()
    assert link.gone == 0
    await peer.close()
    await link.ended.wait()
    assert link.gone == 1


@pytest.mark.parametrize("size", [10, 5 * CARGO_MIN])
async def test_finishing_waits_for_the_rest_of_a_request(link: Link, size: int) -> None:
    peer, other = await link.begin(), await link.begin()
    file = await peer.create(b"file")
    same = await other.open(b"file")
    data = os.urandom(size)
    frame = m.Twrite(file, 0, data).frame(1)
    peer.feed(frame[:-1])
    await pump()
    link.connections[0].finish()
    assert await other.size(same) == 0
    peer.feed(frame[-1:])
    assert await tags(peer, 1) == [1]
    assert await peer.is_dropped()
    assert (await other.call(m.Tread(same, 0, MSIZE))).data == data


async def test_closing_twice_is_closing_once(link: Link, peer: SocketPeer) -> None:
    for _ in range(2):
        link.connections[0].close("why")
    assert link.gone == 1
    assert await peer.is_dropped()


async def test_closing_a_connection_with_requests_still_held(link: Link, peer: SocketPeer) -> None:
    log = await peer.create(b"log", flags=c.O_WRONLY | c.O_APPEND)
    peer.feed(b"".join(m.Twrite(log, 0, b".").frame(1) for _ in range(10 * BATCH)))
    await peer.reply()  # the first pass is over
    link.connections[0].close("why")
    await pump()
    assert link.gone == 1


async def test_a_piece_of_a_request_is_no_request_that_is_served(link: Link) -> None:
    """The loop would look for the next one, and take the CPU from whoever sends the rest."""
    peer = await link.begin()
    served = link._spin._served
    frame = m.Tstatfs(ROOT).frame(1)
    peer.feed(frame[:9])
    await pump()
    assert (link.connections[0]._held, link._spin._served) == (9, served)
    peer.feed(frame[9:])
    await peer.reply()
    assert link._spin._served > served


async def test_more_waits_when_what_waited_was_taken(link: Link) -> None:
    """The compiled server took for granted that nothing did, and logged a traceback."""
    peer = await (await link.connect(narrow_pair())).begin()
    (connection,) = link.connections
    replies = [m.Rread(bytes([tag]) * 500_000).frame(tag) for tag in range(3)]
    for reply in replies:  # the first is sent in part; the others come while it waits
        connection.session.out.append(reply)
        connection._replied()
    assert connection._unsent is not None
    assert len(connection.session.out) == 2
    assert await tags(peer, 3) == [0, 1, 2]
    assert (await peer.call(STATFS)).bsize > 0

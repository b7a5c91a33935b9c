"""Bad input over real sockets.

Whatever one client sends, the server answers or drops that connection with one line of warning,
goes on serving the others, and frees all that the connection held.
"""

import asyncio
import errno
import random
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.address import Tcp
from server.limits import Limits
from server.listener import Server
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import HEADER
from tests.server.peer import ROOT, SocketPeer, raises_errno, store_of
from tmpfs_core.mount import Mount

MSIZE = 65536
STATFS = m.Tstatfs(ROOT)
LAST = (1 << 64) - 1


class Bystander(SocketPeer):
    """A client that does nothing wrong, and tells what it can see."""

    async def used(self) -> tuple[int, int]:
        """Blocks and inodes in use."""
        numbers = await self.call(STATFS)
        return numbers.blocks - numbers.bfree, numbers.files - numbers.ffree


class World:
    """A server with a bystander.

    Attributes:
        logs: what the server has logged since the bystander came.
    """

    def __init__(self, address: Tcp, bystander: Bystander, logs: list[Any]) -> None:
        self.bystander = bystander
        self.logs = logs
        self.peers: list[SocketPeer] = []
        self._address = address

    async def connect(self) -> SocketPeer:
        """A client that has said nothing yet."""
        peer = await SocketPeer.connect(self._address)
        self.peers.append(peer)
        return peer

    async def begin(self) -> SocketPeer:
        return await (await self.connect()).begin()

    def warnings(self) -> list[str]:
        """What was logged beyond the coming and going of clients."""
        return [line["event"] for line in self.logs if line["log_level"] != "info"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    mount = Mount(size=16 << 20, nr_inodes=1000)
    server = Server(store_of(mount), MSIZE, Limits())
    address = server.listen(Tcp("127.0.0.1", 0))
    assert isinstance(address, Tcp)
    with capture_logs() as logs:
        bystander = await (await Bystander.connect(address)).begin()
        logs.clear()
        world = World(address, bystander, logs)
        yield world
        try:
            assert await bystander.used() == (0, 1), "a connection left something behind"
        finally:  # a server that goes on would keep its loop from ending
            for peer in (bystander, *world.peers):
                await peer.close()
            await server.stop()
    assert not failures
    assert not mount.orphans
    mount.check()


class Possessions:
    """What a client holds: an unlinked file of 4 blocks, a lock on it, and some more fids."""

    def __init__(self, bystander: Bystander, watched: int) -> None:
        self._bystander = bystander
        self._watched = watched

    @classmethod
    async def of(cls, peer: SocketPeer, bystander: Bystander) -> "Possessions":
        fid = await peer.create(b"held", b"x" * 4 * 4096)
        await peer.call(m.Tlock(fid, c.LOCK_TYPE_WRLCK, 0, 0, 0, 1, b"host"))
        for newfid in range(1, 20):
            await peer.call(m.Twalk(fid, newfid, []))
        watched = await bystander.open(b"held")
        await bystander.call(m.Tunlinkat(ROOT, b"held", 0))
        return cls(bystander, watched)

    async def are_freed(self) -> bool:
        """Wait for the lock; then the file must go with the bystander's own fid."""
        lock = m.Tlock(self._watched, c.LOCK_TYPE_WRLCK, c.LOCK_FLAGS_BLOCK, 0, 0, 2, b"host")
        granted = (await self._bystander.call(lock)).status == c.LOCK_SUCCESS
        await self._bystander.call(m.Tclunk(self._watched))
        return granted and await self._bystander.used() == (0, 1)


# Bytes that are no messages: the connection ends

CLUNK = m.Tclunk.TYPE
NO_FRAMES = {
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(50),
    "noise": random.Random(9).randbytes(4096),
    "size 0": HEADER.pack(0, CLUNK, 1),
    "size 6": HEADER.pack(6, CLUNK, 1),
    "size over msize": HEADER.pack(MSIZE + 1, CLUNK, 1),
    "size of 4 GiB": HEADER.pack(0xFFFFFFFF, CLUNK, 1),
    "short": HEADER.pack(10, CLUNK, 1) + bytes(3),
    "trailing": HEADER.pack(12, CLUNK, 1) + bytes(5),
    "name out of its frame": HEADER.pack(15, m.Twalk.TYPE, 1) + struct.pack("<II", 0, 1)[:8],
    "data out of its frame": HEADER.pack(24, m.Twrite.TYPE, 1)
    + struct.pack("<IQI", 0, 0, 0xFFFFFFFF)
    + b"x",
    "names out of their frame": HEADER.pack(17, m.Twalk.TYPE, 1)
    + struct.pack("<IIH", 0, 1, 0xFFFF),
}
every_no_frame = pytest.mark.parametrize("data", NO_FRAMES.values(), ids=NO_FRAMES)


@every_no_frame
async def test_bytes_that_are_no_message_end_the_connection(world: World, data: bytes) -> None:
    peer = await world.begin()
    held = await Possessions.of(peer, world.bystander)
    peer.feed(data)
    assert await peer.is_dropped()
    assert world.warnings() == ["protocol error"]
    assert await held.are_freed()


@every_no_frame
async def test_a_stranger_who_begins_so_is_harmless(world: World, data: bytes) -> None:
    """Before the version, a whole frame is answered with an error; what is no frame ends it."""
    peer = await world.connect()
    peer.feed(data)
    peer.writer.write_eof()
    assert all(reply == m.Rlerror(errno.EPROTO) for reply in await peer.last_replies())
    assert world.warnings() in ([], ["protocol error"])
    await world.bystander.call(STATFS)


async def test_the_warning_says_who_and_why(world: World) -> None:
    peer = await world.begin()
    host, port = peer.writer.get_extra_info("sockname")
    peer.feed(HEADER.pack(MSIZE + 1, CLUNK, 1))
    assert await peer.is_dropped()
    (line,) = [line for line in world.logs if line["log_level"] == "warning"]
    assert line["peer"] == f"{host}:{port}"
    assert str(MSIZE + 1) in line["why"]
    assert str(MSIZE) in line["why"]


async def test_requests_before_the_bad_one_are_answered(world: World) -> None:
    peer = await world.begin()
    peer.feed(STATFS.frame(1) + STATFS.frame(2) + bytes(7) + STATFS.frame(3))
    assert [(await peer.reply())[0] for _ in range(2)] == [1, 2]
    assert await peer.is_dropped()


# Silence, and sudden ends


@pytest.mark.parametrize("length", [1, 6, 7, 10, 60000])
async def test_half_a_frame_then_silence_disturbs_nobody(world: World, length: int) -> None:
    peer = await world.begin()
    held = await Possessions.of(peer, world.bystander)
    peer.feed(m.Twrite(100, 0, b"x" * 60000).frame(1)[:length])
    for _ in range(20):
        await world.bystander.call(STATFS)
    assert world.warnings() == []
    peer.abort()
    assert await held.are_freed()


async def test_a_client_that_vanishes_within_a_write_has_written_nothing(world: World) -> None:
    peer = await world.begin()
    file = await peer.create(b"file", b"whole")
    watched = await world.bystander.open(b"file")
    peer.feed(m.Twrite(file, 0, b"torn " * 10000).frame(1)[:-1])
    peer.writer.write_eof()
    assert await peer.is_dropped()
    assert (await world.bystander.call(m.Tread(watched, 0, 100))).data == b"whole"
    await world.bystander.call(m.Tremove(watched))
    assert world.warnings() == []


async def test_a_client_that_vanishes_while_it_is_answered(world: World) -> None:
    peer = await world.begin()
    held = await Possessions.of(peer, world.bystander)
    peer.feed(m.Tread(100, 0, 4 * 4096).frame(1) * 2000)
    await world.bystander.call(STATFS)
    peer.abort()
    assert await held.are_freed()
    assert world.warnings() == []


async def test_a_client_that_vanishes_while_it_waits_for_a_lock(world: World) -> None:
    bystander = world.bystander
    file = await bystander.create(b"file")
    lock = m.Tlock(file, c.LOCK_TYPE_WRLCK, c.LOCK_FLAGS_BLOCK, 0, 0, 1, b"host")
    await bystander.call(lock)
    peer = await world.begin()
    fid = await peer.open(b"file")
    peer.send(m.Tlock(fid, c.LOCK_TYPE_WRLCK, c.LOCK_FLAGS_BLOCK, 0, 0, 1, b"other"), 7)
    await peer.call(STATFS)
    peer.writer.write_eof()
    assert await peer.is_dropped()
    await bystander.call(m.Tlock(file, c.LOCK_TYPE_UNLCK, 0, 0, 0, 1, b"host"))
    assert (await bystander.call(lock)).status == c.LOCK_SUCCESS
    await bystander.call(m.Tremove(file))


async def test_many_clients_that_come_and_go_at_once(world: World) -> None:
    peers = [await world.begin() for _ in range(50)]
    for number, peer in enumerate(peers):
        file = await peer.create(b"%d" % number, b"x" * 4096)
        await world.bystander.call(m.Tunlinkat(ROOT, b"%d" % number, 0))
        peer.feed(STATFS.frame(1)[: number % 12] if number % 2 else m.Tread(file, 0, 99).frame(1))
    for peer in peers:
        peer.abort()
    while await world.bystander.used() != (0, 1):
        pass
    assert world.warnings() == []


# Requests that are refused: the connection goes on


async def is_served(peer: SocketPeer) -> bool:
    """Whether requests are answered as ever."""
    return isinstance(await peer.call(STATFS), m.Rstatfs)


async def test_a_count_larger_than_msize_is_cut(world: World) -> None:
    peer = await world.begin()
    file = await peer.create(b"file", b"x" * 60000)
    await peer.call(m.Twrite(file, 60000, b"x" * 60000))
    assert len((await peer.call(m.Tread(file, 0, 0xFFFFFFFF))).data) == MSIZE - c.IOHDRSZ
    directory = 1
    await peer.call(m.Twalk(ROOT, directory, []))
    await peer.call(m.Tlopen(directory, c.O_RDONLY))
    listing = (await peer.call(m.Treaddir(directory, 0, 0xFFFFFFFF))).data
    assert len(list(m.split_records(bytes(listing)))) == 3
    await peer.call(m.Tremove(file))


@pytest.mark.parametrize("offset", [LAST, LAST - 1, 1 << 63, (1 << 63) - 1])
async def test_offset_and_count_beyond_all_numbers(world: World, offset: int) -> None:
    peer = await world.begin()
    file = await peer.create(b"file", b"data")
    assert (await peer.call(m.Tread(file, offset, 0xFFFFFFFF))).data == b""
    with raises_errno(errno.EFBIG):
        await peer.call(m.Twrite(file, offset, b"data"))
    with raises_errno(errno.EINVAL):
        await peer.call(m.Tlock(file, c.LOCK_TYPE_WRLCK, 0, offset, LAST, 1, b"host"))
    with raises_errno(errno.EFBIG):
        await peer.call(m.Tsetattr(file, c.SETATTR_SIZE, 0, 0, 0, LAST, 0, 0, 0, 0))
    assert (await peer.call(m.Tread(file, 0, 100))).data == b"data"
    await peer.call(m.Tremove(file))


async def test_fids_that_nobody_made(world: World) -> None:
    peer = await world.begin()
    for fid in (7, c.NOFID):
        for request in (
            m.Twalk(fid, 8, []),
            m.Tlopen(fid, 0),
            m.Tlcreate(fid, b"a", 0, 0, 0),
            m.Tread(fid, 0, 1),
            m.Twrite(fid, 0, b"a"),
            m.Treaddir(fid, 0, 100),
            m.Tclunk(fid),
            m.Tremove(fid),
            m.Tgetattr(fid, 0),
            m.Tsetattr(fid, 0, 0, 0, 0, 0, 0, 0, 0, 0),
            m.Tstatfs(fid),
            m.Tfsync(fid, 0),
            m.Tlink(ROOT, fid, b"a"),
            m.Tlink(fid, ROOT, b"a"),
            m.Tmkdir(fid, b"a", 0, 0),
            m.Tmknod(fid, b"a", 0, 0, 0, 0),
            m.Tsymlink(fid, b"a", b"b", 0),
            m.Treadlink(fid),
            m.Trename(fid, ROOT, b"a"),
            m.Trename(ROOT, fid, b"a"),
            m.Trenameat(fid, b"a", ROOT, b"b"),
            m.Tunlinkat(fid, b"a", 0),
            m.Txattrwalk(fid, 8, b""),
            m.Txattrcreate(fid, b"user.a", 1, 0),
            m.Tlock(fid, 0, 0, 0, 0, 1, b""),
            m.Tgetlock(fid, 0, 0, 0, 1, b""),
        ):
            with raises_errno(errno.EBADF):
                await peer.call(request)
    assert await is_served(peer)


async def test_a_fid_in_use_is_not_made_again(world: World) -> None:
    peer = await world.begin()
    await peer.call(m.Tmkdir(ROOT, b"dir", 0o755, 0))
    await peer.call(m.Twalk(ROOT, 1, [b"dir"]))
    for request in (
        m.Tattach(1, c.NOFID, b"", b"", 0),
        m.Twalk(ROOT, 1, []),
        m.Txattrwalk(ROOT, 1, b""),
    ):
        with raises_errno(errno.EBADF):
            await peer.call(request)
    await peer.call(m.Tremove(1))


async def test_a_tag_in_flight_is_not_taken_again(world: World) -> None:
    peer = await world.begin()
    file = await peer.create(b"file")
    await peer.call(m.Tlock(file, c.LOCK_TYPE_WRLCK, 0, 0, 0, 1, b"host"))
    peer.send(m.Tlock(file, c.LOCK_TYPE_WRLCK, c.LOCK_FLAGS_BLOCK, 0, 0, 2, b"host"), 7)
    for _ in range(3):
        with raises_errno(errno.EINVAL):
            await peer.call(STATFS, tag=7)
    await peer.call(m.Tflush(7), tag=8)
    await peer.call(STATFS, tag=7)
    await peer.call(m.Tremove(file))


@pytest.mark.parametrize("tag", [0, 1, c.NOTAG])
async def test_any_tag_will_do(world: World, tag: int) -> None:
    peer = await world.begin()
    await peer.call(STATFS, tag)
    await peer.call(m.Tflush(tag), tag)


@pytest.mark.parametrize("number", [0, 1, 6, 7, 98, 106, 111, 112, 126, 127, 128, 200, 255])
async def test_an_unknown_type(world: World, number: int) -> None:
    peer = await world.begin()
    peer.feed(HEADER.pack(20, number, 3) + b"x" * 13)
    assert await peer.reply() == (3, m.Rlerror(errno.EOPNOTSUPP))
    assert await is_served(peer)
    assert world.warnings() == []


async def test_a_walk_of_17_names(world: World) -> None:
    peer = await world.begin()
    for names in ([b".."] * 17, [b""] * 1000):
        with raises_errno(errno.EINVAL):
            await peer.call(m.Twalk(ROOT, 1, names))
    with raises_errno(errno.EBADF):
        await peer.call(m.Tclunk(1))


@pytest.mark.parametrize("name", [b"a/b", b"/", b"a\0b", b"\0", b"", b"x" * 256])
async def test_names_that_can_not_be(world: World, name: bytes) -> None:
    peer = await world.begin()
    code = errno.ENAMETOOLONG if len(name) > 255 else errno.EINVAL
    for request in (
        m.Twalk(ROOT, 1, [name]),
        m.Tmkdir(ROOT, name, 0o755, 0),
        m.Tlcreate(ROOT, name, c.O_RDWR, 0o644, 0),
    ):
        with raises_errno(code):
            await peer.call(request)
    assert await is_served(peer)
    assert world.warnings() == []


@pytest.mark.parametrize("cookie", [3, 77, 1 << 31, 1 << 63, LAST])
async def test_a_listing_from_a_cookie_that_was_made_up(world: World, cookie: int) -> None:
    peer = await world.begin()
    await peer.call(m.Tmkdir(ROOT, b"dir", 0o755, 0))
    await peer.call(m.Twalk(ROOT, 1, []))
    await peer.call(m.Tlopen(1, c.O_RDONLY))
    listing = bytes((await peer.call(m.Treaddir(1, cookie, 4096))).data)
    assert [name for *_, name in m.split_records(listing)] in ([], [b"dir"])
    await peer.call(m.Tunlinkat(ROOT, b"dir", c.AT_REMOVEDIR))


async def test_a_write_on_a_directory(world: World) -> None:
    peer = await world.begin()
    await peer.call(m.Twalk(ROOT, 1, []))
    with raises_errno(errno.EISDIR):
        await peer.call(m.Tlopen(1, c.O_WRONLY))
    with raises_errno(errno.EBADF):
        await peer.call(m.Twrite(1, 0, b"data"))
    await peer.call(m.Tlopen(1, c.O_RDONLY))
    with raises_errno(errno.EBADF):
        await peer.call(m.Twrite(1, 0, b"data"))
    with raises_errno(errno.EISDIR):
        await peer.call(m.Tread(1, 0, 100))


async def test_requests_before_the_version(world: World) -> None:
    peer = await world.connect()
    for request in (STATFS, m.Tattach(ROOT, c.NOFID, b"", b"", 0), m.Tclunk(ROOT), m.Tflush(1)):
        with raises_errno(errno.EPROTO):
            await peer.call(request)
    await peer.begin()


async def test_versions_without_end(world: World) -> None:
    peer = await world.begin()
    held = await Possessions.of(peer, world.bystander)
    for number in range(200):
        await peer.call(m.Tversion(8192, b"9P2000" if number % 2 else c.VERSION), number)
    await peer.begin()
    assert await held.are_freed()
    assert await is_served(peer)


# Very much


async def test_ten_thousand_fids_left_open(world: World) -> None:
    peer = await world.begin()
    file = await peer.create(b"file", b"x" * 4096)
    fids = range(1000, 11_000)
    step = 500
    for start in range(fids.start, fids.stop, step):
        peer.feed(b"".join(m.Twalk(file, fid, []).frame(1) for fid in fids[start - 1000 :][:step]))
        for _ in range(step):
            assert await peer.reply() == (1, m.Rwalk([]))
    assert await is_served(peer)
    await world.bystander.call(m.Tunlinkat(ROOT, b"file", 0))
    assert await world.bystander.used() == (1, 2)
    peer.writer.write_eof()
    assert await peer.is_dropped()
    assert await world.bystander.used() == (0, 1)
    assert world.warnings() == []


async def test_ten_thousand_flushes(world: World) -> None:
    peer = await world.begin()
    file = await peer.create(b"file")
    await peer.call(m.Tlock(file, c.LOCK_TYPE_WRLCK, 0, 0, 0, 1, b"host"))
    wait = m.Tlock(file, c.LOCK_TYPE_WRLCK, c.LOCK_FLAGS_BLOCK, 0, 0, 2, b"host")
    peer.feed(wait.frame(7) + b"".join(m.Tflush(7).frame(tag) for tag in range(100, 10_100)))
    assert [(await peer.reply())[0] for _ in range(10_000)] == list(range(100, 10_100))
    await peer.call(m.Tremove(file))


async def test_names_and_inodes_run_out_for_everyone_and_come_back(world: World) -> None:
    peer = await world.begin()
    for number in range(999):
        peer.send(m.Tmkdir(ROOT, b"%d" % number, 0o755, 0))
        assert isinstance((await peer.reply())[1], m.Rmkdir)
    with raises_errno(errno.ENOSPC):
        await world.bystander.call(m.Tmkdir(ROOT, b"one more", 0o755, 0))
    for number in range(999):
        await world.bystander.call(m.Tunlinkat(ROOT, b"%d" % number, c.AT_REMOVEDIR))
    assert await is_served(peer)


# Noise of every kind, on one connection after another


@pytest.mark.parametrize("seed", range(5))
async def test_frames_with_flipped_bytes_disturb_nobody(world: World, seed: int) -> None:
    dice = random.Random(seed)
    script = [
        m.Twalk(ROOT, 1, []),
        m.Tlcreate(1, b"file", c.O_RDWR, 0o600, 0),
        m.Twrite(1, 0, b"some data"),
        m.Tread(1, 0, 100),
        m.Tlock(1, c.LOCK_TYPE_WRLCK, c.LOCK_FLAGS_BLOCK, 0, 0, 1, b"host"),
        m.Tgetattr(1, c.GETATTR_ALL),
        m.Txattrcreate(1, b"user.a", 3, 0),
        m.Tremove(1),
    ]
    for _ in range(10):
        peer = await world.begin()
        stream = bytearray(b"".join(request.frame(1) for request in script))
        for _ in range(dice.randint(1, 5)):
            stream[dice.randrange(len(stream))] = dice.randrange(256)
        peer.feed(bytes(stream))
        peer.writer.write_eof()
        await peer.last_replies()
        assert await is_served(world.bystander)
    assert set(world.warnings()) <= {"protocol error"}
    for *_, name in await names(world.bystander):
        await world.bystander.call(m.Tunlinkat(ROOT, name, 0))


async def names(peer: SocketPeer) -> list[tuple[Any, int, int, bytes]]:
    """The records of the root, without ``.`` and ``..``."""
    await peer.call(m.Twalk(ROOT, 9, []))
    await peer.call(m.Tlopen(9, c.O_RDONLY))
    listing = bytes((await peer.call(m.Treaddir(9, 2, MSIZE))).data)
    await peer.call(m.Tclunk(9))
    return list(m.split_records(listing))

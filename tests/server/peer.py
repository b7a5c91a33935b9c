"""Peers: clients for tests, one without a socket and one with.

Both turn an error into ``OSError(errno)``, so that a test reads like a program on a mount, and
understand the dialect that was agreed on.
"""

import asyncio
import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import pytest

from server.address import Tcp, Unix
from server.dialects import NATIVE, dialect_of
from server.exports import Export, Exports
from server.fids import Client
from server.identity import Peer as Identity
from server.limits import Limits
from server.meter import Meter
from server.room import Room
from server.session import Session
from server.store import Store
from server.wire import constants as c
from server.wire import legacy
from server.wire import messages as m
from server.wire.codec import HEADER, MESSAGES, Message, Qid, Table, parse
from server.wire.own import OWN
from tmpfs_core.mount import Mount
from tmpfs_core.vnode import NotResident

#: The fid that every peer attaches.
ROOT = 0
UNKNOWN = 9999  # a fid that nobody made
DEFAULT = Limits()
#: Seconds until a test that gets no answer fails.
GUARD = 30.0

O_NOFOLLOW = 0o400000


@contextmanager
def raises_errno(code: int) -> Iterator[None]:
    """What is inside must be refused with this errno."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 the errno is compared below
        yield
    assert caught.value.errno == code, f"refused with {caught.value}, not {os.strerror(code)}"


#: The errno that a text of strerror(3) tells.
ERRNO = {os.strerror(code).encode(): code for code in sorted(errno.errorcode, reverse=True)}
#: The messages of each dialect.
DIALECTS: dict[bytes, Table] = {
    c.VERSION: MESSAGES,
    c.VERSION_OWN: OWN,
    c.VERSION_UNIX: legacy.UNIX,
    c.VERSION_PLAIN: legacy.PLAIN,
}


def code_of(reply: Message) -> int | None:
    """The errno that a reply refuses its request with; None if it does not."""
    if isinstance(reply, m.Rlerror):
        return reply.ecode
    if isinstance(reply, legacy.Rerror):
        code = ERRNO[reply.ename]
        assert not isinstance(reply, legacy.RerrorUnix) or reply.errno == code
        return code
    return None


def result(request: Message, reply: Message) -> Any:
    """The reply, which must be the one to this request."""
    code = code_of(reply)
    if code is not None:
        raise OSError(code, os.strerror(code))
    assert reply.TYPE == request.TYPE + 1
    return reply


def nothing_now(absent: NotResident) -> bool:
    """Whatever is absent has to be waited for."""
    return False


async def all_is_there(absent: NotResident) -> None:
    """What provides for the requests on a mount without swap, where nothing can be absent."""
    raise AssertionError(absent)


class Stream:
    """Cuts the bytes that a server sends into replies, none of them larger than msize.

    Attributes:
        messages: of the dialect that was asked for.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._msize = c.MSIZE_MIN
        self.messages = MESSAGES

    def asked(self, message: Message) -> None:
        """Replies to this request, and those behind it, come next."""
        if isinstance(message, m.Tversion):
            self.messages = DIALECTS[(dialect_of(message.version) or NATIVE).version]

    def cut(self, data: bytes) -> list[tuple[int, Message]]:
        self._rest += data
        replies = []
        while len(self._rest) >= HEADER.size:
            size = HEADER.unpack_from(self._rest)[0]
            if len(self._rest) < size:
                break
            tag, reply = parse(self._rest[:size], self.messages)
            self._rest = self._rest[size:]
            if isinstance(reply, m.Rversion):
                self._msize = reply.msize
            assert size <= self._msize, f"{type(reply).__name__} of {size} bytes"
            replies.append((tag, reply))
        return replies


def store_of(mount: Mount) -> Store:
    """A store whose one export this is."""
    store = Store(mount.memory, DEFAULT.max_depth)
    store.put(Export("", mount))
    return store


def room_of(size: int = 1 << 30) -> Room:
    """Room for which nobody waits."""
    return Room(size, nothing_soon)


def nothing_soon(call: Callable[[], None]) -> None:
    raise AssertionError(call)


def client_of(
    mount: Mount, lock_wait: float, limits: Limits = DEFAULT, state: Room | None = None
) -> Client:
    """The state of a client of this one export."""
    exports = Exports([Export("", mount)])
    identity = Identity("peer", 0, True, None)
    return Client(exports, identity, lock_wait, limits, state or room_of())


class Peer:
    """A client whose requests go straight into a session of its own.

    Attributes:
        meter: counts its requests.
        arrived: the replies not taken yet, with their tags, in the order in which they came.
        unread: after a protocol error, nothing; else the bytes of an unfinished frame.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        mount: Mount,
        msize: int,
        lock_wait: float,
        limits: Limits,
    ) -> None:
        self.meter = Meter()
        self.session = Session(
            client_of(mount, lock_wait, limits),
            msize,
            loop.create_task,
            nothing_now,
            all_is_there,
            self._collect,
            room_of(),
            self.meter,
        )
        self.arrived: list[tuple[int, Message]] = []
        self.unread = b""
        self._loop = loop
        self._stream = Stream()
        self._news = asyncio.Event()
        self._fids = itertools.count(100)

    # Requests and replies

    def call(self, message: Message, tag: int = 1) -> Any:
        """The reply to this request.

        Raises:
            OSError: it was refused.
        """
        self.send(message, tag)
        return result(message, self.reply(tag))

    def send(self, message: Message, tag: int = 1) -> None:
        """Make this request; its reply comes to :attr:`arrived`, perhaps later."""
        self._stream.asked(message)
        self.feed(message.frame(tag))

    def feed(self, data: bytes) -> None:
        """Let these bytes come in."""
        self._loop.run_until_complete(self._feed(data))

    def reply(self, tag: int) -> Message:
        """Take the first reply with this tag, as soon as there is one."""
        return self._loop.run_until_complete(self._reply(tag))

    def settle(self, steps: int = 10) -> list[tuple[int, Message]]:
        """Let everything run that can, or only some steps; take all replies that there are then."""
        for _ in range(steps):
            self._loop.run_until_complete(asyncio.sleep(0))
        arrived, self.arrived = self.arrived, []
        return arrived

    def close(self) -> None:
        """End the connection."""
        self.session.close()
        self.settle()

    async def _feed(self, data: bytes) -> None:
        buffer = bytearray(self.unread + data)
        self.unread = b""
        start = 0
        try:
            while start < len(buffer):
                start = self.session.receive(memoryview(buffer), start, len(buffer))
                self._collect()
                if self.session.needed:
                    break
            self.unread = bytes(buffer[start:])
        finally:
            buffer[:] = b"\xee" * len(buffer)  # who kept a view of it finds nothing there
            self._collect()

    def _collect(self) -> None:
        data = b"".join(self.session.out)
        self.session.out.clear()
        self.arrived += self._stream.cut(data)
        self._news.set()

    async def _reply(self, tag: int) -> Message:
        async with asyncio.timeout(GUARD):
            while True:
                for place, (arrived, reply) in enumerate(self.arrived):
                    if arrived == tag:
                        del self.arrived[place]
                        return reply
                self._news.clear()
                await self._news.wait()

    # What most tests begin with

    def begin(self, msize: int = 1 << 24) -> Self:
        """Agree on a version and attach fid ROOT as root."""
        self.call(m.Tversion(msize, c.VERSION), c.NOTAG)
        self.attach(ROOT)
        return self

    def attach(self, fid: int, uid: int = 0) -> Qid:
        qid: Qid = self.call(m.Tattach(fid, c.NOFID, b"", b"", uid)).qid
        return qid

    def walk(self, *names: bytes, start: int = ROOT) -> int:
        """A new fid for what these names lead to."""
        fid = next(self._fids)
        walked = self.call(m.Twalk(start, fid, list(names)))
        if len(walked.qids) < len(names):
            raise FileNotFoundError(2, f"only {len(walked.qids)} of {names} are there")
        return fid

    def open(self, *names: bytes, flags: int = c.O_RDWR, start: int = ROOT) -> int:
        """A new fid, opened, for what these names lead to."""
        fid = self.walk(*names, start=start)
        self.call(m.Tlopen(fid, flags))
        return fid

    def create(
        self, name: bytes, data: bytes = b"", flags: int = c.O_RDWR, parent: int = ROOT
    ) -> int:
        """A new fid, opened, for a new file that holds ``data``."""
        fid = self.walk(start=parent)
        self.call(m.Tlcreate(fid, name, flags | c.O_EXCL, 0o644, 0))
        if data:
            assert self.write(fid, data) == len(data)
        return fid

    def mkdir(self, name: bytes, parent: int = ROOT) -> int:
        """A new fid for a new directory."""
        self.call(m.Tmkdir(parent, name, 0o755, 0))
        return self.walk(name, start=parent)

    def clunk(self, fid: int) -> None:
        self.call(m.Tclunk(fid))

    def unlink(self, name: bytes, parent: int = ROOT, flags: int = 0) -> None:
        self.call(m.Tunlinkat(parent, name, flags))

    # What tests look at

    def stat(self, fid: int) -> Any:
        return self.call(m.Tgetattr(fid, c.GETATTR_ALL))

    def statfs(self) -> Any:
        return self.call(m.Tstatfs(ROOT))

    def read(self, fid: int, offset: int = 0, count: int = 1 << 24) -> bytes:
        data: bytes = self.call(m.Tread(fid, offset, count)).data
        return data

    def write(self, fid: int, data: bytes, offset: int = 0) -> int:
        count: int = self.call(m.Twrite(fid, offset, data)).count
        return count

    def exists(self, *names: bytes) -> bool:
        try:
            self.clunk(self.walk(*names))
        except FileNotFoundError:
            return False
        return True

    def listing(
        self, fid: int, offset: int = 0, count: int = 4096
    ) -> list[tuple[Qid, int, int, bytes]]:
        """All records of a directory, as (qid, cookie, d_type, name)."""
        records: list[tuple[Qid, int, int, bytes]] = []
        while data := self.call(m.Treaddir(fid, offset, count)).data:
            records += m.split_records(data)
            offset = records[-1][1]
        return records

    def names(self, *path: bytes) -> list[bytes]:
        """The names in a directory, without ``.`` and ``..``."""
        fid = self.open(*path, flags=c.O_RDONLY)
        names = [name for _, _, _, name in self.listing(fid)]
        self.clunk(fid)
        assert names[:2] == [b".", b".."]
        return names[2:]


#: Makes a peer that has begun, given (msize, lock_wait, begin, limits).
MakePeer = Callable[..., Peer]


@contextmanager
def peers_of(mount: Mount, debug: bool = True) -> Iterator[MakePeer]:
    """Peers of one file system; when they are gone, nothing may be left of what they held.

    Their loop notices calls from the wrong thread, which takes several times as long, if ``debug``.
    """
    with asyncio.Runner(debug=debug) as runner:
        made: list[Peer] = []

        def make(
            msize: int = 1 << 20,
            lock_wait: float = 3600.0,
            begin: bool = True,
            limits: Limits = DEFAULT,
        ) -> Peer:
            made.append(Peer(runner.get_loop(), mount, msize, lock_wait, limits))
            return made[-1].begin() if begin else made[-1]

        yield make
        for peer in made:
            peer.close()
    assert not mount.orphans
    mount.check()


class SocketPeer:
    """A client on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._stream = Stream()
        self._arrived: list[tuple[int, Message]] = []
        self._fids = itertools.count(100)

    @classmethod
    async def connect(cls, address: Tcp | Unix) -> Self:
        if isinstance(address, Unix):
            return cls(*await asyncio.open_unix_connection(address.path))
        return cls(*await asyncio.open_connection(address.host, address.port))

    async def begin(self, msize: int = 1 << 24, export: bytes = b"") -> Self:
        await self.call(m.Tversion(msize, c.VERSION), c.NOTAG)
        await self.call(m.Tattach(ROOT, c.NOFID, b"", export, 0))
        return self

    async def create(self, name: bytes, data: bytes = b"", flags: int = c.O_RDWR) -> int:
        """A new fid, opened, for a new file in the root that holds ``data``."""
        fid = next(self._fids)
        await self.call(m.Twalk(ROOT, fid, []))
        await self.call(m.Tlcreate(fid, name, flags | c.O_EXCL, 0o644, 0))
        if data:
            assert (await self.call(m.Twrite(fid, 0, data))).count == len(data)
        return fid

    async def open(self, name: bytes, flags: int = c.O_RDWR) -> int:
        """A new fid, opened, for a file in the root."""
        fid = next(self._fids)
        await self.call(m.Twalk(ROOT, fid, [name]))
        await self.call(m.Tlopen(fid, flags))
        return fid

    async def size(self, fid: int) -> int:
        size: int = (await self.call(m.Tgetattr(fid, c.GETATTR_BASIC))).size
        return size

    async def call(self, message: Message, tag: int = 1) -> Any:
        """The reply to this request, which must be the next to come.

        Raises:
            OSError: it was refused.
        """
        self.send(message, tag)
        answered, reply = await self.reply()
        assert answered == tag
        return result(message, reply)

    def send(self, message: Message, tag: int = 1) -> None:
        self._stream.asked(message)
        self.feed(message.frame(tag))

    def feed(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> tuple[int, Message]:
        """The next reply and its tag.

        Raises:
            ConnectionError: the server ended the connection.
        """
        async with asyncio.timeout(GUARD):
            while not self._arrived:
                data = await self.reader.read(1 << 20)
                if not data:
                    raise ConnectionError("the server ended the connection")
                self._arrived = self._stream.cut(data)
        return self._arrived.pop(0)

    async def last_replies(self) -> list[Message]:
        """All replies until the server ends the connection."""
        replies = []
        with suppress(ConnectionError):
            while True:
                replies.append((await self.reply())[1])
        return replies

    async def is_dropped(self) -> bool:
        """Whether the server ends this connection rather than say anything more."""
        return await self.last_replies() == []

    async def close(self) -> None:
        """Close this end."""
        self.writer.close()
        with suppress(ConnectionError):
            async with asyncio.timeout(GUARD):
                await self.writer.wait_closed()

    def abort(self) -> None:
        """Vanish, as a client that crashed."""
        self.writer.transport.abort()

    def reset(self) -> None:
        """Vanish with a reset (RST), on TCP."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

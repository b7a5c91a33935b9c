"""Connection: requests to a server, and their replies.

Rules of this file:

* Any number of requests may be on their way; a reply belongs to the request whose tag it bears.
* Requests that are made together go out together, and who made them is woken up once.
* A request for whose reply nobody waits goes out with the next one, or after a moment: whatever
  carries it is not woken up for that alone.
* A call that is cancelled flushes its request; neither of the two tags is used again before the
  server has answered the Tflush, after which nothing more comes for the other (flush(5)).
* There are fewer calls than tags, so that each may be followed by a Tflush and a Tclunk.
* When the connection ends, or the server breaks the protocol, whoever waits for a reply is told so
  by ConnectionError, and so is whoever calls later.
"""

import asyncio
import errno
import os
import ssl
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self, cast

from server.wire.codec import HEADER, Malformed, Message
from server.wire.constants import MSIZE_MIN, NOTAG, VERSION, VERSION_OWN
from server.wire.entries import split_two
from server.wire.messages import Rgetattr, Rlerror, Rread, Rreaddir, Tflush, Tversion, Twrite
from server.wire.own import OWN, Rcreateplus, Rreaddirplus
from server.wire.primitives import Buffer

from .attributes import stat_of
from .errors import UnreachableError

#: Bytes that may be received beyond one reply of the largest size.
ROOM = 262144

#: Seconds for a carrier that has ended to say why; what it leaves behind may hold its errors open.
TOLD = 1.0

#: Seconds for which a request for whose reply nobody waits may stay here.
MOMENT = 0.01

#: Calls that may be on their way.
CALLS_MAX = NOTAG // 4

#: Connects a protocol that it makes to the server.
Dial = Callable[[Callable[[], "Connection"]], Awaitable["Connection"]]

#: Is told of the reply to a request: the message, or what :meth:`Connection.call` raises.
Done = Callable[[Any], None]


class Call:
    """A request on its way.

    Attributes:
        kind: what it is.
        done: is told of its reply, or that it is lost.
        flushed: nobody waits for it any more.
    """

    __slots__ = ("done", "flushed", "kind")

    def __init__(self, kind: type[Message], done: Done) -> None:
        self.kind = kind
        self.done = done
        self.flushed = False


class Batch:
    """Requests that are made together: the replies that are here, and what waits for all."""

    __slots__ = ("_missing", "_replies", "_whole")

    def __init__(self, count: int, whole: "asyncio.Future[list[Any]]") -> None:
        self._missing = count
        self._replies: list[Any] = [None] * count
        self._whole = whole

    def came(self, number: int, reply: Any) -> None:
        """The reply to one is here, or the connection has ended."""
        self._replies[number] = reply
        self._missing -= 1
        if self._whole.done():
            return  # it is cancelled, or lost
        if isinstance(reply, ConnectionError):
            self._whole.set_exception(reply)
        elif not self._missing:
            self._whole.set_result(self._replies)


class Connection(asyncio.BufferedProtocol):
    """A connection to a server; made by :meth:`open`.

    Attributes:
        msize: the largest message, in bytes.
        plus: whether the server speaks this project's own dialect.
        carrier: the process that carries it, if one does.
        telling: what tells of that process' errors.
    """

    def __init__(self, msize: int) -> None:
        self.msize = msize
        self.plus = False
        self.carrier: Process | None = None
        self.telling: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(msize + ROOM))
        self._held = 0  # the buffer begins with so many bytes of replies that are not whole
        self._calls: dict[int, Call] = {}
        self._tags = list(range(NOTAG - 1, -1, -1))  # those that are free; the next is the last
        self._unsent: list[Buffer] = []
        self._sends_soon = False
        self._why: Exception | None = None
        self._ended = self._loop.create_future()
        self._writable = asyncio.Event()
        self._writable.set()
        self._turn = asyncio.Lock()
        self._waiting = 0  # so many wait until the transport takes more

    @classmethod
    async def open(cls, dial: Dial, msize: int) -> Self:
        """Connect, and agree with the server on 9P2000.L and on the largest message.

        Raises:
            UnreachableError: no connection can be made now.
            OSError: EPROTONOSUPPORT, the server does not speak 9P2000.L; its certificate is wrong.
        """
        try:
            made = await dial(lambda: cls(msize))
        except ssl.SSLError:
            raise
        except OSError as error:
            raise UnreachableError(error.errno, error.strerror or str(error)) from error
        assert isinstance(made, cls)
        try:
            for dialect in (VERSION_OWN, VERSION):
                (version,) = await made._ask([NOTAG], [(Tversion, msize, dialect)])
                if isinstance(version, OSError) or version.version != dialect:
                    continue
                if MSIZE_MIN <= version.msize <= msize:
                    break
            else:
                raise OSError(errno.EPROTONOSUPPORT, f"the server answers {version}")
        except BaseException:
            await made.close()
            raise
        made.msize = version.msize
        made.plus = dialect == VERSION_OWN
        return made

    @property
    def is_open(self) -> bool:
        return self._why is None

    @property
    def _has_to_wait(self) -> bool:
        """Whether a request can not go out now: the transport takes no more, or others wait."""
        return self._waiting > 0 or not self._writable.is_set()

    async def close(self) -> None:
        """End the connection."""
        self._fail(ConnectionAbortedError(errno.ECONNABORTED, "the connection is closed"))
        await self._ended
        if self.carrier is not None:
            with suppress(ProcessLookupError):
                self.carrier.terminate()
            await self.carrier.wait()
        if self.telling is not None:
            await asyncio.wait([self.telling], timeout=TOLD)
            self.telling.cancel()

    async def call(self, kind: type[Message], *fields: Any) -> Any:
        """The reply to a request; data that it writes must not change before it is here.

        That to a Tgetattr is a :class:`.Stat`, to a Tcreateplus two of them; any other is the
        message.

        Raises:
            OSError: the server refused it; EAGAIN, too many are on their way.
            ConnectionError: the connection has ended; whether it was done is unknown.
        """
        (reply,) = await self.batch([(kind, *fields)])
        if isinstance(reply, OSError):
            raise reply
        return reply

    async def batch(self, requests: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies to requests that are made together, in their order.

        Args:
            requests: of each, the kind and its fields.

        Returns:
            Of each what :meth:`call` returns; for what the server has refused, the OSError.

        Raises:
            OSError: EAGAIN, too many are on their way.
            ConnectionError: the connection has ended; what was done is unknown.
        """
        if self._has_to_wait:
            self._waiting += 1
            try:
                async with self._turn:  # in the order in which they came
                    await self._writable.wait()
            finally:
                self._waiting -= 1
        if len(self._calls) + len(requests) > CALLS_MAX:
            raise OSError(errno.EAGAIN, "too many requests are on their way")
        return await self._ask([self._tags.pop() for _ in requests], requests)

    def post(self, done: Done, kind: type[Message], *fields: Any) -> None:
        """Make a request to whose reply only matters that it has come.

        It goes out when :meth:`send` is called, or another request is made, or after ``MOMENT``.
        """
        if not self.is_open:
            return
        if not self._tags:
            self._fail(ConnectionAbortedError(errno.ECONNABORTED, "nothing is answered"))
            return
        self._enter(self._tags.pop(), done, kind, fields)
        if not self._sends_soon:
            self._sends_soon = True
            self._loop.call_later(MOMENT, self._send_soon)

    def begin(self, done: Done, kind: type[Message], *fields: Any) -> bool:
        """Make a request; whether it is made: it is not if it would have to wait."""
        if self._has_to_wait or not self.is_open or len(self._calls) >= CALLS_MAX:
            return False
        self._enter(self._tags.pop(), done, kind, fields)
        self.send()
        return True

    def _send_soon(self) -> None:
        self._sends_soon = False
        self.send()

    def send(self) -> None:
        """What was posted goes out now."""
        unsent, self._unsent = self._unsent, []
        if unsent and self.is_open:
            assert self._transport is not None
            self._transport.writelines(unsent)

    async def _ask(self, tags: list[int], requests: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self._transport is None or not self.is_open:
            raise self._lost()
        whole: asyncio.Future[list[Any]] = self._loop.create_future()
        batch = Batch(len(tags), whole)
        calls = [
            self._enter(tag, partial(batch.came, number), kind, fields)
            for number, (tag, (kind, *fields)) in enumerate(zip(tags, requests, strict=True))
        ]
        self.send()
        try:
            return await whole
        except asyncio.CancelledError:
            for tag, call in zip(tags, calls, strict=True):
                if self._calls.get(tag) is call:
                    call.flushed = True
                    self.post(partial(self._flushed, tag), Tflush, tag)
            self.send()
            raise

    def _enter(self, tag: int, done: Done, kind: type[Message], fields: Sequence[Any]) -> Call:
        """A request that is to be sent."""
        call = Call(kind, done)
        self._calls[tag] = call
        if kind is Twrite:
            fid, offset, data = fields
            self._unsent += (Twrite.head(tag, fid, offset, len(data)), data)
        else:
            self._unsent.append(kind.pack(tag, *fields))
        return call

    def _flushed(self, tag: int, _: Any) -> None:
        """A request is over, whether it was done or not."""
        self._end(tag)

    def _end(self, tag: int) -> None:
        """The request with this tag is over; the next may have the tag."""
        if self._calls.pop(tag, None) is not None and tag != NOTAG:
            self._tags.append(tag)

    def _lost(self) -> ConnectionResetError:
        return ConnectionResetError(errno.ECONNRESET, str(self._why))

    def _fail(self, why: Exception) -> None:
        """End the connection."""
        self._why = self._why or why
        assert self._transport is not None
        self._transport.abort()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none

    def connection_lost(self, error: Exception | None) -> None:
        self._why = self._why or error or EOFError("the server has ended the connection")
        self._ended.set_result(None)
        self._writable.set()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.done(self._lost())

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[self._held :]

    def buffer_updated(self, nbytes: int) -> None:
        start, stop = 0, self._held + nbytes
        try:
            while stop - start >= HEADER.size:
                size, kind, tag = HEADER.unpack_from(self._buffer, start)
                if not HEADER.size <= size <= self.msize:
                    raise Malformed(f"a frame of {size} bytes")
                if stop - start < size:
                    break
                self._answered(kind, tag, self._buffer, start + HEADER.size, start + size)
                start += size
        except Malformed as malformed:
            self._fail(malformed)
            return
        self._held = stop - start
        if start and self._held:
            self._buffer[: self._held] = self._buffer[start:stop]

    def _answered(self, kind: int, tag: int, buffer: Buffer, at: int, end: int) -> None:
        """A reply has come.

        Raises:
            Malformed: it is none that could come.
        """
        call = self._calls.get(tag)
        if call is None or kind not in (call.kind.TYPE + 1, Rlerror.TYPE):
            raise Malformed(f"a reply of type {kind} and tag {tag}")
        declared = OWN[kind]
        fields = declared.unpack(buffer, at, end)
        if call.flushed:
            return  # its tag is free when the Tflush is answered
        reply: Any
        if declared is Rlerror:
            (code,) = fields
            reply = OSError(code, os.strerror(code))
        elif declared is Rgetattr:
            reply = stat_of(fields)
        elif declared in (Rread, Rreaddir):
            reply = declared(bytes(fields[0]))
        elif declared is Rcreateplus:
            reply = tuple(map(stat_of, split_two(fields[0])))
        elif declared is Rreaddirplus:
            reply = Rreaddirplus(fields[0], bytes(fields[1]))
        else:
            reply = declared(*fields)
        self._end(tag)
        call.done(reply)

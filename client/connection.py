"""Connection: requests to a server, and their replies.

Rules of this file:

* Any number of requests may be on their way; a reply belongs to the request whose tag it bears.
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
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, cast

from server.wire.codec import HEADER, MESSAGES, Malformed, Message
from server.wire.constants import MSIZE_MIN, NOTAG, VERSION
from server.wire.messages import Rlerror, Rread, Rreaddir, Tflush, Tversion, Twrite
from server.wire.primitives import Buffer

from .errors import UnreachableError

#: Bytes that may be received beyond one reply of the largest size.
ROOM = 262144

#: Calls that may be on their way.
CALLS_MAX = NOTAG // 4

#: Connects a protocol that it makes to the server.
Dial = Callable[[Callable[[], "Connection"]], Awaitable["Connection"]]


@dataclass(slots=True)
class Call:
    """A request on its way."""

    kind: type[Message]
    reply: asyncio.Future[Any]


class Connection(asyncio.BufferedProtocol):
    """A connection to a server; made by :meth:`open`.

    Attributes:
        msize: the largest message, in bytes.
        carrier: the process that carries it, if one does.
    """

    def __init__(self, msize: int) -> None:
        self.msize = msize
        self.carrier: Process | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(msize + ROOM))
        self._held = 0  # the buffer begins with so many bytes of replies that are not whole
        self._calls: dict[int, Call] = {}
        self._tags = list(range(NOTAG - 1, -1, -1))  # those that are free; the next is the last
        self._why: Exception | None = None
        self._ended = self._loop.create_future()
        self._writable = asyncio.Event()
        self._writable.set()

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
            version = await made._ask(NOTAG, Tversion, (msize, VERSION))
            if version.version != VERSION or not MSIZE_MIN <= version.msize <= msize:
                raise OSError(errno.EPROTONOSUPPORT, f"the server answers {version}")
        except BaseException:
            await made.close()
            raise
        made.msize = version.msize
        return made

    @property
    def is_open(self) -> bool:
        return self._why is None

    async def close(self) -> None:
        """End the connection."""
        self._fail(ConnectionAbortedError(errno.ECONNABORTED, "the connection is closed"))
        await self._ended
        if self.carrier is not None:
            with suppress(ProcessLookupError):
                self.carrier.terminate()
            await self.carrier.wait()

    async def call(self, kind: type[Message], *fields: Any) -> Any:
        """The reply to a request; data that it writes must not change before it is here.

        Raises:
            OSError: the server refused it; EAGAIN, too many are on their way.
            ConnectionError: the connection has ended; whether it was done is unknown.
        """
        await self._writable.wait()
        if len(self._calls) >= CALLS_MAX:
            raise OSError(errno.EAGAIN, "too many requests are on their way")
        return await self._ask(self._tags.pop(), kind, fields)

    def post(self, done: Callable[[], None], kind: type[Message], *fields: Any) -> None:
        """Make a request to whose reply only matters that it has come: ``done`` is called then."""
        if not self.is_open:
            return
        if not self._tags:
            self._fail(ConnectionAbortedError(errno.ECONNABORTED, "nothing is answered"))
            return

        def replied(reply: asyncio.Future[Any]) -> None:
            reply.exception()  # nobody minds
            done()

        self._send(self._tags.pop(), kind, fields).add_done_callback(replied)

    async def _ask(self, tag: int, kind: type[Message], fields: tuple[Any, ...]) -> Any:
        reply = self._send(tag, kind, fields)
        try:
            return await reply
        except asyncio.CancelledError:
            if tag in self._calls and self._calls[tag].reply is reply:
                self.post(lambda: self._end(tag), Tflush, tag)
            raise

    def _send(self, tag: int, kind: type[Message], fields: tuple[Any, ...]) -> asyncio.Future[Any]:
        if self._transport is None or not self.is_open:
            raise ConnectionResetError(errno.ECONNRESET, str(self._why))
        reply = self._loop.create_future()
        self._calls[tag] = Call(kind, reply)
        if kind is Twrite:
            fid, offset, data = fields
            self._transport.writelines([Twrite.head(tag, fid, offset, len(data)), data])
        else:
            self._transport.write(kind.pack(tag, *fields))
        return reply

    def _end(self, tag: int) -> None:
        """The call with this tag is over; the next may have the tag."""
        if self._calls.pop(tag, None) is not None and tag != NOTAG:
            self._tags.append(tag)

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
            if not call.reply.done():
                call.reply.set_exception(ConnectionResetError(errno.ECONNRESET, str(self._why)))
                call.reply.exception()  # nobody need wait for it

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
        declared = MESSAGES[kind]
        fields = declared.unpack(buffer, at, end)
        if call.reply.cancelled():
            return  # its tag is free when the Tflush is answered
        self._end(tag)
        if declared is Rlerror:
            (code,) = fields
            call.reply.set_exception(OSError(code, os.strerror(code)))
        elif declared in (Rread, Rreaddir):
            call.reply.set_result(declared(bytes(fields[0])))
        else:
            call.reply.set_result(declared(*fields))

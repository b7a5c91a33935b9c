"""Connection: requests to a server, and their replies.

Rules of this file:

* Any number of requests may be on their way; a reply belongs to the request whose tag it bears.
* A call that is cancelled flushes its request; neither of the two tags is used again before the
  server has answered the Tflush, after which nothing more comes for the other (flush(5)).
* When the connection ends, or the server breaks the protocol, whoever waits for a reply is told so
  by ConnectionError, and so is whoever calls later.
"""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from server.wire.codec import HEADER, MESSAGES, Malformed, Message
from server.wire.constants import MSIZE_MIN, NOTAG, VERSION
from server.wire.messages import Rlerror, Rread, Rreaddir, Tflush, Tversion, Twrite
from server.wire.primitives import Buffer

#: Bytes that may be received beyond one reply of the largest size.
ROOM = 262144

#: Connects a protocol that it makes to the server.
Dial = Callable[[Callable[[], "Connection"]], Awaitable["Connection"]]


@dataclass(slots=True)
class Call:
    """A request on its way."""

    kind: type[Message]
    reply: asyncio.Future[Any]
    flushed: bool = False


class Connection(asyncio.BufferedProtocol):
    """A connection to a server; made by :meth:`open`.

    Attributes:
        msize: the largest message, in bytes.
    """

    def __init__(self, msize: int) -> None:
        self.msize = msize
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(msize + ROOM))
        self._held = 0  # the buffer begins with so many bytes of replies that are not whole
        self._calls: dict[int, Call] = {}
        self._tags = list(range(NOTAG - 1, -1, -1))  # those that are free; the next is the last
        self._why: BaseException | None = None
        self._ended = self._loop.create_future()
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def open(cls, dial: Dial, msize: int) -> Self:
        """Connect, and agree with the server on 9P2000.L and on the largest message.

        Raises:
            OSError: it can not be reached; EPROTONOSUPPORT, it does not speak 9P2000.L.
        """
        made = await dial(lambda: cls(msize))
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
        return not self._ended.done()

    async def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()
        await self._ended

    async def call(self, kind: type[Message], *fields: Any) -> Any:
        """The reply to a request.

        Raises:
            OSError: the server refused it.
            ConnectionError: the connection has ended; whether it was done is unknown.
        """
        await self._writable.wait()
        if not self._tags:
            raise OSError(errno.EAGAIN, "too many requests are on their way")
        tag = self._tags.pop()
        return await self._ask(tag, kind, fields)

    async def _ask(self, tag: int, kind: type[Message], fields: tuple[Any, ...]) -> Any:
        reply = self._send(tag, kind, fields)
        try:
            return await reply
        except asyncio.CancelledError:
            self._flush(tag)
            raise

    def _flush(self, tag: int) -> None:
        """Nobody wants the reply to this request any more."""
        call = self._calls.get(tag)
        if call is None or not self.is_open:
            return
        call.flushed = True
        if self._tags:
            flushed = self._send(self._tags.pop(), Tflush, (tag,))
            flushed.add_done_callback(lambda _: self._end(tag))

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

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

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
            self._why = malformed
            assert self._transport is not None
            self._transport.abort()
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
        if call.flushed:
            return
        self._end(tag)
        if declared is Rlerror:
            (code,) = fields
            call.reply.set_exception(OSError(code, os.strerror(code)))
        elif declared in (Rread, Rreaddir):
            call.reply.set_result(declared(bytes(fields[0])))
        else:
            call.reply.set_result(declared(*fields))

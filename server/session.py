"""Session: the protocol of one connection, without I/O.

Rules of this file:

* Bytes come in through :meth:`Session.receive`, replies stand in :attr:`Session.out` in the order
  in which they must be sent.  A request is handled as soon as it is whole, and before the next.
* A pass ends after a reply that shows live pages, so that it is sent before they can change, and
  after ``BATCH`` requests, ``PASS_BYTES`` of replies, or one that needed a page-in, so that other
  connections have their turn (``yields``).
* Only a request that has to wait becomes a task.  Its tag stays taken until it is answered; a
  Tflush of it cancels it, and is answered behind it (flush(5)).
* What can not be framed or decoded is a ProtocolError: the connection must end.
* The data of a large Twrite of which only the beginning has come is received as cargo, where it
  will stay (see tmpfs_core/cargo.py); until all of it is here, there are no other frames.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Final

from tmpfs_core.cargo import Cargo
from tmpfs_core.errors import refuse
from tmpfs_core.frames import BLOCK
from tmpfs_core.vnode import NotResident

from .dialects import NATIVE, dialect_of
from .errors import ProtocolError, errno_of
from .fids import Client
from .handlers import Reply, cargo_of_write, write
from .limits import WAITING_BYTES
from .meter import Meter
from .room import Room
from .wire.constants import MSIZE_MIN, VERSION_UNKNOWN
from .wire.messages import Rflush, Rversion, Tflush, Tversion, Twrite
from .wire.primitives import HEADER, HEADER_SIZE, Buffer, Malformed

Request = Callable[[], Reply]

#: Requests handled in one pass.
BATCH: Final = 256
#: Bytes of replies after which a pass ends.
PASS_BYTES: Final = 262144
#: Bytes of a Twrite that are still to come for which cargo is worth it.
CARGO_MIN: Final = 131072
#: Times that a request is tried again as it is; then it is cut down to one block.
PATIENCE = 4
#: Times that a request is tried at all: where swap fails, those that wait could go on displacing
#: each other for ever.  Where it does not, 20 are more than were ever seen.
TRIES: Final = 50


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that waits, since when, and the tags of the Tflushes to answer after it."""

    task: asyncio.Task[bytes]
    kind: int
    since: float
    flushes: list[int] = field(default_factory=list)


class Session:
    """One client's session.

    Args:
        client: its fids and what it may address.
        msize: the largest message offered, in bytes.
        spawn: runs a coroutine as a task.
        provide_now: makes what an operation needs resident, if it can without waiting.
        provide: waits until what an operation needs is in RAM, as far as it can be.
        ready: called when replies came into ``out`` outside of :meth:`receive`.
        room: for the requests of all clients that wait.
        meter: counts requests, if somebody wants to know.
    """

    def __init__(
        self,
        client: Client,
        msize: int,
        spawn: Callable[[Coroutine[Any, Any, bytes]], asyncio.Task[bytes]],
        provide_now: Callable[[NotResident], bool],
        provide: Callable[[NotResident], Awaitable[None]],
        ready: Callable[[], None],
        room: Room,
        meter: Meter | None = None,
    ) -> None:
        self.out: list[Buffer] = []
        #: After a pass: the bytes that the next frame takes, if not all of it is here; else 0.
        self.needed = 0
        #: Where the data of the frame goes of which the beginning was received; when all of it is
        #: here, :meth:`landed` is to be called.
        self.cargo: Cargo | None = None
        self._landing = (0, 0, 0)  # tag, fid and offset of that frame
        self.client = client
        #: How many requests there were.
        self.requests = 0
        self._handlers = NATIVE.handlers
        self._error = NATIVE.error
        self._msize = msize
        self._spawn = spawn
        self._provide_now = provide_now
        self._provide = provide
        #: After a pass: it ended so that other connections have their turn.
        self.yields = False
        self._provided = False  # in this pass, something was absent
        self._ready = ready
        self._room = room
        self._meter = meter
        self._held = 0
        self._held_max = client.limits.max_request_bytes
        self._waiting: dict[int, Waiting] = {}

    @property
    def begun(self) -> bool:
        """Whether a version was agreed on."""
        return bool(self.client.msize)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def awaits(self, tag: int) -> bool:
        """Whether the request of this tag waits."""
        return tag in self._waiting

    @property
    def congested(self) -> bool:
        """Whether so much data waits in requests, here or everywhere, that no more should be
        received.
        """
        held = self._held
        return held > 0 and (held > self._held_max or self._room.free < 0)

    @property
    def provided_for(self) -> bool:
        """Whether requests wait for RAM or swap; they will be answered soon."""
        return self._held > 0

    def receive(  # noqa: PLR0912 all that a request passes through, without calls in between
        self, buffer: memoryview, start: int, stop: int
    ) -> int:
        """Handle the whole frames of ``buffer[start:stop]``, one pass of them; where it stopped.

        Raises:
            ProtocolError: a frame that can not be; what was answered before it stands in ``out``.
        """
        self.needed = 0
        self.yields = False
        self._provided = False
        out = self.out
        client = self.client
        meter = self._meter
        room = PASS_BYTES
        for _ in range(BATCH):
            if room < 0 or self._provided or self.congested:
                break
            if stop - start < HEADER_SIZE:
                self.needed = MSIZE_MIN
                break
            size, kind, tag = HEADER.unpack_from(buffer, start)
            largest = client.msize or MSIZE_MIN
            if not HEADER_SIZE <= size <= largest:
                raise ProtocolError(f"frame of {size} bytes where {largest} are allowed")
            end = start + size
            if end > stop:
                self.needed = size
                if kind == Twrite.TYPE and self._expect_cargo(tag, buffer, start, stop, size):
                    return stop
                break
            self.requests += 1
            begun = 0.0 if meter is None else meter.begin(kind)
            try:
                reply = self._answer(kind, tag, buffer, start + HEADER_SIZE, end)
            except Malformed as malformed:
                raise ProtocolError(str(malformed)) from None
            except Exception as error:
                reply = self._refuse(kind, tag, errno_of(error))
            if begun:
                self._timed(kind, begun, reply)
            start = end
            if isinstance(reply, bytes):
                length = len(reply)
                if length > (client.msize or MSIZE_MIN):
                    reply = self._refuse(kind, tag, errno.EMSGSIZE)
                out.append(reply)
                room -= length
            elif isinstance(reply, list):
                out += reply
                return start
            elif reply is not None:
                self._wait(kind, tag, reply)
        self.yields = not self.needed
        return start

    def landed(self) -> None:
        """The cargo is complete: handle the request that it came with."""
        cargo = self.cargo
        assert cargo is not None
        self.cargo = None
        self.needed = 0
        tag, fid, offset = self._landing
        kind = Twrite.TYPE
        self.requests += 1
        begun = 0.0 if self._meter is None else self._meter.begin(kind)
        request = partial(write, self.client, tag, fid, offset, cargo)
        try:
            if tag in self._waiting:
                refuse(errno.EINVAL)
            try:
                reply = request()
            except NotResident as absent:
                reply = self._provide_for(absent, request, lambda: request, len(cargo), 0)
        except Exception as error:
            reply = self._refuse(kind, tag, errno_of(error))
        if begun:
            self._timed(kind, begun, reply)
        if isinstance(reply, Coroutine):
            self._wait(kind, tag, reply, cargo.close)
        else:
            assert isinstance(reply, bytes)
            self.out.append(reply)
            cargo.close()

    def close(self) -> None:
        """End the session: what waits is cancelled and not answered, every fid is forgotten."""
        if self.cargo is not None:
            self.cargo.close()
            self.cargo = None
        for waiting in set(self._waiting.values()):
            waiting.task.cancel()
        self._waiting.clear()
        self.client.reset()

    def _expect_cargo(self, tag: int, buffer: memoryview, start: int, stop: int, size: int) -> bool:
        """Receive the data of the Twrite that begins at ``start`` as cargo, if that is worth it."""
        data = start + HEADER_SIZE + Twrite.HEAD.size
        if data > stop or start + size - stop < CARGO_MIN:
            return False
        fid, offset, count = Twrite.HEAD.unpack_from(buffer, start + HEADER_SIZE)
        if data + count != start + size:
            return False  # it is malformed, as will be found when all of it is here
        cargo = cargo_of_write(self.client, fid, offset, count)
        if cargo is None:
            return False
        cargo.fill(buffer[data:stop])
        self.cargo = cargo
        self._landing = tag, fid, offset
        return True

    def _answer(self, kind: int, tag: int, buffer: memoryview, at: int, end: int) -> Reply | None:
        """The reply to a request, or None if it comes later by itself."""
        known = self._handlers.get(kind)
        if known is None and kind == Tversion.TYPE:
            return self._version(tag, *Tversion.unpack(buffer, at, end))
        client = self.client
        if not client.msize:
            refuse(errno.EPROTO)
        if tag in self._waiting:
            refuse(errno.EINVAL)
        if known is None:
            if kind == Tflush.TYPE:
                return self._flush(tag, *Tflush.unpack(buffer, at, end))
            refuse(errno.EOPNOTSUPP)
        call, handler = known
        try:
            return call(buffer, at, end, handler, client, tag)
        except NotResident as absent:
            args = (handler, client, tag)
            request = partial(call, buffer, at, end, *args)

            def keep() -> Request:
                return partial(call, memoryview(bytes(buffer[at:end])), 0, end - at, *args)

            return self._provide_for(absent, request, keep, end - at, end - at)

    def _provide_for(
        self,
        absent: NotResident,
        request: Request,
        keep: Callable[[], Request],
        size: int,
        kept: int,
    ) -> Reply:
        """Try a request of ``size`` bytes again when what it needs is in RAM.

        At once if that can be; else later, when the buffer that it came in holds other bytes:
        ``keep`` gives the request with its own, which are ``kept``.
        """
        self._provided = True
        if self._provide_now(absent):
            try:
                return request()
            except NotResident as still:
                absent = still
        return self._once_resident(absent, keep(), size, kept)

    async def _once_resident(
        self, absent: NotResident, request: Request, size: int, kept: int
    ) -> bytes:
        """Try a request of ``size`` bytes again when what it needs is in RAM."""
        memory = absent.memory
        tries = 0
        held = max(size, len(absent.places) * BLOCK)
        self._held += held
        kept += WAITING_BYTES
        self._room.take(kept)
        try:
            while True:
                await self._provide(absent)
                tries += 1
                if tries > TRIES:
                    refuse(errno.ENOMEM)
                memory.frugal = tries > PATIENCE
                try:
                    reply = request()
                except NotResident as still:
                    absent = still
                else:
                    assert not isinstance(reply, Coroutine)
                    return reply if isinstance(reply, bytes) else b"".join(reply)
                finally:
                    memory.frugal = False
        finally:
            self._held -= held
            self._room.give(kept)

    def _version(self, tag: int, msize: int, version: bytes) -> Reply:
        """A new session: what was before it is forgotten, even if it is refused (version(5))."""
        known = dialect_of(version)
        dialect = known or NATIVE
        self.close()
        self.client.msize = 0
        self._handlers = dialect.handlers
        self._error = dialect.error
        if msize < MSIZE_MIN:
            refuse(errno.EINVAL)
        msize = min(msize, self._msize)
        if known is None:
            return Rversion.pack(tag, msize, VERSION_UNKNOWN)
        self.client.msize = msize
        return Rversion.pack(tag, msize, known.version)

    def _flush(self, tag: int, oldtag: int) -> Reply | None:
        """Every request that does not wait was answered before this one was read."""
        waiting = self._waiting.get(oldtag)
        if waiting is None:
            return Rflush.pack(tag)
        waiting.flushes.append(tag)
        self._waiting[tag] = waiting
        waiting.task.cancel()
        return None

    def _refuse(self, kind: int, tag: int, code: int) -> bytes:
        """The frame that refuses a request."""
        if self._meter is not None:
            self._meter.refused(kind, code)
        return self._error(tag, code)

    def _timed(self, kind: int, begun: float, reply: Reply | None) -> None:
        """A request whose time is taken was handled; if it waits, its time goes on."""
        if self._meter is not None and not (reply is None or isinstance(reply, Coroutine)):
            self._meter.answered(kind, begun)

    def _wait(
        self,
        kind: int,
        tag: int,
        work: Coroutine[Any, Any, bytes],
        over: Callable[[], None] = lambda: None,
    ) -> None:
        """Let the request go on as a task, unless too many do; ``over`` is called at its end."""
        if len(self._waiting) >= self.client.limits.max_requests:
            work.close()
            over()
            self.out.append(self._refuse(kind, tag, errno.EAGAIN))
            return
        task = self._spawn(work)
        self._waiting[tag] = Waiting(task, kind, perf_counter())
        task.add_done_callback(lambda _: over())
        task.add_done_callback(partial(self._finished, tag))

    def _finished(self, tag: int, task: asyncio.Task[bytes]) -> None:
        """Answer a request that waited, then those that flushed it."""
        waiting = self._waiting.get(tag)
        if waiting is None or waiting.task is not task:
            return  # the session it belonged to is over
        del self._waiting[tag]
        if not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                self.out.append(self._refuse(waiting.kind, tag, errno_of(error)))
            else:
                self.out.append(task.result())
            if self._meter is not None:
                self._meter.waited(waiting.kind, waiting.since)
        for flush in waiting.flushes:
            del self._waiting[flush]
            self.out.append(Rflush.pack(flush))
        self._ready()

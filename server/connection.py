"""Connection: the shell between a socket and a session; bytes in, bytes out.

Rules of this file:

* The event loop only tells when the socket is ready; reading and sending are done here, at once.
* Bytes are received into one scratch buffer that all connections share, so an idle connection
  holds none; what is left of an unfinished frame moves to a buffer of its own (the *inbox*), which
  grows with what has come, not with what was announced.
* All inboxes share a room.  While it is used up, frames of up to PEEK bytes are received as ever;
  a connection that needs more is not read from until it is its turn.
* After a large write, another is likely: only the head of what comes next is received into the
  scratch buffer, so that its data need not be copied from there.
* Views of live pages are handed to the kernel in the same step; what it did not take is copied.
* While replies wait for their reader, nothing is read from it (back-pressure).  Where all that
  wait are too much, the connection with the most of them is ended.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

import structlog

from tmpfs_core.cargo import Cargo

from .errors import ProtocolError
from .limits import Limits
from .room import Room
from .session import Session
from .spin import Spin
from .watch import INTERVAL, Watch
from .wire.primitives import Buffer

log = structlog.get_logger()

#: Bytes received at once, for the smaller frames; a larger one gets a buffer of its size.
SCRATCH: Final = 262144
#: Most buffers in one sendmsg(2).
IOV_MAX = 1024
#: Bytes of replies after which a turn ends, even if other requests are here already.
TURN_BYTES: Final = 1 << 20
#: Bytes received at once after a large write, and while there is no room.
PEEK: Final = 4096
#: The smallest inbox for an unfinished frame, unless the frame is smaller, and how many times as
#: large as what has come it may be.
INBOX, GROWTH = 16384, 4


class Buffers:
    """Where all connections of one loop receive; ``room`` is for their inboxes."""

    def __init__(self, room: Room) -> None:
        self.scratch = memoryview(bytearray(SCRATCH))
        self.room = room


class Replies:
    """The replies of all connections that nobody takes yet: up to ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._queued: dict[Connection, int] = {}

    def note(self, connection: "Connection", queued: int) -> None:
        """So many bytes of a connection wait now; the one with the most is ended if need be."""
        self._total += queued - self._queued.pop(connection, 0)
        if queued:
            self._queued[connection] = queued
        while self._total > self._limit:
            worst = max(self._queued, key=self._queued.__getitem__)
            worst.close("does not take its replies")


class Connection:
    """A connected client.

    Args:
        sock: its socket, connected and non-blocking.
        peer: who it is, for the log.
        limits: how long it may take over what.
        buffers, replies: shared by all connections.
        spin: is told when requests come in, and when they are answered.
        watch: is told when there is something to finish.
        make_session: makes the session; called with what it calls when replies are ready.
        gone: called once when the connection has ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        limits: Limits,
        buffers: Buffers,
        replies: Replies,
        spin: Spin,
        watch: Watch,
        make_session: Callable[[Callable[[], None]], Session],
        gone: Callable[["Connection"], None],
    ) -> None:
        self._sock = sock
        self._limits = limits
        self._buffers = buffers
        self._replies = replies
        self._spin = spin
        self._watch = watch
        self._gone = gone
        self._log = log.bind(peer=peer)
        self._loop = asyncio.get_running_loop()
        self._session = make_session(self._replied)
        self._inbox: memoryview | None = None  # its first _held bytes are not handled yet
        self._held = 0
        self._at_once = SCRATCH  # the most to receive into the scratch buffer
        self._unsent: memoryview | None = None  # while set, nothing is read
        self._unsent_size = 0  # bytes, when it was set
        self._wants = 0  # so many bytes of room are waited for; while set, nothing is read
        # Looks at this connection (see watch.py): since a frame began, without a version, and
        # since something was received.
        self._frame_age = self._strange_age = self._idle_age = 0
        self._finishing = False
        self._open = True
        self._reading = False
        self._resume()
        self._watch.begin()
        self._log.info("client connected")

    def finish(self) -> None:
        """Take no more requests; close when what was answered is sent."""
        self._finishing = True
        if self._unsent is None:
            self.close("server stops")

    def close(self, why: str) -> None:
        """End the connection at once and free all that it held."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._session.close()
        room = self._buffers.room
        if self._wants and room.forget(self._granted):
            self._wants = 0
        if self._inbox is not None:
            room.give(len(self._inbox))
            self._inbox = None
        self._replies.note(self, 0)
        self._sock.close()
        self._log.info("client gone", why=why)
        self._gone(self)

    def look(self) -> bool:
        """A second has gone by: end it if that is one too many; whether to look again."""
        if not self._open:
            return False
        limits = self._limits
        session = self._session
        unfinished = session.cargo is not None or (session.needed > 0 and self._held > 0)
        # What is not read, or waits for room and has hardly any, is not to blame.
        if unfinished and (self._reading or (self._wants and self._held > PEEK)):
            self._frame_age += 1
        self._strange_age += not session.begun
        self._idle_age = 0 if session.waits else self._idle_age + 1
        if unfinished and self._frame_age * INTERVAL > limits.frame_timeout:
            self.close("took too long over a request")
        elif not session.begun and self._strange_age * INTERVAL > limits.version_timeout:
            self.close("did not say Tversion in time")
        elif 0 < limits.idle_timeout < self._idle_age * INTERVAL:
            self.close("was idle for too long")
        return unfinished or not session.begun or limits.idle_timeout > 0

    def _readable(self) -> None:
        self._spin.serving()
        self._idle_age = 0
        if self._session.cargo is not None:
            self._receive_cargo(self._session.cargo)
        else:
            self._receive()
        self._spin.served()

    def _receive(self) -> None:
        """Receive and handle what is there."""
        try:
            if self._inbox is None:
                buffer = self._buffers.scratch
                if self._buffers.room.free < SCRATCH:
                    self._at_once = PEEK
                count = self._sock.recv_into(buffer, self._at_once)
                self._at_once = SCRATCH
            else:
                buffer = self._inbox
                count = self._sock.recv_into(buffer[self._held :])
        except BlockingIOError:
            return
        except OSError as error:
            self.close(os.strerror(error.errno or 0))
            return
        if not count:
            self.close("end of input")
            return
        self._handle(buffer, self._held + count)
        if self._session.cargo is not None and self._reading:
            self._receive_cargo(self._session.cargo)

    def _receive_cargo(self, cargo: Cargo) -> None:
        """Receive what is there of the data of a large write, and handle it if that is all."""
        while cargo.room:
            try:
                count = self._sock.recvmsg_into(cargo.room)[0]
            except BlockingIOError:
                return
            except OSError as error:
                self.close(os.strerror(error.errno or 0))
                return
            if not count:
                self.close("end of input")
                return
            cargo.received(count)
        self._session.landed()
        self._at_once = PEEK
        self._send()
        if self._session.congested:
            self._pause()

    def _handle(self, buffer: memoryview, stop: int) -> None:
        """One turn with the requests in ``buffer[:stop]``; what is left of them is kept."""
        start = 0
        room = TURN_BYTES
        while room > 0 and self._unsent is None and self._open:
            try:
                start = self._session.receive(buffer, start, stop)
            except ProtocolError as error:
                self._log.warning("protocol error", why=str(error))
                self._send()
                self.close("protocol error")
                return
            room -= self._send()
            if self._session.needed or self._session.yields:
                break
        if not self._open:
            return
        self._keep(buffer, start, stop)
        if self._session.cargo is not None:
            self._begun()
        if self._session.congested:
            self._pause()
        elif self._held and not self._session.needed:
            self._pause()  # first what is here already
            self._loop.call_soon(self._resume)

    def _replied(self) -> None:
        """A request that had to wait was answered."""
        if self._unsent is not None:
            behind = sum(map(len, self._session.out))
            self._replies.note(self, self._unsent_size + behind)
        self._send()
        if not self._reading:
            self._resume()

    def _pause(self) -> None:
        """Read no more until :meth:`_resume`."""
        if self._open and self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _resume(self) -> None:
        """Go on with what is held, then with what the socket has, if nothing stands against it."""
        if not self._open or self._unsent is not None or self._wants or self._session.congested:
            return
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._sock, self._readable)
        if self._inbox is not None and not self._session.needed:
            self._handle(self._inbox, self._held)

    def _keep(self, buffer: memoryview, start: int, stop: int) -> None:
        """Hold ``buffer[start:stop]`` in an inbox where more of the frame it begins can come."""
        rest = stop - start
        inbox = self._inbox
        self._held = rest
        if not rest:
            if inbox is not None:
                self._inbox = None
                self._buffers.room.give(len(inbox))
            return
        needed = self._session.needed
        same = buffer is inbox and not start  # the frame that it began with before
        if not same:
            self._begun()
        elif not needed or rest < len(buffer):
            return
        room = self._buffers.room
        size = max(rest, min(needed, max(GROWTH * rest, INBOX)))
        if size > rest and not room.has(size):
            if rest < PEEK:
                size = min(needed, PEEK)
            else:
                self._wants = needed  # all of it, to wait but once
                room.wait(needed, self._granted)
                self._pause()
                if same:
                    return
                size = rest
        room.take(size)
        self._move(buffer[start:stop], size)

    def _begun(self) -> None:
        """A frame has begun that is not whole yet."""
        self._frame_age = 0
        if not self._watch.looking:
            self._watch.begin()

    def _granted(self) -> None:
        """There is the room that was waited for."""
        size = self._wants
        self._wants = 0
        if not self._open:
            self._buffers.room.give(size)
            return
        assert self._inbox is not None
        self._move(self._inbox[: self._held], size)
        self._resume()

    def _move(self, held: memoryview, size: int) -> None:
        """Hold this in a new inbox of ``size`` bytes, for which room was taken."""
        old = self._inbox
        self._inbox = memoryview(bytearray(size))
        self._inbox[: len(held)] = held
        if old is not None:
            self._buffers.room.give(len(old))

    def _send(self) -> int:
        """Send the session's replies; copy what the kernel does not take now.  How much it took."""
        out = self._session.out
        if not out or self._unsent is not None or not self._open:
            return 0
        if len(out) > IOV_MAX:
            out[:] = [b"".join(out)]
        try:
            sent = self._sock.sendmsg(out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.close(os.strerror(error.errno or 0))
            return 0
        size = 0
        for part in out:
            size += len(part)
        if sent < size:
            self._unsent = memoryview(_behind(out, sent))
            self._unsent_size = size - sent
            self._pause()
            self._loop.add_writer(self._sock, self._writable)
            self._replies.note(self, self._unsent_size)
        out.clear()
        return sent

    def _writable(self) -> None:
        assert self._unsent is not None
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(os.strerror(error.errno or 0))
            return
        if sent < len(self._unsent):
            self._unsent = self._unsent[sent:]
            return
        self._unsent = None
        self._loop.remove_writer(self._sock)
        self._replies.note(self, 0)
        self._send()
        if self._unsent is None:
            if self._finishing:
                self.close("server stops")
            else:
                self._resume()


def _behind(parts: list[Buffer], sent: int) -> bytes:
    """A copy of what stands in ``parts`` behind the first ``sent`` bytes, which are not all."""
    whole = 0
    while sent >= len(parts[whole]):
        sent -= len(parts[whole])
        whole += 1
    return b"".join((memoryview(parts[whole])[sent:], *parts[whole + 1 :]))

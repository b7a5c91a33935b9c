"""Connection: the shell between a socket and a session; bytes in, bytes out.

Rules of this file:

* The event loop only tells when the socket is ready; reading and sending are done here, at once.
* Where it is, a socket, may be changed for two pipes by the first message (see handover.py).
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
* Who has much under way when the server stops gets all answers, then the end of the stream.  The
  socket is closed when the client has closed its own: to close it before would have the kernel
  throw away what the client has not read yet, if it sends anything more (a reset, RFC 9293 3.6.1).
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

import structlog

from tmpfs_core.cargo import Cargo

from .errors import ProtocolError
from .handover import Pipes, asked, take
from .limits import Limits
from .room import Room
from .session import Session
from .spin import Spin
from .watch import INTERVAL, Watch
from .wire.primitives import Buffer

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
        may_hand_over: whether to take pipes instead if they are offered (see handover.py).
        limits: how long it may take over what.
        buffers, replies: shared by all connections.
        spin: is told when requests come in, and when they are answered.
        watch: is told when there is something to finish.
        make_session: makes the session; called with what it calls when replies are ready.
        gone: called once when the connection has ended.

    Attributes:
        peer: who it is.
        session: what it says.
        received, sent: bytes so far.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        may_hand_over: bool,
        limits: Limits,
        buffers: Buffers,
        replies: Replies,
        spin: Spin,
        watch: Watch,
        make_session: Callable[[Callable[[], None]], Session],
        gone: Callable[["Connection"], None],
    ) -> None:
        self._sock: socket.socket | Pipes = sock
        self._outgoing: socket.socket | int = sock
        self._on_input = self._first if may_hand_over else self._readable
        self._limits = limits
        self._buffers = buffers
        self._replies = replies
        self._spin = spin
        self._watch = watch
        self._gone = gone
        self.peer = peer
        self._log = structlog.get_logger(peer=peer)
        self._loop = asyncio.get_running_loop()
        self.session = make_session(self._replied)
        self.received = self.sent = 0
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
        self._lingers = False  # something was answered while finishing
        self._open = True
        self._reading = False
        self._resume()
        self._watch.begin()
        self._log.info("client connected")

    def fileno(self) -> int:
        """What it reads from."""
        return self._sock.fileno()

    def finish(self) -> None:
        """Answer what has come in, take no more, and close when the client has the replies."""
        self._finishing = True
        self._lingers = not self._reading
        self._go_on()

    def close(self, why: str) -> None:
        """End the connection at once and free all that it held."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._outgoing)
        if isinstance(self._sock, Pipes):
            self._loop.remove_reader(self._sock.sock)
        self.session.close()
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
        session = self.session
        unfinished = session.cargo is not None or (session.needed > 0 and self._held > 0)
        # What is not read, or waits for room and has hardly any, is not to blame.
        if unfinished and (self._reading or (self._wants and self._held > PEEK)):
            self._frame_age += 1
        self._strange_age += not session.begun
        self._idle_age = 0 if session.waiting else self._idle_age + 1
        if unfinished and self._frame_age * INTERVAL > limits.frame_timeout:
            self.close("took too long over a request")
        elif not session.begun and self._strange_age * INTERVAL > limits.version_timeout:
            self.close("did not say Tversion in time")
        elif 0 < limits.idle_timeout < self._idle_age * INTERVAL:
            self.close("was idle for too long")
        return unfinished or not session.begun or limits.idle_timeout > 0

    def _first(self) -> None:
        """The first bytes are here: read them, or what the client gives with them."""
        assert isinstance(self._sock, socket.socket)
        if asked(self._sock):
            return
        pipes = take(self._sock)
        self._pause()
        self._on_input = self._readable
        if pipes is not None:
            self._loop.add_reader(
                pipes.sock, self.close, "end of input"
            )  # whoever gave them is gone
            self._sock, self._outgoing = pipes, pipes.outgoing
        self._resume()

    def _readable(self) -> None:
        self._spin.serving()
        self._idle_age = 0
        before = self.session.requests
        try:
            if self.session.cargo is not None:
                came = self._receive_cargo(self.session.cargo)
            else:
                came = self._receive()
        except MemoryError:
            self._starve()
        else:
            if came and self._finishing:
                self._lingers = True
                self._loop.call_soon(self._go_on)
        if self.session.requests != before:
            self._spin.served()

    def _starve(self) -> None:
        """There is no memory for what this client sends or gets: give up all that it holds."""
        self._log.error("out of memory")
        self.close("out of memory")

    def _go_on(self) -> None:
        """Finishing: look for more requests, if nothing stands against it."""
        if self._open and self._reading:
            self._readable()

    def _end(self) -> None:
        """Finishing, and nothing more is here: unless more is due, tell the client that all is."""
        if self._held or self.session.cargo is not None:
            return  # the rest of a request is on its way
        if self.session.provided_for:
            self._lingers = True
        elif self._lingers:
            self.session.close()
            self._sock.shutdown(socket.SHUT_WR)
            self._loop.add_reader(self._sock, self._discard)
            self._reading = False
        else:
            self.close("server stops")

    def _discard(self) -> None:
        """The client has all answers: wait until it closes."""
        try:
            ended = not self._sock.recv_into(self._buffers.scratch)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self.close("server stops")

    def _receive(self) -> bool:
        """Receive and handle what is there; whether there was something."""
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
        except OSError as error:
            self._not_received(error)
            return False
        if not count:
            self.close("end of input")
            return False
        self.received += count
        self._handle(buffer, self._held + count)
        if self.session.cargo is not None and self._reading:
            self._receive_cargo(self.session.cargo)
        return True

    def _receive_cargo(self, cargo: Cargo) -> bool:
        """Receive the data of a large write, and handle it if that is all; whether it is."""
        while cargo.room:
            try:
                count = self._sock.recvmsg_into(cargo.room)[0]
            except OSError as error:
                self._not_received(error)
                return False
            if not count:
                self.close("end of input")
                return False
            self.received += count
            cargo.received(count)
        self.session.landed()
        self._at_once = PEEK
        self._send()
        if self.session.congested:
            self._pause()
        return True

    def _not_received(self, error: OSError) -> None:
        """Nothing more is here, or the socket has failed."""
        if not isinstance(error, BlockingIOError):
            self.close(os.strerror(error.errno or 0))
        elif self._finishing:
            self._end()

    def _handle(self, buffer: memoryview, stop: int) -> None:
        """One turn with the requests in ``buffer[:stop]``; what is left of them is kept."""
        start = 0
        room = TURN_BYTES
        while room > 0 and self._unsent is None and self._open:
            try:
                start = self.session.receive(buffer, start, stop)
            except ProtocolError as error:
                self._log.warning("protocol error", why=str(error))
                self._send()
                self.close("protocol error")
                return
            room -= self._send()
            if self.session.needed or self.session.yields:
                break
        if not self._open:
            return
        self._keep(buffer, start, stop)
        if self.session.cargo is not None:
            self._begun()
        if self.session.congested:
            self._pause()
        elif self._held and not self.session.needed:
            self._pause()  # first what is here already
            self._loop.call_soon(self._resume)

    def _replied(self) -> None:
        """A request that had to wait was answered."""
        if self._unsent is not None:
            behind = sum(map(len, self.session.out))
            self._replies.note(self, self._unsent_size + behind)
        self._send()
        if not self._reading or self._finishing:
            self._resume()

    def _pause(self) -> None:
        """Read no more until :meth:`_resume`."""
        if self._open and self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _resume(self) -> None:
        """Go on with what is held, then with what the socket has, if nothing stands against it."""
        if not self._open or self._unsent is not None or self._wants or self.session.congested:
            return
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._sock, self._on_input)
        if self._inbox is not None and not self.session.needed:
            try:
                self._handle(self._inbox, self._held)
            except MemoryError:
                self._starve()
        if self._finishing:
            self._loop.call_soon(self._go_on)

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
        needed = self.session.needed
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
        self._move(buffer[start:stop], size)
        room.take(size)

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
        try:
            self._move(self._inbox[: self._held], size)
        except MemoryError:
            self._buffers.room.give(size)
            self._starve()
            return
        self._resume()

    def _move(self, held: memoryview, size: int) -> None:
        """Hold this in a new inbox of ``size`` bytes."""
        old = self._inbox
        self._inbox = memoryview(bytearray(size))
        self._inbox[: len(held)] = held
        if old is not None:
            self._buffers.room.give(len(old))

    def _send(self) -> int:
        """Send the session's replies; copy what the kernel does not take now.  How much it took."""
        out = self.session.out
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
        except MemoryError:
            self._starve()
            return 0
        self.sent += sent
        size = 0
        for part in out:
            size += len(part)
        if sent < size:
            try:
                self._unsent = memoryview(_behind(out, sent))
            except MemoryError:
                self._starve()
                return sent
            self._unsent_size = size - sent
            self._pause()
            self._loop.add_writer(self._outgoing, self._writable)
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
        self.sent += sent
        if sent < len(self._unsent):
            self._unsent = self._unsent[sent:]
            return
        self._unsent = None
        self._loop.remove_writer(self._outgoing)
        self._replies.note(self, 0)
        self._send()
        self._resume()


def _behind(parts: list[Buffer], sent: int) -> bytes:
    """A copy of what stands in ``parts`` behind the first ``sent`` bytes, which are not all."""
    whole = 0
    while sent >= len(parts[whole]):
        sent -= len(parts[whole])
        whole += 1
    return b"".join((memoryview(parts[whole])[sent:], *parts[whole + 1 :]))

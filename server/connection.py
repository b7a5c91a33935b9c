"""Connection: the shell between a socket and a session; bytes in, bytes out.

Rules of this file:

* The event loop only tells when the socket is ready; reading and sending are done here, at once.
* Bytes are received into one scratch buffer that all connections share, so an idle connection
  holds none; what is left of an unfinished frame moves to a buffer of its own.
* After a large write, another is likely: only the head of what comes next is received into the
  scratch buffer, so that its data need not be copied from there.
* Views of live pages are handed to the kernel in the same step; what it did not take is copied.
* While replies wait for their reader, nothing is read from it (back-pressure).
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
from .session import Session
from .spin import Spin
from .wire.primitives import Buffer

log = structlog.get_logger()

#: Bytes received at once, for the smaller frames; a larger one gets a buffer of its size.
SCRATCH: Final = 262144
#: Most buffers in one sendmsg(2).
IOV_MAX = 1024
#: Bytes of replies after which a turn ends, even if other requests are here already.
TURN_BYTES: Final = 1 << 20
#: Bytes received at once after a large write.
PEEK: Final = 4096
#: Buffers of finished large frames that are kept for the next ones.
SPARES: Final = 4


class Buffers:
    """The receive buffers of all connections of one loop."""

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(SCRATCH))
        self._spares: list[memoryview] = []

    def take(self, size: int) -> memoryview:
        """A buffer of at least ``size`` bytes."""
        for i, spare in enumerate(self._spares):
            if len(spare) >= size:
                return self._spares.pop(i)
        return memoryview(bytearray(size))

    def give(self, buffer: memoryview) -> None:
        if len(self._spares) < SPARES and len(buffer) >= SCRATCH:
            self._spares.append(buffer)


class Connection:
    """A connected client.

    Args:
        sock: its socket, connected and non-blocking.
        peer: who it is, for the log.
        buffers: the receive buffers to share.
        spin: is told when requests come in, and when they are answered.
        make_session: makes the session; called with what it calls when replies are ready.
        gone: called once when the connection has ended.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        buffers: Buffers,
        spin: Spin,
        make_session: Callable[[Callable[[], None]], Session],
        gone: Callable[["Connection"], None],
    ) -> None:
        self._sock = sock
        self._buffers = buffers
        self._spin = spin
        self._gone = gone
        self._log = log.bind(peer=peer)
        self._loop = asyncio.get_running_loop()
        self._session = make_session(self._replied)
        self._inbox: memoryview | None = None  # its first _held bytes are not handled yet
        self._held = 0
        self._at_once = SCRATCH  # the most to receive into the scratch buffer
        self._unsent: memoryview | None = None  # while set, nothing is read
        self._finishing = False
        self._lingers = False  # something was answered while finishing
        self._open = True
        self._reading = False
        self._resume()
        self._log.info("client connected")

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
        self._loop.remove_writer(self._sock)
        self._session.close()
        self._sock.close()
        self._log.info("client gone", why=why)
        self._gone(self)

    def _readable(self) -> None:
        self._spin.serving()
        try:
            if self._session.cargo is not None:
                self._receive_cargo(self._session.cargo)
            else:
                self._receive()
        except BlockingIOError:
            if self._finishing:
                self._end()
        except OSError as error:
            self.close(os.strerror(error.errno or 0))
        except MemoryError:
            self._starve()
        else:
            if self._finishing:
                self._lingers = True
                self._loop.call_soon(self._go_on)
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
        if self._held or self._session.cargo is not None:
            return  # the rest of a request is on its way
        if self._session.provided_for:
            self._lingers = True
        elif self._lingers:
            self._session.close()
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

    def _receive(self) -> None:
        """Receive and handle what is there."""
        if self._inbox is None:
            buffer = self._buffers.scratch
            count = self._sock.recv_into(buffer, self._at_once)
            self._at_once = SCRATCH
        else:
            buffer = self._inbox
            count = self._sock.recv_into(buffer[self._held :])
        if not count:
            self.close("end of input")
            return
        self._handle(buffer, self._held + count)
        if self._session.cargo is not None and self._reading:
            self._receive_cargo(self._session.cargo)

    def _receive_cargo(self, cargo: Cargo) -> None:
        """Receive what is there of the data of a large write, and handle it if that is all."""
        while cargo.room:
            count = self._sock.recvmsg_into(cargo.room)[0]
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
        self._keep(buffer, start, stop)
        if self._session.congested:
            self._pause()
        elif self._held and not self._session.needed:
            self._pause()  # first what is here already
            self._loop.call_soon(self._resume)

    def _replied(self) -> None:
        """A request that had to wait was answered."""
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
        if not self._open or self._unsent is not None or self._session.congested:
            return
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._sock, self._readable)
        if self._inbox is not None and not self._session.needed:
            try:
                self._handle(self._inbox, self._held)
            except MemoryError:
                self._starve()
        if self._finishing:
            self._loop.call_soon(self._go_on)

    def _keep(self, buffer: memoryview, start: int, stop: int) -> None:
        """Hold ``buffer[start:stop]`` in a buffer where the frame it begins can be completed."""
        rest = stop - start
        old = self._inbox
        if not rest:
            self._inbox = None
        elif buffer is not old or start or self._session.needed > len(old):
            self._inbox = self._buffers.take(max(rest, self._session.needed))
            self._inbox[:rest] = buffer[start:stop]
        if old is not None and old is not self._inbox:
            self._buffers.give(old)
        self._held = rest

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
        except MemoryError:
            self._starve()
            return 0
        size = 0
        for part in out:
            size += len(part)
        if sent < size:
            try:
                self._unsent = memoryview(_behind(out, sent))
            except MemoryError:
                self._starve()
                return sent
            self._pause()
            self._loop.add_writer(self._sock, self._writable)
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
        self._send()
        if self._unsent is None:
            self._resume()


def _behind(parts: list[Buffer], sent: int) -> bytes:
    """A copy of what stands in ``parts`` behind the first ``sent`` bytes, which are not all."""
    whole = 0
    while sent >= len(parts[whole]):
        sent -= len(parts[whole])
        whole += 1
    return b"".join((memoryview(parts[whole])[sent:], *parts[whole + 1 :]))

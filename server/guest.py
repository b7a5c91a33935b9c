"""Guest: the shell between a virtual machine's virtio-9p device and a session.

Requests are read from the guest's memory, replies are written to it: there is no other buffer
between its pages and those of files.

Rules of this file:

* A chain holds one request, and has room for its reply.  What the guest says is copied before it
  is looked at, for it may change it; the data of a large write is copied to where it will stay.
* A request that waits keeps its chain.  One that will get no reply (it was flushed, or a session
  began anew) has its chain given back empty.
* The device stops, with one line in the log, when the guest does what can not be; the VMM may start
  it again.  When the VMM says what can not be, its connection ends.
* A queue that stops and goes on is that of the same driver, so its session stays: a machine may be
  paused for long.  One that nothing was ever taken from is that of a new driver, whose session
  begins with nothing.
* Who has much to ask lets others have their turn after ``BATCH`` requests or ``TURN_BYTES``, and
  a VMM after each message.  However often the guest kicks, it has one turn at a time.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

import structlog

from .connection import TURN_BYTES, Buffers
from .errors import ProtocolError
from .session import Session
from .spin import Spin
from .vhost.device import Device
from .vhost.memory import VhostError
from .vhost.message import Inbox
from .vhost.ring import Chain, Ring, Span
from .wire.primitives import HEADER, HEADER_SIZE, Buffer

log = structlog.get_logger()

#: Of virtio-9p (linux/virtio_9p.h): the tag by which it is mounted is in its configuration.
MOUNT_TAG: Final = 0
#: Requests in a turn.
BATCH: Final = 256
#: Bytes that are moved in the time that it takes to look at a descriptor.
DESCRIPTOR_BYTES: Final = 1024
#: Bytes of a larger request that are copied first, to see where the rest of it goes.
HEAD: Final = 4096


class Guest:
    """A VMM that is connected.

    Args:
        sock: its socket, connected and non-blocking.
        peer: who it is, for the log.
        tag: by which the guest mounts.
        buffers: shared by all connections.
        spin: is told when requests come in, and when they are answered.
        make_session: makes a session; called with what it calls when replies are ready.
        gone: called once when the connection has ended.

    Attributes:
        peer: who it is.
        session: what the guest's driver says.
        received, sent: bytes of requests and replies so far.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        tag: str,
        buffers: Buffers,
        spin: Spin,
        make_session: Callable[[Callable[[], None]], Session],
        gone: Callable[["Guest"], None],
    ) -> None:
        self._sock = sock
        self._scratch = buffers.scratch
        self._spin = spin
        self._make_session = make_session
        self._gone = gone
        self.peer = peer
        self.received = self.sent = 0
        self._log = log.bind(peer=peer)
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(sock)
        name = tag.encode()
        self._device = Device(1 << MOUNT_TAG, len(name).to_bytes(2, "little") + name)
        self.session = make_session(self._replied)
        self._ring: Ring | None = None  # None, too, while the device has stopped
        self._seen: Ring | None = None  # that of the device
        self._waiting: dict[int, Chain] = {}  # by tag
        self._answered: list[tuple[Chain, list[Buffer]]] = []  # while the queue stood still
        self._due = False  # a turn is
        self._finishing = False
        self._open = True
        self._loop.add_reader(sock, self._readable)
        self._log.info("virtual machine connected")

    def fileno(self) -> int:
        """The descriptor of the VMM's socket."""
        return self._sock.fileno()

    def finish(self) -> None:
        """Answer what has come in, then close."""
        self._finishing = True
        self._turn()

    def close(self, why: str) -> None:
        """End the connection at once and free all that it held."""
        if not self._open:
            return
        self._open = False
        self._unwatch()
        self._loop.remove_reader(self._sock)
        self._ring = None
        self.session.close()
        self._waiting.clear()
        self._answered.clear()
        self._seen = None
        self._device.close()
        self._inbox.close()
        self._sock.close()
        self._log.info("virtual machine gone", why=why)
        self._gone(self)

    # The VMM

    def _readable(self) -> None:
        try:
            message = self._inbox.receive()
            if message is None:
                return
            self._unwatch()
            reply = self._device.handle(message)
            self._watch()
            if reply is not None:
                self._sock.sendall(reply)
        except EOFError:
            self.close("end of input")
        except BlockingIOError:
            self.close("does not take its replies")
        except OSError as failure:
            self.close(os.strerror(failure.errno or 0))
        except VhostError as error:
            self._log.warning("vhost-user protocol error", why=str(error))
            self.close("protocol error")

    def _unwatch(self) -> None:
        if self._device.kick is not None:
            self._loop.remove_reader(self._device.kick)

    def _watch(self) -> None:
        """Go on with the queue as it is now."""
        ring = self._device.ring
        if ring is not self._seen:
            self._seen = self._ring = ring
            if ring is not None and ring.fresh:
                self._begin_anew()
        if self._ring is not None and self._device.kick is not None:
            self._loop.add_reader(self._device.kick, self._kicked)
            self._soon()

    def _begin_anew(self) -> None:
        """A driver begins: what the one before had is of nobody any more."""
        self.session.close()
        self._waiting.clear()
        self._answered.clear()
        self.session = self._make_session(self._replied)

    # The guest

    def _kicked(self) -> None:
        assert self._device.kick is not None
        self._device.kick.clear()
        if self._due:
            return
        self._spin.serving()
        self._turn()
        self._spin.served()

    def _soon(self) -> None:
        """Have another turn when others had theirs."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._have_turn)

    def _have_turn(self) -> None:
        self._due = False
        self._turn()

    def _turn(self) -> None:
        """Serve what the guest asks for, some of it, and tell it."""
        ring = self._ring
        if ring is not None:
            try:
                self._serve(ring)
                self._tell(ring)
            except (VhostError, ProtocolError) as error:
                self._stop(str(error))
            except MemoryError:
                self._log.error("out of memory")
                self.close("out of memory")
        if self._finishing and not self._due and not self.session.provided_for:
            self.close("server stops")

    def _serve(self, ring: Ring) -> None:
        for answered, answer in self._answered:
            self.sent += ring.push(answered, answer)
        self._answered.clear()
        room = TURN_BYTES
        for _ in range(BATCH):
            if self.session.congested:
                return  # until replies are ready
            chain = ring.pop()
            if chain is None:
                return
            room -= self._handle(ring, chain) + DESCRIPTOR_BYTES * chain.descriptors
            if room < 0:
                break
        self._soon()

    def _tell(self, ring: Ring) -> None:
        if ring.publish() and self._device.call is not None:
            self._device.call.signal()

    def _stop(self, why: str) -> None:
        """The guest has done what can not be: no more of its requests are taken."""
        self._log.warning("device stopped", why=why)
        self._unwatch()
        self._ring = None
        self._begin_anew()
        if self._device.fault is not None:
            self._device.fault.signal()

    def _handle(self, ring: Ring, chain: Chain) -> int:
        """Handle the request in a chain; how many bytes that moved."""
        size, tag = self._receive(chain.request)
        self.received += size
        session = self.session
        out = session.out
        if not out:
            self._waiting[tag] = chain
            return size
        sent = ring.push(chain, out)
        self.sent += sent
        out.clear()
        if self._waiting and not session.waiting:  # it was a Tversion
            self._give_up()
        return size + sent

    def _receive(self, request: Span) -> tuple[int, int]:
        """Hand a request to the session; its size and its tag."""
        session = self.session
        frame = self._scratch
        there = request.left
        have = min(there, HEAD)
        if have < HEADER_SIZE:
            raise VhostError(f"a request of {have} bytes")
        request.read(frame[:have])
        size, _, tag = HEADER.unpack_from(frame)
        if not HEADER_SIZE <= size <= there:
            raise VhostError(f"a request of {size} bytes in {there}")
        if size <= have:
            session.receive(frame, 0, size)
            return size, tag
        session.receive(frame, 0, have)
        cargo = session.cargo
        if cargo is not None:
            while cargo.room:
                room = cargo.room[0]
                request.read(room)
                cargo.received(len(room))
            session.landed()
            return size, tag
        if size > len(frame):
            frame = memoryview(bytearray(size))
            frame[:have] = self._scratch[:have]
        request.read(frame[have:size])
        session.receive(frame, 0, size)
        return size, tag

    def _replied(self) -> None:
        """Requests that had to wait were answered, or will not be."""
        out = self.session.out
        replies = [(self._waiting.pop(HEADER.unpack_from(reply)[2]), [reply]) for reply in out]
        out.clear()
        self._give_up()  # first, for the last reply may be that to a Tflush
        self._answered += replies

    def _give_up(self) -> None:
        """Give chains back for which there will be no reply."""
        for tag in [tag for tag in self._waiting if not self.session.awaits(tag)]:
            self._answered.append((self._waiting.pop(tag), []))
        self._soon()

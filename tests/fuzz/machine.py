"""Machine: a VMM and its guest, as the fuzzer has them; whatever it does, the server is real.

Rules of this file:

* The VMM reads what it is answered.  All else is as the steps say: messages, descriptors, and
  every byte of the guest's memory.
* What a guest that keeps to the rules asks is answered once, in its chain, and by what may answer
  it.  After a POKE, an OFFER or a SAY it is not one of these any more.
* Whatever one has done, the next one is served (see target.py).
"""

import asyncio
import select
import socket
from collections.abc import Callable
from contextlib import suppress

from server.connection import Buffers
from server.guest import Guest
from server.room import Room
from server.session import Session
from server.spin import Spin
from server.wire import constants as c
from server.wire import legacy
from server.wire import messages as m
from server.wire.codec import HEADER
from tests.server.vhost.frontend import BUFFERS, GUEST, MEMORY, SIZE, TABLES, WRITE, Frontend

from .steps import Op, Step

#: How a machine begins: its queue is started, and answers are waited for by index.
STARTED, BY_INDEX = 1, 2
VERSION = b"\0" + m.Tversion(1 << 20, c.VERSION).frame(c.NOTAG)
#: Requests that wait for their answer at once; each has a part of memory, and of descriptors.
SLOTS = 4
PART = (MEMORY - BUFFERS) // SLOTS
#: Bytes of a request, and of its room, at the most.
LARGEST = 1 << 20
#: Sizes of the first pieces that a request and its room are in, and how many these are.
CUTS, PIECES = (LARGEST, 7, 1000, 4096), 8
ERRORS = (m.Rlerror.TYPE, legacy.Rerror.TYPE)


class Machine:
    """A machine; ``make_session`` is as that of a :class:`Guest`, ``room`` that of all clients.
    Its guest may not see what is ``secret``.

    Attributes:
        messages: how many requests its guest has made.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        room: Room,
        make_session: Callable[[Callable[[], None]], Session],
        secret: bytes,
    ) -> None:
        self._secret = secret
        self._loop = loop
        self._buffers = Buffers(room)
        self._make_session = make_session
        self._vmm: Frontend | None = None
        self.messages = 0
        self._guests: list[Guest] = []
        self.plug(STARTED)

    def do(self, step: Step) -> None:
        """Carry out a step."""
        self._listen()
        if step.op is Op.PLUG:
            self.plug(step.number)
        elif step.op is Op.ASK:
            self.ask(step.data)
        elif step.op is Op.KICK:
            self._vm.ring_bell()
        else:
            self._honest = False
            if step.op is Op.SAY:
                self._say(step.data)
            elif step.op is Op.POKE:
                place = int.from_bytes(step.data[:4], "little") % MEMORY
                self._vm.put(place, step.data[4:][: MEMORY - place])
            else:
                self._vm.offer(step.number)
                self._vm.ring_bell()

    def plug(self, how: int) -> None:
        """Another VMM, in place of the one that there was."""
        self.close()
        sock, other = socket.socketpair()
        sock.setblocking(False)
        other.setblocking(False)
        self._loop.run_until_complete(self._connect(other))
        self._vmm = Frontend(sock, event_index=bool(how & BY_INDEX))
        #: By slot, the header of what was asked, and the room for the answer.
        self._asked: dict[int, tuple[bytes, list[tuple[int, int]]]] = {}
        self._honest = bool(how & STARTED)
        self._answered = 0
        if how & STARTED:
            self._vmm.start()

    def ask(self, data: bytes) -> None:
        """Make a request, unless too many wait.  Memory is behind what there is of it."""
        self._take()
        free = [slot for slot in range(SLOTS) if slot not in self._asked]
        layout, frame = data[:1], data[1:]
        if len(frame) < HEADER.size or not free:
            return
        self.messages += 1
        slot = free[0]
        at = BUFFERS + slot * PART
        how = layout[0]
        size = min(max(HEADER.unpack_from(frame)[0], len(frame)), LARGEST)
        said = cut(at, size, CUTS[how & 3])
        room = cut(at + PART // 2, LARGEST, CUTS[how >> 2 & 3])
        self._asked[slot] = frame[: HEADER.size], room
        for place, count in said:
            self._vm.put(place, frame[:count])
            frame = frame[count:]
        pieces = [(GUEST + place, count, 0) for place, count in said]
        pieces += [(GUEST + place, count, WRITE) for place, count in room]
        head = slot * SIZE // SLOTS
        if how & 16:
            self._vm.table(pieces, head, TABLES + slot * 0x4000)
        else:
            self._vm.chain(pieces, head)
        self._vm.offer(head)
        self._vm.ring_bell()

    def check(self) -> None:
        """Assert that nothing waits that could be answered, everything having run that can."""
        self._take()
        stopped = select.select([self._vm.fault], [], [], 0)[0]
        if self._honest and not stopped:
            kinds = [asked[4] for asked, _ in self._asked.values()]
            assert set(kinds) <= {m.Tlock.TYPE}, f"no reply to {kinds}"

    def is_answered(self) -> bool:
        """Whether something was that the guest has asked."""
        self._take()
        return self._answered > 0

    def close(self) -> None:
        """The VMM goes."""
        if self._vmm is not None:
            self._take()
            self._vmm.close()
            self._vmm = None

    def end(self) -> None:
        """The VMM goes, if it has not, and the server knows at once."""
        for guest in list(self._guests):
            guest.close("the input ends")
        if self._vmm is not None:
            self._vmm.close()

    @property
    def _vm(self) -> Frontend:
        assert self._vmm is not None
        return self._vmm

    async def _connect(self, sock: socket.socket) -> None:
        """Have the server serve it."""
        spin = Spin(lambda call: None)  # the loop does not sleep
        self._guests.append(
            Guest(
                sock,
                "machine",
                "tag",
                self._buffers,
                spin,
                self._make_session,
                self._guests.remove,
            )
        )

    def _say(self, data: bytes) -> None:
        """A message or a part of one, unless the server does not listen any more."""
        vm = self._vm
        choice = [
            *((), (vm.fd,), (vm.kick,), (vm.call,), (vm.fault,), (vm.fd, vm.fd)),
            *((vm.sock.fileno(),), (vm.fd,) * 9),
        ]
        fds = choice[(data[:1] or b"\0")[0] % len(choice)]
        with suppress(BrokenPipeError, BlockingIOError, ConnectionResetError):
            socket.send_fds(vm.sock, [data[1:]], fds)

    def _listen(self) -> None:
        """Take what the VMM is answered."""
        with suppress(BlockingIOError, ConnectionResetError):
            while self._vm.sock.recv(4096):
                pass
        self._take()

    def _take(self) -> None:
        """Take what the guest is answered."""
        if not self._honest:
            self._answered += self._vm.used != self._vm.taken
            self._asked.clear()
            self._vm.taken = self._vm.used
            return
        for head, length in self._vm.take():
            slot = head * SLOTS // SIZE
            asked, room = self._asked.pop(slot)
            self._answered += 1
            if length:  # else it was flushed
                data = b"".join(self._vm.memory[at : at + count] for at, count in room)
                assert self._secret not in data[:length], "what nobody may see is shown"
                check(asked, data[:length])
            self._vm.put(room[0][0], bytes(HEADER.size))


def cut(at: int, size: int, piece: int) -> list[tuple[int, int]]:
    """Pieces of memory, of ``size`` in all, of which only the last may be larger than ``piece``."""
    pieces: list[tuple[int, int]] = []
    while size and len(pieces) < PIECES:
        count = min(piece, size)
        pieces.append((at, count))
        at += count + 3
        size -= count
    return [*pieces, (at, size)] if size else pieces


def check(asked: bytes, reply: bytes) -> None:
    """Assert that this may be the reply to the request with this header."""
    _, kind, tag = HEADER.unpack_from(asked)
    size, replied, to = HEADER.unpack_from(reply)
    assert size == len(reply), f"{len(reply)} bytes that are no reply"
    assert to == tag, f"reply {replied} to tag {to}, which asked nothing"
    assert replied == kind + 1 or replied in ERRORS, f"reply {replied} to {kind}"

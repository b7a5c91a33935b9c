"""Message: the messages of vhost-user, and what frames them (QEMU, docs/interop/vhost-user.rst).

Rules of this file:

* A message is read for itself, its head and then its payload, so that the descriptors which come
  with any of its bytes are its own.
* Numbers are those of the host, which the VMM is on, too.
* Descriptors that nobody has taken over are closed when the message is done with.  None may be of a
  socket: it could be the VMM's own end, which would then stay open for ever.
"""

import array
import os
import socket
import stat
from struct import Struct
from typing import Final

from .memory import Place, VhostError

# Requests
GET_FEATURES: Final = 1
SET_FEATURES: Final = 2
SET_OWNER: Final = 3
RESET_OWNER: Final = 4
SET_MEM_TABLE: Final = 5
SET_VRING_NUM: Final = 8
SET_VRING_ADDR: Final = 9
SET_VRING_BASE: Final = 10
GET_VRING_BASE: Final = 11
SET_VRING_KICK: Final = 12
SET_VRING_CALL: Final = 13
SET_VRING_ERR: Final = 14
GET_PROTOCOL_FEATURES: Final = 15
SET_PROTOCOL_FEATURES: Final = 16
GET_QUEUE_NUM: Final = 17
SET_VRING_ENABLE: Final = 18
GET_CONFIG: Final = 24
SET_CONFIG: Final = 25
GET_MAX_MEM_SLOTS: Final = 36
ADD_MEM_REG: Final = 37
REM_MEM_REG: Final = 38

# Flags
VERSION: Final = 1
VERSION_MASK: Final = 3
REPLY: Final = 4
NEED_REPLY: Final = 8

#: In SET_VRING_KICK, _CALL and _ERR, beside the index of the queue: there is no descriptor.
NO_FD: Final = 0x100

HEAD: Final = Struct("=III")  # request, flags, size of the payload
U64: Final = Struct("=Q")
STATE: Final = Struct("=II")  # index of the queue, number
ADDRESS: Final = Struct("=IIQQQQ")  # index, flags, descriptors, used, available, log
TABLE: Final = Struct("=II")  # regions, padding
REGION: Final = Struct("=QQQQ")  # a Place
CONFIG: Final = Struct("=III")  # offset, size, flags

#: Bytes of a payload, and descriptors with a message, at the most.
PAYLOAD_MAX: Final = 4096
FDS_MAX: Final = 8


class Message:
    """A message of the VMM.

    Attributes:
        fds: the descriptors that came with it.
    """

    __slots__ = ("fds", "flags", "payload", "request")

    def __init__(self, request: int, flags: int, payload: bytes, fds: list[int]) -> None:
        self.request = request
        self.flags = flags
        self.payload = payload
        self.fds = fds

    @property
    def needs_reply(self) -> bool:
        return bool(self.flags & NEED_REPLY)

    def fields(self, layout: Struct) -> tuple[int, ...]:
        """The fields of the payload, which has this layout and nothing else.

        Raises:
            VhostError: it has not.
        """
        if len(self.payload) != layout.size:
            raise VhostError(f"request {self.request} with {len(self.payload)} bytes")
        numbers: tuple[int, ...] = layout.unpack(self.payload)
        return numbers

    def number(self) -> int:
        (number,) = self.fields(U64)
        return number

    def take_fd(self) -> int:
        """The one descriptor that came with it; the caller closes it.

        Raises:
            VhostError: not exactly one came.
        """
        if len(self.fds) != 1:
            raise VhostError(f"request {self.request} with {len(self.fds)} descriptors, not 1")
        return self.fds.pop()

    def regions(self) -> list[Place]:
        """The places in a SET_MEM_TABLE.

        Raises:
            VhostError: it is not as long as it says.
        """
        if len(self.payload) < TABLE.size:
            raise VhostError("a table of memory without its head")
        count = TABLE.unpack_from(self.payload)[0]
        table = self.payload[TABLE.size :]
        if len(table) != count * REGION.size or count != len(self.fds):
            raise VhostError(f"a table of {count} regions with {len(self.fds)} descriptors")
        return [Place(*fields) for fields in REGION.iter_unpack(table)]

    def region(self) -> Place:
        """The place in an ADD_MEM_REG or REM_MEM_REG.

        Raises:
            VhostError: there is none.
        """
        if len(self.payload) != U64.size + REGION.size:
            raise VhostError(f"request {self.request} with {len(self.payload)} bytes")
        return Place(*REGION.unpack_from(self.payload, U64.size))

    def reply(self, payload: bytes) -> bytes:
        return HEAD.pack(self.request, VERSION | REPLY, len(payload)) + payload

    def close(self) -> None:
        """Close what descriptors nobody has taken."""
        while self.fds:
            os.close(self.fds.pop())


class Inbox:
    """Receives messages, each when all of it is here, from a socket that does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()
        self._fds: list[int] = []

    def receive(self) -> Message | None:
        """The next message, if it is here.

        Raises:
            EOFError: there will be none.
            OSError: the socket has failed.
            VhostError: a message that can not be.
        """
        while True:
            missing = self._missing()
            if not missing:
                request, flags, _ = HEAD.unpack_from(self._data)
                message = Message(request, flags, bytes(self._data[HEAD.size :]), self._fds)
                self._data = bytearray()
                self._fds = []
                return message
            try:
                self._more(missing)
            except BlockingIOError:
                return None

    def close(self) -> None:
        """Close the descriptors of a message that did not come whole."""
        while self._fds:
            os.close(self._fds.pop())

    def _missing(self) -> int:
        """How many bytes of the head, or of the whole message, are still to come."""
        if len(self._data) < HEAD.size:
            return HEAD.size - len(self._data)
        _, flags, size = HEAD.unpack_from(self._data)
        if flags & VERSION_MASK != VERSION or flags & REPLY:
            raise VhostError(f"a message with flags {flags:#x}")
        if size > PAYLOAD_MAX:
            raise VhostError(f"a message of {size} bytes")
        whole: int = HEAD.size + size
        return whole - len(self._data)

    def _more(self, missing: int) -> None:
        room = socket.CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
        data, ancillary, flags, _ = self._sock.recvmsg(missing, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._fds += numbers
        if flags & socket.MSG_CTRUNC or len(self._fds) > FDS_MAX:
            raise VhostError("a message with too many descriptors")
        if any(stat.S_ISSOCK(os.fstat(fd).st_mode) for fd in self._fds):
            raise VhostError("a message with a socket")
        if not data:
            raise EOFError
        self._data += data

"""Handover: a process that stands between a client and the server gives its pipes to the latter.

What sshd has started reads and writes pipes.  If all it does is to carry bytes between these and
the server's unix socket, the server can as well have them itself (SCM_RIGHTS, unix(7)): then no
request wakes up another process on its way, nor does its reply.

Rules of this file:

* A client may ask for it before it says anything else.  A server that does not know the question
  ends the connection, or answers something else; who has asked connects anew and carries bytes.
* Nothing is given before the server has said that it takes it: what it got it would read, too,
  when it was given up long ago.
* The server takes nothing but pipes, whose ends are the right ones.
* It takes them of nobody but who is trusted: who has an end of a pipe can have whoever reads or
  writes it wait, by the flags that all of its owners share, or by a splice(2) that keeps it locked.
* The socket stays, so that who has asked sees when the connection has ended.
"""

import fcntl
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Any

from .stdio import enlarge, is_pipe
from .wire.primitives import HEADER, Buffer

#: The question, its answer, and what the pipes come with: messages of 9P without fields, of types
#: that no dialect has.
ASKED, ABLE, GIVEN = (HEADER.pack(HEADER.size, kind, 0xFFFF) for kind in (46, 47, 48))
#: The two descriptors that are given.
FDS = struct.Struct("=ii")
#: Seconds in which the question must be answered.
PATIENCE = 5.0


def give(sock: socket.socket, incoming: int, outgoing: int) -> bool:
    """Give a server what to read from and what to write to, if it takes that; whether it does.

    Raises:
        OSError: it has ended meanwhile.
    """
    if not _are_pipes(incoming, outgoing):
        return False
    try:
        sock.settimeout(PATIENCE)
        sock.sendall(ASKED)
        answer = sock.recv(len(ABLE), socket.MSG_WAITALL)
        sock.settimeout(None)
    except OSError:
        return False
    if answer != ABLE:
        return False
    enlarge(incoming, outgoing)
    socket.send_fds(sock, [GIVEN], [incoming, outgoing])
    return True


def asked(sock: socket.socket) -> bool:
    """Answer a client whose next message, which is here, is the question; whether it is."""
    try:
        if sock.recv(len(ASKED), socket.MSG_PEEK) != ASKED:
            return False
        sock.recv(len(ASKED))
        sock.send(ABLE)
    except OSError:  # whoever receives what is next is told
        return False
    return True


def take(sock: socket.socket) -> "Pipes | None":
    """What a client gives with its next message, which is here; None if it is an ordinary one."""
    flags = socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC  # recv_fds() takes none
    try:
        said, more, *_ = sock.recvmsg(len(GIVEN), socket.CMSG_LEN(FDS.size), flags)
    except OSError:  # whoever receives the message is told
        return None
    given = array("i")
    for level, kind, data in more:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            given.frombytes(data)
    if said != GIVEN or len(given) != 2 or not _are_pipes(*given):
        for descriptor in given:
            os.close(descriptor)
        return None
    sock.recv(len(GIVEN))
    return Pipes(sock, *given)


def _are_pipes(incoming: int, outgoing: int) -> bool:
    return _is_end(incoming, os.O_RDONLY) and _is_end(outgoing, os.O_WRONLY)


def _is_end(descriptor: int, access: int) -> bool:
    if not is_pipe(descriptor):
        return False
    flags: int = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    return flags & (os.O_ACCMODE | os.O_PATH) == access


class Pipes:
    """Two pipes, to be used as a socket is that does not block.

    Attributes:
        outgoing: what is written to; :meth:`fileno` is what is read from.
        sock: through which they were given; ends with who has given them.
    """

    def __init__(self, sock: socket.socket, incoming: int, outgoing: int) -> None:
        self.sock = sock
        self._incoming = incoming
        self.outgoing = outgoing
        for descriptor in (incoming, outgoing):
            os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        return self._incoming

    def recv_into(self, buffer: memoryview, nbytes: int = 0) -> int:
        return os.readv(self._incoming, [buffer[:nbytes] if nbytes else buffer])

    def recvmsg_into(self, buffers: Sequence[Any]) -> tuple[int]:
        return (os.readv(self._incoming, buffers),)

    def sendmsg(self, buffers: Sequence[Buffer]) -> int:
        return os.writev(self.outgoing, buffers)

    def send(self, data: Buffer) -> int:
        return os.write(self.outgoing, data)

    def shutdown(self, _: int) -> None:
        """Write no more; the number of the descriptor stays taken."""
        os.dup2(self.sock.fileno(), self.outgoing, inheritable=False)

    def close(self) -> None:
        os.close(self._incoming)
        os.close(self.outgoing)
        self.sock.close()

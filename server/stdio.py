"""Stdio: standard input and output as one connection, and where to say what is wrong then.

Rules of this file:

* Who has started a command on a socket alone (inetd, QEMU's guestfwd) has made that its standard
  error too.  No word must be written there; it goes to the system log.
* Threads read and write, for what is at both ends may be anything: a pipe, a socket, a terminal.
* Where both are pipes (of sshd, say), the kernel moves pages between them and the socket, and
  nothing is copied here (splice(2)).
"""

import fcntl
import os
import socket
import stat
import sys
import syslog
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from select import POLLIN, POLLOUT, poll
from threading import Event, Thread
from typing import Any

from .usage import ConfigError

#: Bytes carried at once: a message, as long as the kernel's client has them.
CHUNK = 1 << 20
#: Sockets to and from which the kernel moves pages.
SPLICED = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
#: Seconds that whoever reads standard output has to take what is left for him.
LINGER = 5.0

#: Carries some bytes: how many, none at the end.
Carry = Callable[[], int]


def is_silent() -> bool:
    """Whether standard error is the connection."""
    try:
        return _is_socket(2) and os.path.sameopenfile(0, 2)
    except OSError:  # one of them is closed
        return False


def complain(line: str, silent: bool) -> None:
    """Say why a command ends, on standard error unless that was the connection."""
    if silent:
        syslog.openlog("tmpfs9p", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(syslog.LOG_ERR, line)
    else:
        print(f"tmpfs9p: {line}", file=sys.stderr)


@contextmanager
def connection() -> Iterator[socket.socket]:
    """Standard input and output as a socket.  What others write there goes to standard error, or
    nowhere where that was the connection too.

    Raises:
        ConfigError: they are closed.
    """
    bridge: Thread | None = None
    try:
        is_one_socket = os.path.sameopenfile(0, 1) and _is_socket(0)
    except OSError as error:
        raise ConfigError(f"--listen: stdio: {error.strerror}") from None
    if is_one_socket:
        sock = _prompt(0) or socket.socket(fileno=os.dup(0))
    else:
        sock, far = socket.socketpair()
        bridge = Thread(target=_carry, args=(Bridge(far, os.dup(0), os.dup(1)),), daemon=True)
        bridge.start()
    with open(os.devnull, "r+b") as nowhere:
        if is_silent():
            os.dup2(nowhere.fileno(), 2)
        os.dup2(nowhere.fileno(), 0)
        os.dup2(2, 1)
    yield sock
    if bridge is not None:
        bridge.join(LINGER)


def _carry(bridge: "Bridge") -> None:
    with suppress(OSError):
        bridge.run()


def _is_socket(descriptor: int) -> bool:
    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def is_pipe(descriptor: int) -> bool:
    """Whether it is an end of a pipe."""
    return stat.S_ISFIFO(os.fstat(descriptor).st_mode)


def enlarge(*pipes: int) -> None:
    """Have pipes hold ``CHUNK`` bytes each."""
    for pipe in pipes:
        with suppress(OSError):  # who has many has smaller ones (pipe(7))
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CHUNK)


class PromptSocket(socket.socket):
    """A TCP socket at which nothing waits: it sends and acknowledges at once.

    The other end of QEMU's guestfwd sends the second packet of a message when the first has been
    acknowledged (Nagle's algorithm), which would take 40 ms.  Source: tcp(7), TCP_QUICKACK: that
    does not last.
    """

    def recv_into(self, *args: Any) -> int:
        count = super().recv_into(*args)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return count

    def recvmsg_into(self, *args: Any) -> Any:
        received = super().recvmsg_into(*args)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return received


def _prompt(descriptor: int) -> PromptSocket | None:
    """The socket at this descriptor, if it is of TCP."""
    if not _is_socket(descriptor):
        return None
    sock = PromptSocket(fileno=os.dup(descriptor))
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        sock.close()
        return None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Bridge:
    """Between a socket, and standard input and output or what was that."""

    def __init__(self, sock: socket.socket, stdin: int = 0, stdout: int = 1) -> None:
        self._sock = sock
        self._stdin, self._stdout = stdin, stdout
        self._ended = Event()  # standard input has
        self._prompt = _prompt(stdin)
        self._has_pipes = sock.family in SPLICED and all(map(is_pipe, (stdin, stdout)))
        if self._has_pipes:
            sock.setblocking(False)
            enlarge(stdin, stdout)

    def run(self) -> None:
        """Carry bytes until the socket has ended.

        Raises:
            OSError: the socket failed, or ended before it gave anything.
        """
        Thread(target=self._send, daemon=True).start()
        silent = True
        carry = self._outwards()
        try:
            while carry():
                silent = False
        except BrokenPipeError:  # nobody takes it
            return
        finally:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        if silent and not self._ended.is_set():
            raise ConnectionResetError("the server has ended the connection at once; see its log")

    def _send(self) -> None:
        carry = self._inwards()
        with suppress(OSError):
            while carry():
                pass
        self._ended.set()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        if self._prompt is not None:
            self._prompt.close()

    def _inwards(self) -> Carry:
        if self._has_pipes:
            return self._splicing(self._stdin, self._sock.fileno(), POLLOUT)
        room = memoryview(bytearray(CHUNK))

        def copy() -> int:
            count = self._read(room)
            self._sock.sendall(room[:count])
            return count

        return copy

    def _outwards(self) -> Carry:
        if self._has_pipes:
            return self._splicing(self._sock.fileno(), self._stdout, POLLIN)
        room = memoryview(bytearray(CHUNK))

        def copy() -> int:
            count = self._sock.recv_into(room)
            self._write(room[:count])
            return count

        return copy

    def _splicing(self, source: int, target: int, ready: int) -> Carry:
        """The socket does not block: who waits for it in splice(2) keeps the pipe locked."""
        waiting = poll()
        waiting.register(self._sock, ready)

        def splice() -> int:
            while True:
                with suppress(BlockingIOError):
                    return os.splice(source, target, CHUNK)
                waiting.poll()

        return splice

    def _read(self, room: memoryview) -> int:
        if self._prompt is not None:
            return self._prompt.recv_into(room)
        return os.readv(self._stdin, [room])

    def _write(self, rest: memoryview) -> None:
        """Write all of it to standard output.

        Raises:
            BrokenPipeError: nobody takes it.
        """
        try:
            while rest:
                rest = rest[os.write(self._stdout, rest) :]
        except ConnectionResetError as error:
            raise BrokenPipeError from error

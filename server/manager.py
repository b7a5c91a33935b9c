"""Manager: the service manager that has started the server, as systemd's interfaces have it.

It passes listening sockets (sd_listen_fds(3)), is told what the server does (sd_notify(3)), and
kills it when it hears nothing (sd_watchdog_enabled(3)).

Rules of this file:

* What it says in the environment is read once, and is not there for anybody else after that.
* It is told only of what has happened; without a manager, nobody is.
* The watchdog is fed by the loop that serves: if that is stuck, nothing feeds it.
"""

import asyncio
import os
import socket
import time
from collections.abc import MutableMapping

import structlog

from .usage import ConfigError

log = structlog.get_logger()

#: The first descriptor that is passed (SD_LISTEN_FDS_START).
FIRST_FD = 3
#: Seconds that telling it something may take, but for the watchdog: that never waits.
PATIENCE = 1.0


class Manager:
    """What started the server, if it said so in ``environ``.

    Attributes:
        sockets: those that were passed and not taken yet, each with its name, which several may
            have.

    Raises:
        ConfigError: what was passed are not sockets that listen.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self.sockets = _passed(environ)
        self._path = environ.pop("NOTIFY_SOCKET", None)
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        fed = self._path is not None and usec.isdecimal() and pid in ("", str(os.getpid()))
        #: Half of the time after which it misses the server, in seconds.
        self._interval = int(usec) / 2e6 if fed else None
        self._next: asyncio.TimerHandle | None = None

    def take(self, name: str) -> list[socket.socket]:
        """The sockets of that name, or all that are left if it is empty."""
        taken = [it for it in self.sockets if name in ("", it[0])]
        self.sockets = [it for it in self.sockets if it not in taken]
        return [sock for _, sock in taken]

    def ready(self, status: str) -> None:
        """The server serves, with what was configured last; feed the watchdog from now on."""
        self._tell("READY=1", f"STATUS={status.replace(chr(10), ' ')}")
        if self._interval is not None and self._next is None:
            self._feed(self._interval)

    def reloading(self) -> None:
        """It reads its configuration again; :meth:`ready` ends that."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It is about to end."""
        self._tell("STOPPING=1", "STATUS=stopping")

    def close(self) -> None:
        """It has ended: the watchdog is not fed any more."""
        if self._next is not None:
            self._next.cancel()

    def _feed(self, interval: float) -> None:
        self._tell("WATCHDOG=1", patience=0)
        self._next = asyncio.get_running_loop().call_later(interval, self._feed, interval)

    def _tell(self, *assignments: str, patience: float = PATIENCE) -> None:
        if self._path is None:
            return
        path = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(patience)
                sock.connect(path)
                sock.send("\n".join(assignments).encode())
        except OSError as error:
            log.warning("the service manager does not listen", why=error.strerror or str(error))


def _passed(environ: MutableMapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The sockets that were passed, each with its name.

    Raises:
        ConfigError: they are none that listen.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "unknown").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    names += ["unknown"] * (int(count) - len(names))  # as sd_listen_fds_with_names(3) has it
    return [(names[i], _listening(FIRST_FD + i)) for i in range(int(count))]


def _listening(number: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS: descriptor {number}: {error.strerror}") from None
    sock.set_inheritable(False)
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise ConfigError(f"LISTEN_FDS: descriptor {number} is no socket that listens for streams")
    return sock

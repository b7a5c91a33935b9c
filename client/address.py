"""Address: where a server is, as users write it, and how a connection is made to it.

``tcp://HOST[:PORT]``, ``tls://HOST[:PORT]``, ``unix:///PATH``, and ``ssh://[USER@]HOST[:PORT]/PATH``:
a unix socket on a machine that one can log in to, where ``tmpfs9p connect`` is run.

Rules of this file:

* Who the user is, unless he says so: over tcp and unix sockets he has the number that he has here;
  over ssh the name of who logs in, or that he has here; over TLS, who his certificate says.
"""

import asyncio
import os
import re
import shlex
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from getpass import getuser
from urllib.parse import unquote

from server.wire.constants import NONUNAME

from .connection import Connection

#: The port of servers that name no other.
PORT = 5640

_WHERE = re.compile(
    r"(?P<scheme>tcp|tls|ssh)://(?:(?P<user>[^@/]+)@)?"
    r"(?:\[(?P<ipv6>[0-9a-fA-F:.%]+)\]|(?P<host>[^:/\[\]@-][^:/\[\]@]*))(?::(?P<port>\d{1,5}))?"
    r"(?P<path>/.*)?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and who comes: his login, and his name and his number there."""

    scheme: str
    host: str
    port: int | None
    path: str
    login: str
    uname: str
    uid: int

    async def dial(
        self, make: Callable[[], Connection], tls: ssl.SSLContext | None = None
    ) -> Connection:
        """Connect a new protocol to it.

        Args:
            make: makes the protocol.
            tls: for ``tls://``.

        Raises:
            OSError: it can not be reached.
        """
        loop = asyncio.get_running_loop()
        if self.scheme == "unix":
            return (await loop.create_unix_connection(make, self.path))[1]
        if self.scheme == "ssh":
            return await self._through_ssh(make)
        assert tls is not None or self.scheme == "tcp"
        context = tls if self.scheme == "tls" else None
        return (await loop.create_connection(make, self.host, self.port or PORT, ssl=context))[1]

    async def _through_ssh(self, make: Callable[[], Connection]) -> Connection:
        ours, its = socket.socketpair()
        with its:
            end = its.fileno()
            try:
                ssh = await asyncio.create_subprocess_exec(
                    *self.ssh(), stdin=end, stdout=end, stderr=asyncio.subprocess.PIPE
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        _, made = await asyncio.get_running_loop().create_connection(make, sock=ours)
        made.carrier = ssh
        made.telling = asyncio.create_task(_tell(ssh))
        return made

    def ssh(self) -> list[str]:
        """The command whose standard input and output are a connection."""
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.login] if self.login else []
        remote = f"tmpfs9p connect {shlex.quote('unix://' + self.path)}"
        return ["ssh", "-T", *port, *user, "--", self.host, remote]


async def _tell(process: asyncio.subprocess.Process) -> None:
    """Write what it writes where errors go; itself it shall not hold that open."""
    assert process.stderr is not None
    while text := await process.stderr.read(4096):
        os.write(2, text)


def parse(text: str) -> Address:
    """What an address says.

    Raises:
        ValueError: it is none; says what is allowed.
    """
    if text.startswith("unix:///"):
        return Address("unix", "", None, text[len("unix://") :], "", "", os.geteuid())
    match = _WHERE.fullmatch(text)
    scheme = match["scheme"] if match else ""
    if match is None or int(match["port"] or 0) > 65535 or _is_odd(scheme, match):
        raise ValueError(
            f"{text!r} is none of tcp://HOST[:PORT], tls://HOST[:PORT], unix:///PATH, "
            "ssh://[USER@]HOST[:PORT]/PATH"
        )
    host, port = match["ipv6"] or match["host"], int(match["port"] or 0) or None
    if scheme == "ssh":
        login = unquote(match["user"] or "")
        return Address(scheme, host, port, match["path"], login, login or getuser(), NONUNAME)
    return Address(scheme, host, port, "", "", "", os.geteuid() if scheme == "tcp" else NONUNAME)


def _is_odd(scheme: str, match: re.Match[str]) -> bool:
    """Whether an address has what others have."""
    if scheme == "ssh":
        return len(match["path"] or "/") < 2
    return bool(match["user"] or (match["path"] or "/") != "/")

"""connect: ``tmpfs9p connect``, a bridge from standard input and output to a server.

Rules of this file:

* It ends when the server has ended.  That its own input has ended is passed on, and what the server
  still says comes out.
* It exits 0; 1, with a line that says why, if it is not let in or the connection breaks; 2 if what
  is asked for can not be.
* Threads read and write, for what is at both ends may be anything: a pipe, a socket, a terminal.
"""

import argparse
import asyncio
import os
import signal
import socket
import ssl
import sys
from contextlib import suppress
from threading import Event, Thread
from typing import NoReturn

import uvloop

from .address import Address, Tls, Unix, address
from .certificates import context_of
from .config import ConfigError
from .tls import CHUNK, Stream, why_not

#: Seconds in which the server must accept, and prove who it is.
PATIENCE = 30.0

EXAMPLES = """\
examples:
  socat UNIX-LISTEN:/run/t9.sock,fork,mode=600 \\
      EXEC:'tmpfs9p connect tls://files.example.org:5641 --cert me.pem --key me.key --ca ca.pem'
  mount -t 9p -o trans=unix,version=9p2000.L,msize=1048576 /run/t9.sock /mnt
"""

KEYS = ("cert", "key", "ca")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter ``connect`` among the commands; a parsed one has ``run``, which ends the program."""
    parser = commands.add_parser(
        "connect",
        help="connect standard input and output to a server",
        description="Connect standard input and output to a server, through TLS if need be.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "address", metavar="ADDR", help="tls://HOST:PORT, tcp://HOST:PORT or unix:///PATH"
    )
    parser.add_argument("--cert", metavar="FILE", help="certificate chain to show, in PEM")
    parser.add_argument("--key", metavar="FILE", help="key to it, without a passphrase")
    parser.add_argument("--ca", metavar="FILE", help="certificates of who certifies the server")
    parser.add_argument(
        "--server-name",
        metavar="NAME",
        help="name or address in the server's certificate (default: HOST)",
    )


def _run(arguments: argparse.Namespace) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    status = 2
    try:
        where = _address(arguments)
        if isinstance(where, Tls):
            files = (arguments.cert, arguments.key, arguments.ca)
            context = context_of(ssl.PROTOCOL_TLS_CLIENT, "", *files)
            name = arguments.server_name or where.host
            status = 1
            with _connected(where) as sock:
                uvloop.run(_through_tls(sock, context, name))
        else:
            status = 1
            with _connected(where) as sock:
                _Bridge(sock).run()
        status = 0
    except ConfigError as error:
        print(f"tmpfs9p: {error}", file=sys.stderr)
    except (OSError, ValueError) as error:  # the latter: a name that can be no host's
        print(f"tmpfs9p: {arguments.address}: {why_not(error)}", file=sys.stderr)
    sys.exit(status)


def _address(arguments: argparse.Namespace) -> Address:
    """Where to connect to.

    Raises:
        ConfigError: it is no address, or the options do not go with it.
    """
    try:
        where = address(arguments.address)
    except ValueError as error:
        raise ConfigError(f"{arguments.address!r} is not allowed; it takes {error}") from None
    for key in (*KEYS, "server-name"):
        given = getattr(arguments, key.replace("-", "_")) is not None
        if given and not isinstance(where, Tls):
            raise ConfigError(f"--{key}: without a use, {where} is not tls://HOST:PORT")
        if not given and isinstance(where, Tls) and key in KEYS:
            raise ConfigError(f"--{key}: not given; {where} takes --cert, --key and --ca")
    return where


def _connected(where: Address) -> socket.socket:
    if isinstance(where, Unix):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(where.path)
        except OSError:
            sock.close()
            raise
        return sock
    sock = socket.create_connection((where.host, where.port), PATIENCE)
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def _through_tls(sock: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
    """Bridge to the server at the other end of ``sock``, if it is the one that is wanted.

    Raises:
        OSError: it is not, or it has not let this client in, or the connection broke.
        ValueError: the name can be no server's.
    """
    sock.setblocking(False)
    stream = Stream(sock, context, server_name)
    async with asyncio.timeout(PATIENCE):
        await stream.shake_hands()
    near, far = socket.socketpair()
    far.setblocking(False)
    relaying = asyncio.create_task(stream.relay(far))
    relaying.add_done_callback(lambda _: far.close())
    bridging = asyncio.to_thread(_Bridge(near).run)
    relayed, bridged = await asyncio.gather(relaying, bridging, return_exceptions=True)
    if isinstance(relayed, BaseException):
        raise relayed
    if stream.cut:
        raise ConnectionResetError("the connection was cut")
    if isinstance(bridged, BaseException):
        raise bridged


class _Bridge:
    """Between standard input and output, and a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._ended = Event()  # standard input has

    def run(self) -> None:
        """Carry bytes until the socket has ended.

        Raises:
            OSError: the socket failed, or ended before it gave anything.
        """
        Thread(target=self._send, daemon=True).start()
        silent = True
        try:
            while data := self._sock.recv(CHUNK):
                silent = False
                if not _written(data):
                    return
        finally:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        if silent and not self._ended.is_set():
            raise ConnectionResetError("the server has ended the connection at once; see its log")

    def _send(self) -> None:
        with suppress(OSError):
            while data := os.read(0, CHUNK):
                self._sock.sendall(data)
        self._ended.set()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)


def _written(data: bytes) -> bool:
    """Write all of it to standard output; whether anybody takes it."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(1, rest) :]
    except BrokenPipeError:
        return False
    return True

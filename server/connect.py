"""connect: ``tmpfs9p connect``, a bridge from standard input and output to a server.

Rules of this file:

* It ends when the server has ended.  That its own input has ended is passed on, and what the server
  still says comes out.
* Nothing is carried where the server takes standard input and output itself.
* It exits 0; 1, with a line that says why, if it is not let in or the connection breaks; 2 if what
  is asked for can not be.
* A process is started for each connection, so what TLS takes is loaded only for that.
"""

import argparse
import errno
import os
import signal
import socket
import sys
from typing import NoReturn

from .address import FORMS, Address, Tcp, Tls, Unix, address
from .handover import give
from .stdio import Bridge, complain, is_silent
from .usage import ConfigError

#: Seconds in which the server must accept, and prove who it is.
PATIENCE = 30.0

EXAMPLES = """\
examples:
  socat UNIX-LISTEN:/run/t9.sock,fork,mode=600 \\
      EXEC:'tmpfs9p connect tls://files.example.org:5641 --cert me.pem --key me.key --ca ca.pem'
  mount -t 9p -o trans=unix,version=9p2000.L,msize=1048576 /run/t9.sock /mnt
"""

KEYS = ("cert", "key", "ca")


def main() -> NoReturn:
    """Run ``tmpfs9p connect`` without loading what other commands need."""
    parser = argparse.ArgumentParser(prog="tmpfs9p connect")
    _describe(parser)
    run(parser.parse_args(sys.argv[2:]))


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter ``connect`` among the commands; a parsed one has ``run``, which ends the program."""
    parser = commands.add_parser("connect", help="connect standard input and output to a server")
    parser.set_defaults(run=run)
    _describe(parser)


def _describe(parser: argparse.ArgumentParser) -> None:
    parser.description = "Connect standard input and output to a server, through TLS if need be."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("address", metavar="ADDR", help=FORMS)
    parser.add_argument("--cert", metavar="FILE", help="certificate chain to show, in PEM")
    parser.add_argument("--key", metavar="FILE", help="key to it, without a passphrase")
    parser.add_argument("--ca", metavar="FILE", help="certificates of who certifies the server")
    parser.add_argument(
        "--server-name",
        metavar="NAME",
        help="name or address in the server's certificate (default: HOST)",
    )


def run(arguments: argparse.Namespace) -> NoReturn:
    """Run it with these arguments."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    silent = is_silent()
    status = 1
    try:
        _connect(arguments)
        status = 0
    except ConfigError as error:
        complain(str(error), silent)
        status = 2
    except OSError as error:
        complain(f"{arguments.address}: {error.strerror or error}", silent)
    except ValueError as error:  # a name that can be no host's
        complain(f"{arguments.address}: {error}", silent)
    sys.exit(status)


def _connect(arguments: argparse.Namespace) -> None:
    """Connect, and bridge until the end.

    Raises:
        ConfigError: what is asked for can not be.
        OSError: the server is not there, does not let this client in, or the connection broke.
        ValueError: a name that can be no host's.
    """
    where = _address(arguments)
    if isinstance(where, Unix) and _hand_over(where):
        return
    if not isinstance(where, Tls):
        with _connected(where) as sock:
            Bridge(sock).run()
        return
    from . import connect_tls  # noqa: PLC0415 it takes longer to load than all the rest

    context = connect_tls.context(arguments.cert, arguments.key, arguments.ca)
    with _connected(where) as sock:
        connect_tls.bridge(sock, context, arguments.server_name or where.host, PATIENCE)


def _hand_over(where: Unix) -> bool:
    """Give the server standard input and output, and wait for the end; whether it has taken them.

    Raises:
        OSError: the server is not there, or does not keep to what it has said.
    """
    with _connected(where) as sock:
        if not give(sock, 0, 1):
            return False
        with open(os.devnull, "r+b") as nowhere:
            os.dup2(nowhere.fileno(), 0)
            os.dup2(nowhere.fileno(), 1)
        if sock.recv(1):
            raise OSError(errno.EPROTO, "the server has not taken what it was given")
        return True


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
    if isinstance(where, Tcp):
        sock = socket.create_connection((where.host, where.port), PATIENCE)
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX if isinstance(where, Unix) else socket.AF_VSOCK)
    try:
        sock.connect(where.path if isinstance(where, Unix) else (where.cid, where.port))
    except OSError:
        sock.close()
        raise
    return sock

"""The command ``tmpfs9p volume-plugin``: volumes for the containers of Docker and podman.

Rules of this file:

* It runs until SIGTERM or SIGINT, and its socket goes with it; mounts stay, as containers run on.
* It exits 0; 2 if what is asked for can not be.
"""

import argparse
import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import structlog
import uvloop

from client import address

from .config import OPTIONS
from .mounts import Mounts
from .observability import configure_logging
from .unixsocket import UnixSocket
from .usage import ConfigError
from .volumes import Volumes

log = structlog.get_logger()

NAME = "volume-plugin"

EXAMPLES = """\
examples:
  tmpfs9p serve --listen unix:///run/t9.sock --control /run/t9.control
  tmpfs9p volume-plugin --addr unix:///run/t9.sock --control /run/t9.control
  docker volume create --driver tmpfs9p --opt size=2g scratch
  docker run --rm -it --volume scratch:/scratch debian
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter ``volume-plugin`` among the commands; a parsed one has ``run``."""
    parser = commands.add_parser(
        NAME,
        help="give volumes to the containers of Docker and podman",
        description="Give volumes to the containers of Docker and podman, until SIGTERM or SIGINT.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "--addr",
        metavar="ADDR",
        default=os.environ.get("TMPFS9P_ADDR", "tcp://127.0.0.1:5640"),
        help="address of the server, as tmpfs9p mount has it (default: TMPFS9P_ADDR of the "
        "environment, else tcp://127.0.0.1:5640)",
    )
    parser.add_argument(
        "--control",
        metavar="PATH",
        default=os.environ.get("TMPFS9P_CONTROL"),
        help="control socket of the server (default: TMPFS9P_CONTROL of the environment)",
    )
    parser.add_argument(
        "--socket",
        metavar="PATH",
        default="/run/docker/plugins/tmpfs9p.sock",
        help="unix socket for the engine (default: %(default)s)",
    )
    parser.add_argument(
        "--dir",
        metavar="DIR",
        type=Path,
        default="/var/lib/tmpfs9p-volumes",
        help="where volumes are noted, and mounted (default: %(default)s)",
    )
    for key in ("log-format", "log-level"):
        option = OPTIONS[key]
        parser.add_argument(
            f"--{key}", metavar=option.metavar, default=option.default, help=option.help
        )


def _run(arguments: argparse.Namespace) -> None:
    try:
        _check(arguments)
        configure_logging(arguments.log_format, arguments.log_level)
        with _alone(arguments.dir):
            uvloop.run(_serve(arguments))
    except ConfigError as error:
        print(f"tmpfs9p: {error}", file=sys.stderr)
        sys.exit(2)


def _check(arguments: argparse.Namespace) -> None:
    """Whether what is asked for can be.

    Raises:
        ConfigError: it can not; says why.
    """
    if find_spec("aiohttp") is None:
        raise ConfigError(f"{NAME}: no module aiohttp; pip install 'tmpfs9p[volumes]'")
    if os.geteuid() != 0:
        raise ConfigError(f"{NAME}: only root can mount what containers of all users see")
    if not arguments.control:
        raise ConfigError("--control: not given; it takes the control socket of a server")
    for key, parse in (
        ("addr", address.parse),
        ("log-format", OPTIONS["log-format"].parse),
        ("log-level", OPTIONS["log-level"].parse),
    ):
        value = getattr(arguments, key.replace("-", "_"))
        try:
            parse(value)
        except ValueError as error:
            raise ConfigError(f"--{key}: {value!r} is not allowed; it takes {error}") from None


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Have a directory for this process alone.

    Raises:
        ConfigError: another has it, or it can not be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise ConfigError(f"--dir: {directory}: another plugin has it") from None
    except OSError as error:
        raise ConfigError(f"--dir: {directory}: {error.strerror}") from None


async def _serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: the directory or the socket is not usable.
    """
    from aiohttp import web  # noqa: PLC0415 it may be missing

    from .volume_api import application  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    volumes = _volumes(arguments)
    await volumes.reconcile()
    listening = _listen(arguments.socket)
    runner = web.AppRunner(application(volumes), access_log=None)
    try:
        await runner.setup()
        await web.SockSite(runner, listening.sock).start()
        print(f"ready: {arguments.socket}", flush=True)
        await stop.wait()
        log.info("stopping")
    finally:
        await runner.cleanup()
        listening.close()


def _volumes(arguments: argparse.Namespace) -> Volumes:
    """The volumes as they are noted.

    Raises:
        ConfigError: they can not be read.
    """
    program = [sys.executable, *sys.orig_argv[1 : sys.orig_argv.index(NAME)]]

    def mount(options: Sequence[str], directory: str) -> list[str]:
        return [*program, "mount", "-o", ",".join(options), arguments.addr, directory]

    try:
        return Volumes(arguments.dir, arguments.control, Mounts(arguments.dir, mount))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not what was noted: {error}"
        raise ConfigError(f"--dir: {arguments.dir}/volumes.json: {why}") from None


def _listen(path: str) -> UnixSocket:
    """The socket for the engine.

    Raises:
        ConfigError: it can not be bound.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return UnixSocket(path, mode=0o600)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--socket: {path}: {error}") from None

"""The command ``tmpfs9p``."""

import argparse
import asyncio
import os
import pwd
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import structlog
import uvloop

from client import mount
from client.commands import add_parsers
from tmpfs_core.frames import FRAME
from tmpfs_core.memory import Memory
from tmpfs_core.swap import Cipher, Swap, SwapFile

from . import (
    __version__,
    config_command,
    connect,
    export_command,
    session,
    status_command,
    stdio,
    volume_plugin,
)
from .address import CID_HOST, Listened, Passed, Stdio, Tcp, Tls, Unix, VhostUser, Vsock
from .certificates import certificates_of
from .commands import commands
from .config import OPTIONS, Config, ExportConfig, load
from .control import Command, Control
from .listener import ListenError, Server
from .manager import Manager
from .meter import Meter
from .observability import configure_logging
from .privileges import drop
from .reload import Reload
from .status import Status
from .store import Store
from .usage import ConfigError

if TYPE_CHECKING:
    from .web import Web

log = structlog.get_logger()

#: The largest message that Linux takes over virtio, in bytes (net/9p/trans_virtio.c).
VIRTIO_MSIZE = 512000

EXAMPLES = """\
examples:
  tmpfs9p serve
      half of the host's RAM, for clients on this machine
  tmpfs9p serve --size 8g --listen unix:///run/t9.sock --listen tcp://127.0.0.1:5640
      8 GiB, on a unix socket and on TCP

mount it (as root, Linux):
  mount -t 9p -o trans=tcp,port=5640,version=9p2000.L,msize=1048576 127.0.0.1 /mnt
"""


def main() -> NoReturn:
    """Run the command line; exits 0, or 2 if something asked for can not be, or 1 if refused."""
    arguments = _parser().parse_args()
    arguments.run(arguments)
    sys.exit(0)


def _serve(arguments: argparse.Namespace) -> None:
    given = {
        key: value if isinstance(value, list) else [value]
        for key in OPTIONS
        if (value := getattr(arguments, key.replace("-", "_"))) is not None
    }
    read = partial(load, given, os.environ, arguments.config)
    silent = stdio.is_silent()
    configure = partial(configure_logging, silent=silent)
    try:
        config = read()
        configure(config.log_format, config.log_level)
        with stdio.connection() if Stdio() in config.listen else nullcontext() as client:
            uvloop.run(serve(config, read, configure, client))
    except (ConfigError, ListenError) as error:
        stdio.complain(str(error), silent)
        sys.exit(2)


def described() -> str:
    """The version, and whether what serves requests was compiled."""
    compiled = session.__file__.endswith(tuple(EXTENSION_SUFFIXES))
    return f"{__version__} (compiled)" if compiled else __version__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tmpfs9p",
        description="A 9P file server whose files live in memory.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tmpfs9p {described()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    config_command.add_parser(commands)
    export_command.add_parser(commands)
    status_command.add_parsers(commands)
    connect.add_parser(commands)
    add_parsers(commands)
    mount.add_parser(commands)
    volume_plugin.add_parser(commands)
    serve_parser = commands.add_parser(
        "serve",
        help="serve a new, empty file system",
        description="Serve a new, empty file system until SIGTERM or SIGINT.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve_parser.set_defaults(run=_serve)
    for key, option in OPTIONS.items():
        default = (
            "" if "default" in option.help or option.is_flag else f" (default: {option.default})"
        )
        text = (option.help + default).replace("%", "%%")
        if option.is_flag:
            serve_parser.add_argument(f"--{key}", action="store_const", const="true", help=text)
            continue
        serve_parser.add_argument(
            f"--{key}",
            metavar=option.metavar,
            action="append" if option.many else "store",
            help=text,
        )
    serve_parser.add_argument(
        "--config", metavar="FILE", type=Path, help="TOML file with any of these options as keys"
    )
    return parser


async def serve(
    config: Config,
    read: Callable[[], Config],
    configure_logging: Callable[[str, str], None],
    client: socket.socket | None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until a client that is there already has gone.

    Args:
        read: the configuration as it is at a SIGHUP.
        configure_logging: has the log be of this format, from this level up.
        client: who is there already.

    Raises:
        ListenError: an address can not be bound.
        ConfigError: the host refuses the memory.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    manager = Manager(os.environ)
    certificates = certificates_of(config)
    store = Store(_memory(config), config.limits.max_depth)
    control: Control | None = None
    meter = Meter()
    watched = meter if config.control or config.metrics else None
    server = Server(store, config.msize, config.limits, config.allow, certificates, watched)
    status = Status(server, store, meter)
    web: Web | None = None
    reload = Reload(config, read, configure_logging, store, server, manager)
    loop.add_signal_handler(signal.SIGHUP, reload.ask)
    try:
        for export in config.exports:
            await _add(store, export)
        if config.control is not None:
            known = commands(store, lambda: reload.config, status)
            control = _control(config.control, known)
        bound = [it for address in config.listen for it in _listen(server, address, manager)]
        if manager.sockets:
            unused = [name for name, _ in manager.sockets]
            log.warning("sockets were passed that no --listen takes", names=unused)
        if config.metrics is not None:
            web = _web(config, config.metrics, status, lambda: not stop.is_set())
        if config.user is not None:  # nobody has been let in yet: the loop has not had a turn since
            _become(config.user, server, control, web)
        for address in bound:
            print(f"ready: {address}  {_how_to_use(address, config.msize)}", flush=True)
        if web is not None:
            log.info("metrics are served", at=str(web.address))
        if client is not None:
            server.adopt(client, stop.set)
        manager.ready(reload.status)
        reloading = loop.create_task(reload.run())
        await stop.wait()
        log.info("stopping")
        manager.stopping()
        reloading.cancel()
    finally:
        if control is not None:
            await control.close()
        await server.stop()
        if web is not None:
            await web.close()
        manager.close()


def _listen(
    server: Server, address: Listened | Passed | Stdio, manager: Manager
) -> Sequence[Listened]:
    """Accept clients at an address, or at the sockets that stand for it; where that is.

    Raises:
        ListenError: it can not be.
    """
    if isinstance(address, Stdio):  # its client is there already
        return []
    if not isinstance(address, Passed):
        return [server.listen(address)]
    sockets = manager.take(address.name)
    if not sockets:
        raise ListenError(f"{address}: no such socket was passed; this takes systemd, or the like")
    return [server.listen_at(sock) for sock in sockets]


async def _add(store: Store, export: ExportConfig) -> None:
    """Make an export as configured.

    Raises:
        ConfigError: the host refuses the memory.
    """
    try:
        await store.add(export)
    except OSError as error:
        raise ConfigError(f"--export: /{export.name}: {error.strerror}") from None


def _control(path: str, commands: dict[str, Command]) -> Control:
    """The control socket.

    Raises:
        ConfigError: it can not be bound.
    """
    try:
        return Control(path, commands)
    except OSError as error:
        raise ConfigError(f"--control: {path}: {error.strerror}") from None


def _web(config: Config, address: Tcp | Unix, status: Status, ready: Callable[[], bool]) -> "Web":
    """Metrics and health at an address.

    Raises:
        ConfigError: what it needs is not installed.
        ListenError: it can not be bound, or anybody could come in there.
    """
    try:
        from .metrics import Metrics  # noqa: PLC0415 it may be missing
        from .web import Web  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing("metrics", "metrics", error) from None
    return Web(address, config.allow, Metrics(status), ready)


def _missing(key: str, extra: str, error: ModuleNotFoundError) -> ConfigError:
    """What an option needs that is not installed."""
    needed = f"no module {error.name}; pip install 'tmpfs9p[{extra}]'"
    return ConfigError(f"--{key}: {needed}")


def _become(
    user: pwd.struct_passwd, server: Server, control: Control | None, web: "Web | None"
) -> None:
    """Become this user, who has the sockets from then on.

    Raises:
        ConfigError: it can not be.
    """
    for sockets in (server, control, web):
        try:
            if sockets is not None:
                sockets.give(user.pw_uid, user.pw_gid)
        except OSError as error:
            raise ConfigError(f"--user: {user.pw_name}: {error.strerror}") from None
    drop(user)


def _memory(config: Config) -> Memory:
    """RAM and swap as configured.

    Raises:
        ConfigError: the host refuses them.
    """
    files: list[SwapFile] = []
    for path in config.swap:
        frames = config.swap_size // FRAME // len(config.swap)
        try:
            files.append(SwapFile(path, frames, _cipher() if config.swap_encrypt else None))
        except OSError as error:
            raise ConfigError(f"--swap: {path}: {error.strerror}") from None
    try:
        return Memory(config.ram // FRAME, Swap(files) if files else None)
    except OSError as error:
        key = "ram" if files else "size"
        raise ConfigError(f"--{key}: {config.ram} bytes: {error.strerror}") from None


def _cipher() -> Cipher:
    """A cipher for one swap file.

    Raises:
        ConfigError: what it needs is not installed.
    """
    try:
        from .encryption import Xts  # noqa: PLC0415 it may be missing
    except ModuleNotFoundError as error:
        raise _missing("swap-encrypt", "encrypt", error) from None
    return Xts()


def _how_to_use(address: Listened, msize: int) -> str:
    """What to type on a Linux client to mount this address, or to connect to it."""
    if isinstance(address, VhostUser):
        options = f"trans=virtio,version=9p2000.L,msize={min(msize, VIRTIO_MSIZE)}"
        return f"mount in the guest: mount -t 9p -o {options} {address.tag} /mnt"
    if isinstance(address, Tls):
        return f"connect: tmpfs9p connect {address} --cert FILE --key FILE --ca FILE"
    if isinstance(address, Vsock):
        return f"connect: tmpfs9p connect {Vsock(CID_HOST, address.port)}"
    return f"mount: {_mount_command(address, msize)}"


def _mount_command(address: Tcp | Unix, msize: int) -> str:
    """What to type on a Linux client to mount this address."""
    options = f"version=9p2000.L,msize={min(msize, 1 << 20)}"
    if isinstance(address, Tcp):
        return f"mount -t 9p -o trans=tcp,port={address.port},{options} {address.host} /mnt"
    return f"mount -t 9p -o trans=unix,{options} {shlex.quote(address.path)} /mnt"


if __name__ == "__main__":
    main()

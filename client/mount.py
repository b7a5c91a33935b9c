"""The command ``tmpfs9p mount``, also ``mount.tmpfs9p``: a server's files in a directory.

Rules of this file:

* The kernel's own client is used where there is one and the user is root; else FUSE.
* It returns when the mount is ready; a process stays where one is needed, until umount(8).
* It exits 0; 2 if it is used wrongly; 32 if the mount fails, as mount(8).
"""

import argparse
import asyncio
import gc
import os
import signal
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import uvloop

from server.wire.constants import NONUNAME

from . import v9fs
from .address import PORT, parse
from .filesystem import MSIZE, FileSystem
from .fuse.device import Device, mount, unmount
from .fuse.operations import operations
from .tls import FILES, context, from_environment

#: For how long, in seconds, the kernel may believe what it was told, by the value of ``cache``.
TIMES = {"none": 0.0, "mmap": 1.0, "loose": 3600.0}
#: Options that are for the kernel, whatever is mounted.
PASSED = ("nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "sync", "dirsync")
#: Options that say what is so anyway, or are for others.
IGNORED = ("rw", "suid", "dev", "exec", "atime", "async", "defaults", "auto", "noauto", "nofail",
           "_netdev", "user", "users", "nouser", "owner", "group")  # fmt: skip

EXAMPLES = """\
examples:
  tmpfs9p mount ssh://me@host/run/t9.sock ~/scratch
  tmpfs9p mount -o ro,aname=tools tcp://127.0.0.1:5640 /mnt
  umount ~/scratch                        (fusermount3 -u, if you are not root)

/etc/fstab, with mount.tmpfs9p in /sbin:
  tcp://10.1.2.3:5640 /mnt tmpfs9p _netdev,cache=loose 0 0
"""


class MountError(Exception):
    """It can not be mounted; says why."""


@dataclass(slots=True)
class Options:
    """What ``-o`` says."""

    ro: bool = False
    aname: str = "/"
    uname: str | None = None
    uid: int | None = None
    gid: int | None = None
    msize: int = MSIZE
    cache: str = "mmap"
    driver: str = "auto"
    patience: float = 30.0
    allow_other: bool = False
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    passed: tuple[str, ...] = ()


def options_of(texts: list[str]) -> Options:
    """What options say.

    Raises:
        ValueError: one is none, or has a value that can not be.
    """
    made = Options()
    for word in ",".join(texts).split(","):
        key, equals, value = word.partition("=")
        if key in PASSED:
            made.passed += (key,)
        elif key in ("ro", "allow_other") and not equals:
            setattr(made, key, True)
        elif key in _VALUES and equals:
            setattr(made, key, _value(key, value))
        elif word and key not in IGNORED and not key.startswith("x-"):
            known = ", ".join(["ro", "allow_other", *(f"{key}=" for key in _VALUES), *PASSED])
            raise ValueError(f"-o {word}: allowed are {known}")
    return made


def _one_of(*allowed: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"allowed are {', '.join(allowed)}")
        return value

    return check


def _number(value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise ValueError("it takes a number")
    return int(value)


_VALUES: dict[str, Callable[[str], object]] = {
    "aname": str,
    "uname": str,
    "uid": _number,
    "gid": _number,
    "msize": _number,
    "cache": _one_of(*TIMES),
    "driver": _one_of("auto", "kernel", "fuse"),
    "patience": _number,
    **dict.fromkeys(FILES, str),
}


def _value(key: str, value: str) -> object:
    try:
        return _VALUES[key](value)
    except ValueError as error:
        raise ValueError(f"-o {key}={value}: {error}") from None


def main() -> NoReturn:
    """Run ``tmpfs9p mount`` without loading what other commands need."""
    parser = argparse.ArgumentParser(prog="tmpfs9p mount")
    _describe(parser)
    _run(parser.parse_args(sys.argv[2:]))


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter ``mount`` among the commands; a parsed one has ``run``, which ends the program."""
    parser = commands.add_parser("mount", help="mount a server's files on a directory")
    _describe(parser)
    parser.set_defaults(run=_run)


def helper() -> NoReturn:
    """``mount.tmpfs9p``, as mount(8) calls it."""
    parser = argparse.ArgumentParser(prog="mount.tmpfs9p")
    _describe(parser)
    for letter in "snv":
        parser.add_argument(f"-{letter}", action="store_true", help=argparse.SUPPRESS)
    _run(parser.parse_args())


def _describe(parser: argparse.ArgumentParser) -> None:
    parser.description = "Mount a server's files on a directory."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-o", dest="options", metavar="OPTIONS", action="append", default=[],
        help="with commas between: see docs/mount.md")  # fmt: skip
    parser.add_argument(
        "-f", "--foreground", action="store_true", help="stay until it is unmounted"
    )
    parser.add_argument("address", metavar="ADDR", help="tcp://HOST[:PORT], unix:///PATH, "
        "tls://HOST[:PORT] or ssh://[USER@]HOST[:PORT]/PATH")  # fmt: skip
    parser.add_argument("directory", metavar="DIR")


def _run(arguments: argparse.Namespace) -> NoReturn:
    try:
        options = options_of(arguments.options)
        fs = FileSystem(
            arguments.address,
            aname=options.aname,
            uname=options.uname,
            uid=options.uid,
            gid=options.gid,
            msize=options.msize,
            patience=options.patience,
            tls=_tls(options) if arguments.address.startswith("tls:") else None,
        )
    except ValueError as error:
        print(f"tmpfs9p mount: {error}", file=sys.stderr)
        sys.exit(2)
    kernel = options.driver == "kernel" or (options.driver == "auto" and v9fs.is_there())
    serve = _by_kernel if kernel else _by_fuse
    directory = os.path.abspath(arguments.directory)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of a terminal that is closed, for ssh too

    def work(ready: Callable[[], None]) -> None:
        uvloop.run(serve(fs, options, directory, ready, arguments.foreground))

    try:
        if arguments.foreground:
            work(lambda: None)
        else:
            _in_background(work)
    except MountError as error:
        print(f"tmpfs9p mount: {error}", file=sys.stderr)
        sys.exit(32)
    sys.exit(0)


def _tls(options: Options) -> ssl.SSLContext:
    """What the options say, or else the environment.

    Raises:
        ValueError: a file is not what it must be.
    """
    return context(*(getattr(options, name) or from_environment(name) for name in FILES))


def _in_background(work: Callable[[Callable[[], None]], None]) -> None:
    """Do it in a process of its own; return when it is ready, or has ended.

    Raises:
        MountError: it could not be done.
    """
    told, tell = os.pipe()
    if not os.fork():
        os.close(told)

        def ready() -> None:
            os.setsid()
            os.chdir("/")
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nowhere, number)
            os.write(tell, b"+")
            os.close(tell)

        status = 0
        try:
            work(ready)
        except MountError as error:
            os.write(tell, str(error).encode(errors="replace"))
            status = 32
        os._exit(status)
    os.close(tell)
    with open(told, "rb") as answers:
        answer = answers.read()
    if answer != b"+":
        raise MountError(answer.decode() or "ended before it was ready")


async def _by_fuse(
    fs: FileSystem, options: Options, directory: str, ready: Callable[[], None], _: bool
) -> None:
    """Serve a FUSE mount until it is unmounted.

    Raises:
        MountError: it can not be.
    """
    words = {"subtype=tmpfs9p", *options.passed}
    words.add("fsname=" + fs.address.replace("\\", "\\\\").replace(",", "\\,"))
    words |= {"ro"} if options.ro else set()
    if os.geteuid() == 0:
        words |= {"allow_other", "dev", "suid"} - {word[2:] for word in options.passed}
    words |= {"allow_other"} if options.allow_other else set()
    uid = os.geteuid() if options.uid is None else options.uid
    try:
        async with fs:
            asked = await operations(fs, uid, TIMES[options.cache])
            # Who comes by name may have another number there; if he is alone, the server checks.
            by_name = options.uid is None and parse(fs.address).uid == NONUNAME
            if "allow_other" in words or not (by_name and fs.is_plus):
                words.add("default_permissions")
            try:
                descriptor = mount(directory, words)
            except FileNotFoundError:
                raise MountError("there is no fusermount3 (Debian: fuse3)") from None
            except OSError as error:
                raise MountError(f"{directory}: {error}") from None
            device = asked.device = Device(descriptor, fs.data_max, asked)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, device.end)
            _collect_less()
            try:
                ready()
                await device.serve()
            finally:
                unmount(directory)
    except OSError as error:
        raise MountError(f"{fs.address}: {error.strerror or error}") from None


def _collect_less() -> None:
    """What a mount keeps lives for long, and hardly anything is a cycle."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _by_kernel(
    fs: FileSystem, options: Options, directory: str, ready: Callable[[], None], foreground: bool
) -> None:
    """Have the kernel mount it; stay if that was asked for, or the connection needs it.

    Raises:
        MountError: it can not be.
    """
    place = parse(fs.address)
    words = ["version=9p2000.L", f"msize={options.msize}", f"cache={options.cache}"]
    words += [f"aname={options.aname}", *options.passed, *(["ro"] if options.ro else [])]
    words += [f"{key}={value}" for key, value in (
        ("uname", options.uname), ("access", options.uid), ("dfltgid", options.gid)
    ) if value is not None]  # fmt: skip
    try:
        if place.scheme == "unix":
            await v9fs.mount(place.path, directory, [*words, "trans=unix"])
            ready()
        elif place.scheme == "tcp":
            host, port = await v9fs.resolved(place.host, place.port or PORT)
            await v9fs.mount(host, directory, [*words, "trans=tcp", f"port={port}"])
            ready()
        else:
            await v9fs.mount_carried(place, fs.tls, directory, words, ready)
    except OSError as error:
        raise MountError(f"{fs.address}: {error.strerror or error}") from None
    if foreground:
        v9fs.wait_for_end(directory)

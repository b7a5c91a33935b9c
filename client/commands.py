"""The commands ``tmpfs9p ls``, ``cat``, ``cp``, ``rm``, ``mkdir``, ``df`` and ``stat``.

Rules of this file:

* They do what those of coreutils do, as far as they have their options, with the files of a server.
* What can not be done is told of on standard error, and the rest is done.
* They exit 0; 1 if anything could not be done (ls: 2 if it was named); 2 if they are used wrongly.
* An interrupt ends them at once, and so does a reader of their output who has left.
"""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import uvloop
from tqdm import tqdm

from . import listing, tls
from .attributes import Stat
from .copying import Copier, Here, Place
from .filesystem import FileSystem
from .glob import expand
from .transfer import fetch

#: Where the server is, if that is not said.
DEFAULT = "tcp://127.0.0.1:5640"

#: Seconds after which a copy shows its progress.
LONG = 1

EXAMPLES = """\
examples (PATHs are those of the server, and begin at its root; quote patterns):
  export TMPFS9P_ADDR=ssh://me@host/run/t9.sock
  tmpfs9p ls -l '/logs/*.txt'
  tmpfs9p cp -r results :/backup          from here to the server; ':' marks what is there
  tmpfs9p cp ':/backup/*.csv' .           and back
  tar c . | tmpfs9p cp - :/all.tar
"""


@dataclass(slots=True)
class Doing:
    """A command that is run."""

    name: str
    fs: FileSystem
    arguments: argparse.Namespace
    status: int = 0

    def complain(self, error: OSError, status: int = 1) -> None:
        """Tell what can not be done."""
        self.status = max(self.status, status)
        print(f"tmpfs9p {self.name}: {_told(error)}", file=sys.stderr)

    async def each(
        self, paths: list[str], do: Callable[[str], Awaitable[None]], status: int = 1
    ) -> None:
        """Do it with every path that is named, or matched by a pattern."""
        for pattern in paths:
            for path in await expand(self.fs, pattern):
                try:
                    await do(path)
                except BrokenPipeError:
                    raise
                except OSError as error:
                    self.complain(error, status)


async def _ls(doing: Doing) -> None:
    arguments, fs = doing.arguments, doing.fs
    files: list[tuple[str, Stat]] = []
    directories: list[str] = []

    async def sort(path: str) -> None:
        found = await fs.stat(path, follow=False)
        if found.is_symlink and not arguments.long:
            with suppress(FileNotFoundError):
                found = await fs.stat(path)
        if found.is_dir and not arguments.directory:
            directories.append(path)
        else:
            files.append((path, found))

    await doing.each(arguments.paths or ["/"], sort, 2)
    await _print_names(doing, "", files)
    heads = len(directories) + bool(files) > 1 or arguments.recursive
    first = not files
    while directories:
        path = directories.pop(0)
        try:
            found = await fs.stats(path)
        except OSError as error:
            doing.complain(error)
            continue
        if heads:
            print(f"{'' if first else chr(10)}{_shown(path)}:")
        first = False
        names = sorted(name for name in found if arguments.all or not name.startswith("."))
        await _print_names(doing, path, [(name, found[name]) for name in names])
        if arguments.recursive:
            inside = [os.path.join(path, name) for name in names if found[name].is_dir]
            directories[:0] = inside


async def _print_names(doing: Doing, directory: str, named: list[tuple[str, Stat]]) -> None:
    """Files of a directory, as ``ls`` has them."""
    if not doing.arguments.long:
        for name, _ in named:
            print(_shown(name))
    elif named:
        shown = [(await _with_target(doing, directory, name, it), it) for name, it in named]
        print("\n".join(listing.long_rows(shown, doing.arguments.human)))


async def _with_target(doing: Doing, directory: str, name: str, found: Stat) -> str:
    if not found.is_symlink:
        return _shown(name)
    target = await doing.fs.readlink(os.path.join(directory, name))
    return f"{_shown(name)} -> {_shown(target)}"


async def _cat(doing: Doing) -> None:
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:

        async def cat(path: str) -> None:
            async with await doing.fs.open(path) as file:
                await fetch(file, output, lambda _: None)

        await doing.each(doing.arguments.paths, cat)


async def _cp(doing: Doing) -> None:
    arguments = doing.arguments
    sources: list[Place] = []
    for path in arguments.sources:
        if path.startswith(":"):
            sources += [Place(doing.fs, one) for one in await expand(doing.fs, path[1:])]
        else:
            sources.append(Place(Here(), path))
    there = arguments.target.startswith(":")
    if not there and not all(path.startswith(":") for path in arguments.sources):
        raise ValueError("both are here; a colon marks what is on the server, as :/PATH")
    target = Place(doing.fs if there else Here(), arguments.target[there:] or "/")
    bar = tqdm(total=0, unit="B", unit_scale=True, unit_divisor=1024, delay=LONG, disable=None)

    def expect(size: int) -> None:
        bar.total += size

    def complain(error: OSError) -> None:
        with tqdm.external_write_mode(sys.stderr):
            doing.complain(error)

    try:
        copier = Copier(arguments.recursive, arguments.preserve, expect, bar.update, complain)
        await copier.into(sources, target)
    finally:
        bar.close()


async def _rm(doing: Doing) -> None:
    arguments, fs = doing.arguments, doing.fs

    async def remove(path: str) -> None:
        try:
            found = await fs.stat(path, follow=False)
        except FileNotFoundError:
            if arguments.force:
                return
            raise
        if found.is_dir and arguments.recursive:
            await fs.rmtree(path)
        elif found.is_dir:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        else:
            await fs.unlink(path)
        if arguments.verbose:
            print(f"removed {_shown(path)}")

    await doing.each(arguments.paths, remove)


async def _mkdir(doing: Doing) -> None:
    arguments, fs = doing.arguments, doing.fs
    mask = os.umask(0)
    os.umask(mask)

    for path in arguments.paths:
        try:
            if arguments.parents:
                await fs.makedirs(path, 0o777 & ~mask, exist_ok=True)
            else:
                await fs.mkdir(path, 0o777 & ~mask)
            if arguments.mode is not None:
                await fs.chmod(path, arguments.mode)
        except OSError as error:
            doing.complain(error)


async def _df(doing: Doing) -> None:
    room = await doing.fs.statvfs()
    arguments = doing.arguments
    print(*listing.room_rows(doing.fs.address, room, arguments.human, arguments.inodes), sep="\n")


async def _stat(doing: Doing) -> None:
    arguments = doing.arguments

    async def describe(path: str) -> None:
        found = await doing.fs.stat(path, follow=arguments.follow)
        print(listing.formatted(arguments.format, _shown(path), found))

    await doing.each(arguments.paths, describe)


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the commands; a parsed one has ``run``, which ends the program."""
    ls = _parser(commands, "ls", _ls, "list directories")
    _flag(ls, "-a", "all", "names that begin with a dot, too")
    _flag(ls, "-d", "directory", "directories themselves, not what is in them")
    _flag(ls, "-l", "long", "attributes, too")
    _flag(ls, "-R", "recursive", "the directories in them, too")
    _human(ls)
    ls.add_argument("paths", metavar="PATH", nargs="*", help="default: the root")

    cat = _parser(commands, "cat", _cat, "write files to standard output")
    cat.add_argument("paths", metavar="PATH", nargs="+")

    cp = _parser(commands, "cp", _cp, "copy files to the server, from it, or on it")
    _flag(cp, "-r", "recursive", "directories, too", "-R")
    _flag(cp, "-p", "preserve", "keep mode, times, and owner if that is allowed")
    cp.add_argument(
        "sources", metavar="SOURCE", nargs="+", help=":PATH on the server, PATH here, - for input"
    )
    cp.add_argument("target", metavar="TARGET", help="the same; - for standard output")

    rm = _parser(commands, "rm", _rm, "remove files")
    _flag(rm, "-r", "recursive", "directories and all that is in them, too", "-R")
    _flag(rm, "-f", "force", "what is not there is no error")
    _flag(rm, "-v", "verbose", "say what is removed")
    rm.add_argument("paths", metavar="PATH", nargs="+")

    mkdir = _parser(commands, "mkdir", _mkdir, "make directories")
    _flag(mkdir, "-p", "parents", "those above, too; what is there already is no error")
    mkdir.add_argument("-m", dest="mode", type=_mode, help="permissions, in octal")
    mkdir.add_argument("paths", metavar="PATH", nargs="+")

    df = _parser(commands, "df", _df, "room on the server")
    _human(df)
    _flag(df, "-i", "inodes", "inodes, not bytes")

    status = _parser(commands, "stat", _stat, "attributes of files")
    _flag(status, "-L", "follow", "what a link leads to, not the link itself")
    status.add_argument(
        "-c",
        dest="format",
        metavar="FORMAT",
        default=listing.WHOLE,
        help=f"as stat(1) has it, with %%{', %%'.join(f for f in listing.FIELDS if f != '%')}",
    )
    status.add_argument("paths", metavar="PATH", nargs="+")


def _parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    do: Callable[[Doing], Awaitable[None]],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text.capitalize() + ".",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("--help", action="help", help="show this help")
    parser.add_argument(
        "--addr",
        metavar="ADDR",
        default=os.environ.get("TMPFS9P_ADDR", DEFAULT),
        help="tcp://HOST:PORT, unix:///PATH, tls://HOST:PORT or ssh://[USER@]HOST[:PORT]/PATH "
        f"(default: TMPFS9P_ADDR of the environment, else {DEFAULT})",
    )
    parser.add_argument(
        "--aname",
        default=os.environ.get("TMPFS9P_ANAME", "/"),
        help="export (default: TMPFS9P_ANAME of the environment, else /)",
    )
    tls.add_arguments(parser)
    parser.set_defaults(run=partial(_run, name, do))
    return parser


def _flag(parser: argparse.ArgumentParser, letter: str, name: str, text: str, *more: str) -> None:
    parser.add_argument(letter, *more, dest=name, action="store_true", help=text)


def _human(parser: argparse.ArgumentParser) -> None:
    _flag(parser, "-h", "human", "sizes with units")


def _mode(text: str) -> int:
    """Permissions in octal.

    Raises:
        ValueError: they are none.
    """
    mode = int(text, 8)
    if not 0 <= mode <= 0o7777:
        raise ValueError(text)
    return mode


def _run(
    name: str, do: Callable[[Doing], Awaitable[None]], arguments: argparse.Namespace
) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        files = (arguments.cert, arguments.key, arguments.ca)
        given = tls.context(*files) if arguments.addr.startswith("tls:") else None
        fs = FileSystem(arguments.addr, aname=arguments.aname, tls=given)
        status = uvloop.run(_done(Doing(name, fs, arguments), do))
        sys.stdout.flush()
    except ValueError as error:
        print(f"tmpfs9p {name}: {error}", file=sys.stderr)
        status = 2
    except BrokenPipeError:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
        raise
    sys.exit(status)


async def _done(doing: Doing, do: Callable[[Doing], Awaitable[None]]) -> int:
    """Do it; the exit status."""
    serious = 2 if doing.name == "ls" else 1
    try:
        async with doing.fs:
            await do(doing)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None:
            error.filename = doing.fs.address
        doing.complain(error, serious)
    return doing.status


def _told(error: OSError) -> str:
    """What an error says."""
    what = error.strerror or str(error)
    return what if error.filename is None else f"{_shown(str(error.filename))}: {what}"


def _shown(name: str) -> str:
    """A name as it is, or on a terminal, without what would do something to that."""
    return listing.printable(name) if sys.stdout.isatty() else name

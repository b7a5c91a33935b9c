"""Listing: attributes as text, as ls(1), stat(1) and df(1) write them."""

import grp
import pwd
import re
import stat
import time
from collections.abc import Callable
from datetime import datetime

from .attributes import SECOND, Stat, StatVfs

#: Seconds after which ls(1) writes the year instead of the time of day: half a year.
OLD = 15_778_476

_KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character special file",
    stat.S_IFBLK: "block special file",
}

#: What the formats of stat(1) stand for.
FIELDS: dict[str, Callable[[str, Stat], object]] = {
    "a": lambda _, s: f"{stat.S_IMODE(s.st_mode):o}",
    "A": lambda _, s: stat.filemode(s.st_mode),
    "b": lambda _, s: s.st_blocks,
    "B": lambda _, s: 512,
    "f": lambda _, s: f"{s.st_mode:x}",
    "F": lambda _, s: _kind(s),
    "g": lambda _, s: s.st_gid,
    "G": lambda _, s: group(s.st_gid),
    "h": lambda _, s: s.st_nlink,
    "i": lambda _, s: s.st_ino,
    "n": lambda name, _: name,
    "o": lambda _, s: s.st_blksize,
    "s": lambda _, s: s.st_size,
    "u": lambda _, s: s.st_uid,
    "U": lambda _, s: user(s.st_uid),
    "w": lambda _, s: _moment(s.st_birthtime_ns),
    "W": lambda _, s: s.st_birthtime_ns // SECOND,
    "x": lambda _, s: _moment(s.st_atime_ns),
    "X": lambda _, s: s.st_atime_ns // SECOND,
    "y": lambda _, s: _moment(s.st_mtime_ns),
    "Y": lambda _, s: s.st_mtime_ns // SECOND,
    "z": lambda _, s: _moment(s.st_ctime_ns),
    "Z": lambda _, s: s.st_ctime_ns // SECOND,
    "%": lambda _, s: "%",
}

WHOLE = """\
  File: %n
  Size: %s\tBlocks: %b\tIO Block: %o\t%F
 Inode: %i\tLinks: %h
Access: (%a/%A)  Uid: (%u/%U)  Gid: (%g/%G)
Access: %x
Modify: %y
Change: %z
 Birth: %w"""


def formatted(text: str, name: str, found: Stat) -> str:
    """A format of stat(1), filled in; what it does not have stays."""

    def field(match: re.Match[str]) -> str:
        return str(FIELDS[match[1]](name, found)) if match[1] in FIELDS else match[0]

    return re.sub(r"%(.)", field, text)


def long_rows(named: list[tuple[str, Stat]], human: bool) -> list[str]:
    """Lines of ``ls -l``."""
    rows = [_row(found, human) for _, found in named]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for (name, _), (mode, links, owner, owners, size, when) in zip(named, rows, strict=True):
        lines.append(
            f"{mode} {links:>{widths[1]}} {owner:<{widths[2]}} {owners:<{widths[3]}} "
            f"{size:>{widths[4]}} {when} {name}"
        )
    return lines


def _row(found: Stat, human: bool) -> tuple[str, ...]:
    size = sized(found.st_size) if human else str(found.st_size)
    when = datetime.fromtimestamp(found.st_mtime_ns / SECOND)
    age = time.time() - found.st_mtime_ns / SECOND
    return (
        stat.filemode(found.st_mode),
        str(found.st_nlink),
        user(found.st_uid),
        group(found.st_gid),
        size,
        when.strftime("%b %e %H:%M" if 0 <= age < OLD else "%b %e  %Y"),
    )


def room_rows(address: str, found: StatVfs, human: bool, inodes: bool) -> list[str]:
    """Lines of ``df``."""
    if inodes:
        heads = ("Filesystem", "Inodes", "IUsed", "IFree", "IUse%")
        every, free = found.f_files, found.f_ffree
        usable = free
    else:
        heads = ("Filesystem", "Size" if human else "1K-blocks", "Used", "Available", "Use%")
        every, free, usable = (
            blocks * found.f_bsize for blocks in (found.f_blocks, found.f_bfree, found.f_bavail)
        )
    used = every - free
    share = f"{-(-100 * used // (used + usable))}%" if used + usable else "-"
    numbers = (every, used, usable)
    cells = [sized(n) if human else str(n if inodes else n // 1024) for n in numbers]
    rows = [heads, (address, *cells, share)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def sized(size: int) -> str:
    """A number of bytes with a unit, rounded up, as ``-h`` has it."""
    power = 0
    while -(-size // 1024**power) >= 1024:
        power += 1
    unit = "KMGTPE"[power - 1] if power else ""
    tenths = -(-size * 10 // 1024**power)
    return f"{tenths / 10:.1f}{unit}" if power and tenths < 100 else f"{-(-tenths // 10)}{unit}"


def user(number: int) -> str:
    """The name of a user, if he has one on this machine."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return str(number)


def group(number: int) -> str:
    """The name of a group, if it has one on this machine."""
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return str(number)


def printable(name: str) -> str:
    """A name without what would do something to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _kind(found: Stat) -> str:
    if found.is_file and not found.st_size:
        return "regular empty file"
    return _KINDS.get(stat.S_IFMT(found.st_mode), "unknown")


def _moment(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, SECOND)
    when = datetime.fromtimestamp(seconds).astimezone()
    return f"{when:%Y-%m-%d %H:%M:%S}.{rest:09} {when:%z}"

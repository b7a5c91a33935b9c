"""What is known of a file, a name in a directory, and a file system; names as in :mod:`os`."""

import os
import stat
from typing import Any, NamedTuple

#: In nanoseconds.
SECOND = 10**9


class Stat(NamedTuple):
    """Attributes of a file, as in stat(2); times are in ns.

    ``st_ino`` and ``st_gen`` together identify a file: no other has or had them.
    """

    st_mode: int
    st_ino: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_rdev: int
    st_size: int
    st_blksize: int
    st_blocks: int
    st_atime_ns: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_birthtime_ns: int
    st_gen: int

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.st_mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.st_mode)


class Entry(NamedTuple):
    """A name in a directory; ``kind`` is one of :mod:`stat`'s S_IF*, or 0 if it is not known."""

    name: str
    kind: int
    ino: int

    @property
    def is_dir(self) -> bool:
        return self.kind == stat.S_IFDIR


class StatVfs(NamedTuple):
    """A file system, as in statvfs(3): sizes are in blocks of ``f_bsize`` bytes."""

    f_bsize: int
    f_blocks: int
    f_bfree: int
    f_bavail: int
    f_files: int
    f_ffree: int
    f_fsid: int
    f_namemax: int


def stat_of(fields: tuple[Any, ...]) -> Stat:
    """The attributes that an Rgetattr has, of which these are the fields."""
    _, qid, mode, uid, gid, nlink, rdev, size, blksize, blocks = fields[:10]
    atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns, btime, btime_ns, gen, _ = fields[10:]
    return Stat(
        mode,
        qid.path,
        nlink,
        uid,
        gid,
        rdev,
        size,
        blksize,
        blocks,
        atime * SECOND + atime_ns,
        mtime * SECOND + mtime_ns,
        ctime * SECOND + ctime_ns,
        btime * SECOND + btime_ns,
        gen,
    )


def entry_of(record: tuple[Any, int, int, bytes]) -> Entry:
    """The name that a record of a listing has."""
    qid, _, kind, name = record
    return Entry(os.fsdecode(name), kind << 12, qid.path)


def statvfs_of(reply: Any) -> StatVfs:
    """What an Rstatfs has."""
    return StatVfs(
        reply.bsize,
        reply.blocks,
        reply.bfree,
        reply.bavail,
        reply.files,
        reply.ffree,
        reply.fsid,
        reply.namelen,
    )

"""Protocol: what the kernel and a FUSE file system say to each other (linux/fuse.h, 7.31).

Rules of this file:

* All numbers are in the byte order of the machine.
* A request is declared once: the layout of its fields, and what follows them.  Fields behind those
  that are declared are ignored, as newer kernels may add some.
"""

import struct
from typing import Final, NamedTuple

MAJOR: Final = 7
MINOR: Final = 31
#: The inode of the root.
ROOT: Final = 1

#: length, opcode, unique, inode, uid, gid, pid
IN = struct.Struct("=IIQQIII4x")
#: length, error, unique
OUT = struct.Struct("=IiQ")
#: What both take, and the fields of the longest request.
HEAD_MAX: Final = 4096

# Flags of FUSE_INIT
ASYNC_READ: Final = 1 << 0
POSIX_LOCKS: Final = 1 << 1
ATOMIC_O_TRUNC: Final = 1 << 3
BIG_WRITES: Final = 1 << 5
DONT_MASK: Final = 1 << 6
FLOCK_LOCKS: Final = 1 << 10
AUTO_INVAL_DATA: Final = 1 << 12
DO_READDIRPLUS: Final = 1 << 13
ASYNC_DIO: Final = 1 << 15
PARALLEL_DIROPS: Final = 1 << 18
MAX_PAGES: Final = 1 << 22
CACHE_SYMLINKS: Final = 1 << 23
HANDLE_KILLPRIV_V2: Final = 1 << 28

# Flags of FUSE_OPEN's and FUSE_CREATE's answers
FOPEN_KEEP_CACHE: Final = 1 << 1

# Fields that FUSE_SETATTR sets
FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_KILL_SUIDGID: Final = 1 << 11

OPEN_KILL_SUIDGID: Final = 1 << 0
WRITE_KILL_SUIDGID: Final = 1 << 2
RELEASE_FLOCK_UNLOCK: Final = 1 << 1

INTERRUPT: Final = 36
INIT: Final = 26
WRITE: Final = 16

#: FUSE_NOTIFY_INVAL_INODE, and its inode, offset, length
NOTIFY_INVAL_INODE: Final = 2
INVAL_INODE = struct.Struct("=Qqq")

#: major, minor, max_readahead, flags
INIT_IN = struct.Struct("=IIII")
#: the same, max_background, congestion_threshold, max_write, time_gran, max_pages
INIT_OUT = struct.Struct("=IIIIHHIIH34x")
#: ino, size, blocks, atime, mtime, ctime, their nanoseconds, mode, nlink, uid, gid, rdev, blksize
_ATTR = "QQQQQQIIIIIIIII4x"
#: inode, generation, seconds for the name and for the attributes, their nanoseconds, attributes
ENTRY = struct.Struct(f"=QQQQII{_ATTR}")
#: seconds, nanoseconds, attributes
ATTR = struct.Struct(f"=QI4x{_ATTR}")
#: fh, flags
OPEN = struct.Struct("=QI4x")
#: size
SIZE = struct.Struct("=I4x")
#: start, end, type, pid
LOCK = struct.Struct("=QQII")
#: blocks, bfree, bavail, files, ffree, bsize, namelen, frsize
STATFS = struct.Struct("=QQQQQIII28x")
#: ino, offset, length of the name, kind
DIRENT = struct.Struct("=QQII")
#: The number that a file in a listing has which is not known.
UNKNOWN: Final = 0xFFFFFFFF


class Request:
    """Who asks, and about which inode."""

    __slots__ = ("gid", "inode", "pid", "uid", "unique")

    def __init__(self, unique: int, inode: int, uid: int, gid: int, pid: int) -> None:
        self.unique = unique
        self.inode = inode
        self.uid = uid
        self.gid = gid
        self.pid = pid


class Layout(NamedTuple):
    """A request: the method that answers it, its fields, and how many names follow, or data."""

    method: str
    fields: struct.Struct
    names: int = 0
    data: bool = False


def _layout(method: str, fields: str = "", names: int = 0, data: bool = False) -> Layout:
    return Layout(method, struct.Struct(f"={fields}"), names, data)


REQUESTS = {
    1: _layout("lookup", names=1),
    2: _layout("forget", "Q"),
    3: _layout("getattr"),
    # valid, fh, size, atime, mtime, their nanoseconds, mode, uid, gid
    4: _layout("setattr", "I4xQQ8xQQ8xII4xI4xII"),
    5: _layout("readlink"),
    6: _layout("symlink", names=2),
    8: _layout("mknod", "III4x", names=1),  # mode, rdev, umask
    9: _layout("mkdir", "II", names=1),  # mode, umask
    10: _layout("unlink", names=1),
    11: _layout("rmdir", names=1),
    12: _layout("rename", "Q", names=2),  # new directory
    13: _layout("link", "Q", names=1),  # inode
    14: _layout("open", "II"),  # flags, flags of the open
    15: _layout("read", "QQI"),  # fh, offset, size
    WRITE: _layout("write", "QQII16x", data=True),  # fh, offset, size, flags
    17: _layout("statfs"),
    18: _layout("release", "Q4xIQ"),  # fh, flags of the release, lock owner
    20: _layout("fsync", "Q"),  # fh
    21: _layout("setxattr", "II", names=1, data=True),  # size, flags
    22: _layout("getxattr", "I4x", names=1),  # size
    23: _layout("listxattr", "I"),  # size
    24: _layout("removexattr", names=1),
    25: _layout("flush", "Q8xQ"),  # fh, lock owner
    27: _layout("opendir"),
    29: _layout("releasedir", "Q"),  # fh
    30: _layout("fsyncdir"),
    31: _layout("getlk", "QQQQI"),  # fh, owner, start, end, type
    32: _layout("setlk", "QQQQI"),
    33: _layout("setlkw", "QQQQI"),
    34: _layout("access", "I4x"),  # mask
    35: _layout("create", "IIII", names=1),  # flags, mode, umask, flags of the open
    42: _layout("batch_forget", "I4x", data=True),  # count
    44: _layout("readdirplus", "QQI"),  # fh, offset, size
}

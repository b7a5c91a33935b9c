"""Node: the durable inode, one class for each kind of file.

Rules of this file:

* Times are nanoseconds since the epoch.
* A node lives while it has a name (``nlink``) or a holder (``refs``); :func:`vrele` frees what it
  holds when the last of both is gone.
* ``version`` tells clients that data changed: it starts at 1, grows with each change, skips 0
  (which means "do not cache" to v9fs).
"""

import stat
import time
from typing import TYPE_CHECKING, Final

from .directory import Directory, Dirent
from .locks import RangeLocks
from .vmobject import Uobj
from .vnode import Vnode, truncate

if TYPE_CHECKING:
    from .mount import Mount

#: Bytes of listings that the directories of a mount keep together.
LISTINGS: Final = 4 << 20

#: What tmpfs reports for one directory entry, in bytes (mm/shmem.c: BOGO_DIRENT_SIZE).
DIRENT_SIZE = 20

now = time.time_ns


class Node:
    """Attributes common to all kinds of file; special files (fifo, socket, device) need no more.

    Attributes:
        mount: the file system it belongs to.
        ino, gen: its identity; neither repeats in the life of the mount.
        mode: type and permission bits as in st_mode.
        size: st_size in bytes.
        refs: how many holders (fids) there are.
        xattrs: name -> value, None while there are none.
        xattr_frames: frames charged for them.
        locks: byte-range locks, None until somebody asks for one.
    """

    __slots__ = (
        "atime",
        "btime",
        "ctime",
        "gen",
        "gid",
        "ino",
        "locks",
        "mode",
        "mount",
        "mtime",
        "nlink",
        "rdev",
        "refs",
        "size",
        "uid",
        "version",
        "xattr_frames",
        "xattrs",
    )

    def __init__(self, mount: "Mount", mode: int, uid: int, gid: int, rdev: int = 0) -> None:
        self.mount = mount
        self.ino, self.gen = mount.next_identity()
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = rdev
        self.nlink = 0
        self.size = 0
        self.version = 1
        self.refs = 0
        self.atime = self.btime = self.ctime = self.mtime = now()
        self.xattrs: dict[bytes, bytes] | None = None
        self.xattr_frames = 0
        self.locks: RangeLocks | None = None

    @property
    def blocks(self) -> int:
        """st_blocks: what its data really takes, in units of 512 bytes."""
        return 0

    @property
    def parts(self) -> int:
        """How many objects go when it goes: the node, and each page of data at rest."""
        return 1

    @property
    def is_dir(self) -> bool:
        return False

    def modified(self) -> None:
        """Its data changed: new mtime, ctime and version."""
        self.mtime = self.ctime = now()
        self.version = self.version % 0xFFFFFFFF + 1

    def accessed(self) -> None:
        """Its data was read: a new atime under the rules of relatime (mount(8))."""
        atime = self.atime
        time_now = now()
        if atime <= self.mtime or atime <= self.ctime or time_now - atime >= 86_400 * 10**9:
            self.atime = time_now

    def range_locks(self) -> RangeLocks:
        if self.locks is None:
            self.locks = RangeLocks()
        return self.locks

    def free(self) -> None:
        """Give back all that it is charged for, its inode included."""
        self.mount.blocks.give(self.xattr_frames)
        self.mount.inodes.give(1)
        self.mount.on_freed(self.parts)


class FileNode(Node):
    """A regular file.

    Attributes:
        uobj: its data at rest.
        vnode: its active face while it is open.
    """

    __slots__ = ("uobj", "vnode")

    def __init__(self, mount: "Mount", mode: int, uid: int, gid: int) -> None:
        super().__init__(mount, stat.S_IFREG | mode, uid, gid)
        self.uobj = Uobj(self.ino, mount.memory, mount.blocks)
        self.vnode: Vnode | None = None

    @property
    def blocks(self) -> int:
        return self.uobj.charged << 3

    @property
    def parts(self) -> int:
        return 1 + len(self.uobj.pages)

    def open(self) -> Vnode:
        """Its vnode, for one more user."""
        if self.vnode is None:
            self.vnode = Vnode(self.uobj)
        self.vnode.usecount += 1
        return self.vnode

    def close(self) -> None:
        """One user of the vnode less; with the last one it becomes inactive."""
        assert self.vnode is not None
        self.vnode.usecount -= 1
        if not self.vnode.usecount:
            self.vnode.inactive()
            self.vnode = None

    def free(self) -> None:
        super().free()
        truncate(self.uobj, self.vnode, 0)


class DirNode(Node):
    """A directory.

    Attributes:
        entries: its names.
        entry: its own name; a directory has just one.
        height: how many directories there are below one another in it.
        listing: what was asked for when it was listed (a cookie, bytes, and the number of its
            parent) and the answer, if that is kept.
    """

    __slots__ = ("_below", "entries", "entry", "height", "listing")

    def __init__(self, mount: "Mount", mode: int, uid: int, gid: int) -> None:
        super().__init__(mount, stat.S_IFDIR | mode, uid, gid)
        self.entries = Directory()
        self.entry = Dirent(b"", self)
        self.height = 0
        self._below: dict[int, int] = {}  # how many directories of each height are in it
        self.listing: tuple[tuple[int, int, int], bytes] | None = None
        self.nlink = 1  # its own "."
        self.size = 2 * DIRENT_SIZE

    @property
    def is_dir(self) -> bool:
        return True

    def enter(self, entry: Dirent) -> None:
        """Give ``entry`` a place here under its name, which is free."""
        self.entries.add(entry)
        entry.parent = self
        self._resized(DIRENT_SIZE)
        node = entry.node
        if isinstance(node, DirNode):  # its ".." is a link to here
            self.nlink += 1
            self._grow(-1, node.height)

    def leave(self, entry: Dirent) -> None:
        """Take ``entry`` out of here."""
        self.entries.remove(entry)
        entry.parent = None
        self._resized(-DIRENT_SIZE)
        node = entry.node
        if isinstance(node, DirNode):
            self.nlink -= 1
            self._grow(node.height, -1)

    def depth(self) -> int:
        """How many directories it is below the root (or, once removed, below where it was)."""
        depth = 0
        place = self.entry.parent
        while place is not None:
            depth += 1
            place = place.entry.parent
        return depth

    def keep_listing(self, asked: tuple[int, int, int], data: bytes) -> None:
        """Keep an answer until an entry comes or goes; the oldest of other directories may go."""
        self._forget_listing()
        mount = self.mount
        self.listing = asked, data
        mount.listed[self] = None
        mount.listed_bytes += len(data)
        while mount.listed_bytes > LISTINGS:
            next(iter(mount.listed))._forget_listing()

    def free(self) -> None:
        self._forget_listing()
        super().free()

    def _forget_listing(self) -> None:
        if self.listing is not None:
            self.mount.listed_bytes -= len(self.listing[1])
            del self.mount.listed[self]
            self.listing = None

    def _resized(self, delta: int) -> None:
        self._forget_listing()
        self.size += delta
        self.modified()

    def _grow(self, old: int, new: int) -> None:
        """A directory in it has another height than before (-1: it was, or is, not here); those
        above may have, too.
        """
        place: DirNode | None = self
        while place is not None and old != new:
            below = place._below
            if old >= 0:
                below[old] -= 1
                if not below[old]:
                    del below[old]
            if new >= 0:
                below[new] = below.get(new, 0) + 1
            old, new = place.height, max(below, default=-1) + 1
            place.height = new
            place = place.entry.parent


class SymlinkNode(Node):
    """A symbolic link to ``target``."""

    __slots__ = ("target",)

    def __init__(self, mount: "Mount", target: bytes, uid: int, gid: int) -> None:
        super().__init__(mount, stat.S_IFLNK | 0o777, uid, gid)
        self.target = target
        self.size = len(target)

    @property
    def blocks(self) -> int:
        return target_frames(self.target) << 3

    def free(self) -> None:
        self.mount.blocks.give(target_frames(self.target))
        super().free()


def target_frames(target: bytes) -> int:
    """Frames charged for the target of a symbolic link: one if it is long, as in mm/shmem.c."""
    return int(len(target) >= 128)


def vref(node: Node) -> None:
    """Hold the node: it stays usable without a name until :func:`vrele`."""
    node.refs += 1


def vrele(node: Node) -> None:
    """Let go of the node; it is freed when nobody holds it and it has no name."""
    node.refs -= 1
    if not node.refs and not node.nlink:
        del node.mount.orphans[node.ino]
        node.free()

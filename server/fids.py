"""Fids: what a client holds, and the state that its requests work on.

Rules of this file:

* A fid holds its node from the moment it is entered until it is clunked.
* A fid is of one kind at a time: a place in the tree, opened or not, or an attribute being read
  or written (``xattr``).
"""

import errno
from dataclasses import dataclass, field

from tmpfs_core import vnops, xattr
from tmpfs_core.access import Cred
from tmpfs_core.directory import Dirent
from tmpfs_core.errors import refuse
from tmpfs_core.node import FileNode, Node, vref, vrele

from .exports import Exports
from .identity import Peer
from .wire.constants import NOFID, O_ACCMODE, O_APPEND, O_RDONLY, O_WRONLY


@dataclass(slots=True)
class XattrValue:
    """The value of an attribute that is being read."""

    value: bytes

    def read(self, offset: int, count: int) -> bytes:
        return self.value[offset : offset + count]


@dataclass(slots=True)
class XattrDraft:
    """A new value of an attribute, complete when ``size`` bytes were written."""

    name: bytes
    size: int
    create: bool
    replace: bool
    value: bytearray = field(default_factory=bytearray)

    def write(self, offset: int, data: memoryview) -> int:
        if offset != len(self.value):
            refuse(errno.EINVAL)
        if offset + len(data) > self.size:
            refuse(errno.ENOSPC)
        self.value += data
        return len(data)

    def commit(self, node: Node, cred: Cred) -> None:
        """Make it the node's attribute.

        Size 0 removes an ACL, and also what must exist already: removexattr(2) is sent so.  Else
        it is an empty value, which Linux allows.
        """
        if len(self.value) != self.size:
            refuse(errno.EIO)
        if self.size or not (self.replace or self.name in xattr.ACLS):
            xattr.setxattr(node, self.name, bytes(self.value), cred, self.create, self.replace)
        else:
            xattr.removexattr(node, self.name, cred)


class Fid:
    """A client's handle.

    Attributes:
        entry: the name by which it was reached; follows renames.
        node: what it stands for; stays when the name goes.
        cred: on whose behalf it acts.
        flags: the flags it was opened with; None while it is not open.
        xattr: set while it stands for an attribute instead.
    """

    __slots__ = ("cred", "entry", "flags", "node", "xattr")

    def __init__(self, entry: Dirent, cred: Cred) -> None:
        self.entry = entry
        self.node: Node = entry.node
        self.cred = cred
        self.flags: int | None = None
        self.xattr: XattrValue | XattrDraft | None = None

    def require_readable(self) -> None:
        if self.flags is None or self.flags & O_ACCMODE == O_WRONLY:
            refuse(errno.EBADF)

    def require_writable(self) -> None:
        if self.flags is None or self.flags & O_ACCMODE == O_RDONLY:
            refuse(errno.EBADF)

    @property
    def writable(self) -> bool:
        """Whether it is open to write."""
        return self.flags is not None and self.flags & O_ACCMODE != O_RDONLY

    @property
    def appends(self) -> bool:
        return bool((self.flags or 0) & O_APPEND)


class Client:
    """The state of one session: its fids, and what it may address.

    Attributes:
        exports: the file systems that it may attach to.
        peer: who it is.
        msize: the largest message agreed on, in bytes; 0 until there was a Tversion.
        lock_wait: seconds that a blocking lock request waits before it is told "blocked".
    """

    def __init__(self, exports: Exports, peer: Peer, lock_wait: float) -> None:
        self.exports = exports
        self.peer = peer
        self.msize = 0
        self.lock_wait = lock_wait
        self.fids: dict[int, Fid] = {}

    def get(self, number: int) -> Fid:
        """The fid.

        Raises:
            OSError: EBADF, there is none of that number, or it stands for an attribute.
        """
        fid = self.fids.get(number)
        if fid is None or fid.xattr is not None:
            refuse(errno.EBADF)
        return fid

    def require_free(self, number: int) -> None:
        """Refuse (EBADF) a new fid whose number is in use, or is none."""
        if number in self.fids or number == NOFID:
            refuse(errno.EBADF)

    def enter(self, number: int, fid: Fid) -> None:
        """Enter ``fid`` under ``number``, in place of what has it."""
        vref(fid.node)
        if number in self.fids:
            self.clunk(number)
        self.fids[number] = fid

    def clunk(self, number: int) -> Fid:
        """Forget the fid and what it held; the caller gets it for the last time.

        Raises:
            OSError: EBADF, there is none of that number.
        """
        fid = self.fids.pop(number, None)
        if fid is None:
            refuse(errno.EBADF)
        node = fid.node
        if fid.flags is not None and isinstance(node, FileNode):
            vnops.close(node)
        if node.locks is not None:
            node.locks.release_handle(fid)
        vrele(node)
        return fid

    def reset(self) -> None:
        """Forget every fid."""
        for number in list(self.fids):
            self.clunk(number)

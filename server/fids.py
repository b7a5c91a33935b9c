"""Fids: what a client holds, and the state that its requests work on.

Rules of this file:

* A fid holds its node from the moment it is entered until it is clunked.
* A fid is of one kind at a time: a place in the tree, opened or not, or something else
  (``xattr``): an attribute being read or written, or what is left when its export was removed.
* What a client holds is counted here, against its own limits and against the room that all clients
  share.  Room for fids is taken for several at a time.
"""

import errno
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tmpfs_core import vnops, xattr
from tmpfs_core.access import Cred
from tmpfs_core.directory import Dirent
from tmpfs_core.errors import refuse
from tmpfs_core.locks import Lock, RangeLocks
from tmpfs_core.node import FileNode, Node, vref, vrele

from .exports import Export, Exports
from .identity import Peer
from .limits import FID_BYTES, LOCK_BYTES, Limits
from .room import Room
from .wire.constants import NOFID, O_ACCMODE, O_APPEND, O_RDONLY, O_WRONLY

#: A flag of an open fid beside those of Tlopen: the file goes when the fid does (ORCLOSE).
REMOVED_ON_CLUNK: Final = 1 << 32

#: Fids for which room is taken at a time.
FIDS_AT_ONCE: Final = 32


@dataclass(slots=True)
class XattrValue:
    """The value of an attribute that is being read."""

    value: bytes

    @property
    def held(self) -> int:
        """Bytes that it takes."""
        return len(self.value)

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

    @property
    def held(self) -> int:
        """Bytes that it takes when it is complete."""
        return len(self.name) + self.size

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


class Stale:
    """What a fid stands for whose export was removed: it can only be clunked."""

    held = 0  # bytes

    def read(self, offset: int, count: int) -> bytes:
        refuse(errno.ESTALE)

    def write(self, offset: int, data: memoryview) -> int:
        refuse(errno.ESTALE)


class Fid:
    """A client's handle.

    Attributes:
        entry: the name by which it was reached; follows renames.
        node: what it stands for; stays when the name goes.
        cred: on whose behalf it acts.
        flags: the flags it was opened with, as Tlopen has them; None while it is not open.
        xattr: set while it stands for an attribute, or nothing any more, instead.
    """

    __slots__ = ("cred", "entry", "flags", "node", "xattr")

    def __init__(self, entry: Dirent, cred: Cred) -> None:
        self.entry = entry
        self.node: Node = entry.node
        self.cred = cred
        self.flags: int | None = None
        self.xattr: XattrValue | XattrDraft | Stale | None = None

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
        limits: what it may hold.
        locks: how many byte-range locks it holds.
        attached: the exports that it has attached to.
        state: the room that all clients share for what they keep.
    """

    def __init__(
        self, exports: Exports, peer: Peer, lock_wait: float, limits: Limits, state: Room
    ) -> None:
        self.exports = exports
        self.peer = peer
        self.msize = 0
        self.lock_wait = lock_wait
        self.limits = limits
        self.fids: dict[int, Fid] = {}
        self.locks = 0
        self.state = state
        self._fid_room = 0  # as many fids as room was taken for
        self._xattr_bytes = 0
        self.attached: set[Export] = set()

    def get(self, number: int) -> Fid:
        """The fid.

        Raises:
            OSError: EBADF, there is none of that number, or it stands for an attribute; ESTALE, its
                export was removed.
        """
        fid = self.fids.get(number)
        if fid is None or fid.xattr is not None:
            refuse(
                errno.ESTALE if fid is not None and isinstance(fid.xattr, Stale) else errno.EBADF
            )
        return fid

    def require_free(self, number: int) -> None:
        """Refuse (EBADF) a new fid whose number is in use, or is none."""
        if number in self.fids or number == NOFID:
            refuse(errno.EBADF)

    def enter(self, number: int, fid: Fid) -> None:
        """Enter ``fid`` under ``number``, in place of what has it.

        Raises:
            OSError: EMFILE, this client has as many as it may; ENFILE, all together have.
        """
        if number in self.fids:
            vref(fid.node)
            self.clunk(number)
        else:
            if len(self.fids) >= self._fid_room:
                self._make_room()
            vref(fid.node)
        self.fids[number] = fid

    def attach(self, number: int, export: Export, cred: Cred) -> None:
        """Enter a fid for the root of an export."""
        self.enter(number, Fid(export.mount.root.entry, cred))
        self.attached.add(export)
        export.clients.add(self)

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
            if fid.flags & REMOVED_ON_CLUNK:
                with suppress(OSError):  # it has no name any more, or may not lose it
                    vnops.remove(fid.entry, fid.cred)
        if node.locks is not None:
            before = len(node.locks.held)
            node.locks.release_handle(fid)
            self._count_locks(len(node.locks.held) - before)
        if fid.xattr is not None:
            self._count_xattr(-fid.xattr.held)
        if self._fid_room - len(self.fids) > 2 * FIDS_AT_ONCE:
            self._fid_room -= FIDS_AT_ONCE
            self.state.give(FIDS_AT_ONCE * FID_BYTES)
        vrele(node)
        return fid

    def expel(self, export: Export) -> None:
        """Let go of all it holds of an export that was removed: its fids are stale from now on."""
        root = export.mount.root
        for number, fid in list(self.fids.items()):
            if fid.node.mount is export.mount:
                stale = Fid(root.entry, fid.cred)
                stale.xattr = Stale()
                self.enter(number, stale)
        self._leave(export)

    def reset(self) -> None:
        """Forget every fid."""
        for number in list(self.fids):
            self.clunk(number)
        self.state.give(self._fid_room * FID_BYTES)
        self._fid_room = 0
        for export in list(self.attached):
            self._leave(export)

    def _leave(self, export: Export) -> None:
        self.attached.remove(export)
        export.clients.remove(self)

    def hold_xattr(self, fid: Fid, attribute: XattrValue | XattrDraft) -> None:
        """Let ``fid`` stand for an attribute from now on.

        Raises:
            OSError: ENOSPC, there is no room for one that large.
        """
        size = attribute.held
        if self._xattr_bytes + size > self.limits.max_xattr_bytes or size > self.state.free:
            refuse(errno.ENOSPC)
        self._count_xattr(size)
        fid.xattr = attribute

    def acquire(self, locks: RangeLocks, wanted: Lock) -> Lock | None:
        """Take a lock, or tell what excludes it.

        Raises:
            OSError: ENOLCK, it would be one too many.
        """
        if self._locks_are_full():
            refuse(errno.ENOLCK)
        before = len(locks.held)
        blocker = locks.acquire(wanted)
        self._count_locks(len(locks.held) - before)
        return blocker

    def release(self, locks: RangeLocks, unwanted: Lock) -> None:
        """Give up what the owner holds of a range.

        Raises:
            OSError: ENOLCK, that would leave one lock too many.
        """
        owner, start, stop = unwanted.owner, unwanted.start, unwanted.stop
        if self._locks_are_full() and locks.splits(owner, start, stop):
            refuse(errno.ENOLCK)
        before = len(locks.held)
        locks.release(owner, start, stop)
        self._count_locks(len(locks.held) - before)

    def _make_room(self) -> None:
        """Take room for some more fids."""
        more = min(FIDS_AT_ONCE, self.limits.max_fids - self._fid_room)
        if not more:
            refuse(errno.EMFILE)
        if self.state.free < more * FID_BYTES:
            refuse(errno.ENFILE)
        self._fid_room += more
        self.state.take(more * FID_BYTES)

    def _locks_are_full(self) -> bool:
        """Whether there may be no more (but for one that replaces the middle of another)."""
        return self.locks >= self.limits.max_locks or self.state.free < 2 * LOCK_BYTES

    def _count_locks(self, more: int) -> None:
        self.locks += more
        self.state.take(more * LOCK_BYTES)

    def _count_xattr(self, more: int) -> None:
        self._xattr_bytes += more
        self.state.take(more)

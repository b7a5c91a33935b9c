"""Operations: what a kernel asks of a mounted file system, asked of the server.

Rules of this file:

* A method that needs no server answers at once; else it returns the coroutine that does.
* A write is answered before it is done, unless it overlaps one that is not done; whatever else asks
  about the file waits for all of them.  The next write, close or fsync is told what has failed.
* What makes a program privileged (setuid, setgid, capabilities) goes when its file is written, cut
  or given away; that is done here.
* Locks are the server's: fcntl(2)'s and flock(2)'s exclude each other, as on the kernel's own
  mount.  Who has got one sees what others have written before.
"""

import asyncio
import errno
import os
import stat
import time
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from server.wire.constants import (
    AT_REMOVEDIR,
    GETATTR_ALL,
    LOCK_TYPE_UNLCK,
    LOCK_TYPE_WRLCK,
    O_ACCMODE,
    O_CREAT,
    O_EXCL,
    O_TRUNC,
    SETATTR_ATIME,
    SETATTR_ATIME_SET,
    SETATTR_GID,
    SETATTR_MODE,
    SETATTR_MTIME,
    SETATTR_MTIME_SET,
    SETATTR_SIZE,
    SETATTR_UID,
    XATTR_REPLACE,
)
from server.wire.messages import (
    Tgetattr,
    Tlink,
    Tmkdir,
    Tmknod,
    Treadlink,
    Trenameat,
    Tsetattr,
    Tstatfs,
    Tsymlink,
    Tunlinkat,
)
from server.wire.own import Tcreateplus
from server.wire.primitives import Buffer

from .. import chain
from ..attributes import SECOND, Stat, statvfs_of
from ..file import File
from ..filesystem import FileSystem, set_xattr, xattr
from ..readahead import CHUNK, LARGE, Reader
from ..session import ROOT as ROOT_FID
from ..session import Session
from . import protocol
from .device import Answer, Device, number_of
from .directories import TOGETHER, Directories
from .locks import Locks
from .nodes import Handle, Node, Nodes, fields_of
from .protocol import Request
from .writes import Writes

T = TypeVar("T")
Later = Coroutine[Any, Any, Answer]

CAPABILITY = b"security.capability"
#: Seconds for which a file has none after it was seen that it has none.
BARE = 1.0
#: Seconds for which what was listed may be taken for what is there, at most.
LISTED = 1.0
_NOTHING = bytes(protocol.ENTRY.size)

_SETATTR = (
    (protocol.FATTR_MODE, SETATTR_MODE),
    (protocol.FATTR_UID, SETATTR_UID),
    (protocol.FATTR_GID, SETATTR_GID),
    (protocol.FATTR_SIZE, SETATTR_SIZE),
    (protocol.FATTR_ATIME, SETATTR_ATIME | SETATTR_ATIME_SET),
    (protocol.FATTR_MTIME, SETATTR_MTIME | SETATTR_MTIME_SET),
)
#: Those times that are the server's.
_NOW = (
    (protocol.FATTR_ATIME_NOW, SETATTR_ATIME_SET),
    (protocol.FATTR_MTIME_NOW, SETATTR_MTIME_SET),
)


class Operations:
    """What the kernel asks.

    Args:
        fs: the file system.
        session: it, connected.
        root: attributes of its root.
        uid: who has attached; if it is root, files belong to whoever makes them.
        trust: seconds for which the kernel may believe names and attributes.
    """

    def __init__(self, fs: FileSystem, session: Session, root: Stat, uid: int, trust: float):
        self.device: Device
        self._fs = fs
        self._uid = uid
        self._trust = trust
        self._valid = divmod(round(trust * SECOND), SECOND)
        self._nodes = Nodes(fs, session, root)
        self._directories = Directories(self._nodes, min(trust, LISTED))
        self._writes = Writes(
            self._changed,
            lambda data: self.device.recycle(data),  # noqa: PLW0108 it is made later
        )
        self._locks = Locks()
        self._handles: dict[int, Handle] = {}
        self._listings: dict[int, list[bytes]] = {}
        self._last = 0
        self._waiting: set[int] = set()  # requests for locks

    def may_be_interrupted(self, unique: int) -> bool:
        """Whether who asks may be told EINTR: he waits for a lock, or for a server that is away."""
        return unique in self._waiting or not self._fs.is_connected

    # What the kernel is told

    def _entry(self, node: Node, found: Stat) -> bytes:
        """Tell the kernel of a node."""
        node.lookups += 1
        self._told(node, found)
        seconds, rest = self._valid
        return protocol.ENTRY.pack(
            node.ino, node.gen, seconds, seconds, rest, rest, *fields_of(node, found)
        )

    def _told(self, node: Node, found: Stat) -> None:
        node.seen = found.st_size, found.st_mtime_ns
        node.mode = found.st_mode

    def _attributes(self, node: Node, found: Stat) -> bytes:
        self._told(node, found)
        return protocol.ATTR.pack(*self._valid, *fields_of(node, found))

    def _nothing(self) -> bytes:
        """There is no such name."""
        if not self._trust:
            raise FileNotFoundError(errno.ENOENT, "")
        seconds, rest = self._valid
        return protocol.ENTRY.pack(0, 0, seconds, 0, rest, 0, *(0,) * 15)

    # What is known of directories

    def _changed(self, node: Node) -> None:
        """What is in a file changes, or its attributes."""
        node.fresh = None
        for handle in node.handles:
            handle.reader.forget()
        if node.parent is not None and node.name is not None:
            self._directories.touched(node.parent, node.name)

    # Names

    def forget(self, request: Request, times: int) -> None:
        self._nodes.forget(request.inode, times)

    def batch_forget(self, request: Request, count: int, pairs: memoryview) -> None:
        numbers = pairs[: count * 16].cast("Q")
        for ino, times in zip(numbers[::2], numbers[1::2], strict=True):
            self._nodes.forget(ino, times)

    def lookup(self, request: Request, name: bytes) -> bytes | Later:
        parent = self._nodes[request.inode]
        listing = parent.listing
        known = listing.known.get(name)
        if known is not None:
            return self._entry(known.node, known.found)
        if name not in listing.known and time.monotonic() < listing.whole:
            return self._nothing()
        return self._lookup(parent, name)

    async def _lookup(self, parent: Node, name: bytes) -> bytes:
        try:
            node, found = await self._fs.do(
                name, lambda session: self._nodes.enter(session, parent, name)
            )
        except FileNotFoundError:
            self._directories.missed(parent, False)
            return self._nothing()
        self._directories.missed(parent, True)
        return self._entry(node, await self._stat(node) if node.is_written else found)

    async def _stat(self, node: Node) -> Stat:
        await self._writes.settle(node)
        found: Stat = await self._nodes.call(node, Tgetattr, GETATTR_ALL)
        return found

    def getattr(self, request: Request) -> bytes | Later:
        node = self._nodes[request.inode]
        if node.fresh is not None:
            found, until = node.fresh
            if time.monotonic() < until:
                return self._attributes(node, found)
        return self._getattr(node)

    async def _getattr(self, node: Node) -> bytes:
        return self._attributes(node, await self._stat(node))

    def access(self, request: Request, mask: int) -> bytes:
        """What access(2) is told, where it is the server that checks permissions: anything may be
        possible, but to run a program that nobody may run.
        """
        mode = self._nodes[request.inode].mode
        if mask & os.X_OK and stat.S_ISREG(mode) and not mode & 0o111:
            raise PermissionError(errno.EACCES, "it is no program")
        return b""

    async def setattr(
        self,
        request: Request,
        valid: int,
        fh: int,
        size: int,
        atime: int,
        mtime: int,
        atime_ns: int,
        mtime_ns: int,
        mode: int,
        uid: int,
        gid: int,
    ) -> bytes:
        node = self._nodes[request.inode]
        asked = sum(there for here, there in _SETATTR if valid & here)
        asked &= ~sum(there for here, there in _NOW if valid & here)
        given = (
            valid & (protocol.FATTR_UID | protocol.FATTR_GID) and not valid & protocol.FATTR_MODE
        )
        if given or valid & protocol.FATTR_SIZE:
            kill = given or valid & protocol.FATTR_KILL_SUIDGID
            await self._degrade(node, bool(kill))
        fields = asked, mode & 0o7777, uid, gid, size, atime, atime_ns, mtime, mtime_ns
        await self._writes.settle(node)
        self._changed(node)
        found = await self._nodes.on(node, lambda session, fid: chain.change(session, fid, fields))
        self._changed(node)
        return self._attributes(node, found)

    def _is_privileged(self, node: Node, kill: bool) -> bool:
        """Whether a file may make programs privileged; ``kill``: not only by capabilities."""
        if not stat.S_ISREG(node.mode):
            return False
        return time.monotonic() >= node.bare or (kill and _degraded(node.mode) != node.mode)

    async def _degrade(self, node: Node, kill: bool) -> None:
        """Have a file make no program privileged."""
        if not self._is_privileged(node, kill):
            return
        if time.monotonic() >= node.bare:
            with suppress(OSError):  # it has none
                await self._nodes.on(node, partial(set_xattr, CAPABILITY, b"", XATTR_REPLACE))
            node.bare = time.monotonic() + BARE
        mode = _degraded(node.mode)
        if kill and mode != node.mode:
            with suppress(PermissionError):  # not his; then the server does it when it is written
                await self._nodes.call(node, Tsetattr, SETATTR_MODE, mode & 0o7777, *(0,) * 7)
            node.mode = mode
            self._changed(node)

    async def _made(self, request: Request, name: bytes, kind: Any, *fields: Any) -> bytes:
        """Make a name in a directory."""
        parent = self._nodes[request.inode]

        async def make(session: Session, directory: int) -> tuple[Node, chain.Made]:
            work = chain.make(session, directory, kind, name, *fields)
            made = await session.unrepeated(work)
            return self._nodes.entered(session, parent, name, made.fid, made.found)[0], made

        node, made = await self._nodes.on(parent, make)
        self._new(parent, name, node, made)
        return self._entry(node, await self._given(request, node, made.found))

    def _new(self, parent: Node, name: bytes, node: Node, made: chain.Made) -> None:
        """There is a new name in a directory."""
        self._directories.touched(parent, name)
        self._changed(parent)
        if made.above is not None:
            parent.fresh = made.above, time.monotonic() + self._directories.trust
        if made.found.st_birthtime_ns == made.found.st_ctime_ns:  # it is new
            node.bare = time.monotonic() + BARE

    def _is_his(self, request: Request, found: Stat) -> bool:
        """Whether what was made belongs to whom it was made for, or can not."""
        return self._uid != 0 or request.uid == found.st_uid

    async def _given(self, request: Request, node: Node, found: Stat) -> Stat:
        """What root has made belongs to whom it was made for; its attributes then."""
        if self._is_his(request, found):
            return found
        try:
            await self._nodes.call(node, Tsetattr, SETATTR_UID, 0, request.uid, *(0,) * 6)
        except PermissionError:  # for the server, it is somebody else who has attached
            return found
        return found._replace(st_uid=request.uid)

    async def mkdir(self, request: Request, mode: int, umask: int, name: bytes) -> bytes:
        entry = await self._made(request, name, Tmkdir, mode & ~umask & 0o7777, request.gid)
        if self._directories.trust:
            made = self._nodes.named(self._nodes[request.inode], name)
            made.listing.whole = time.monotonic() + self._directories.trust
        return entry

    def mknod(self, request: Request, mode: int, device: int, umask: int, name: bytes) -> Later:
        numbers = (device >> 8) & 0xFFF, (device & 0xFF) | ((device >> 12) & 0xFFF00)
        return self._made(request, name, Tmknod, mode & ~umask, *numbers, request.gid)

    def symlink(self, request: Request, name: bytes, target: bytes) -> Later:
        return self._made(request, name, Tsymlink, target, request.gid)

    async def readlink(self, request: Request) -> bytes:
        target: bytes = (await self._nodes.call(self._nodes[request.inode], Treadlink)).target
        return target

    async def link(self, request: Request, ino: int, name: bytes) -> bytes:
        node, parent = self._nodes[ino], self._nodes[request.inode]

        async def link(session: Session, fid: int) -> None:
            await session.once(Tlink, await self._nodes.fid(parent, session), fid, name)

        await self._nodes.on(node, link)
        self._changed(node)
        self._directories.touched(parent, name)
        self._changed(parent)
        self._nodes.name(node, parent, name)
        return self._entry(node, await self._stat(node))

    def unlink(self, request: Request, name: bytes) -> Later:
        return self._removed(request, name, 0)

    def rmdir(self, request: Request, name: bytes) -> Later:
        return self._removed(request, name, AT_REMOVEDIR)

    async def _removed(self, request: Request, name: bytes, flags: int) -> bytes:
        parent = self._nodes[request.inode]
        await self._nodes.once(parent, Tunlinkat, name, flags)
        self._unnamed(parent, name)
        return b""

    def _unnamed(self, parent: Node, name: bytes) -> Node | None:
        """A name is gone: the node that had it."""
        self._directories.touched(parent, name)
        self._changed(parent)
        node = self._nodes.unname(parent, name)
        if node is not None:
            self._changed(node)
        return node

    async def rename(self, request: Request, ino: int, name: bytes, new_name: bytes) -> bytes:
        old, new = self._nodes[request.inode], self._nodes[ino]

        async def rename(session: Session, fid: int) -> None:
            there = await self._nodes.fid(new, session)
            await session.once(Trenameat, fid, name, there, new_name)

        await self._nodes.on(old, rename)
        node = self._unnamed(old, name)
        self._unnamed(new, new_name)
        if node is not None:
            self._nodes.name(node, new, new_name)
        self._fs.renamed(_inside(old, name), _inside(new, new_name))
        return b""

    # Files

    async def open(self, request: Request, flags: int, how: int) -> bytes:
        node = self._nodes[request.inode]
        await self._writes.settle(node)
        wanted = flags & (O_ACCMODE | O_TRUNC)
        if wanted & O_TRUNC:
            await self._degrade(node, bool(how & protocol.OPEN_KILL_SUIDGID))
        ahead = CHUNK if not wanted and self._directories.trust and 0 < node.seen[0] <= LARGE else 0

        async def open_(session: Session) -> tuple[File, Stat, bytes | None]:
            fid, found, head = await self._nodes.opened(node, session, wanted, ahead)
            path = node.path if node.name is not None else b"/"
            return File(self._fs, path, flags & O_ACCMODE, session, fid, found), found, head

        file, found, head = await self._fs.do(b"", open_)
        if not found.st_nlink and node.name is not None:
            file.let_go()
            raise OSError(errno.ESTALE, "removed by somebody else")
        if wanted & O_TRUNC:
            self._changed(node)
        kept = node.seen == (found.st_size, found.st_mtime_ns) and not wanted & O_TRUNC
        whole = head if head is not None and len(head) == found.st_size else None
        return protocol.OPEN.pack(
            self._opened(node, file, whole), protocol.FOPEN_KEEP_CACHE if kept else 0
        )

    def create(
        self, request: Request, flags: int, mode: int, umask: int, how: int, name: bytes
    ) -> Later | None:
        parent = self._nodes[request.inode]
        wanted = flags & (O_ACCMODE | O_TRUNC | O_EXCL) | O_CREAT
        fields = name, wanted, mode & ~umask & 0o7777, request.gid
        session = parent.session
        if session is not None and session.connection.plus:
            fid = session.new_fid()
            tried = partial(self._create_tried, request, parent, session, fid, fields)
            if session.connection.begin(tried, Tcreateplus, parent.fid, fid, *fields):
                return None
            session.free(fid)
        return self._create(request, parent, fields)

    def _create_tried(
        self,
        request: Request,
        parent: Node,
        session: Session,
        fid: int,
        fields: tuple[bytes, int, int, int],
        reply: Any,
    ) -> None:
        """One request has made a file, or not; if that is unknown, it is done the long way."""
        name, wanted, *_ = fields
        if isinstance(reply, ConnectionError) and not wanted & O_EXCL:
            self.device.finish(request, self._create(request, parent, fields))
        elif isinstance(reply, OSError):
            session.free(fid)
            self.device.refuse(request, number_of(reply))
        else:
            made = chain.Made(fid, *reply)
            try:
                node, handle = self._created(session, parent, name, wanted, made)
            except OSError as error:
                self.device.refuse(request, number_of(error))
                return
            if self._is_his(request, made.found):
                self.device.answer(request, self._open_entry(node, handle, made.found))
            else:
                self.device.finish(request, self._given_open(request, node, handle, made.found))

    async def _create(
        self, request: Request, parent: Node, fields: tuple[bytes, int, int, int]
    ) -> Answer:
        name, wanted, *_ = fields

        async def create(session: Session, directory: int) -> tuple[Node, int, Stat]:
            work = chain.create(session, directory, *fields)
            made = await (session.unrepeated(work) if wanted & O_EXCL else work)
            return *self._created(session, parent, name, wanted, made), made.found

        return await self._given_open(request, *await self._nodes.on(parent, create))

    def _created(
        self, session: Session, parent: Node, name: bytes, wanted: int, made: chain.Made
    ) -> tuple[Node, int]:
        """The node of a file that was created, and its number as an open file.

        Raises:
            OSError: ESTALE, the directory was removed.
        """
        node = self._nodes.found(parent, name, made.found)
        try:
            path = node.path
        except OSError:
            session.clunk(made.fid)
            self._nodes.let_go(node)
            raise
        file = File(self._fs, path, wanted & O_ACCMODE, session, made.fid, made.found)
        self._new(parent, name, node, made)
        return node, self._opened(node, file, None)

    async def _given_open(self, request: Request, node: Node, handle: int, found: Stat) -> Answer:
        try:
            return self._open_entry(node, handle, await self._given(request, node, found))
        except BaseException:
            self._released(self._handles.pop(handle), 0, 0)
            self._nodes.let_go(node)
            raise

    def _open_entry(self, node: Node, handle: int, found: Stat) -> bytes:
        return self._entry(node, found) + protocol.OPEN.pack(handle, 0)

    def _opened(self, node: Node, file: File, head: bytes | None) -> int:
        self._last += 1
        handle = Handle(node, file, Reader(file, self._trust, head))
        node.use.handles.add(handle)
        self._handles[self._last] = handle
        return self._last

    def read(self, request: Request, fh: int, offset: int, size: int) -> Answer | Later:
        handle = self._handles[fh]
        if handle.node.is_written:
            return self._read_later(handle, offset, size)
        data = handle.reader.read(size, offset, handle.node.seen[0])
        return self._read(data) if isinstance(data, Awaitable) else [data]

    async def _read(self, data: Awaitable[Buffer]) -> Answer:
        return [await data]

    async def _read_later(self, handle: Handle, offset: int, size: int) -> Answer:
        await self._writes.settle(handle.node)
        data = handle.reader.read(size, offset, handle.node.seen[0])
        return [await data if isinstance(data, Awaitable) else data]

    def write(
        self, request: Request, fh: int, offset: int, size: int, how: int, data: memoryview
    ) -> bytes | Later:
        handle = self._handles[fh]
        self._check(handle)
        kill = bool(how & protocol.WRITE_KILL_SUIDGID)
        if self._is_privileged(handle.node, kill):
            return self._degrade_and_write(handle, kill, offset, data)
        if self._writes.has_to_wait(handle.node, offset, offset + size):
            return self._write_later(handle, offset, data)
        return self._writes.begin(handle, offset, data)

    async def _degrade_and_write(
        self, handle: Handle, kill: bool, offset: int, data: memoryview
    ) -> bytes:
        await self._degrade(handle.node, kill)
        return await self._write_later(handle, offset, data)

    async def _write_later(self, handle: Handle, offset: int, data: memoryview) -> bytes:
        await self._writes.turn(handle.node, offset, offset + len(data))
        return self._writes.begin(handle, offset, data)

    def _check(self, handle: Handle) -> None:
        error, handle.error = handle.error, None
        if error is not None:
            raise error

    def flush(self, request: Request, fh: int, owner: int) -> bytes | Later | None:
        handle = self._handles[fh]
        if owner in handle.node.use.locks:
            return self._flush(handle, owner)
        if handle.node.is_written:
            handle.node.use.settling.append(partial(self._flushed, request, handle))
            return None
        self._check(handle)
        return b""

    def _flushed(self, request: Request, handle: Handle) -> None:
        """All writes of a file that was closed are done, and it had no locks."""
        error, handle.error = handle.error, None
        if error is None:
            self.device.answer(request, b"")
        else:
            self.device.refuse(request, number_of(error))

    async def _flush(self, handle: Handle, owner: int) -> bytes:
        await self._writes.settle(handle.node)
        await self._locks.give(handle, owner)  # it has closed the file (fcntl_locking(2))
        self._check(handle)
        return b""

    async def fsync(self, request: Request, fh: int) -> bytes:
        handle = self._handles[fh]
        await self._writes.settle(handle.node)
        self._check(handle)
        await handle.file.sync()
        return b""

    def release(self, request: Request, fh: int, flags: int, owner: int) -> bytes | Later:
        handle = self._handles.pop(fh)
        return (
            self._release(handle, flags, owner)
            if handle.node.is_written
            else self._released(handle, flags, owner)
        )

    async def _release(self, handle: Handle, flags: int, owner: int) -> bytes:
        await self._writes.settle(handle.node)
        return self._released(handle, flags, owner)

    def _released(self, handle: Handle, flags: int, owner: int) -> bytes:
        node = handle.node
        if flags & protocol.RELEASE_FLOCK_UNLOCK:
            node.use.locks.pop(owner, None)
        handle.reader.forget()
        node.use.handles.discard(handle)
        handle.file.let_go()  # and of its locks
        return b""

    # Locks

    def setlk(
        self, request: Request, fh: int, owner: int, start: int, end: int, kind: int
    ) -> Later:
        return self._lock(request, self._handles[fh], owner, start, end, kind, wait=False)

    def setlkw(
        self, request: Request, fh: int, owner: int, start: int, end: int, kind: int
    ) -> Later:
        return self._lock(request, self._handles[fh], owner, start, end, kind, wait=True)

    async def _lock(
        self,
        request: Request,
        handle: Handle,
        owner: int,
        start: int,
        end: int,
        kind: int,
        *,
        wait: bool,
    ) -> bytes:
        await self._writes.settle(handle.node)
        if kind == LOCK_TYPE_UNLCK:
            await self._locks.give(handle, owner, start, end)
            return b""
        exclusive = kind == LOCK_TYPE_WRLCK
        self._waiting.add(request.unique)
        try:
            got = await self._locks.take(handle, owner, start, end, exclusive=exclusive, wait=wait)
        finally:
            self._waiting.discard(request.unique)
        if not got:
            raise OSError(errno.EAGAIN, "somebody else has it")
        await self._look_again(handle.node)
        return b""

    async def _look_again(self, node: Node) -> None:
        """Whoever had the lock may have changed the file, or others."""
        self._directories.distrust()
        seen = node.seen
        found = await self._stat(node)
        if seen != (found.st_size, found.st_mtime_ns):
            self._changed(node)
            await asyncio.to_thread(self.device.invalidate, node.ino)

    def getlk(
        self, request: Request, fh: int, owner: int, start: int, end: int, kind: int
    ) -> Later:
        exclusive = kind == LOCK_TYPE_WRLCK
        return self._locks.what_excludes(self._handles[fh], owner, start, end, exclusive=exclusive)

    # Directories

    def opendir(self, request: Request) -> bytes:
        self._last += 1
        self._listings[self._last] = []
        return protocol.OPEN.pack(self._last, 0)

    async def readdirplus(self, request: Request, fh: int, start: int, size: int) -> Answer:
        node = self._nodes[request.inode]
        names = await self._listing_of(node, fh, start)
        parts: list[bytes | bytearray | memoryview] = []
        for number in range(start, len(names)):
            name = names[number]
            padded = len(name) + -len(name) % 8
            size -= protocol.ENTRY.size + protocol.DIRENT.size + padded
            if size < 0:
                break
            if number % TOGETHER == 0:
                await self._directories.know(node, names[number : number + TOGETHER])
            one = node.listing.known.get(name)
            entry = self._entry(one.node, one.found) if one else _NOTHING
            where = (
                (one.node.ino, number + 1, len(name), one.found.st_mode >> 12)
                if one
                else (protocol.UNKNOWN, number + 1, len(name), 0)
            )
            parts += [entry, protocol.DIRENT.pack(*where), name.ljust(padded, b"\0")]
        return [b"".join(parts)]

    async def _listing_of(self, node: Node, fh: int, start: int) -> list[bytes]:
        """The names in an open directory, read anew by who begins."""
        if not start:
            self._listings[fh] = await self._directories.begin(node)
        return self._listings[fh]

    def releasedir(self, request: Request, fh: int) -> bytes:
        del self._listings[fh]
        return b""

    def fsyncdir(self, request: Request) -> bytes:
        """Nothing is to be done: the server has all changes of names."""
        return b""

    # Attributes

    async def statfs(self, request: Request) -> bytes:
        found = statvfs_of(await self._nodes.call(self._nodes.root, Tstatfs))
        return protocol.STATFS.pack(
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            found.f_bsize,
            found.f_namemax,
            found.f_bsize,
        )

    def getxattr(self, request: Request, size: int, name: bytes) -> Later:
        node = self._nodes[request.inode]
        bare = name == CAPABILITY and time.monotonic() < node.bare  # asked before a first write
        if bare or node.is_plain:
            raise OSError(errno.ENODATA, "it has none")
        return self._getxattr(node, size, name)

    async def _getxattr(self, node: Node, size: int, name: bytes) -> bytes:
        try:
            return _sized(await self._nodes.on(node, partial(xattr, name)), size)
        except OSError as error:
            if name == CAPABILITY and error.errno == errno.ENODATA:
                node.bare = time.monotonic() + BARE
            raise

    def listxattr(self, request: Request, size: int) -> bytes | Later:
        node = self._nodes[request.inode]
        return _sized(b"", size) if node.is_plain else self._listxattr(node, size)

    async def _listxattr(self, node: Node, size: int) -> bytes:
        return _sized(await self._nodes.on(node, partial(xattr, b"")), size)

    async def setxattr(
        self, request: Request, size: int, flags: int, name: bytes, value: memoryview
    ) -> bytes:
        node = self._nodes[request.inode]
        node.bare = 0.0
        self._changed(node)
        await self._nodes.on(node, partial(set_xattr, name, bytes(value[:size]), flags))
        return b""

    async def removexattr(self, request: Request, name: bytes) -> bytes:
        node = self._nodes[request.inode]
        self._changed(node)
        await self._nodes.on(node, partial(set_xattr, name, b"", XATTR_REPLACE))
        return b""


async def operations(fs: FileSystem, uid: int, trust: float) -> Operations:
    """What the kernel asks of a file system; arguments as :class:`Operations` has them."""

    async def begin(session: Session) -> Operations:
        root = await session.call(Tgetattr, ROOT_FID, GETATTR_ALL)
        return Operations(fs, session, root, uid, trust)

    return await fs.do(b"/", begin)


def _degraded(mode: int) -> int:
    """The mode of a file that makes no program privileged."""
    locking = mode & stat.S_ISGID and not mode & stat.S_IXGRP
    return mode & ~(stat.S_ISUID | (0 if locking else stat.S_ISGID))


def _inside(directory: Node, name: bytes) -> bytes:
    return directory.path.rstrip(b"/") + b"/" + name


def _sized(value: bytes, room: int) -> bytes:
    """A value for who has so much room for it; its size for who has none."""
    if not room:
        return protocol.SIZE.pack(len(value))
    if len(value) > room:
        raise OSError(errno.ERANGE, "it is longer")
    return value

"""FUSE: what a kernel asks of a mounted file system, asked of the server.

Rules of this file:

* Each inode that the kernel knows is a node with a fid; its name is known too, so that on a new
  connection it is walked to again, and is the same only if number and generation are, else ESTALE.
* A write is answered before it is done, unless it overlaps one that is not done; whatever else asks
  about the file waits for all of them.  The next write, close or fsync is told what has failed.
* Locks are the kernel's: they exclude the programs on this mount, not those elsewhere.
"""

import asyncio
import errno
import functools
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3

from server.wire.constants import (
    AT_REMOVEDIR,
    GETATTR_ALL,
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
    Tlcreate,
    Tlink,
    Tlopen,
    Tmkdir,
    Tmknod,
    Treadlink,
    Trenameat,
    Tsetattr,
    Tstatfs,
    Tsymlink,
    Tunlinkat,
)

from .attributes import SECOND, Entry, Stat, stat_of, statvfs_of
from .file import File
from .filesystem import STATS, FileSystem, entries, set_xattr, xattr
from .pipeline import in_order
from .readahead import Reader
from .session import ROOT, Session

P = ParamSpec("P")
T = TypeVar("T")

#: Bytes of a file's writes that have been answered but not done, at most.
BEHIND = 8 << 20
#: What the kernel asks before each write.
CAPABILITY = b"security.capability"


@dataclass(slots=True, eq=False)
class Node:
    """A file that the kernel knows.

    Attributes:
        parent, name: where it is; of a file with several names, the last that was used.
        session, fid: what stands for it on a connection.
        lookups: how often the kernel was told of it, less how often it has forgotten it.
        seen: size and time of modification when the server was last asked.
        bare: until this time it has no capabilities.
        writes: those that are not done.
    """

    ino: int
    gen: int
    parent: "Node | None"
    name: bytes | None
    session: Session
    fid: int
    lookups: int = 0
    seen: tuple[int, int] = (-1, -1)
    bare: float = 0.0
    writes: dict[asyncio.Task[None], tuple[int, int]] = field(default_factory=dict)
    readers: set[Reader] = field(default_factory=set)

    @property
    def path(self) -> bytes:
        """Where it is.

        Raises:
            OSError: ESTALE, it was removed.
        """
        names = []
        node = self
        while node.parent is not None:
            if node.name is None:
                raise OSError(errno.ESTALE, "removed")
            names.append(node.name)
            node = node.parent
        return b"/" + b"/".join(reversed(names))


@dataclass(slots=True)
class Handle:
    """An open file."""

    node: Node
    file: File
    reader: Reader
    error: OSError | None = None


@dataclass(slots=True)
class Listing:
    """An open directory: its entries, and nodes of those that the kernel was not told of."""

    node: Node
    entries: list[tuple[bytes, Node, Stat]] | None = None


def _answered(
    method: Callable[Concatenate["Operations", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Operations", P], Coroutine[Any, Any, T]]:
    """A method whose errors are the kernel's."""

    async def answer(self: "Operations", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(self, *args, **kwargs)
        except ConnectionError:
            raise pyfuse3.FUSEError(errno.EIO) from None
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None

    answer.__name__ = method.__name__
    return answer


class Operations(pyfuse3.Operations):  # type: ignore[misc]  # its types are not there without it
    """What the kernel asks.

    Args:
        fs: the file system.
        session: it, connected.
        root: attributes of its root.
        uid: who has attached; if it is root, files belong to whoever makes them.
        trust: seconds for which the kernel may believe names and attributes.
    """

    supports_dot_lookup = False

    def __init__(self, fs: FileSystem, session: Session, root: Stat, uid: int, trust: float):
        super().__init__()
        self._fs = fs
        self._uid = uid
        self._trust = trust
        self._top = root.st_ino
        self._root = Node(pyfuse3.ROOT_INODE, root.st_gen, None, None, session, ROOT, 1)
        self._nodes: dict[int, Node] = {pyfuse3.ROOT_INODE: self._root}
        self._names: dict[tuple[Node, bytes], Node] = {}
        self._handles: dict[int, Handle] = {}
        self._listings: dict[int, Listing] = {}
        self._last = 0
        self._walking = asyncio.Lock()

    # Nodes

    def _number(self, ino: int) -> int:
        """The number that a file has for the kernel, whose root has another than the server's."""
        if ino == self._top:
            return int(pyfuse3.ROOT_INODE)
        return self._top if ino == pyfuse3.ROOT_INODE else ino

    async def _fid(self, node: Node, session: Session) -> int:
        """The fid of a node on the connection there is."""
        if node.session is session:
            return node.fid
        async with self._walking:
            if node.session is not session:
                if node is not self._root:
                    node.fid = await self._walk_again(node, session)
                node.session = session
        return node.fid

    async def _walk_again(self, node: Node, session: Session) -> int:
        try:
            fid = await session.walk(node.path, follow=False)
        except (FileNotFoundError, NotADirectoryError):
            raise OSError(errno.ESTALE, "gone") from None
        try:
            found = stat_of(await session.call(Tgetattr, fid, GETATTR_ALL))
            if (self._number(found.st_ino), found.st_gen) != (node.ino, node.gen):
                raise OSError(errno.ESTALE, "another file")
        except BaseException:
            session.clunk(fid)
            raise
        return fid

    async def _on(self, node: Node, request: Callable[[Session, int], Awaitable[T]]) -> T:
        """The result of a request about a node's fid."""

        async def operation(session: Session) -> T:
            return await request(session, await self._fid(node, session))

        return await self._fs.do(b"", operation)

    async def _call(self, node: Node, kind: Any, *fields: Any) -> Any:
        return await self._on(node, lambda session, fid: session.call(kind, fid, *fields))

    async def _once(self, node: Node, kind: Any, *fields: Any) -> Any:
        return await self._on(node, lambda session, fid: session.once(kind, fid, *fields))

    async def _enter(self, session: Session, parent: Node, name: bytes) -> tuple[Node, Stat]:
        """The node of what has this name in a directory."""
        fid = await session.child(await self._fid(parent, session), name)
        try:
            found = stat_of(await session.call(Tgetattr, fid, GETATTR_ALL))
        except BaseException:
            session.clunk(fid)
            raise
        number = self._number(found.st_ino)
        node = self._nodes.get(number)
        if node is None or node.gen != found.st_gen:
            node = self._nodes[number] = Node(number, found.st_gen, parent, name, session, fid)
        elif node.session is session:
            session.clunk(fid)
        else:
            node.session, node.fid = session, fid
        self._name(node, parent, name)
        return node, found

    def _name(self, node: Node, parent: Node, name: bytes) -> None:
        node.parent, node.name = parent, name
        self._names[parent, name] = node

    def _unname(self, parent: Node, name: bytes) -> None:
        node = self._names.pop((parent, name), None)
        if node is not None and (node.parent, node.name) == (parent, name):
            node.name = None

    def _drop(self, node: Node) -> None:
        """Nobody needs a node any more."""
        if self._nodes.get(node.ino) is node:
            del self._nodes[node.ino]
        if node.parent is not None and node.name is not None:
            self._unname(node.parent, node.name)
        node.session.clunk(node.fid)

    def _attributes(self, node: Node, found: Stat) -> Any:
        node.seen = found.st_size, found.st_mtime_ns
        it = pyfuse3.EntryAttributes()
        it.st_ino = node.ino
        it.generation = node.gen
        it.entry_timeout = it.attr_timeout = self._trust
        it.st_mode = found.st_mode
        it.st_nlink = found.st_nlink
        it.st_uid = found.st_uid
        it.st_gid = found.st_gid
        it.st_rdev = found.st_rdev
        it.st_size = found.st_size
        it.st_blksize = found.st_blksize
        it.st_blocks = found.st_blocks
        it.st_atime_ns = found.st_atime_ns
        it.st_mtime_ns = found.st_mtime_ns
        it.st_ctime_ns = found.st_ctime_ns
        return it

    def _known(self, node: Node, found: Stat) -> Any:
        """Tell the kernel of a node."""
        node.lookups += 1
        return self._attributes(node, found)

    async def forget(self, forgotten: Sequence[tuple[int, int]]) -> None:
        for ino, times in forgotten:
            node = self._nodes.get(ino)
            if node is not None and node is not self._root:
                node.lookups -= times
                if node.lookups <= 0:
                    self._drop(node)

    # Names

    @_answered
    async def lookup(self, inode: int, name: bytes, ctx: Any) -> Any:
        parent = self._nodes[inode]
        node, found = await self._fs.do(name, lambda s: self._enter(s, parent, name))
        if node.writes:
            return self._known(node, await self._stat(node))
        return self._known(node, found)

    async def _stat(self, node: Node) -> Stat:
        await self._settle(node)
        return stat_of(await self._call(node, Tgetattr, GETATTR_ALL))

    @_answered
    async def getattr(self, inode: int, ctx: Any) -> Any:
        node = self._nodes[inode]
        return self._attributes(node, await self._stat(node))

    @_answered
    async def setattr(self, inode: int, attr: Any, fields: Any, fh: int | None, ctx: Any) -> Any:
        node = self._nodes[inode]
        valid = (
            (fields.update_mode and SETATTR_MODE)
            | (fields.update_uid and SETATTR_UID)
            | (fields.update_gid and SETATTR_GID)
            | (fields.update_size and SETATTR_SIZE)
            | (fields.update_atime and SETATTR_ATIME | SETATTR_ATIME_SET)
            | (fields.update_mtime and SETATTR_MTIME | SETATTR_MTIME_SET)
        )
        times = *divmod(attr.st_atime_ns, SECOND), *divmod(attr.st_mtime_ns, SECOND)
        mode = attr.st_mode & 0o7777
        await self._settle(node)
        self._changed(node)
        asked = valid, mode, attr.st_uid, attr.st_gid, attr.st_size, *times
        await self._call(node, Tsetattr, *asked)
        return self._attributes(node, await self._stat(node))

    async def _made(self, ctx: Any, parent: Node, name: bytes, kind: Any, *fields: Any) -> Any:
        """Make a name in a directory; what the kernel is told of it."""
        await self._once(parent, kind, name, *fields)
        node, found = await self._fs.do(name, lambda s: self._enter(s, parent, name))
        node.bare = time.monotonic() + self._trust
        return self._known(node, await self._owned(ctx, node, found))

    async def _owned(self, ctx: Any, node: Node, found: Stat) -> Stat:
        """What root has made belongs to whom it was made for."""
        if self._uid or ctx.uid == found.st_uid:
            return found
        await self._call(node, Tsetattr, SETATTR_UID, 0, ctx.uid, *(0,) * 6)
        return found._replace(st_uid=ctx.uid)

    @_answered
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any) -> Any:
        asked = mode & ~ctx.umask & 0o7777, ctx.gid
        return await self._made(ctx, self._nodes[parent_inode], name, Tmkdir, *asked)

    @_answered
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any) -> Any:
        asked = mode & ~ctx.umask, os.major(rdev), os.minor(rdev), ctx.gid
        return await self._made(ctx, self._nodes[parent_inode], name, Tmknod, *asked)

    @_answered
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any) -> Any:
        return await self._made(ctx, self._nodes[parent_inode], name, Tsymlink, target, ctx.gid)

    @_answered
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        target: bytes = (await self._call(self._nodes[inode], Treadlink)).target
        return target

    @_answered
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any) -> Any:
        node, parent = self._nodes[inode], self._nodes[new_parent_inode]

        async def link(session: Session, fid: int) -> None:
            await session.once(Tlink, await self._fid(parent, session), fid, new_name)

        await self._on(node, link)
        self._name(node, parent, new_name)
        return self._known(node, await self._stat(node))

    @_answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        await self._once(self._nodes[parent_inode], Tunlinkat, name, 0)
        self._unname(self._nodes[parent_inode], name)

    @_answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        await self._once(self._nodes[parent_inode], Tunlinkat, name, AT_REMOVEDIR)
        self._unname(self._nodes[parent_inode], name)

    @_answered
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: Any,
    ) -> None:
        if flags:
            raise OSError(errno.EINVAL, "9P2000.L has no such rename")
        old, new = self._nodes[parent_inode_old], self._nodes[parent_inode_new]

        async def rename(session: Session, fid: int) -> None:
            await session.once(Trenameat, fid, name_old, await self._fid(new, session), name_new)

        await self._on(old, rename)
        node = self._names.pop((old, name_old), None)
        self._unname(new, name_new)
        if node is not None:
            self._name(node, new, name_new)
        self._fs.renamed(_inside(old, name_old), _inside(new, name_new))

    # Files

    @_answered
    async def open(self, inode: int, flags: int, ctx: Any) -> Any:
        node = self._nodes[inode]
        await self._settle(node)

        async def open_(session: Session, fid: int) -> tuple[File, Stat]:
            copy = await session.copy(fid)
            try:
                reply, _ = await asyncio.gather(
                    session.call(Tgetattr, copy, GETATTR_ALL),
                    session.call(Tlopen, copy, flags & (O_ACCMODE | O_TRUNC)),
                )
            except BaseException:
                session.clunk(copy)
                raise
            found = stat_of(reply)
            path = node.path if node.name is not None else b"/"
            return File(self._fs, path, flags & O_ACCMODE, session, copy, found), found

        file, found = await self._on(node, open_)
        kept = node.seen == (found.st_size, found.st_mtime_ns) and not flags & O_TRUNC
        return pyfuse3.FileInfo(fh=self._opened(node, file), keep_cache=kept)

    @_answered
    async def create(self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        parent = self._nodes[parent_inode]
        wanted = flags & (O_ACCMODE | O_TRUNC | O_EXCL) | O_CREAT

        async def create(session: Session, fid: int) -> tuple[File, Node, Stat]:
            copy = await session.copy(fid)
            call = session.once if wanted & O_EXCL else session.call
            try:
                await call(Tlcreate, copy, name, wanted, mode & ~ctx.umask & 0o7777, ctx.gid)
                node, found = await self._enter(session, parent, name)
            except BaseException:
                session.clunk(copy)
                raise
            file = File(self._fs, node.path, flags & O_ACCMODE, session, copy, found)
            return file, node, found

        file, node, found = await self._on(parent, create)
        node.bare = time.monotonic() + self._trust
        known = self._known(node, await self._owned(ctx, node, found))
        return pyfuse3.FileInfo(fh=self._opened(node, file)), known

    def _opened(self, node: Node, file: File) -> int:
        self._last += 1
        reader = Reader(file, self._fs.data_max, self._trust)
        node.readers.add(reader)
        self._handles[self._last] = Handle(node, file, reader)
        return self._last

    @_answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        handle = self._handles[fh]
        await self._settle(handle.node)
        return await handle.reader.read(size, off, handle.node.seen[0])

    @_answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        handle = self._handles[fh]
        self._check(handle)
        writes, end = handle.node.writes, off + len(buf)
        self._changed(handle.node)
        if any(start < end and off < stop for start, stop in writes.values()):
            await self._settle(handle.node)
        while sum(stop - start for start, stop in writes.values()) > BEHIND:
            await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._write(handle, buf, off))
        writes[task] = off, end
        task.add_done_callback(lambda task: writes.pop(task, None))
        return len(buf)

    async def _write(self, handle: Handle, data: bytes, offset: int) -> None:
        try:
            await handle.file.pwrite(data, offset)
        except OSError as error:
            handle.error = error

    async def _settle(self, node: Node) -> None:
        """Wait for a file's writes."""
        while node.writes:
            await asyncio.wait(node.writes)

    def _changed(self, node: Node) -> None:
        """What is in a file changes."""
        for reader in node.readers:
            reader.forget()

    def _check(self, handle: Handle) -> None:
        error, handle.error = handle.error, None
        if error is not None:
            raise error

    @_answered
    async def flush(self, fh: int) -> None:
        handle = self._handles[fh]
        await self._settle(handle.node)
        self._check(handle)

    @_answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self.flush(fh)
        await self._handles[fh].file.sync()

    @_answered
    async def release(self, fh: int) -> None:
        handle = self._handles.pop(fh)
        await self._settle(handle.node)
        handle.reader.forget()
        handle.node.readers.discard(handle.reader)
        handle.file.let_go()

    # Directories

    @_answered
    async def opendir(self, inode: int, ctx: Any) -> int:
        self._last += 1
        self._listings[self._last] = Listing(self._nodes[inode])
        return self._last

    @_answered
    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        listing = self._listings[fh]
        if not start_id or listing.entries is None:
            self._forget_listed(listing)
            listing.entries = await self._fs.do(b"", functools.partial(self._listed, listing.node))
        for number in range(start_id, len(listing.entries)):
            name, node, found = listing.entries[number]
            if not pyfuse3.readdir_reply(token, name, self._attributes(node, found), number + 1):
                break
            node.lookups += 1

    @_answered
    async def releasedir(self, fh: int) -> None:
        self._forget_listed(self._listings.pop(fh))

    @_answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Nothing is to be done: the server has all changes of names."""

    async def _listed(self, node: Node, session: Session) -> list[tuple[bytes, Node, Stat]]:
        """What is in a directory."""
        names = await entries(session, await self._fid(node, session))
        work = (self._entered(session, node, entry) for entry in names)
        async with aclosing(in_order(work, STATS)) as found:
            return [one async for one in found if one is not None]

    async def _entered(
        self, session: Session, parent: Node, entry: Entry
    ) -> tuple[bytes, Node, Stat] | None:
        name = os.fsencode(entry.name)
        try:
            node = self._nodes.get(self._number(entry.ino))
            if node is None or (node.parent, node.name) != (parent, name):
                return name, *await self._enter(session, parent, name)
            await self._settle(node)
            fid = await self._fid(node, session)
            return name, node, stat_of(await session.call(Tgetattr, fid, GETATTR_ALL))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise
            return None

    def _forget_listed(self, listing: Listing) -> None:
        for _, node, _ in listing.entries or ():
            if not node.lookups and self._nodes.get(node.ino) is node:
                self._drop(node)
        listing.entries = None

    # Attributes

    @_answered
    async def statfs(self, ctx: Any) -> Any:
        found = statvfs_of(await self._call(self._root, Tstatfs))
        it = pyfuse3.StatvfsData()
        it.f_bsize = it.f_frsize = found.f_bsize
        it.f_blocks = found.f_blocks
        it.f_bfree = found.f_bfree
        it.f_bavail = found.f_bavail
        it.f_files = found.f_files
        it.f_ffree = it.f_favail = found.f_ffree
        it.f_namemax = found.f_namemax
        return it

    @_answered
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        node = self._nodes[inode]
        if name == CAPABILITY and time.monotonic() < node.bare:
            raise OSError(errno.ENODATA, "asked a moment ago")
        try:
            return await self._on(node, functools.partial(xattr, name))
        except OSError as error:
            if name == CAPABILITY and error.errno == errno.ENODATA:
                node.bare = time.monotonic() + self._trust
            raise

    @_answered
    async def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        names = await self._on(self._nodes[inode], functools.partial(xattr, b""))
        return [name for name in names.split(b"\0") if name]

    @_answered
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        node = self._nodes[inode]
        node.bare = 0.0
        await self._on(node, functools.partial(set_xattr, name, value, 0))

    @_answered
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        await self._on(self._nodes[inode], functools.partial(set_xattr, name, b"", XATTR_REPLACE))


async def operations(fs: FileSystem, uid: int, trust: float) -> Operations:
    """What the kernel asks of a file system; arguments as :class:`Operations` has them."""

    async def begin(session: Session) -> Operations:
        root = stat_of(await session.call(Tgetattr, ROOT, GETATTR_ALL))
        return Operations(fs, session, root, uid, trust)

    return await fs.do(b"/", begin)


def _inside(directory: Node, name: bytes) -> bytes:
    return directory.path.rstrip(b"/") + b"/" + name

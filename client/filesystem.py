"""FileSystem: what a server exports, by path.

Rules of this file:

* When a connection has ended, the next operation makes a new one, for up to ``patience`` seconds.
* An operation whose connection ends is done again, unless it would not do the same twice: then it
  fails with OutcomeUnknownError.
* What is refused is an OSError with the server's errno and the path, of the subclass that
  :mod:`os` would raise (FileNotFoundError, ...).
"""

import asyncio
import errno
import os
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Self, TypeVar

from server.wire.constants import (
    AT_REMOVEDIR,
    GETATTR_ALL,
    O_ACCMODE,
    O_APPEND,
    O_CREAT,
    O_DIRECTORY,
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
    Tread,
    Treadlink,
    Trenameat,
    Tsetattr,
    Tstatfs,
    Tsymlink,
    Tunlinkat,
    Twrite,
    Txattrcreate,
    Txattrwalk,
)
from server.wire.primitives import Buffer

from . import address as addresses
from . import chain
from .attributes import SECOND, Entry, Stat, StatVfs, entry_of, statvfs_of
from .errors import OutcomeUnknownError
from .file import File
from .pipeline import in_order
from .session import Session, normal, split
from .tls import FILES, context, from_environment

T = TypeVar("T")

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

#: The largest message that is asked for, in bytes; what Linux' own client takes over TCP.
MSIZE = 1 << 20
#: Connections on which an operation is tried.
TRIES = 5
#: Seconds between attempts to connect again: at first, and at most.
PAUSE, PAUSE_MAX = 0.05, 2.0
#: Stat requests of a directory's names that are on their way at a time.
STATS = 64

#: What the flags of open(2) are here, and on the wire.
_FLAGS = (
    (os.O_CREAT, O_CREAT),
    (os.O_EXCL, O_EXCL),
    (os.O_TRUNC, O_TRUNC),
    (os.O_APPEND, O_APPEND),
    (os.O_DIRECTORY, O_DIRECTORY),
)


class FileSystem:
    """A file system on a server; ``async with`` connects, and ends the connection.

    Args:
        address: as :mod:`.address` has it.
        aname: the name of the export.
        uname: the name of the user; by default, see :mod:`.address`.
        uid: his number.
        gid: the group of what he makes.
        msize: the largest message, in bytes.
        patience: seconds for which a lost connection is tried to be made again.
        tls: for ``tls://``: whom to trust, and who comes; by default, what the environment says
            (TMPFS9P_CERT, TMPFS9P_KEY, TMPFS9P_CA).

    Raises:
        ValueError: the address is none, or a file for TLS is not what it must be.
    """

    def __init__(
        self,
        address: str,
        *,
        aname: str = "/",
        uname: str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        msize: int = MSIZE,
        patience: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        place = addresses.parse(address)
        uname = place.uname if uname is None else uname
        uid = place.uid if uid is None else uid
        if tls is None and place.scheme == "tls":
            tls = context(*map(from_environment, FILES))
        self.address = address
        self.tls = tls
        self._begin = partial(Session.begin, partial(place.dial, tls=tls), msize, aname, uname, uid)
        self._gid = os.getegid() if gid is None else gid
        self._patience = patience
        self._current: Session | None = None
        self._closed = False
        self._connecting = asyncio.Lock()
        self._files: dict[int, File] = {}
        self._last_number = 0

    async def __aenter__(self) -> Self:
        await self._session()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection, and with it whatever is open."""
        self._closed = True
        if self._current is not None:
            await self._current.connection.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._current is not None and self._current.connection.is_open

    @property
    def is_plus(self) -> bool:
        """Whether the server speaks this project's own dialect."""
        assert self._current is not None
        return self._current.connection.plus

    @property
    def data_max(self) -> int:
        """The most bytes that one request reads or writes, as agreed on with the server."""
        assert self._current is not None
        return self._current.data_max

    # Files

    async def open(self, path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> File:
        """Open a file; flags are those of :mod:`os`, ``mode`` is for a file that is made."""
        wire = flags & O_ACCMODE
        for here, there in _FLAGS:
            if flags & here:
                wire |= there
        name = os.fsencode(path)
        if wire & O_CREAT:
            try:
                return await self.do(name, lambda s: self._create(s, name, wire, mode))
            except OSError as error:
                if error.errno != errno.ELOOP or wire & O_EXCL:
                    raise
        return await self.do(name, lambda s: self._open(s, name, wire & ~O_CREAT))

    async def _open(self, session: Session, path: bytes, flags: int) -> File:
        fid = await session.walk(path)
        try:
            found, _ = await asyncio.gather(
                session.call(Tgetattr, fid, GETATTR_ALL), session.call(Tlopen, fid, flags)
            )
        except BaseException:
            session.clunk(fid)
            raise
        kept = flags & ~(O_TRUNC | O_EXCL)
        return File(self, normal(path), kept, session, fid, found)

    async def _create(self, session: Session, path: bytes, flags: int, mode: int) -> File:
        call = session.once if flags & O_EXCL else session.call
        async with session.parent_of(path) as (parent, name):
            fid = await session.copy(parent)
            try:
                await call(Tlcreate, fid, name, flags, mode, self._gid)
                found = await session.call(Tgetattr, fid, GETATTR_ALL)
            except BaseException:
                session.clunk(fid)
                raise
        kept = flags & ~(O_CREAT | O_TRUNC | O_EXCL)
        return File(self, normal(path), kept, session, fid, found)

    async def read_bytes(self, path: Path) -> bytes:
        """All that is in a file."""
        async with await self.open(path) as file:
            return await file.read_all()

    async def write_bytes(self, path: Path, data: Buffer) -> None:
        """Make a file of that, or put it in place of what is in it."""
        async with await self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            await file.pwrite(data, 0)

    # Names

    async def listdir(self, path: Path = "/") -> list[str]:
        """The names in a directory."""
        return [entry.name for entry in await self.scandir(path)]

    async def scandir(self, path: Path = "/") -> list[Entry]:
        """What is in a directory, without ``.`` and ``..``."""
        return await self._at(path, entries)

    async def stats(self, path: Path = "/") -> dict[str, Stat]:
        """What is in a directory, by name, as lstat would have it; what goes meanwhile is not."""

        async def stats(session: Session, fid: int) -> dict[str, Stat]:
            if session.connection.plus:
                listed, _ = await chain.listed(session, fid, sys.maxsize)
                return {os.fsdecode(one.name): one.found for one in listed}
            names = [entry.name for entry in await entries(session, fid)]
            work = (_stat_in(session, fid, os.fsencode(name)) for name in names)
            async with aclosing(in_order(work, STATS)) as found:
                every = [one async for one in found]
            return {name: one for name, one in zip(names, every, strict=True) if one is not None}

        return await self._at(path, stats)

    async def mkdir(self, path: Path, mode: int = 0o755) -> None:
        """Make a directory."""
        await self._in(path, Tmkdir, mode, self._gid)

    async def makedirs(self, path: Path, mode: int = 0o755, exist_ok: bool = False) -> None:
        """Make a directory, and those above it that are not there."""
        name = os.fsencode(path)
        try:
            await self.mkdir(name, mode)
        except FileNotFoundError:
            above = os.path.dirname(name.rstrip(b"/"))
            if not above.strip(b"/"):
                raise
            await self.makedirs(above, exist_ok=True)
            await self.makedirs(name, mode, exist_ok)
        except OSError as error:  # the root: EINVAL
            if not exist_ok or error.errno not in (errno.EEXIST, errno.EINVAL):
                raise
            if not (await self.stat(name)).is_dir:
                raise

    async def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""
        await self._in(path, Tunlinkat, AT_REMOVEDIR)

    async def unlink(self, path: Path) -> None:
        """Remove a name that is not a directory's."""
        await self._in(path, Tunlinkat, 0)

    async def rmtree(self, path: Path) -> None:
        """Remove a directory, and all that is in it.

        Raises:
            OSError: EINVAL, it is the root, or ends in ``..``; then nothing is removed.
        """
        name = os.fsencode(path)
        split(name)
        files = []
        for entry in await self.scandir(name):
            inside = name + b"/" + os.fsencode(entry.name)
            if entry.is_dir:
                await self.rmtree(inside)
            else:
                files.append(inside)
        async with aclosing(in_order(self.unlink(file) for file in files)) as results:
            async for _ in results:
                pass
        await self.rmdir(name)

    async def rename(self, path: Path, new: Path) -> None:
        """Give a file another name, in place of what has it, as rename(2)."""
        source, target = normal(os.fsencode(path)), normal(os.fsencode(new))

        async def rename(session: Session) -> None:
            async with (
                session.parent_of(source) as (old_parent, old_name),
                session.parent_of(target) as (new_parent, new_name),
            ):
                await session.once(Trenameat, old_parent, old_name, new_parent, new_name)

        await self.do(source, rename)
        self.renamed(source, target)

    def renamed(self, source: bytes, target: bytes) -> None:
        """A file has another name; open ones are sought there when a connection was lost."""
        for file in self._files.values():
            if file.path == source or file.path.startswith(source + b"/"):
                file.path = target + file.path[len(source) :]

    async def link(self, path: Path, new: Path) -> None:
        """Give a file one more name."""
        target = os.fsencode(new)

        async def link(session: Session, fid: int) -> None:
            async with session.parent_of(target) as (parent, name):
                await session.once(Tlink, parent, fid, name)

        await self._at(path, link, follow=False)

    async def symlink(self, target: Path, path: Path) -> None:
        """Make a symbolic link at ``path``."""
        await self._in(path, Tsymlink, os.fsencode(target), self._gid)

    async def readlink(self, path: Path) -> str:
        """What a symbolic link says."""
        reply = await self._call_at(path, Treadlink, follow=False)
        return os.fsdecode(reply.target)

    async def mknod(self, path: Path, mode: int, device: int = 0) -> None:
        """Make a fifo, a socket, a device or a file: ``mode`` has its kind, too."""
        await self._in(path, Tmknod, mode, os.major(device), os.minor(device), self._gid)

    # Attributes

    async def stat(self, path: Path, *, follow: bool = True) -> Stat:
        """Attributes; of a symbolic link itself if it is not to ``follow``."""
        found: Stat = await self._call_at(path, Tgetattr, GETATTR_ALL, follow=follow)
        return found

    async def exists(self, path: Path) -> bool:
        """Whether there is anything; a symbolic link that leads nowhere is nothing."""
        try:
            await self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def chmod(self, path: Path, mode: int) -> None:
        """Change permissions."""
        await self._set(path, True, SETATTR_MODE, mode=mode)

    async def chown(self, path: Path, uid: int, gid: int, *, follow: bool = True) -> None:
        """Change owner and group; -1 leaves them."""
        valid = (SETATTR_UID if uid >= 0 else 0) | (SETATTR_GID if gid >= 0 else 0)
        await self._set(path, follow, valid, uid=max(uid, 0), gid=max(gid, 0))

    async def truncate(self, path: Path, size: int) -> None:
        """Make a file end at ``size``."""
        await self._set(path, True, SETATTR_SIZE, size=size)

    async def utime(
        self, path: Path, ns: tuple[int, int] | None = None, *, follow: bool = True
    ) -> None:
        """Set the times of access and of modification, in ns; both to now if there are none."""
        valid = SETATTR_ATIME | SETATTR_MTIME
        if ns is not None:
            valid |= SETATTR_ATIME_SET | SETATTR_MTIME_SET
        await self._set(path, follow, valid, times=ns or (0, 0))

    async def statvfs(self, path: Path = "/") -> StatVfs:
        """Room on the file system."""
        return statvfs_of(await self._call_at(path, Tstatfs))

    async def getxattr(self, path: Path, name: str, *, follow: bool = True) -> bytes:
        """The value of an extended attribute."""
        return await self._at(path, partial(xattr, os.fsencode(name)), follow)

    async def listxattr(self, path: Path, *, follow: bool = True) -> list[str]:
        """The names of the extended attributes."""
        names = await self._at(path, partial(xattr, b""), follow)
        return [os.fsdecode(name) for name in names.split(b"\0") if name]

    async def setxattr(
        self, path: Path, name: str, value: bytes, flags: int = 0, *, follow: bool = True
    ) -> None:
        """Set an extended attribute; flags are XATTR_CREATE and XATTR_REPLACE of :mod:`os`."""
        await self._at(path, partial(set_xattr, os.fsencode(name), value, flags), follow)

    async def removexattr(self, path: Path, name: str, *, follow: bool = True) -> None:
        """Remove an extended attribute."""
        await self._at(path, partial(set_xattr, os.fsencode(name), b"", XATTR_REPLACE), follow)

    # How all of it is done

    async def do(self, path: bytes, operation: Callable[[Session], Awaitable[T]]) -> T:
        """Do it on the connection that there is, or on new ones if that ends."""
        for left in reversed(range(TRIES)):
            session = await self._session()
            try:
                return await operation(session)
            except OutcomeUnknownError:
                raise
            except ConnectionError:
                if not left:
                    raise
            except OSError as error:
                if error.filename is None:
                    error.filename = os.fsdecode(path)
                raise
        raise AssertionError

    async def _at(
        self, path: Path, request: Callable[[Session, int], Awaitable[T]], follow: bool = True
    ) -> T:
        """The result of a request about what is at ``path``."""
        name = os.fsencode(path)

        async def operation(session: Session) -> T:
            async with session.at(name, follow) as fid:
                return await request(session, fid)

        return await self.do(name, operation)

    async def _call_at(self, path: Path, kind: Any, *fields: Any, follow: bool = True) -> Any:
        return await self._at(path, lambda session, fid: session.call(kind, fid, *fields), follow)

    async def _in(self, path: Path, kind: Any, *fields: Any) -> None:
        """Make a request, not to be repeated, about a name in a directory."""
        whole = os.fsencode(path)

        async def operation(session: Session) -> None:
            async with session.parent_of(whole) as (parent, name):
                await session.once(kind, parent, name, *fields)

        await self.do(whole, operation)

    async def _set(
        self,
        path: Path,
        follow: bool,
        valid: int,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        times: tuple[int, int] = (0, 0),
    ) -> None:
        split = [part for time in times for part in divmod(time, SECOND)]
        fields = valid, mode, uid, gid, size, *split
        await self._call_at(path, Tsetattr, *fields, follow=follow)

    async def _session(self) -> Session:
        """What is attached on a connection that is open.

        Raises:
            UnreachableError: for ``patience`` seconds, or at the first time, none could be made.
        """
        if self._closed:
            raise ValueError("the file system is closed")
        if self._current is not None and self._current.connection.is_open:
            return self._current
        async with self._connecting:
            lost = self._current
            if lost is None:
                self._current = await self._begin()
            elif not lost.connection.is_open:
                await lost.connection.close()
                self._current = await self._begin_again()
            assert self._current is not None
            return self._current

    async def _begin_again(self) -> Session:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        pause = PAUSE
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._begin()
            except ConnectionError:
                if loop.time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX)

    def entered(self, file: File) -> int:
        """A file is open: the number that it has among those of this object."""
        self._last_number += 1
        self._files[self._last_number] = file
        return self._last_number

    def left(self, file: File) -> None:
        """A file is closed; one that is not is kept here."""
        del self._files[file.number]


async def entries(session: Session, directory: int) -> list[Entry]:
    """What is in a directory."""
    return [entry_of(record) for record in await chain.records(session, directory)]


async def _stat_in(session: Session, directory: int, name: bytes) -> Stat | None:
    """The attributes of what has this name in a directory, if there is anything."""
    try:
        async with session.child_of(directory, name) as fid:
            found: Stat = await session.call(Tgetattr, fid, GETATTR_ALL)
            return found
    except FileNotFoundError:
        return None


async def xattr(name: bytes, session: Session, fid: int) -> bytes:
    """The value of an attribute, or without a name, all names."""
    value = b""
    held = session.new_fid()
    try:
        size = (await session.call(Txattrwalk, fid, held, name)).size
        while part := (await session.call(Tread, held, len(value), size - len(value))).data:
            value += part
    finally:
        session.clunk(held)
    return value


async def set_xattr(name: bytes, value: bytes, flags: int, session: Session, fid: int) -> None:
    """Set an attribute, or remove it: an empty value with XATTR_REPLACE."""
    draft = await session.copy(fid)
    done = 0
    try:
        await session.call(Txattrcreate, draft, name, len(value), flags)
        while done < len(value):
            part = value[done : done + session.data_max]
            done += (await session.call(Twrite, draft, done, part)).count
    except BaseException:
        session.clunk(draft)
        raise
    await session.commit(draft)

"""File: one that is open; it outlives the connection on which it was opened.

Rules of this file:

* On a new connection a file is opened again by its path, and is the same only if number and
  generation are (qid.path, st_gen); else all that is done with it is refused with ESTALE.
* Locks end with the connection (the server gives them to others): from then on all that is done
  with a file that had one is refused with EIO, until it is closed.
* A lock belongs to the file that took it, as flock(2)'s do, not to the process.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self, TypeVar

from server.wire.constants import (
    GETATTR_ALL,
    LOCK_FLAGS_BLOCK,
    LOCK_SUCCESS,
    LOCK_TYPE_RDLCK,
    LOCK_TYPE_UNLCK,
    LOCK_TYPE_WRLCK,
    O_APPEND,
    SETATTR_SIZE,
)
from server.wire.messages import Tfsync, Tgetattr, Tgetlock, Tlock, Tlopen, Tread, Tsetattr, Twrite
from server.wire.primitives import Buffer

from .attributes import Stat
from .pipeline import in_order
from .session import Session

if TYPE_CHECKING:
    from .filesystem import FileSystem

T = TypeVar("T")

Request = Callable[[Session, int], Awaitable[T]]


class File:
    """An open file; made by :meth:`.FileSystem.open`.

    Attributes:
        path: where it is, as :func:`.normal` has it; follows renames that the same file system
            object does.
        number: which one of the file system object's it is.
    """

    def __init__(
        self,
        fs: "FileSystem",
        path: bytes,
        flags: int,
        session: Session,
        fid: int,
        found: Stat,
    ) -> None:
        self.path = path
        self._fs = fs
        self._flags = flags
        self._session = session
        self._fid = fid
        self._found = found
        self.number = fs.entered(self)
        self._locks: set[tuple[int | None, int, int]] = set()  # owner, start, length
        self._closed = False
        self._reopening = asyncio.Lock()

    @property
    def appends(self) -> bool:
        """Whether all that is written goes to the end."""
        return bool(self._flags & O_APPEND)

    @property
    def is_locked(self) -> bool:
        """Whether it has locks."""
        return bool(self._locks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of it, and of its locks; more than once does nothing."""
        self.let_go()

    def let_go(self) -> None:
        """Close it: nothing need be waited for."""
        if not self._closed:
            self._closed = True
            self._fs.left(self)
            self._session.clunk(self._fid)
            if self._locks:  # others may wait for them
                self._session.connection.send()

    async def pread(self, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on; fewer only at the end of the file."""
        if size <= self._fs.data_max:
            return (await self._read(offset, size))[0]
        parts = []
        async with aclosing(in_order(self._reads(size, offset))) as results:
            async for part, asked in results:
                parts.append(part)
                if len(part) < asked:
                    break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def data_max(self) -> int:
        """The most bytes that one request reads or writes."""
        return self._fs.data_max

    async def read(self, count: int, offset: int) -> bytes:
        """What one request reads: some of ``count`` bytes, none only at the end of the file."""
        data: bytes = (
            await self.on(lambda session, fid: session.call(Tread, fid, offset, count))
        ).data
        return data

    async def read_all(self, offset: int = 0) -> bytes:
        """All that is in it from ``offset`` on."""
        size = (await self.stat()).st_size
        data = await self.pread(max(size - offset, 0), offset)
        while more := await self.pread(self._fs.data_max, offset + len(data)):
            data += more
        return data

    async def pwrite(self, data: Buffer, offset: int) -> int:
        """Write all of ``data`` at ``offset``, or at the end if the file appends.

        If it is refused (ENOSPC), or cancelled, a part may have been written.
        """
        view = memoryview(data).cast("B")
        if self.appends:
            return await self._append(view)
        if len(view) <= self._fs.data_max:
            await self._write(view, offset)
            return len(view)
        async with aclosing(in_order(self._writes(view, offset))) as results:
            async for _ in results:
                pass
        return len(view)

    async def truncate(self, size: int) -> None:
        """Make it end at ``size``."""
        nothing = (0,) * 4
        await self.on(
            lambda session, fid: session.call(Tsetattr, fid, SETATTR_SIZE, 0, 0, 0, size, *nothing)
        )

    async def stat(self) -> Stat:
        """Its attributes."""
        found: Stat = await self.on(lambda session, fid: session.call(Tgetattr, fid, GETATTR_ALL))
        return found

    async def sync(self) -> None:
        """Have the server keep what was written, as far as it keeps anything."""
        await self.on(lambda session, fid: session.call(Tfsync, fid, 0))

    async def lock(
        self,
        start: int = 0,
        length: int = 0,
        *,
        exclusive: bool = True,
        wait: bool = True,
        owner: int | None = None,
    ) -> bool:
        """Lock bytes, to the end if ``length`` is 0; whether that was done.

        Args:
            exclusive: nobody else may have a lock there; else only shared ones.
            wait: until it is possible; else the answer may be False.
            owner: whose it is, a number of 32 bits; by default this file's own.
        """
        kind = LOCK_TYPE_WRLCK if exclusive else LOCK_TYPE_RDLCK
        flags = LOCK_FLAGS_BLOCK if wait else 0
        while await self._lock(kind, flags, start, length, owner) != LOCK_SUCCESS:
            if not wait:
                return False
        self._locks.add((owner, start, length))
        return True

    async def unlock(self, start: int = 0, length: int = 0, *, owner: int | None = None) -> None:
        """Unlock bytes, to the end if ``length`` is 0."""
        await self._lock(LOCK_TYPE_UNLCK, 0, start, length, owner)
        self.unlocked(start, length, owner)

    def has_locks_of(self, owner: int) -> bool:
        """Whether it has locks of an owner."""
        return any(who == owner for who, _, _ in self._locks)

    def unlocked(self, start: int, length: int, owner: int | None) -> None:
        """Bytes are unlocked, perhaps through another file with the same owner."""
        stop = start + length if length else 1 << 64
        self._locks = {
            (who, first, size)
            for who, first, size in self._locks
            if who != owner or first < start or (first + size if size else 1 << 64) > stop
        }

    async def locked(
        self, start: int, length: int, *, exclusive: bool, owner: int | None = None
    ) -> tuple[bool, int, int] | None:
        """What excludes such a lock, if anything does: whether it is exclusive, start, length."""
        kind = LOCK_TYPE_WRLCK if exclusive else LOCK_TYPE_RDLCK
        who = self._owner(owner)
        found = await self.on(
            lambda session, fid: session.call(Tgetlock, fid, kind, start, length, *who)
        )
        if found.type == LOCK_TYPE_UNLCK:
            return None
        return found.type == LOCK_TYPE_WRLCK, found.start, found.length

    async def _lock(self, kind: int, flags: int, start: int, length: int, owner: int | None) -> int:
        who = self._owner(owner)
        status: int = (
            await self.on(
                lambda session, fid: session.call(Tlock, fid, kind, flags, start, length, *who)
            )
        ).status
        return status

    def _owner(self, number: int | None) -> tuple[int, bytes]:
        client = os.fsencode(f"{socket.gethostname()}:{os.getpid()}")
        return self.number if number is None else number, client

    def _reads(self, size: int, offset: int) -> Iterator[Coroutine[Any, Any, tuple[bytes, int]]]:
        step = self._fs.data_max
        for start in range(offset, offset + size, step):
            yield self._read(start, min(step, offset + size - start))

    async def _read(self, offset: int, count: int) -> tuple[bytes, int]:
        """What is there, and how much was asked for."""
        data = b""
        while len(data) < count:
            place = offset + len(data), count - len(data)

            async def read(session: Session, fid: int, place: tuple[int, int] = place) -> bytes:
                part: bytes = (await session.call(Tread, fid, *place)).data
                return part

            part = await self.on(read)
            if not part:
                break
            data = data + part if data else part
        return data, count

    def begin_write(self, data: memoryview, offset: int, done: Callable[[Any], None]) -> bool:
        """Write at once, if nothing has to be waited for and one request can; whether it is made.

        ``done`` is told of the Rwrite, or of an OSError; unless all is written, nothing more was
        tried: neither the rest nor a new connection.
        """
        session = self._session
        if self._closed or self.appends or len(data) > session.data_max:
            return False
        return session.connection.begin(done, Twrite, self._fid, offset, data)

    def _writes(self, view: memoryview, offset: int) -> Iterator[Coroutine[Any, Any, None]]:
        step = self._fs.data_max
        for start in range(0, len(view), step):
            yield self._write(view[start : start + step], offset + start)

    async def _write(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):

            async def write(session: Session, fid: int, done: int = done) -> int:
                part = view[done : done + session.data_max]
                count: int = (await session.call(Twrite, fid, offset + done, part)).count
                return count

            done += await self.on(write)

    async def _append(self, view: memoryview) -> int:
        done = 0
        while done < len(view):

            async def append(session: Session, fid: int, done: int = done) -> int:
                part = view[done : done + session.data_max]
                count: int = (await session.once(Twrite, fid, 0, part)).count
                return count

            done += await self.on(append)
        return done

    # After a lost connection

    async def on(self, request: Request[T]) -> T:
        """The result of a request about the fid that this file has on the connection there is."""

        async def operation(session: Session) -> T:
            return await request(session, await self.fid_on(session))

        return await self._fs.do(self.path, operation)

    async def fid_on(self, session: Session) -> int:
        """The fid that it has on a connection."""
        if self._closed:
            raise ValueError("the file is closed")
        if session is self._session:
            return self._fid
        async with self._reopening:
            if session is not self._session:
                self._fid = await self._open_again(session)
                self._session = session
        return self._fid

    async def _open_again(self, session: Session) -> int:
        if self._locks:
            raise OSError(errno.EIO, "its locks were lost with the connection")
        try:
            fid = await session.walk(self.path)
        except (FileNotFoundError, NotADirectoryError):
            raise _gone() from None
        try:
            found = await session.call(Tgetattr, fid, GETATTR_ALL)
            if (found.st_ino, found.st_gen) != (self._found.st_ino, self._found.st_gen):
                raise _gone()
            await session.call(Tlopen, fid, self._flags)
        except BaseException:
            session.clunk(fid)
            raise
        return fid


def _gone() -> OSError:
    return OSError(errno.ESTALE, "gone from its path when the connection was made again")

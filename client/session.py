"""Session: an attached connection, its fids, and the way from a path to a fid.

Rules of this file:

* Paths are bytes, and begin at the root of the export; ``..`` stops there, as on the server.
* Symbolic links are followed here: the server does not (walk(5)).  An absolute target begins at
  the root of the export, too.
* Whoever gets a fid clunks it, or uses :meth:`Session.at`, which does whatever happens.
* Nobody waits for a Tclunk, as the server forgets the fid whatever it answers; its number is used
  again when the answer is here.  It goes out at once only if somebody may wait for what it ends.
"""

import asyncio
import errno
import os
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from server.wire.codec import Message
from server.wire.constants import IOHDRSZ, MAXWELEM, NOFID, QTSYMLINK
from server.wire.messages import Tattach, Tclunk, Treadlink, Twalk
from server.wire.primitives import Qid

from .connection import Connection, Dial
from .errors import OutcomeUnknownError

T = TypeVar("T")

ROOT = 0
#: Symbolic links that are followed on the way to one file (path_resolution(7)).
LINKS_MAX = 40


class Session:
    """What a user has attached to; made by :meth:`begin`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.call = connection.call
        self._last = ROOT
        self._free: list[int] = []

    @property
    def data_max(self) -> int:
        """The most bytes that one request reads or writes."""
        return self.connection.msize - IOHDRSZ

    @classmethod
    async def begin(cls, dial: Dial, msize: int, aname: str, uname: str, uid: int) -> Self:
        """Connect, and attach to the export ``aname``.

        Raises:
            ConnectionError: there is no server now.
            OSError: it refuses.
        """
        made = cls(await Connection.open(dial, msize))
        try:
            await made.call(Tattach, ROOT, NOFID, os.fsencode(uname), os.fsencode(aname), uid)
        except BaseException:
            await made.connection.close()
            raise
        return made

    async def once(self, kind: type[Message], *fields: Any) -> Any:
        """The reply to a request that, if it were made twice, would not do the same.

        Raises:
            OutcomeUnknownError: the connection ended meanwhile.
            OSError: as :meth:`Connection.call`.
        """
        return await self.unrepeated(self.call(kind, *fields))

    async def unrepeated(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of requests that, if they were made twice, would not do the same.

        Raises:
            OutcomeUnknownError: the connection ended meanwhile.
        """
        sent = self.connection.is_open
        try:
            return await work
        except ConnectionError as lost:
            if not sent:
                raise
            why = f"whether it was done is unknown: {lost.strerror}"
            raise OutcomeUnknownError(errno.ECONNRESET, why) from lost

    @asynccontextmanager
    async def at(self, path: bytes, follow: bool = True) -> AsyncIterator[int]:
        """A fid for what :meth:`walk` finds, clunked at the end."""
        fid = await self.walk(path, follow)
        try:
            yield fid
        finally:
            self.clunk(fid)

    @asynccontextmanager
    async def copy_of(self, fid: int) -> AsyncIterator[int]:
        """Another fid for the same file, clunked at the end."""
        copy = await self.copy(fid)
        try:
            yield copy
        finally:
            self.clunk(copy)

    @asynccontextmanager
    async def child_of(self, directory: int, name: bytes) -> AsyncIterator[int]:
        """A fid for what has this name in a directory, clunked at the end."""
        child = await self.child(directory, name)
        try:
            yield child
        finally:
            self.clunk(child)

    @asynccontextmanager
    async def parent_of(self, path: bytes) -> AsyncIterator[tuple[int, bytes]]:
        """A fid for the directory that ``path`` is in, and its name there.

        Raises:
            OSError: EINVAL, it has no name: the root, or one that ends in ``..``.
        """
        *above, name = split(path)
        async with self.at(b"/".join(above)) as fid:
            yield fid, name

    async def walk(self, path: bytes, follow: bool = True) -> int:
        """A new fid for what is at ``path``; for a link itself if it is the last and not to follow.

        Raises:
            OSError: ENOENT, ENOTDIR, EACCES; ELOOP, too many symbolic links.
        """
        names = names_of(path)
        if len(names) <= MAXWELEM:
            fid, qids = await self._try(ROOT, names)
            links = sum(bool(qid.type & QTSYMLINK) for qid in qids[: None if follow else -1])
            if fid is not None and not links:
                return fid
            if fid is not None:
                self.clunk(fid)
        return await self._walk_stepwise(names, follow)

    async def child(self, directory: int, name: bytes) -> int:
        """A new fid for what has this name in a directory."""
        fid, _ = await self._step(directory, [name])
        return fid

    async def copy(self, fid: int) -> int:
        """A new fid for the same file."""
        copy, _ = await self._step(fid, [])
        return copy

    def clunk(self, fid: int) -> None:
        """Forget a fid."""
        self.connection.post(lambda _: self._free.append(fid), Tclunk, fid)

    async def commit(self, fid: int) -> None:
        """Forget a fid, and let the server say what became of the attribute that was written."""
        try:
            await self.call(Tclunk, fid)
        except asyncio.CancelledError:
            self.clunk(fid)  # it may still be there
            raise
        except OSError:
            self._free.append(fid)
            raise
        self._free.append(fid)

    def new_fid(self) -> int:
        """A number that no fid has; :meth:`clunk` gives it back."""
        if self._free:
            return self._free.pop()
        self._last += 1
        return self._last

    def free(self, fid: int) -> None:
        """A number is none of a fid, as the server has said."""
        self._free.append(fid)

    async def _try(self, start: int, names: list[bytes]) -> tuple[int | None, list[Qid]]:
        """Walk as far as it goes: a fid if that is all of it, and the qids on the way."""
        fid = self.new_fid()
        try:
            qids = (await self.call(Twalk, start, fid, names)).qids
        except OSError:
            self._free.append(fid)
            raise
        except asyncio.CancelledError:
            self.clunk(fid)  # there may be one
            raise
        if len(qids) == len(names):
            return fid, qids
        self._free.append(fid)
        if not 0 < len(qids) < len(names):
            raise OSError(errno.EPROTO, f"{len(qids)} qids for {len(names)} names")
        return None, qids

    async def _step(self, start: int, names: list[bytes]) -> tuple[int, list[Qid]]:
        """Walk by at most one name, which is refused or found."""
        fid, qids = await self._try(start, names)
        assert fid is not None
        return fid, qids

    async def _walk_stepwise(self, names: list[bytes], follow: bool) -> int:
        """Walk by one name after the other, so as to see each link and each error."""
        rest = deque(names)
        links = 0
        here, _ = await self._step(ROOT, [])
        try:
            while rest:
                there, (qid,) = await self._step(here, [rest.popleft()])
                if not qid.type & QTSYMLINK or not (rest or follow):
                    here, there = there, here
                    self.clunk(there)
                    continue
                try:
                    target: bytes = (await self.call(Treadlink, there)).target
                finally:
                    self.clunk(there)
                links += 1
                if links > LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith(b"/"):
                    there, here = here, (await self._step(ROOT, []))[0]
                    self.clunk(there)
                rest.extendleft(reversed(names_of(target)))
        except BaseException:
            self.clunk(here)
            raise
        return here


def normal(path: bytes) -> bytes:
    """A path as others that lead the same way are written."""
    return b"/" + b"/".join(names_of(path))


def split(path: bytes) -> list[bytes]:
    """The names that a path is made of, the last of which is that of a file in a directory.

    Raises:
        OSError: EINVAL, it has none: the root, or a path that ends in ``..``.
    """
    names = names_of(path)
    if not names or names[-1] == b"..":
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fsdecode(path))
    return names


def names_of(path: bytes) -> list[bytes]:
    """The names that a path is made of."""
    return [name for name in path.split(b"/") if name not in (b"", b".")]

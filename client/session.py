"""Session: an attached connection, its fids, and the way from a path to a fid.

Rules of this file:

* Paths are bytes, and begin at the root of the export; ``..`` stops there, as on the server.
* Symbolic links are followed here: the server does not (walk(5)).  An absolute target begins at
  the root of the export, too.
* Whoever gets a fid clunks it, or uses :meth:`Session.at`, which does whatever happens.
"""

import errno
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from server.wire.constants import MAXWELEM, NOFID, QTSYMLINK
from server.wire.messages import Tattach, Tclunk, Treadlink, Twalk
from server.wire.primitives import Qid

from .connection import Connection, Dial

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

    @classmethod
    async def begin(cls, dial: Dial, msize: int, aname: str, uname: str, uid: int) -> Self:
        """Connect, and attach to the export ``aname``.

        Raises:
            OSError: it can not be reached, or refuses.
        """
        made = cls(await Connection.open(dial, msize))
        try:
            await made.call(Tattach, ROOT, NOFID, os.fsencode(uname), os.fsencode(aname), uid)
        except BaseException:
            await made.connection.close()
            raise
        return made

    @asynccontextmanager
    async def at(self, path: bytes, follow: bool = True) -> AsyncIterator[int]:
        """A fid for what :meth:`walk` finds, clunked at the end."""
        fid = await self.walk(path, follow)
        try:
            yield fid
        finally:
            await self.clunk(fid)

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
                await self.clunk(fid)
        return await self._walk_stepwise(names, follow)

    async def clunk(self, fid: int) -> None:
        """Forget a fid; the server does so even if it refuses."""
        with suppress(ConnectionError):
            try:
                await self.call(Tclunk, fid)
            finally:
                self._free.append(fid)

    def new_fid(self) -> int:
        """A number that no fid has; give it back by :meth:`clunk`, or by :meth:`unused`."""
        if self._free:
            return self._free.pop()
        self._last += 1
        return self._last

    def unused(self, fid: int) -> None:
        """The server has not made a fid of this number."""
        self._free.append(fid)

    async def _try(self, start: int, names: list[bytes]) -> tuple[int | None, list[Qid]]:
        """Walk as far as it goes: a fid if that is all of it, and the qids on the way."""
        fid = self.new_fid()
        try:
            qids = (await self.call(Twalk, start, fid, names)).qids
        except OSError:
            self.unused(fid)
            raise
        if len(qids) == len(names):
            return fid, qids
        self.unused(fid)
        return None, qids

    async def _step(self, start: int, names: list[bytes]) -> tuple[int, list[Qid]]:
        """Walk by at most one name."""
        fid, qids = await self._try(start, names)
        assert fid is not None  # the first name is refused, or found
        return fid, qids

    async def _walk_stepwise(self, names: list[bytes], follow: bool) -> int:
        """Walk by one name after the other, so as to see each link and each error."""
        rest = deque(names)
        links = 0
        here, _ = await self._step(ROOT, [])
        while rest:
            try:
                there, (qid,) = await self._step(here, [rest.popleft()])
            except OSError:
                await self.clunk(here)
                raise
            if not qid.type & QTSYMLINK or not (rest or follow):
                await self.clunk(here)
                here = there
                continue
            try:
                target: bytes = (await self.call(Treadlink, there)).target
            finally:
                await self.clunk(there)
            links += 1
            if links > LINKS_MAX or target.startswith(b"/"):
                await self.clunk(here)
                if links > LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(target))
                here, _ = await self._step(ROOT, [])
            rest.extendleft(reversed(names_of(target)))
        return here


def names_of(path: bytes) -> list[bytes]:
    """The names that a path is made of."""
    return [name for name in path.split(b"/") if name not in (b"", b".")]

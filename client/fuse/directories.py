"""Directories: what is known to be in them, for a moment.

Rules of this file:

* What was found is believed for as long as the kernel believes it, but a second at most, and not
  after it was changed here.
* Who asks for one name after the other has all of the directory looked at.
* Who reads one directory after the other (find, du) has the next ones that stand beside them read
  ahead.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from .. import chain
from ..session import Session
from .nodes import Known, Look, Node, Nodes

T = TypeVar("T")

#: Names that are asked for in a directory before all of it is looked at.
MISSES = 3
#: Names that are looked at together, and those of a directory that are looked at in advance.
TOGETHER = 256
AHEAD_MAX = 2000
#: Directories that are read in another before those beside them are, and how many of these.
WALKED, WALKED_AHEAD = 2, 4


class Directories:
    """Those of a mount; ``trust``: seconds for which what was found is believed."""

    def __init__(self, nodes: Nodes, trust: float) -> None:
        self._nodes = nodes
        self.trust = trust
        self._tasks: set[asyncio.Task[Any]] = set()

    def missed(self, parent: Node, there: bool) -> None:
        """A name was asked for that was not known; whether there is one."""
        if not self.trust:
            return
        if there:
            parent.listing.hits += 1
            if parent.listing.hits == MISSES:
                self._in_background(self._look_ahead(parent))
        else:
            parent.listing.misses += 1
            if parent.listing.misses == MISSES:
                self._in_background(self._names_ahead(parent))

    def touched(self, parent: Node, name: bytes) -> None:
        """There may be something else under this name."""
        parent.listing.known[name] = None
        parent.listing.ahead = None
        for look in parent.listing.looking:
            look.changes.add(name)

    async def begin(self, node: Node) -> list[bytes]:
        """The names in a directory, for who begins to read it; those beside it may be next."""
        node.listing.walked, node.listing.next = 0, iter(())
        names = await self._ahead_or_now(node)
        if self.trust and node.parent is not None:
            self._walk_on(node.parent)
        return names

    async def _ahead_or_now(self, node: Node) -> list[bytes]:
        """The names in a directory, if they were read ahead a moment ago those that there were."""
        ahead, node.listing.ahead = node.listing.ahead, None
        if ahead is not None:
            with suppress(OSError):  # else it is told of what is wrong now
                names = await asyncio.shield(ahead)
                if time.monotonic() < node.listing.whole:
                    return names
        return await self.names(node, AHEAD_MAX)

    def _walk_on(self, parent: Node) -> None:
        """Somebody reads a directory in this one."""
        listing = parent.listing
        listing.walked += 1
        if listing.walked == WALKED:
            beside = [one.node for one in listing.known.values() if one and one.found.is_dir]
            listing.next = iter(beside)
        for _ in range(WALKED_AHEAD if listing.walked == WALKED else 1):
            self._read_ahead(listing.next)

    def _read_ahead(self, beside: Iterator[Node]) -> None:
        """Read the first of these that was not read a moment ago."""
        now = time.monotonic()
        for node in beside:
            if node.listing.ahead is None and node.listing.whole < now and node.lookups > 0:
                node.listing.ahead = self._in_background(self._looked_at(node))
                return

    async def _looked_at(self, node: Node) -> list[bytes]:
        """The names in a directory; what the first of them are is known then."""
        try:
            names = await self.names(node, TOGETHER)
            await self.know(node, names[:TOGETHER])
        finally:
            self._nodes.let_go(node)  # if the kernel has forgotten it meanwhile
        return names

    async def know(self, parent: Node, names: Sequence[bytes]) -> None:
        """See what has these names, as far as that is not known."""
        known = parent.listing.known
        unknown = [name for name in names if known.get(name) is None]
        if unknown:
            await self.look(parent, unknown)

    async def look(self, parent: Node, names: Sequence[bytes]) -> None:
        """See what has these names in a directory; it is known then."""
        look = Look()
        parent.listing.looking.append(look)
        try:
            ones = await self._nodes.fs.do(
                b"", lambda session: self._nodes.enter_all(session, parent, names)
            )
        finally:
            parent.listing.looking.remove(look)
        self._learn(
            parent,
            look,
            (
                (name, Known(*one, False))
                for name, one in zip(names, ones, strict=True)
                if not isinstance(one, OSError)
            ),
        )

    def _learn(self, parent: Node, look: Look, ones: Iterable[tuple[bytes, Known]]) -> None:
        """What was found by a look at a directory is known now."""
        found: dict[bytes, Known] = {}
        for name, one in ones:
            node = one.node
            linked = one.found.st_nlink > 1 and not one.found.is_dir
            old = look.distrusted or name in look.changes
            if old or node.is_written or linked:  # or it changes under another name
                self._nodes.let_go(node)
            else:
                found[name] = one
        parent.listing.known |= found
        if self.trust:
            loop = asyncio.get_running_loop()
            loop.call_later(self.trust, self._unlearn, parent, found)
        else:
            self._unlearn(parent, found)

    def _unlearn(self, parent: Node, found: dict[bytes, Known]) -> None:
        """What was found is not known any more; that it was there is, as long as all names are."""
        known = parent.listing.known
        for name, one in found.items():
            if known.get(name) is one:
                known[name] = None
            self._nodes.let_go(one.node)
        if time.monotonic() >= parent.listing.whole:
            for name in [name for name, one in known.items() if one is None]:
                del known[name]

    async def names(self, parent: Node, most: int = 0) -> list[bytes]:
        """The names in a directory; others are known not to be there.

        What the first of them are is known then, too, about ``most``, if the server can tell.
        """
        look = Look()
        parent.listing.looking.append(look)
        until = time.monotonic() + self.trust
        try:
            listed, names = await self._nodes.on(parent, partial(self._listed, most=most))
        finally:
            parent.listing.looking.remove(look)
        if listed:
            ones = [
                (name, Known(self._nodes.found(parent, name, found), found, not xattrs))
                for name, found, xattrs in listed
            ]
            self._learn(parent, look, ones)
        if self.trust and not look.distrusted:
            parent.listing.whole = until
            for name in look.changes.union(names):
                parent.listing.known.setdefault(name)
        return names

    async def _listed(
        self, session: Session, directory: int, most: int
    ) -> tuple[list[chain.Listed], list[bytes]]:
        """What of a directory was found with attributes, and all of its names."""
        listed: list[chain.Listed] = []
        rest = 0
        if most and self.trust and session.connection.plus:
            with suppress(PermissionError):  # it may be read, but not searched
                listed, rest = await chain.listed(session, directory, most)
                if not rest:
                    return listed, [one.name for one in listed]
        others = await chain.records(session, directory, rest)
        return listed, [*(one.name for one in listed), *(name for *_, name in others)]

    async def _names_ahead(self, parent: Node) -> None:
        """Somebody asks for names that are not there."""
        with suppress(OSError):  # whoever asks for it is told
            await self.names(parent)
        parent.listing.misses = 0

    async def _look_ahead(self, parent: Node) -> None:
        """Somebody asks for one name after the other."""
        with suppress(OSError):
            names = await self.names(parent, AHEAD_MAX)
            for start in range(0, min(len(names), AHEAD_MAX), TOGETHER):
                await self.know(parent, names[start : start + TOGETHER])
        parent.listing.hits = 0

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who needs to know asks again

    def distrust(self) -> None:
        """Nothing is known of any directory, whatever is on its way."""
        for node in self._nodes.listed():
            node.listing.known.clear()
            node.listing.whole = 0.0
            for look in node.listing.looking:
                look.distrusted = True

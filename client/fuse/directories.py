"""Directories: what is known to be in them, for a moment.

Rules of this file:

* What was found is believed for as long as the kernel believes it, but a second at most, and not
  after it was changed here.
* Who asks for one name after the other has all of the directory looked at.
"""

import asyncio
import os
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from ..filesystem import entries
from .nodes import Known, Node, Nodes

#: Names that are asked for in a directory before all of it is looked at.
MISSES = 3
#: Names that are looked at together, and those of a directory that are looked at in advance.
TOGETHER = 256
AHEAD_MAX = 2000


class Directories:
    """Those of a mount; ``trust``: seconds for which what was found is believed."""

    def __init__(self, nodes: Nodes, trust: float) -> None:
        self._nodes = nodes
        self.trust = trust
        self._tasks: set[asyncio.Task[None]] = set()

    def missed(self, parent: Node, there: bool) -> None:
        """A name was asked for that was not known; whether there is one."""
        if not self.trust:
            return
        if there:
            parent.hits += 1
            if parent.hits == MISSES:
                self._in_background(self._look_ahead(parent))
        else:
            parent.misses += 1
            if parent.misses == MISSES:
                self._in_background(self._names_ahead(parent))

    def touched(self, parent: Node, name: bytes) -> None:
        """There may be something else under this name."""
        parent.listing.known[name] = None
        for look in parent.looking:
            look.add(name)

    async def look(self, parent: Node, names: Sequence[bytes]) -> None:
        """See what has these names in a directory; it is known then."""
        changes: set[bytes] = set()
        parent.looking.append(changes)
        try:
            ones = await self._nodes.fs.do(
                b"", lambda session: self._nodes.enter_all(session, parent, names)
            )
        finally:
            parent.looking.remove(changes)
        found: dict[bytes, Known] = {}
        for name, one in zip(names, ones, strict=True):
            if isinstance(one, OSError):
                continue
            node, attributes = one
            linked = attributes.st_nlink > 1 and not attributes.is_dir
            if name in changes or node.writes or linked:  # or it changes under another name
                self._nodes.let_go(node)
            else:
                found[name] = Known(node, attributes)
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

    async def names(self, parent: Node) -> list[bytes]:
        """The names in a directory; others are known not to be there."""
        changes: set[bytes] = set()
        parent.looking.append(changes)
        until = time.monotonic() + self.trust
        try:
            names = [os.fsencode(entry.name) for entry in await self._nodes.on(parent, entries)]
        finally:
            parent.looking.remove(changes)
        if self.trust:
            parent.listing.whole = until
            for name in changes.union(names):
                parent.listing.known.setdefault(name)
        return names

    async def _names_ahead(self, parent: Node) -> None:
        """Somebody asks for names that are not there."""
        with suppress(OSError):  # whoever asks for it is told
            await self.names(parent)
        parent.misses = 0

    async def _look_ahead(self, parent: Node) -> None:
        """Somebody asks for one name after the other."""
        with suppress(OSError):
            names = await self.names(parent)
            for start in range(0, min(len(names), AHEAD_MAX), TOGETHER):
                await self.look(parent, names[start : start + TOGETHER])
        parent.hits = 0

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def distrust(self) -> None:
        """Nothing is known of any directory."""
        for node in self._nodes.listed():
            node.listing.known.clear()
            node.listing.whole = 0.0

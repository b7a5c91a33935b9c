"""Directory entries: found by name, listed in the order of their cookies.

Rules of this file:

* A cookie is given once and never again in its directory, and grows; so a listing resumes after
  any cookie, also one whose entry has gone, and sees each entry that stays exactly once.
* Cookies 1 and 2 belong to ``.`` and ``..``, which are not stored; 0 is the start.
* An entry is live while the name table holds it under the cookie it was listed with; dead places
  of the list are swept out when they outnumber the live ones.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import DirNode, Node

DOT, DOTDOT = 1, 2

#: The longest name in bytes.
NAME_MAX = 255


class Dirent:
    """One name of a node.  Fids hold it, so a rename changes it in place.

    Attributes:
        name: its bytes, no ``/`` and no NUL.
        node: what it names.
        parent: the directory that holds it; None once unlinked, and for the root.
        cookie: its place in the directory's listing.
    """

    __slots__ = ("cookie", "name", "node", "parent")

    def __init__(self, name: bytes, node: "Node") -> None:
        self.name = name
        self.node = node
        self.parent: DirNode | None = None
        self.cookie = 0


class Directory:
    """The entries of one directory."""

    __slots__ = ("_cookies", "_last", "_listed", "_names", "find")

    def __init__(self) -> None:
        self._names: dict[bytes, Dirent] = {}
        #: The entry of a name, or None.
        self.find = self._names.get
        self._listed: list[bytes] = []
        self._cookies = array("Q")
        self._last = DOTDOT

    def __len__(self) -> int:
        return len(self._names)

    def add(self, entry: Dirent) -> None:
        """Enter ``entry`` under its name, which is free, with a new cookie."""
        self._last += 1
        entry.cookie = self._last
        self._names[entry.name] = entry
        self._listed.append(entry.name)
        self._cookies.append(self._last)

    def remove(self, entry: Dirent) -> None:
        del self._names[entry.name]
        if len(self._listed) > 2 * len(self._names) + 16 or not self._names:
            self._sweep()

    def after(self, cookie: int) -> Iterator[Dirent]:
        """The entries behind ``cookie``, in listing order; the directory must not change."""
        for place in range(bisect_right(self._cookies, cookie), len(self._listed)):
            entry = self._names.get(self._listed[place])
            if entry is not None and entry.cookie == self._cookies[place]:
                yield entry

    def _sweep(self) -> None:
        live = list(self.after(DOTDOT))
        self._names.clear()  # else it would not shrink
        self._names.update((entry.name, entry) for entry in live)
        self._listed[:] = [entry.name for entry in live]
        self._cookies[:] = array("Q", [entry.cookie for entry in live])

    def check(self) -> None:
        """Assert this directory's invariants (for tests)."""
        live = list(self.after(0))
        assert len(live) == len(self._names), "an entry is not listed"
        cookies = [entry.cookie for entry in live]
        assert cookies == sorted(set(cookies)), "cookies do not grow"
        assert all(self._names[entry.name] is entry for entry in live)

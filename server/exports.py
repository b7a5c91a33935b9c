"""Exports: the file systems that clients may attach to, by name (``aname`` of attach(5)).

Rules of this file:

* A client counts as one of an export from its first attach until its session ends.
"""

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tmpfs_core.errors import refuse
from tmpfs_core.mount import Mount

from .network import Network

if TYPE_CHECKING:
    from .fids import Client


@dataclass(slots=True, eq=False)
class Export:
    """A file system, and what clients may do with it.

    Attributes:
        name: without a slash in front; empty for the default export, ``/``.
        readonly: every change is refused.
        allow: the networks whose clients may attach; empty: all of them.
        squash: who acts as nobody: ``none``, ``root`` (only root does), or ``all``.
        anonuid, anongid: who nobody is.
        permissions: which side checks them: the ``client``'s kernel, the ``server``, or ``auto``,
            which depends on the client.
        clients: who has attached to it.
    """

    name: str
    mount: Mount
    readonly: bool = False
    allow: tuple[Network, ...] = ()
    squash: str = "none"
    anonuid: int = 65534
    anongid: int = 65534
    permissions: str = "auto"
    clients: "set[Client]" = field(default_factory=set)


class Exports:
    """The exports of a server."""

    def __init__(self, exports: Iterable[Export] = ()) -> None:
        self._by_name = {export.name: export for export in exports}

    def __iter__(self) -> Iterator[Export]:
        """In the order in which they came."""
        return iter(self._by_name.values())

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def get(self, aname: bytes) -> Export:
        """The export that a client names, with or without a slash in front.

        Raises:
            OSError: ENOENT, there is none of that name.
        """
        export = self._by_name.get(aname.removeprefix(b"/").decode(errors="replace"))
        if export is None:
            refuse(errno.ENOENT)
        return export

    def add(self, export: Export) -> None:
        """From now on clients may attach to it.

        Raises:
            OSError: EEXIST, there is one of that name.
        """
        if export.name in self._by_name:
            refuse(errno.EEXIST)
        self._by_name[export.name] = export

    def remove(self, export: Export) -> None:
        """From now on nobody attaches to it."""
        del self._by_name[export.name]

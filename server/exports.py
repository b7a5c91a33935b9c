"""Exports: the file systems that clients may attach to, by name (``aname`` of attach(5))."""

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from tmpfs_core.errors import refuse
from tmpfs_core.mount import Mount


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
    """

    name: str
    mount: Mount
    readonly: bool = False
    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    squash: str = "none"
    anonuid: int = 65534
    anongid: int = 65534
    permissions: str = "auto"


class Exports:
    """The exports of a server."""

    def __init__(self, exports: Iterable[Export]) -> None:
        self._by_name = {export.name: export for export in exports}

    def get(self, aname: bytes) -> Export:
        """The export that a client names, with or without a slash in front.

        Raises:
            OSError: ENOENT, there is none of that name.
        """
        export = self._by_name.get(aname.removeprefix(b"/").decode(errors="replace"))
        if export is None:
            refuse(errno.ENOENT)
        return export

"""Status: what a server does and holds, as JSON has it; made of counters, at any time.

Rules of this file:

* Sizes are in bytes, times in seconds.  What is counted is counted since the server's start.
* Exports may share a memory.  How much of its files is in swap is told of each export; how pages
  go between RAM and swap is told of each memory.  The shared one is called ``shared``; one that an
  export has for itself is called as the export is, with a slash in front.
* Clients may be many: they are told in slices, with turns for others in between.
"""

import asyncio
import errno
import os
from itertools import zip_longest
from time import monotonic
from typing import Any, Final

from tmpfs_core.frames import FRAME

from . import __version__
from .connection import Connection
from .exports import Export
from .guest import Guest
from .listener import Server
from .meter import BOUNDS, Meter
from .store import Store
from .wire import legacy
from .wire.own import OWN

#: The most clients that are told of one by one, and how many in one turn.
CLIENTS: Final = 2048
SLICE: Final = 256
#: What requests are counted under whose type is none.
UNKNOWN: Final = "unknown"

_NAMES: Final = {
    kind: message.__name__
    for kind, message in (legacy.UNIX | legacy.PLAIN | OWN).items()
    if message.__name__.startswith("T")
}
#: Of names for the same number, the one that the documentation uses.
_ERRNOS: Final = dict(errno.errorcode) | {
    errno.EOPNOTSUPP: "EOPNOTSUPP",
    errno.EDEADLK: "EDEADLK",
}


class Status:
    """Looks at a server, at its store, and at the meter that counts its requests."""

    def __init__(self, server: Server, store: Store, meter: Meter) -> None:
        self._server = server
        self._store = store
        self._meter = meter
        self._started = monotonic()

    def summary(self) -> dict[str, Any]:
        """All but who the clients are."""
        server, store, past = self._server, self._store, self._server.past
        clients = server.clients
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": monotonic() - self._started,
            "exports": [described(store, export) for export in store.exports],
            "memories": [
                {"name": name, **memory.statistics()} for name, memory in store.memories.items()
            ],
            "connections": len(clients),
            "connections_ended": past.clients,
            "connections_refused": server.refusals.count,
            "fids": sum(len(it.session.client.fids) for it in clients),
            "locks": sum(it.session.client.locks for it in clients),
            "waiting": sum(it.session.waiting for it in clients),
            "received": past.received + sum(it.received for it in clients),
            "sent": past.sent + sum(it.sent for it in clients),
            "bounds": BOUNDS,
            "requests": self._requests(),
        }

    async def clients(self) -> list[dict[str, Any]]:
        """Who the clients are, ``CLIENTS`` of them at the most."""
        clients = self._server.clients[:CLIENTS]
        found = []
        for at in range(0, len(clients), SLICE):
            found += [_client(client) for client in clients[at : at + SLICE]]
            await asyncio.sleep(0)
        return found

    def _requests(self) -> dict[str, dict[str, Any]]:
        """What there was of each type of message that has come in."""
        found: dict[str, dict[str, Any]] = {}
        for kind, tally in enumerate(self._meter.tallies):
            if not tally.count:
                continue
            none = {"count": 0, "errors": {}, "seconds": 0.0, "longest": 0.0, "buckets": []}
            one = found.setdefault(_NAMES.get(kind, UNKNOWN), none)
            one["count"] += tally.count
            for code, count in tally.refused.items():
                name = _ERRNOS.get(code, str(code))
                one["errors"][name] = one["errors"].get(name, 0) + count
            one["seconds"] += tally.seconds
            one["longest"] = max(one["longest"], tally.longest)
            pairs = zip_longest(one["buckets"], tally.buckets, fillvalue=0)
            one["buckets"] = [sum(pair) for pair in pairs]
        return found


def described(store: Store, export: Export) -> dict[str, Any]:
    """An export: its policy, what it holds and who uses it."""
    mount = export.mount
    return {
        "name": export.name or "/",
        "memory": store.memory_name(export),
        "size": mount.blocks.limit * FRAME,
        "used": mount.blocks.used * FRAME,
        "swapped": mount.blocks.swapped * FRAME,
        "ram": store.ram_of(export),
        "inodes": mount.inodes.used,
        "nr_inodes": mount.inodes.limit,
        "clients": len(export.clients),
        "ro": export.readonly,
        "allow": [str(network) for network in export.allow],
        "squash": export.squash,
        "anonuid": export.anonuid,
        "anongid": export.anongid,
        "permissions": export.permissions,
    }


def _client(client: Connection | Guest) -> dict[str, Any]:
    session = client.session
    return {
        "fd": client.fileno(),
        "peer": client.peer,
        "uid": session.client.peer.uid,
        "exports": sorted(export.name or "/" for export in session.client.attached),
        "fids": len(session.client.fids),
        "locks": session.client.locks,
        "waiting": session.waiting,
        "requests": session.requests,
        "received": client.received,
        "sent": client.sent,
    }

"""A server that is watched: its meter, its status, and clients on a unix socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.address import Unix
from server.exports import Export
from server.limits import Limits
from server.listener import Server
from server.meter import Meter
from server.status import Status
from server.store import Store
from tmpfs_core.memory import Memory
from tmpfs_core.mount import Mount

from .peer import SocketPeer

MIB = 1 << 20


class Watched:
    """A server with 8 MiB of RAM for ``/`` and ``more``, and 1 MiB for its export ``own``."""

    def __init__(self, folder: Path) -> None:
        shared = Memory(2048)
        self.store = Store(shared, 100)
        for name in ("", "more"):
            self.store.put(Export(name, Mount(4 * MIB, 100, memory=shared)))
        self.store.put(Export("own", Mount(MIB, 100)))
        self.meter = Meter()
        self.server = Server(self.store, MIB, Limits(), meter=self.meter)
        self.status = Status(self.server, self.store, self.meter)
        self._address = Unix(str(folder / "t9.sock"))
        self.server.listen(self._address)
        self.peers: list[SocketPeer] = []

    async def begin(self, export: bytes = b"") -> SocketPeer:
        """A new client."""
        self.peers.append(await SocketPeer.connect(self._address))
        return await self.peers[-1].begin(export=export)


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    world = Watched(folder)
    yield world
    for peer in world.peers:
        await peer.close()
    await world.server.stop()

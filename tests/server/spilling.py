"""A server whose files spill to swap, and a gate that holds its I/O."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from server.address import Unix
from server.listener import Server
from server.store import Store
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message
from tests.tmpfs_core.paging import Spill, pattern
from tmpfs_core.frames import BLOCK
from tmpfs_core.node import FileNode
from tmpfs_core.swap import Transfer

from .peer import DEFAULT, GUARD, ROOT, SocketPeer, store_of

MSIZE = 1 << 20
STATFS = m.Tstatfs(ROOT)
DATA = pattern(1, 4 * BLOCK)
MANY = 10 * BLOCK


class Gate:
    """Takes the place of a function that does I/O in a thread, and holds it until it is open.

    Attributes:
        calls: what it was called with.
    """

    def __init__(self, call: Callable[[Transfer], None]) -> None:
        self.calls: list[Transfer] = []
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._gate = threading.Event()

    def __call__(self, transfer: Transfer) -> None:
        self.calls.append(transfer)
        self._loop.call_soon_threadsafe(self._news.set)
        assert self._gate.wait(GUARD), "nobody has opened the gate"
        self._call(transfer)

    async def reached(self, count: int = 1) -> None:
        """Wait until so many calls have come."""
        async with asyncio.timeout(GUARD):
            while len(self.calls) < count:
                self._news.clear()
                await self._news.wait()

    def open(self) -> None:
        """Let all go on, and those that come."""
        self._gate.set()


class Spilling:
    """A running server with swap.

    Attributes:
        logs: what it has logged.
    """

    def __init__(self, spill: Spill, store: Store, path: str, logs: list[Any]) -> None:
        self.spill = spill
        self.memory = spill.memory
        self.store = store
        self.pager = store._pagers[spill.memory]
        self.server = server = Server(store, MSIZE, DEFAULT)
        self.logs = logs
        self.peers: list[SocketPeer] = []
        self._address = Unix(path)
        server.listen(self._address)

    async def begin(self) -> SocketPeer:
        """A new client."""
        peer = await (await SocketPeer.connect(self._address)).begin(MSIZE)
        self.peers.append(peer)
        return peer

    def file(self, name: bytes) -> FileNode:
        """The file of that name."""
        (node,) = [
            entry.node
            for entry in self.spill.mount.root.entries.after(0)
            if entry.name == name and isinstance(entry.node, FileNode)
        ]
        return node

    def errors(self) -> list[dict[str, Any]]:
        return [line for line in self.logs if line["log_level"] not in ("info", "debug")]


@asynccontextmanager
async def spilling(
    tmp_path: Path, ram: int, *swap: int, size: int = 8192
) -> AsyncIterator[Spilling]:
    """A server; when its clients have left, it holds what has a name and nothing else."""
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    spill = Spill(ram, swap, size)
    with capture_logs() as logs:
        world = Spilling(spill, store_of(spill.mount), str(tmp_path / "t9.sock"), logs)
        try:
            yield world
        finally:  # a server that goes on would keep its loop from ending
            for peer in world.peers:
                await peer.close()
            await world.server.stop()
    assert not failures
    assert not spill.mount.orphans
    assert not spill.memory.in_use
    spill.swap.close()


async def pump(steps: int = 30) -> None:
    """Let everything happen that can without I/O."""
    for _ in range(steps):
        await asyncio.sleep(0)


async def swapped(world: Spilling, peer: SocketPeer, name: bytes = b"file") -> int:
    """An open fid of a new file that holds DATA, all of it in swap."""
    fid = await peer.create(name)
    for place in range(0, len(DATA), BLOCK):
        await peer.call(m.Twrite(fid, place, DATA[place : place + BLOCK]))
    world.spill.page_out_all()
    assert len(world.file(name).uobj.swapped) == 4
    return fid


async def replies(peer: SocketPeer, count: int) -> dict[int, object]:
    """The next replies by their tags; dicts keep the order in which they came."""
    return dict([await peer.reply() for _ in range(count)])


async def waits(peer: SocketPeer, request: Message, gate: Gate, tag: int = 1) -> None:
    """Send a request, and wait until it waits for I/O."""
    peer.send(request, tag)
    await gate.reached()


async def until(condition: Callable[[], bool], peer: SocketPeer) -> None:
    """Let the server work until it is so."""
    async with asyncio.timeout(GUARD):
        while not condition():
            await peer.call(STATFS)


async def fill(peer: SocketPeer, fid: int, seed: int, blocks: int) -> None:
    data = pattern(seed, blocks * BLOCK)
    for place in range(0, len(data), BLOCK):
        part = data[place : place + BLOCK]
        while part:
            done = (await peer.call(m.Twrite(fid, place, part))).count
            place, part = place + done, part[done:]  # noqa: PLW2901


async def holds(peer: SocketPeer, fid: int, seed: int, blocks: int) -> bool:
    data = b""
    while part := (await peer.call(m.Tread(fid, len(data), MANY))).data:
        data += part
    return data == pattern(seed, blocks * BLOCK)


def truncation(fid: int, size: int) -> m.Tsetattr:
    return m.Tsetattr(fid, c.SETATTR_SIZE, 0, 0, 0, size, 0, 0, 0, 0)

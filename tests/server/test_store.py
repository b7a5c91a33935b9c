"""store: exports side by side, those that come and go while clients are there, and their RAM."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from server import store as store_module
from server.address import Unix
from server.config import Config, ExportConfig, export_of, load
from server.exports import Export
from server.listener import Server
from server.store import Store
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message
from tests.tmpfs_core.paging import pattern, swap_file
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.memory import Memory
from tmpfs_core.swap import Swap

from .peer import DEFAULT, GUARD, ROOT, SocketPeer, raises_errno
from .spilling import Gate, holds, pump

MIB = 1 << 20
#: Frames of RAM and of swap, in the worlds that have swap.
RAM, SWAP = 1024, 4096


class World:
    """A server with a store.

    Attributes:
        shared: the RAM that exports share.
    """

    def __init__(self, shared: Memory, path: Path) -> None:
        self.shared = shared
        self.store = Store(shared, DEFAULT.max_depth)
        self.server = Server(self.store, MIB, DEFAULT)
        self.peers: list[SocketPeer] = []
        self._address = Unix(str(path))
        self.server.listen(self._address)
        swap = {"swap": ["/swap"], "ram": ["1m"]} if shared.swap else {}
        self._config: Config = load({"size": ["2m"], **swap}, {}, None)

    def config(self, text: str) -> ExportConfig:
        return export_of(text, self._config, "add")

    async def add(self, text: str) -> Export:
        return await self.store.add(self.config(text))

    async def peer(self, aname: bytes = b"", size: int = MIB) -> SocketPeer:
        """A client that has attached to this export."""
        peer = await SocketPeer.connect(self._address)
        self.peers.append(peer)
        await peer.call(m.Tversion(size, c.VERSION), c.NOTAG)
        await peer.call(m.Tattach(ROOT, c.NOFID, b"", aname, 0))
        return peer

    def pager(self, export: Export) -> Any:
        return self.store._pagers[export.mount.memory]

    async def end(self) -> None:
        """All clients leave, all exports are removed, and nothing is left."""
        for peer in self.peers:
            await peer.close()
        await until(lambda: not any(export.clients for export in self.store.exports))
        for export in list(self.store.exports):
            export.mount.check()
            await self.store.remove(export.name, force=False)
        assert self.shared.ram.used == self.shared.swapped == 0
        assert list(self.store._pagers) == [self.shared]
        await self.server.stop()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """4 MiB of RAM, and the default export of 2 MiB."""
    world = World(Memory(RAM), tmp_path / "t9.sock")
    await world.add("/")
    yield world
    await world.end()
    assert world.shared.ram.limit == RAM


@pytest.fixture
async def swapping(tmp_path: Path) -> AsyncIterator[World]:
    """4 MiB of RAM and 16 MiB of swap, and the default export."""
    swap = Swap([swap_file(SWAP)])
    world = World(Memory(RAM, swap), tmp_path / "t9.sock")
    await world.add("/:size=8m")
    yield world
    await world.end()
    assert world.shared.ram.limit == RAM
    assert swap.used == 0
    assert swap.sharers == [world.shared]
    swap.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the server work until it is so."""
    async with asyncio.timeout(GUARD):
        while not condition():
            await pump(1)


async def fill(peer: SocketPeer, fid: int, blocks: int, seed: int = 1) -> int:
    """Write so many blocks, as far as there is space; the bytes that were written."""
    data = pattern(seed, blocks * BLOCK)
    done = 0
    while done < len(data):
        part = data[done : done + BLOCK]
        try:
            done += (await peer.call(m.Twrite(fid, done, part))).count
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            break
    return done


# Side by side


async def test_two_exports_are_two_trees(world: World) -> None:
    await world.add("scratch")
    one, two = await world.peer(), await world.peer(b"scratch")
    await one.create(b"file", b"of one")
    with raises_errno(errno.ENOENT):
        await two.open(b"file")
    await two.create(b"file", b"of two")
    again = await world.peer(b"/scratch")
    assert (await again.call(m.Tread(await again.open(b"file"), 0, 99))).data == b"of two"
    roots = [export.mount.root.ino for export in world.store.exports]
    assert len(set(roots)) == 2


async def test_an_export_that_there_is_not_is_enoent(world: World) -> None:
    with raises_errno(errno.ENOENT):
        await world.peer(b"scratch")


async def test_each_export_is_limited_by_its_size_and_all_by_the_ram(world: World) -> None:
    await world.add("small:size=128k")
    await world.add("large:size=4m")
    small, large = await world.peer(b"small"), await world.peer(b"large")
    assert await fill(small, await small.create(b"f"), 4) == 128 << 10
    assert await fill(large, await large.create(b"f"), 64) == 4 * MIB - (128 << 10)
    default = await world.peer()
    assert await fill(default, await default.create(b"f"), 1) == 0
    await small.call(m.Tunlinkat(ROOT, b"f", 0))  # it is open still
    await small.close()
    await until(lambda: world.shared.ram.free > 0)
    assert await fill(default, await default.open(b"f"), 4) == 128 << 10


async def test_an_export_has_what_its_configuration_says(world: World) -> None:
    export = await world.add(
        "x:size=64k,nr-inodes=9,mode=750,uid=1,gid=2,ro,allow=::1/128,squash=all,"
        "anonuid=3,anongid=4,permissions=server"
    )
    root = export.mount.root
    assert (root.mode & 0o7777, root.uid, root.gid) == (0o750, 1, 2)
    assert (export.mount.blocks.limit, export.mount.inodes.limit) == (16, 9)
    assert export.readonly
    assert [str(network) for network in export.allow] == ["::1/128"]
    assert (export.squash, export.permissions) == ("all", "server")
    assert (export.anonuid, export.anongid) == (3, 4)


async def test_an_export_is_not_added_twice(world: World) -> None:
    with raises_errno(errno.EEXIST):
        await world.add("/:size=64k")
    await world.add("x")
    with raises_errno(errno.EEXIST):
        await world.add("x:ram=64k")
    assert world.shared.ram.limit == RAM


async def test_without_swap_an_export_is_no_larger_than_the_ram(world: World) -> None:
    await world.add("x:size=4m")
    with raises_errno(errno.ENOSPC):
        await world.add(f"y:size={4 * MIB + FRAME}")


async def test_files_do_not_move_between_exports(world: World) -> None:
    await world.add("x")
    peer = await world.peer()
    await peer.call(m.Tattach(1, c.NOFID, b"", b"x", 0))
    fid = await peer.create(b"file")
    with raises_errno(errno.EXDEV):
        await peer.call(m.Tlink(1, fid, b"link"))
    with raises_errno(errno.EXDEV):
        await peer.call(m.Trenameat(ROOT, b"file", 1, b"moved"))


# Removal


async def test_an_export_that_clients_have_is_not_removed_until_they_leave(world: World) -> None:
    export = await world.add("x")
    peers = [await world.peer(b"x") for _ in range(2)]
    await peers[0].call(m.Tattach(1, c.NOFID, b"", b"x", 0))  # as another user does
    with pytest.raises(OSError, match="2 clients are attached") as caught:
        await world.store.remove("x", force=False)
    assert caught.value.errno == errno.EBUSY
    await peers[0].call(m.Tversion(MIB, c.VERSION), c.NOTAG)  # its session is over
    assert len(export.clients) == 1
    await peers[1].close()
    await until(lambda: not export.clients)
    await world.store.remove("x", force=False)
    with raises_errno(errno.ENOENT):
        await world.peer(b"x")
    with raises_errno(errno.ENOENT):
        await world.store.remove("x", force=False)


#: Requests on fids ROOT, 1 (an open file) and 2 (a file).
ON_STALE_FIDS: list[Message] = [
    m.Tread(1, 0, 10),
    m.Twrite(1, 0, b"data"),
    m.Tread(3, 0, 10),
    m.Twrite(4, 0, b"data"),
    m.Tgetattr(1, c.GETATTR_ALL),
    m.Tsetattr(2, c.SETATTR_MODE, 0, 0, 0, 0, 0, 0, 0, 0),
    m.Tstatfs(ROOT),
    m.Tfsync(1, 0),
    m.Tlopen(2, c.O_RDONLY),
    m.Tlcreate(ROOT, b"new", c.O_RDWR, 0o600, 0),
    m.Treaddir(5, 0, 1000),
    m.Twalk(ROOT, 9, [b"file"]),
    m.Twalk(2, 9, []),
    m.Tmkdir(ROOT, b"new", 0o700, 0),
    m.Tunlinkat(ROOT, b"file", 0),
    m.Tlink(ROOT, 1, b"new"),
    m.Trename(2, ROOT, b"new"),
    m.Txattrwalk(2, 9, b""),
    m.Tlock(1, c.LOCK_TYPE_WRLCK, 0, 0, 0, 1, b"me"),
    m.Tremove(2),
]


@pytest.mark.parametrize("request_", ON_STALE_FIDS, ids=lambda it: type(it).__name__)
async def test_fids_of_an_export_that_was_removed_are_stale(
    world: World, request_: Message
) -> None:
    export = await world.add("x")
    peer = await world.peer(b"x")
    await peer.create(b"file", b"data")
    await peer.call(m.Twalk(ROOT, 1, [b"file"]))
    await peer.call(m.Tlopen(1, c.O_RDWR))
    await peer.call(m.Tlock(1, c.LOCK_TYPE_WRLCK, 0, 0, 0, 1, b"me"))
    await peer.call(m.Twalk(ROOT, 2, [b"file"]))
    await peer.call(m.Txattrwalk(2, 3, b""))
    await peer.call(m.Twalk(ROOT, 4, [b"file"]))
    await peer.call(m.Txattrcreate(4, b"user.x", 4, 0))
    await peer.call(m.Twalk(ROOT, 5, []))
    await peer.call(m.Tlopen(5, c.O_RDONLY))
    await world.store.remove("x", force=True)
    export.mount.check()
    assert (export.mount.blocks.used, export.mount.inodes.used) == (0, 1)
    assert world.shared.ram.used == 0
    with raises_errno(errno.ESTALE):
        await peer.call(request_)
    await peer.call(m.Tattach(20, c.NOFID, b"", b"", 0))  # the client and other exports go on
    assert (await peer.call(m.Tstatfs(20))).files > 0
    for fid in (ROOT, 1, 3, 4, 5):
        await peer.call(m.Tclunk(fid))
        with raises_errno(errno.EBADF):
            await peer.call(m.Tclunk(fid))


async def test_other_exports_of_the_same_client_are_not_touched(world: World) -> None:
    await world.add("x")
    peer = await world.peer()
    await peer.call(m.Tattach(1, c.NOFID, b"", b"x", 0))
    fid = await peer.create(b"file", b"data")
    await world.store.remove("x", force=True)
    assert (await peer.call(m.Tread(fid, 0, 10))).data == b"data"
    with raises_errno(errno.ESTALE):
        await peer.call(m.Tstatfs(1))
    with pytest.raises(OSError, match="1 client is attached"):
        await world.store.remove("", force=False)


async def test_a_name_can_be_used_again(world: World) -> None:
    await world.add("x")
    old = await world.peer(b"x")
    await old.create(b"file", b"data")
    await world.store.remove("x", force=True)
    await world.add("x")
    new = await world.peer(b"x")
    with raises_errno(errno.ENOENT):
        await new.open(b"file")
    with raises_errno(errno.ESTALE):
        await old.call(m.Tstatfs(ROOT))


async def test_the_default_export_can_be_removed_too(world: World) -> None:
    await world.store.remove("", force=False)
    with raises_errno(errno.ENOENT):
        await world.peer()
    await world.add("/")
    await world.peer()


async def test_who_waits_for_a_lock_is_told_that_it_is_stale(world: World) -> None:
    await world.add("x")
    holder, waiter = await world.peer(b"x"), await world.peer(b"x")
    lock = (c.LOCK_TYPE_WRLCK, c.LOCK_FLAGS_BLOCK, 0, 0, 1, b"me")
    held = await holder.create(b"file")
    await holder.call(m.Tlock(held, *lock))
    fid = await waiter.open(b"file")
    waiter.send(m.Tlock(fid, *lock), 7)
    waiter.send(m.Tstatfs(ROOT), 8)
    assert (await waiter.reply())[0] == 8
    await world.store.remove("x", force=True)
    assert await waiter.reply() == (7, m.Rlerror(errno.ESTALE))


async def test_a_large_write_that_is_on_its_way_is_told_that_it_is_stale(world: World) -> None:
    await world.add("x")
    peer = await world.peer(b"x")
    fid = await peer.create(b"file")
    frame = m.Twrite(fid, 0, pattern(1, 8 * BLOCK)).frame(7)
    peer.send(m.Tstatfs(ROOT), 6)
    peer.feed(frame[: 2 * BLOCK])
    assert (await peer.reply())[0] == 6
    (client,) = world.store.exports.get(b"x").clients
    await until(lambda: world.shared.arena._berthed > 0)  # it is received where it would stay
    await world.store.remove("x", force=True)
    peer.feed(frame[2 * BLOCK :])
    assert await peer.reply() == (7, m.Rlerror(errno.ESTALE))
    assert client.fids[fid].xattr is not None


async def test_others_have_their_turn_while_many_files_are_freed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FREED", 1)
    export = await world.add("x")
    peer = await world.peer(b"x")
    for number in range(20):
        await peer.create(b"%d" % number)
    left: list[int] = []

    async def watch() -> None:
        while export.mount.inodes.used > 1:
            left.append(export.mount.inodes.used)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await world.store.remove("x", force=True)
    await watching
    assert len(set(left)) > 10


# RAM of their own


async def test_an_export_with_ram_of_its_own_takes_it_from_that_of_the_server(world: World) -> None:
    export = await world.add("x:ram=1m")
    assert world.store.ram_of(export) == MIB
    assert world.store.ram_of(world.store.exports.get(b"/")) is None
    assert world.shared.ram.limit == RAM - 256
    peer, default = await world.peer(b"x"), await world.peer()
    assert await fill(default, await default.create(b"f"), 64) == 2 * MIB
    await world.add("y:size=3m")
    other = await world.peer(b"y")
    assert await fill(other, await other.create(b"f"), 64) == MIB  # nothing of what x has
    assert await fill(peer, await peer.create(b"f"), 64) == MIB
    await world.store.remove("x", force=True)
    assert world.shared.ram.limit == RAM
    assert await fill(other, await other.open(b"f"), 64) == 2 * MIB


async def test_without_swap_what_is_in_use_can_not_be_taken(world: World) -> None:
    peer = await world.peer()
    await fill(peer, await peer.create(b"f"), 17)
    with pytest.raises(
        OSError, match=r"only .* bytes of the server's RAM are not in use"
    ) as caught:
        await world.add("x:ram=3m")
    assert caught.value.errno == errno.ENOSPC
    assert world.shared.ram.limit == RAM
    assert "x" not in world.store.exports
    await world.add("x:ram=2m")


async def test_without_swap_an_export_grows_as_far_as_there_is_ram(world: World) -> None:
    export = await world.add("x:size=1m")
    refused = world.store.change(world.config("x:size=5m"))
    assert refused == {"size": f"{5 * MIB} is more than the RAM ({4 * MIB}), without swap"}
    assert world.store.change(world.config("x:size=3m")) == {}
    peer = await world.peer(b"x")
    assert await fill(peer, await peer.create(b"f"), 64) == 3 * MIB
    assert export.mount.statfs().bfree == 0
    with raises_errno(errno.ENOENT):
        world.store.change(world.config("y"))


async def test_an_export_pages_out_what_does_not_fit_into_its_own_ram(swapping: World) -> None:
    export = await swapping.add("x:ram=1m,size=4m")
    peer, default = await swapping.peer(b"x"), await swapping.peer()
    fid, other = await peer.create(b"f"), await default.create(b"f")
    assert await fill(peer, fid, 64, seed=1) == 4 * MIB
    assert export.mount.memory.ram.used <= 256
    assert export.mount.memory.counters.paged_out > 0
    assert swapping.shared.counters.paged_out == 0
    assert await fill(default, other, 96, seed=2) == 6 * MIB
    assert swapping.shared.counters.paged_out > 0
    assert await holds(peer, fid, 1, 64)
    assert await holds(default, other, 2, 96)


async def test_ram_for_a_new_export_is_paged_out_first(swapping: World) -> None:
    peer = await swapping.peer()
    fid = await peer.create(b"f")
    assert await fill(peer, fid, 60) == 60 * BLOCK
    await swapping.add("x:ram=2m,size=8m")
    assert swapping.shared.ram.used <= swapping.shared.ram.limit == RAM - 512
    assert await holds(peer, fid, 1, 60)


@pytest.mark.parametrize("text", ["x:ram=1m,size=4m", "x:size=8m"])
async def test_a_read_that_waits_for_swap_is_told_that_it_is_stale(
    swapping: World, reads: Gate, text: str
) -> None:
    export = await swapping.add(text)
    peer = await swapping.peer(b"x")
    fid = await peer.create(b"f")
    await fill(peer, fid, 64)
    await swapping.pager(export).make_room(export.mount.memory.ram.limit)
    peer.send(m.Tread(fid, 0, 10), 7)
    await reads.reached()
    removal = asyncio.create_task(swapping.store.remove("x", force=True))
    await pump()
    reads.open()
    await removal
    assert await peer.reply() == (7, m.Rlerror(errno.ESTALE))


async def test_what_is_being_paged_out_when_its_export_goes_gives_its_slots_back(
    swapping: World, writes: Gate
) -> None:
    await swapping.add("x:ram=1m,size=4m")
    peer = await swapping.peer(b"x")
    fid = await peer.create(b"f")
    for block in range(8):
        peer.send(m.Twrite(fid, block * BLOCK, pattern(1, BLOCK)), block)
    await writes.reached()
    removal = asyncio.create_task(swapping.store.remove("x", force=True))
    await pump()
    assert not removal.done()
    writes.open()
    await removal
    assert swapping.shared.swap is not None
    assert swapping.shared.swap.used == 0

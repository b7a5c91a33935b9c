"""guest: a virtual machine's requests, over the queue of its device."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.address import Unix, VhostUser
from server.limits import Limits
from server.listener import Server
from server.wire import constants as c
from server.wire import messages as m
from tests.tmpfs_core.paging import pattern
from tmpfs_core.frames import BLOCK
from tmpfs_core.mount import Mount

from .guestpeer import GuestPeer
from .peer import ROOT, SocketPeer, raises_errno, store_of
from .spilling import DATA, Gate, Spilling, swapped
from .vhost.frontend import SET_CONFIG, SIZE, Frontend

MSIZE = 512000
STATFS = m.Tstatfs(ROOT)


class Host:
    """A server with a device and a unix socket, and its clients."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.device = server.listen(VhostUser(str(directory / "vu"), "scratch"))
        self._unix = server.listen(Unix(str(directory / "unix")))
        self._peers: list[SocketPeer] = []

    async def guest(self, *, begin: bool = True, event_index: bool = False) -> GuestPeer:
        """One more virtual machine; it has mounted if it ``begin``s."""
        guest = await GuestPeer.plug_in(self.device, event_index=event_index)
        self._peers.append(guest)
        return await guest.begin(MSIZE) if begin else guest

    async def client(self) -> SocketPeer:
        """One more client on the socket."""
        peer = await (await SocketPeer.connect(self._unix)).begin()
        self._peers.append(peer)
        return peer

    async def close(self) -> None:
        for peer in self._peers:
            await peer.close()
        await self.server.stop()


@asynccontextmanager
async def host_of(mount: Mount, directory: Path) -> AsyncIterator[Host]:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    host = Host(Server(store_of(mount), 1 << 20, Limits()), directory)
    try:
        yield host
    finally:
        await host.close()
    assert not failures
    assert not mount.orphans


@pytest.fixture
async def host(mount: Mount, tmp_path: Path) -> AsyncIterator[Host]:
    async with host_of(mount, tmp_path) as host:
        yield host


def lock(kind: int, flags: int = c.LOCK_FLAGS_BLOCK) -> m.Tlock:
    return m.Tlock(100, kind, flags, 0, 0, 1, b"guest")


# What a guest does


@pytest.mark.parametrize("event_index", [False, True])
async def test_a_guest_works_on_files(host: Host, event_index: bool) -> None:
    guest = await host.guest(event_index=event_index)
    fid = await guest.create(b"file", b"data")
    for i in range(3 * SIZE):  # more than the queue is long
        assert (await guest.call(m.Twrite(fid, i, b"%d" % (i % 10)))).count == 1
    text = (await guest.call(m.Tread(fid, 0, 1000))).data
    assert text == b"".join(b"%d" % (i % 10) for i in range(3 * SIZE))


@pytest.mark.parametrize("size", [1, 4096, 65536, 131072, 262144, MSIZE - 24])
@pytest.mark.parametrize("offset", [0, 5, BLOCK - 1])
async def test_data_of_any_size(host: Host, size: int, offset: int) -> None:
    guest = await host.guest()
    fid = await guest.create(b"file")
    data = pattern(size, size)
    done = 0
    while done < size:  # in one, unless the file system cuts it
        done += (await guest.call(m.Twrite(fid, offset + done, data[done:]))).count
    reply = await guest.call(m.Tread(fid, offset, size))
    assert reply.data == data
    assert (await guest.call(m.Tread(fid, 0, offset))).data == bytes(offset)


async def test_large_writes_that_find_no_berth_are_written_as_well(
    host: Host, mount: Mount
) -> None:
    guest = await host.guest()
    fid = await guest.create(b"file")
    berths = []
    while (more := mount.memory.arena.berth(1)) is not None:
        berths += more
    data = pattern(1, MSIZE - 24)
    assert (await guest.call(m.Twrite(fid, 0, data))).count == len(data)
    mount.memory.arena.leave(berths)
    assert (await guest.call(m.Tread(fid, 0, MSIZE))).data == data[: MSIZE - 24]


async def test_requests_are_answered_in_their_order(host: Host) -> None:
    guest = await host.guest()
    fid = await guest.create(b"file")
    guest.send(m.Twrite(fid, 0, b"one"), 1)
    guest.send(m.Twrite(fid, 0, b"two"), 2)
    guest.send(m.Tread(fid, 0, 9), 3)
    assert [(await guest.reply())[0] for _ in range(2)] == [1, 2]
    assert await guest.reply() == (3, m.Rread(b"two"))


async def test_a_refused_request_has_its_errno(host: Host) -> None:
    guest = await host.guest()
    with raises_errno(2):
        await guest.open(b"missing")


async def test_guests_and_clients_share_the_files(host: Host) -> None:
    one, other, client = await host.guest(), await host.guest(), await host.client()
    await one.create(b"file", b"data")
    for peer in (other, client):
        assert (await peer.call(m.Tread(await peer.open(b"file"), 0, 9))).data == b"data"


async def test_who_is_plugged_in_is_logged(host: Host) -> None:
    client = await host.client()
    with capture_logs() as logs:
        guest = await host.guest()
        await guest.close()
        while host.server._guests:
            await client.call(STATFS)
    assert [(line["event"], line["peer"]) for line in logs] == [
        ("virtual machine connected", "scratch uid 0"),
        ("virtual machine gone", "scratch uid 0"),
    ]


# Requests that wait


async def test_a_lock_is_waited_for(host: Host) -> None:
    holder, waiter = await host.guest(), await host.guest()
    await holder.create(b"file")
    assert await waiter.open(b"file") == 100
    await holder.call(lock(c.LOCK_TYPE_WRLCK))
    waiter.send(lock(c.LOCK_TYPE_WRLCK), 7)
    await waiter.call(STATFS, 8)  # others go on
    await holder.call(lock(c.LOCK_TYPE_UNLCK))
    assert await waiter.reply() == (7, m.Rlock(c.LOCK_SUCCESS))


async def test_a_flushed_request_gives_its_chain_back_before_the_flush_is_answered(
    host: Host,
) -> None:
    holder, waiter = await host.guest(), await host.guest()
    await holder.create(b"file")
    await waiter.open(b"file")
    await holder.call(lock(c.LOCK_TYPE_WRLCK))
    free = list(waiter._free)
    waiter.send(lock(c.LOCK_TYPE_WRLCK), 7)
    waiter.send(m.Tflush(7), 8)
    assert await waiter.reply() == (8, m.Rflush())
    assert waiter.empty == [2 * free[0]]
    assert waiter._free[-2:] == free[:2]


async def test_a_new_session_gives_all_chains_back(host: Host) -> None:
    holder, waiter = await host.guest(), await host.guest()
    await holder.create(b"file")
    await waiter.open(b"file")
    await holder.call(lock(c.LOCK_TYPE_WRLCK))
    waiter.send(lock(c.LOCK_TYPE_WRLCK), 7)
    await waiter.begin(MSIZE)
    assert len(waiter.empty) == 1
    assert len(waiter._free) == 8


async def test_what_is_in_swap_comes_back(world: Spilling, tmp_path: Path) -> None:
    device = world.server.listen(VhostUser(str(tmp_path / "vu"), "scratch"))
    guest = await (await GuestPeer.plug_in(device)).begin(MSIZE)
    world.peers.append(guest)
    fid = await swapped(world, guest)
    assert (await guest.call(m.Tread(fid, 0, len(DATA)))).data == DATA


async def test_what_waits_for_swap_stays_when_the_queue_stops(
    world: Spilling, tmp_path: Path, reads: Gate
) -> None:
    device = world.server.listen(VhostUser(str(tmp_path / "vu"), "scratch"))
    guest = await (await GuestPeer.plug_in(device)).begin(MSIZE)
    world.peers.append(guest)
    fid = await swapped(world, guest)
    guest.send(m.Tread(fid, 0, BLOCK))
    await reads.reached()
    base = await guest.frontend.stop()
    assert base == guest.frontend.base
    reads.open()
    client = await world.begin()
    while world.file(b"file").uobj.swapped.keys() & {0}:
        await client.call(STATFS)
    assert guest.frontend.used != base  # it is not answered while the queue stands still
    guest.frontend.start(base)
    assert await guest.reply() == (1, m.Rread(DATA[:BLOCK]))


# The machine's life


async def test_a_machine_that_was_paused_goes_on(host: Host) -> None:
    guest = await host.guest()
    fid = await guest.create(b"file", b"data")
    base = await guest.frontend.stop()
    guest.send(m.Tread(fid, 0, 9))
    guest.frontend.start(base)
    assert await guest.reply() == (1, m.Rread(b"data"))


async def test_a_machine_that_reboots_holds_nothing_any_more(host: Host) -> None:
    guest, other = await host.guest(), await host.client()
    await guest.create(b"file")
    await guest.call(lock(c.LOCK_TYPE_WRLCK))
    await other.open(b"file")
    other.send(lock(c.LOCK_TYPE_WRLCK))
    await guest.frontend.stop()
    guest.reboot()
    assert await other.reply() == (1, m.Rlock(c.LOCK_SUCCESS))
    with raises_errno(71):  # EPROTO: it has not mounted
        await guest.call(STATFS)
    await guest.begin(MSIZE)


async def test_a_vmm_that_goes_frees_what_its_guest_held(host: Host) -> None:
    guest, other = await host.guest(), await host.client()
    await guest.create(b"file")
    await guest.call(lock(c.LOCK_TYPE_WRLCK))
    await other.open(b"file")
    other.send(lock(c.LOCK_TYPE_WRLCK))
    await guest.close()
    assert await other.reply() == (1, m.Rlock(c.LOCK_SUCCESS))
    again = await host.guest()
    await again.open(b"file")


async def test_the_tag_can_not_be_changed(host: Host) -> None:
    guest = await host.guest()
    guest.frontend.send(SET_CONFIG, bytes(12) + b"other")
    assert await config(guest.frontend) == b"\x07\x00scratch"


async def config(frontend: Frontend) -> bytes:
    answer = await frontend.ask(24, b"\0\0\0\0\x09\0\0\0\0\0\0\0" + bytes(9))
    return answer[12:]


async def test_a_server_that_stops_answers_what_came_in(host: Host) -> None:
    guest = await host.guest()
    for tag in range(4):
        guest.send(STATFS, tag)
    await host.server.stop()
    assert [(await guest.reply())[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(EOFError):
        await guest.frontend.reply()


# Who may connect


async def test_the_socket_is_for_the_vmm_alone(mount: Mount, tmp_path: Path) -> None:
    async with host_of(mount, tmp_path) as host:
        path = tmp_path / "of-daemon"
        host.server.listen(VhostUser(str(path), "t", 1))
        host.server.give(2, 2)
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (1, 0o600)
        assert os.stat(host.device.path).st_uid == 2

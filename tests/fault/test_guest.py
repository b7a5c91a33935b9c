"""Hostile guests, and VMMs that are, or die.

Whatever they do, their device stops with one line of warning, or their connection ends with one;
the server goes on serving the others, and frees all that was theirs.
"""

import asyncio
import errno
import fcntl
import gc
import itertools
import os
import random
import socket
import struct
import termios
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.address import Unix, VhostUser
from server.limits import Limits
from server.listener import Server
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import HEADER
from tests.server.guestpeer import SLOT, SLOTS, GuestPeer
from tests.server.peer import GUARD, ROOT, store_of
from tests.server.spilling import until
from tests.server.vhost import frontend as f
from tests.server.vhost.frontend import AVAILABLE, BUFFERS, GUEST, INDIRECT, NEXT, SIZE, WRITE
from tests.server.vhost.guestmemory import mapped, memory_file
from tmpfs_core.mount import Mount

from .test_bad_input import Bystander, Possessions

STATFS = m.Tstatfs(ROOT)
MSIZE = 512000
#: What no request of a GuestPeer is in: the first descriptor, and memory.
HEAD = 2 * SLOTS
SPARE = BUFFERS + 2 * SLOTS * SLOT
LAST = (1 << 64) - 1


class World:
    """A server with a client and a virtual machine that do nothing wrong.

    Attributes:
        logs: what the server has logged since these came.
    """

    def __init__(self, server: Server, device: VhostUser, logs: list[Any]) -> None:
        self.server = server
        self.device = device
        self.logs = logs
        self.machines: list[GuestPeer] = []
        self.bystander: Bystander
        self.neighbour: GuestPeer

    async def plug_in(self) -> GuestPeer:
        self.machines.append(await GuestPeer.plug_in(self.device))
        return self.machines[-1]

    async def begin(self) -> GuestPeer:
        return await (await self.plug_in()).begin()

    async def connect(self) -> socket.socket:
        """A VMM that has said nothing yet."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.device.path)
        return sock

    async def everybody_is_served(self) -> bool:
        for peer in (self.bystander, self.neighbour):
            await peer.call(STATFS)
        return True

    async def is_dropped(self, sock: socket.socket) -> bool:
        """Whether a VMM is not listened to any more."""
        async with asyncio.timeout(GUARD):
            try:
                while await asyncio.get_running_loop().sock_recv(sock, 4096):
                    pass
            except ConnectionResetError:
                return True
        return True

    async def only_these_are_left(self) -> None:
        await until(lambda: len(self.server._guests) == 1, self.bystander)

    def warnings(self) -> list[str]:
        """What was logged beyond the coming and going of clients."""
        return [line["event"] for line in self.logs if line["log_level"] != "info"]


def descriptors() -> list[str]:
    """What the descriptors of this process stand for."""
    told = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            told.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # that of the listing
    return sorted(name.split(":")[0] for name in told)


@contextmanager
def no_collection() -> Iterator[None]:
    """What is freed is freed at once, not when somebody comes to collect it."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    mount = Mount(size=16 << 20, nr_inodes=1000)
    server = Server(store_of(mount), MSIZE, Limits())
    client = server.listen(Unix(str(tmp_path / "t9.sock")))
    device = server.listen(VhostUser(str(tmp_path / "vm.sock"), "scratch"))
    with capture_logs() as logs, no_collection():
        world = World(server, device, logs)
        world.bystander = await (await Bystander.connect(client)).begin()
        world.neighbour = await (await GuestPeer.plug_in(device)).begin()
        logs.clear()
        before = descriptors(), mapped(), server._state.free, server._requests.free
        try:
            yield world
            assert await world.everybody_is_served()
            for machine in world.machines:
                await machine.close()
            await world.only_these_are_left()
            assert await world.bystander.used() == (0, 1), "a guest left something behind"
            assert before == (descriptors(), mapped(), server._state.free, server._requests.free)
        finally:
            for peer in (world.bystander, world.neighbour):
                await peer.close()
            await server.stop()
    assert not failures
    assert not mount.orphans
    mount.check()


# Chains that can not be

REQUEST = STATFS.frame(1)
ROOM = (GUEST + SPARE + SLOT, SLOT, WRITE)
WHOLE = [(GUEST + SPARE, len(REQUEST), 0), ROOM]


def descriptor(vm: f.Frontend, number: int, *fields: int) -> None:
    vm.describe(f.DESCRIPTORS + 16 * number, *fields)


def asks(*pieces: f.Piece, data: bytes = REQUEST) -> Callable[[f.Frontend], None]:
    """A request in these pieces of memory."""

    def attack(vm: f.Frontend) -> None:
        vm.put(SPARE, data)
        vm.chain(pieces, HEAD)
        vm.offer(HEAD)

    return attack


def says(data: bytes) -> Callable[[f.Frontend], None]:
    """A request that is these bytes."""
    return asks((GUEST + SPARE, len(data), 0), ROOM, data=data)


def indirect(*pieces: f.Piece, length: int, at: int = f.TABLES) -> Callable[[f.Frontend], None]:
    """A request by a table that is said to have so many bytes at that place."""

    def attack(vm: f.Frontend) -> None:
        vm.put(SPARE, REQUEST)
        vm.table(pieces or WHOLE, HEAD)
        descriptor(vm, HEAD, GUEST + at, length, INDIRECT)
        vm.offer(HEAD)

    return attack


def offers(head: int) -> Callable[[f.Frontend], None]:
    return lambda vm: vm.offer(head)


def jumps(count: int) -> Callable[[f.Frontend], None]:
    """The available index jumps."""
    return lambda vm: vm.put(AVAILABLE + 2, struct.pack("<H", vm.base + count & 0xFFFF))


def circle(vm: f.Frontend) -> None:
    """Descriptors that follow each other."""
    vm.put(SPARE, REQUEST)
    descriptor(vm, HEAD, GUEST + SPARE, 4, NEXT, HEAD + 1)
    descriptor(vm, HEAD + 1, GUEST + SPARE + 4, 4, NEXT, HEAD)
    vm.offer(HEAD)


def circle_of_room(vm: f.Frontend) -> None:
    vm.put(SPARE, REQUEST)
    descriptor(vm, HEAD, GUEST + SPARE, len(REQUEST), NEXT, HEAD + 1)
    descriptor(vm, HEAD + 1, *ROOM[:2], WRITE | NEXT, HEAD + 1)
    vm.offer(HEAD)


def circle_in_a_table(vm: f.Frontend) -> None:
    indirect(length=32)(vm)
    vm.describe(f.TABLES + 16, *ROOM[:2], WRITE | NEXT, 0)


def out_of_its_table(vm: f.Frontend) -> None:
    indirect(length=32)(vm)
    vm.describe(f.TABLES, GUEST + SPARE, 4, NEXT, 2)


def behind_the_last(vm: f.Frontend) -> None:
    descriptor(vm, HEAD, GUEST + SPARE, 4, NEXT, SIZE)
    vm.offer(HEAD)


def table_in_a_table(vm: f.Frontend) -> None:
    indirect(length=32)(vm)
    vm.describe(f.TABLES, GUEST + f.TABLES, 32, INDIRECT)


def table_that_is_itself(vm: f.Frontend) -> None:
    descriptor(vm, 0, GUEST + f.DESCRIPTORS, 16 * SIZE, INDIRECT)
    vm.offer(0)


def table_that_goes_on(vm: f.Frontend) -> None:
    indirect(length=32)(vm)
    descriptor(vm, HEAD, GUEST + f.TABLES, 32, INDIRECT | NEXT, HEAD + 1)


END = GUEST + f.MEMORY
ATTACKS = {
    "circle": circle,
    "circle of room": circle_of_room,
    "circle in a table": circle_in_a_table,
    "head that is none": offers(SIZE),
    "last head that can be said": offers(0xFFFF),
    "behind the last": behind_the_last,
    "out of its table": out_of_its_table,
    "table in a table": table_in_a_table,
    "table that is itself": table_that_is_itself,
    "table that goes on": table_that_goes_on,
    "table of nothing": indirect(length=0),
    "table with half a descriptor": indirect(length=24),
    "overlong table": indirect(length=16 * 1025),
    "table of 4 GiB": indirect(length=0xFFFFFFF0),
    "table nowhere": indirect(length=32, at=f.MEMORY),
    "table that ends nowhere": indirect(length=32, at=f.MEMORY - 16),
    "nothing to read": asks(ROOM),
    "empty piece": asks(WHOLE[0], (GUEST + SPARE, 0, 0), ROOM),
    "empty room": asks(WHOLE[0], (GUEST + SPARE, 0, WRITE)),
    "read behind write": asks(ROOM, WHOLE[0]),
    "before memory": asks((GUEST - 1, len(REQUEST), 0), ROOM),
    "at null": asks((0, len(REQUEST), 0), ROOM),
    "behind memory": asks((END - 4, len(REQUEST), 0), ROOM),
    "over the end of numbers": asks((LAST - 4, len(REQUEST), 0), ROOM),
    "room nowhere": asks(WHOLE[0], (END, SLOT, WRITE)),
    "room that ends nowhere": asks(WHOLE[0], (END - 10, SLOT, WRITE)),
    "room over the end of numbers": asks(WHOLE[0], (LAST - 4, SLOT, WRITE)),
    "no room": asks(WHOLE[0]),
    "room for less": asks(WHOLE[0], (GUEST + SPARE, 10, WRITE)),
    "jumps ahead": jumps(SIZE + 1),
    "jumps back": jumps(-1),
    "half a header": says(REQUEST[:6]),
    "half a request": says(REQUEST[:-1]),
    "size 0": says(HEADER.pack(0, m.Tclunk.TYPE, 1) + bytes(8)),
    "size 6": says(HEADER.pack(6, m.Tclunk.TYPE, 1) + bytes(8)),
    "size over msize": says(HEADER.pack(MSIZE + 1, m.Tclunk.TYPE, 1) + bytes(MSIZE)),
    "size of 4 GiB": says(HEADER.pack(0xFFFFFFFF, m.Tclunk.TYPE, 1) + bytes(MSIZE)),
    "size that lies by one": says(HEADER.pack(12, m.Tclunk.TYPE, 1) + bytes(4)),
    "malformed": says(HEADER.pack(12, m.Tclunk.TYPE, 1) + bytes(5)),
    "data that is not there": says(m.Twrite.head(1, 0, 0, 60000)),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_what_can_not_be_stops_the_device(
    world: World, attack: Callable[[f.Frontend], None]
) -> None:
    machine = await world.begin()
    held = await Possessions.of(machine, world.bystander)
    attack(machine.frontend)
    machine.frontend.ring_bell()
    await machine.frontend.stopped()
    assert world.warnings() == ["device stopped"]
    assert await held.are_freed()
    machine.feed(REQUEST)  # nothing is taken any more
    machine.frontend.ring_bell()
    assert await world.everybody_is_served()
    assert machine.frontend.used == machine.frontend.taken
    assert world.warnings() == ["device stopped"]


async def test_a_stopped_device_begins_again_with_another_driver(world: World) -> None:
    machine = await world.begin()
    circle(machine.frontend)
    machine.frontend.ring_bell()
    await machine.frontend.stopped()
    await machine.frontend.stop()
    machine.reboot()
    await machine.begin()
    assert world.warnings() == ["device stopped"]


async def test_the_warning_says_who_and_why(world: World) -> None:
    machine = await world.begin()
    offers(SIZE)(machine.frontend)
    machine.frontend.ring_bell()
    await machine.frontend.stopped()
    (line,) = [line for line in world.logs if line["log_level"] == "warning"]
    assert "scratch" in line["peer"]
    assert str(SIZE) in line["why"]


# What is odd, but can be


async def test_a_reply_over_its_request(world: World) -> None:
    machine = await world.begin()
    fid = await machine.create(b"file", data := bytes(range(256)) * 200)
    request = m.Tread(fid, 0, len(data)).frame(7)
    asks((GUEST + SPARE, len(request), 0), (GUEST + SPARE, SLOT, WRITE), data=request)(
        machine.frontend
    )
    machine.frontend.ring_bell()
    await machine.frontend.called()
    assert machine.frontend.take() == [(HEAD, 11 + len(data))]
    assert machine.frontend.memory[SPARE + 11 : SPARE + 11 + len(data)] == data
    await machine.call(m.Tremove(fid))


async def test_a_write_of_what_the_queue_is_made_of(world: World) -> None:
    machine = await world.begin()
    fid = await machine.create(b"file")
    head = m.Twrite.head(7, fid, 0, 3 * 4096)
    asks((GUEST + SPARE, len(head), 0), (GUEST, 3 * 4096, 0), ROOM, data=head)(machine.frontend)
    machine.frontend.ring_bell()
    await machine.frontend.called()
    assert machine.frontend.take() == [(HEAD, 11)]
    data = (await machine.call(m.Tread(fid, 0, 16 * SIZE))).data
    assert data[16 * HEAD :] == machine.frontend.memory[16 * HEAD : 16 * SIZE]
    await machine.call(m.Tremove(fid))


@pytest.mark.parametrize("place", [f.DESCRIPTORS, f.AVAILABLE, f.USED], ids=hex)
async def test_a_reply_over_the_queue_harms_its_owner_alone(world: World, place: int) -> None:
    machine = await world.begin()
    fid = await machine.create(b"file", b"\xff" * 60000)
    request = m.Tread(fid, 0, 60000).frame(7)
    for _ in range(3):
        asks((GUEST + SPARE, len(request), 0), (GUEST + place, SLOT, WRITE), data=request)(
            machine.frontend
        )
        machine.frontend.ring_bell()
        assert await world.everybody_is_served()
    assert set(world.warnings()) <= {"device stopped"}
    await world.bystander.call(m.Tunlinkat(ROOT, b"file", 0))


async def test_a_head_that_is_offered_twice_is_given_back_twice(world: World) -> None:
    machine = await world.begin()
    asks(*WHOLE)(machine.frontend)
    machine.frontend.offer(HEAD)
    machine.frontend.ring_bell()
    await machine.frontend.called()
    assert [head for head, _ in machine.frontend.take()] == [HEAD, HEAD]


async def test_a_tag_that_waits_twice(world: World) -> None:
    machine = await world.begin()
    fid = await machine.create(b"file")
    await machine.call(m.Tlock(fid, c.LOCK_TYPE_WRLCK, 0, 0, 0, 1, b"host"))
    lock = m.Tlock(fid, c.LOCK_TYPE_WRLCK, c.LOCK_FLAGS_BLOCK, 0, 0, 2, b"host")
    machine.send(lock, 7)
    machine.send(lock, 7)
    assert await machine.reply() == (7, m.Rlerror(errno.EINVAL))
    machine.send(m.Tflush(7), 8)
    assert await machine.reply() == (8, m.Rflush())
    await machine.call(m.Tremove(fid))


async def test_what_is_read_may_change_meanwhile(world: World) -> None:
    """Each request is answered, or stops the device; nothing else happens."""
    machine = await world.begin()
    over = threading.Event()
    at = BUFFERS
    memory = machine.frontend.memory

    def change() -> None:
        dice = random.Random(9)
        while not over.is_set():
            size = dice.choice((0, 11, 12, 4097, MSIZE, 0xFFFFFFFF))
            memory[at : at + 4] = struct.pack("<I", size)
            memory[16 * HEAD + 8] = dice.choice((0, 1, 11, 40, 255))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            machine.frontend.chain([(GUEST + at, 5000, 0), ROOM], HEAD)
            memory[at : at + len(REQUEST)] = REQUEST
            machine.frontend.offer(HEAD)
            machine.frontend.ring_bell()
            await world.bystander.call(STATFS)
    finally:
        over.set()
        thread.join()
    assert set(world.warnings()) <= {"device stopped"}


# Very much


async def test_kicks_without_end_are_one_turn_at_a_time(world: World) -> None:
    machine = await world.begin()
    fid = await machine.create(b"file", bytes(500_000))
    before = machine.frontend.used
    request = m.Tread(fid, 0, 500_000).frame(1)
    for _ in range(SLOTS):
        machine.feed(request)
    served = [before]
    while served[-1] - before < SLOTS:
        machine.frontend.ring_bell()
        await asyncio.sleep(0)
        served.append(machine.frontend.used)
    assert max(b - a for a, b in itertools.pairwise(served)) <= 3  # a MiB
    for _ in range(SLOTS):
        await machine.reply()
    await machine.call(m.Tremove(fid))


async def test_chains_of_very_many_pieces_leave_others_their_turn(world: World) -> None:
    machine = await world.begin()
    vm = machine.frontend
    vm.put(SPARE, REQUEST)
    room = [(GUEST + SPARE + 1000 + 2 * place, 1, WRITE) for place in range(1000)]
    vm.table([WHOLE[0], *room], HEAD)
    before = vm.used
    vm.offer(*[HEAD] * 40)
    vm.ring_bell()
    served = [before]
    while served[-1] - before < 40:
        await asyncio.sleep(0)
        served.append(vm.used)
    assert max(b - a for a, b in itertools.pairwise(served)) <= 2
    vm.take()
    os.eventfd_read(vm.call)


# The VMM


async def test_a_queue_that_is_disabled_and_enabled_is_the_same_drivers(world: World) -> None:
    machine = await world.begin()
    fid = await machine.create(b"file", b"data")
    machine.frontend.state(f.SET_VRING_ENABLE, 0)
    machine.feed(m.Tread(fid, 0, 100).frame(1))
    machine.frontend.state(f.SET_VRING_ENABLE, 1)
    assert await machine.reply() == (1, m.Rread(b"data"))
    await machine.call(m.Tremove(fid))


async def test_memory_of_a_request_that_waits_may_go(world: World) -> None:
    machine = await world.begin()
    vm = machine.frontend
    fid = await machine.create(b"file")
    await machine.call(m.Tlock(fid, c.LOCK_TYPE_WRLCK, 0, 0, 0, 1, b"host"))
    machine.send(m.Tlock(fid, c.LOCK_TYPE_WRLCK, c.LOCK_FLAGS_BLOCK, 0, 0, 2, b"host"), 7)
    await machine.call(STATFS, 8)
    before = mapped()
    vm.share_memory()
    await vm.ask(f.GET_FEATURES)
    assert mapped() == before
    await machine.call(m.Tlock(fid, c.LOCK_TYPE_UNLCK, 0, 0, 0, 1, b"host"), 8)
    assert (await machine.reply())[0] == 7
    await machine.call(m.Tremove(fid))


async def test_a_queue_that_loses_its_memory(world: World) -> None:
    machine = await world.begin()
    held = await Possessions.of(machine, world.bystander)
    machine.frontend.send(f.SET_MEM_TABLE, bytes(8))
    assert await world.is_dropped(machine.frontend.sock)
    assert world.warnings() == ["vhost-user protocol error"]
    assert await held.are_freed()


async def test_a_vmm_that_vanishes_while_its_guest_is_served(world: World) -> None:
    machine = await world.begin()
    held = await Possessions.of(machine, world.bystander)
    for _ in range(SLOTS):
        machine.feed(m.Tread(100, 0, 4 * 4096).frame(1))
    machine.frontend.ring_bell()
    machine.frontend.sock.shutdown(socket.SHUT_RDWR)
    await world.only_these_are_left()
    assert await held.are_freed()
    assert mapped() == 3  # by the neighbour, and in the two VMMs
    assert world.warnings() == []


MESSAGE = struct.pack("=IIIQ", f.SET_VRING_CALL, 1, 8, 0)


@pytest.mark.parametrize("length", [1, 11, 12, 13, 19])
async def test_a_vmm_that_vanishes_within_a_message(world: World, length: int) -> None:
    sock = await world.connect()
    socket.send_fds(sock, [MESSAGE[:length]], [world.neighbour.frontend.call])
    assert await world.everybody_is_served()
    sock.close()
    await world.only_these_are_left()
    assert world.warnings() == []


async def test_a_vmm_that_sends_its_own_end_and_vanishes(world: World) -> None:
    """It would be open as long as the message does not end."""
    sock = await world.connect()
    socket.send_fds(sock, [MESSAGE[:-1]], [sock.fileno()])
    assert await world.everybody_is_served()
    sock.close()
    await world.only_these_are_left()
    assert world.warnings() == ["vhost-user protocol error"]


NO_MESSAGES = {
    "zeros": bytes(12),
    "ones": b"\xff" * 12,
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "9p": m.Tversion(8192, c.VERSION).frame(c.NOTAG),
    "no version": struct.pack("=III", f.GET_FEATURES, 0, 0),
    "reply": struct.pack("=III", f.GET_FEATURES, 5, 0),
    "payload of 4 GiB": struct.pack("=III", f.SET_FEATURES, 1, 0xFFFFFFFF),
    "unknown request": struct.pack("=III", 77, 1, 0),
    "payload too short": struct.pack("=III", f.SET_FEATURES, 1, 4) + bytes(4),
    "table without regions": struct.pack("=IIIII", f.SET_MEM_TABLE, 1, 8, 0xFFFFFFFF, 0),
    "second queue": struct.pack("=IIIII", f.SET_VRING_NUM, 1, 8, 1, 128),
    "kick without a descriptor": struct.pack("=IIIQ", f.SET_VRING_KICK, 1, 8, 0),
}


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_what_is_no_message_ends_the_connection(world: World, data: bytes) -> None:
    sock = await world.connect()
    sock.send(data)
    assert await world.is_dropped(sock)
    assert world.warnings() == ["vhost-user protocol error"]
    sock.close()


async def test_descriptors_that_are_no_eventfds(world: World) -> None:
    for make in (os.pipe, socket.socketpair, lambda: [os.open("/dev/null", os.O_RDWR)]):
        ends = make()
        for request in (f.SET_VRING_KICK, f.SET_VRING_CALL, f.SET_VRING_ERR):
            sock = await world.connect()
            fd = ends[0] if isinstance(ends[0], int) else ends[0].fileno()
            socket.send_fds(sock, [struct.pack("=IIIQ", request, 1, 8, 0)], [fd])
            assert await world.is_dropped(sock)
            assert world.warnings() == ["vhost-user protocol error"]
            world.logs.clear()
            sock.close()
        for end in ends:
            os.close(end) if isinstance(end, int) else end.close()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: os.eventfd(0), "not a file"),
        (lambda: os.open("/dev/zero", os.O_RDWR), "not a file"),
        (lambda: os.open("/", os.O_RDONLY), "not a file"),
        (lambda: memory_file(f.MEMORY - 1), "bytes at 0"),
        (lambda: memory_file(0), "bytes at 0"),
    ],
    ids=["eventfd", "device", "directory", "too small", "empty"],
)
@pytest.mark.parametrize("request_", [f.SET_MEM_TABLE, f.ADD_MEM_REG])
async def test_memory_that_is_none(
    world: World, make: Callable[[], int], why: str, request_: int
) -> None:
    machine = await world.begin()
    held = await Possessions.of(machine, world.bystander)
    fd = make()
    head = struct.pack("=II", request_ == f.SET_MEM_TABLE, 0)
    machine.frontend.send(request_, head + machine.frontend.region(guest=1 << 40), [fd])
    os.close(fd)
    assert await world.is_dropped(machine.frontend.sock)
    assert world.warnings() == ["vhost-user protocol error"]
    assert why in world.logs[-2]["why"]
    assert await held.are_freed()


@pytest.mark.parametrize("part", ["descriptors", "used", "available"])
async def test_a_queue_that_is_not_in_memory(world: World, part: str) -> None:
    machine = await world.begin()
    held = await Possessions.of(machine, world.bystander)
    machine.frontend.send(f.SET_VRING_ADDR, machine.frontend.addresses(**{part: f.MEMORY}))
    assert await world.is_dropped(machine.frontend.sock)
    assert world.warnings() == ["vhost-user protocol error"]
    assert await held.are_freed()


async def test_a_vmm_that_never_reads(world: World) -> None:
    sock = await world.connect()
    with pytest.raises((BlockingIOError, BrokenPipeError)):  # noqa: PT012 until it takes no more
        while True:
            sock.send(struct.pack("=III", f.GET_FEATURES, 1, 0) * 1000)
            await asyncio.sleep(0)
    await world.only_these_are_left()
    assert world.logs[-1]["why"] == "does not take its replies"
    sock.close()


async def test_messages_without_end_leave_others_their_turn(world: World) -> None:
    sock = await world.connect()
    for _ in range(100):
        sock.send(struct.pack("=III", f.SET_OWNER, 1, 0))
    queued = [waiting(sock)]
    while queued[-1]:
        await asyncio.sleep(0)
        queued.append(waiting(sock))
    assert max(a - b for a, b in itertools.pairwise(queued)) < 1 + queued[0] // 10
    sock.close()


def waiting(sock: socket.socket) -> int:
    """What the other side has not received yet, in bytes of the kernel's memory."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), "little")


async def test_1000_vmms_come_and_go(world: World) -> None:
    for number in range(1000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(world.device.path)
            socket.send_fds(sock, [MESSAGE[: number % 21]], [world.neighbour.frontend.call])
        if not number % 20:
            assert await world.everybody_is_served()
    await world.only_these_are_left()
    assert world.warnings() == []


async def test_50_guests_come_and_go(world: World) -> None:
    for _ in range(50):
        machine = await world.begin()
        await machine.create(b"file", b"x" * 4096)
        await world.bystander.call(m.Tunlinkat(ROOT, b"file", 0))
        machine.frontend.sock.shutdown(socket.SHUT_RDWR)
    await world.only_these_are_left()

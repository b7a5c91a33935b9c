"""device: what a VMM may say, in which order, and what it is answered."""

import mmap
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from server.vhost import message as m
from server.vhost.device import CONFIG_MAX, PROTOCOL, Device
from server.vhost.memory import SLOTS, VhostError
from server.vhost.message import Message

from . import frontend as f
from .frontend import GUEST, MEMORY, SIZE, USER
from .guestmemory import mapped, memory_file, nothing_is_left_open

TAG = b"\x07\x00scratch"
PAGE = mmap.PAGESIZE


class Vmm:
    """Says things to a device, with descriptors of its own."""

    def __init__(self) -> None:
        self.device = Device(1, TAG)
        self.fd = memory_file(MEMORY)
        self.memory = mmap.mmap(self.fd, MEMORY)
        self.event = os.eventfd(0, os.EFD_NONBLOCK)

    def close(self) -> None:
        self.device.close()
        self.memory.close()
        os.close(self.fd)
        os.close(self.event)

    def say(
        self, request: int, payload: bytes = b"", fds: Sequence[int] = (), flags: int = 0
    ) -> bytes | None:
        """The payload of the reply, if there is one."""
        given = [os.dup(fd) for fd in fds]
        reply = self.device.handle(Message(request, 1 | flags, payload, given))
        if reply is None:
            return None
        assert struct.unpack("=III", reply[:12]) == (request, 5, len(reply) - 12)
        return reply[12:]

    def number(self, request: int, number: int, fds: Sequence[int] = ()) -> bytes | None:
        return self.say(request, struct.pack("=Q", number), fds)

    def state(self, request: int, number: int, index: int = 0) -> bytes | None:
        return self.say(request, struct.pack("=II", index, number))

    def share(self, guest: int = GUEST, user: int = USER) -> None:
        head = struct.pack("=II", 1, 0)
        self.say(f.SET_MEM_TABLE, head + struct.pack("=QQQQ", guest, MEMORY, user, 0), [self.fd])

    def region(self, request: int, place: int, fds: Sequence[int] = ()) -> None:
        """Add or remove the page at this place of the guest."""
        self.say(request, struct.pack("=QQQQQ", 0, place * PAGE, PAGE, place * PAGE, 0), fds)

    def locate(self, index: int = 0, moved: int = 0) -> None:
        places = (USER + moved + at for at in (f.DESCRIPTORS, f.USED, f.AVAILABLE))
        self.say(f.SET_VRING_ADDR, struct.pack("=IIQQQQ", index, 0, *places, 0))

    def prepare(self, base: int = 0) -> None:
        """All but the kick."""
        self.number(f.SET_FEATURES, f.FEATURES)
        self.share()
        self.state(f.SET_VRING_NUM, SIZE)
        self.state(f.SET_VRING_BASE, base)
        self.locate()

    def start(self, base: int = 0) -> None:
        self.prepare(base)
        self.number(f.SET_VRING_KICK, 0, [self.event])
        self.state(f.SET_VRING_ENABLE, 1)

    def stop(self) -> int:
        """From where it would go on."""
        answer = self.state(f.GET_VRING_BASE, 0)
        assert answer is not None
        index, base = struct.unpack("=II", answer)
        assert index == 0
        return int(base)

    def offer(self, count: int = 1, moved: int = 0) -> None:
        """Make so many chains available, each of which says a byte."""
        self.memory[moved : moved + 16] = struct.pack("<QIHH", GUEST + f.BUFFERS, 1, 0, 0)
        place = moved + f.AVAILABLE + 2
        before = int.from_bytes(self.memory[place : place + 2], "little")
        self.memory[place : place + 2] = struct.pack("<H", before + count & 0xFFFF)

    def take(self, count: int = 1) -> None:
        """Have the device take so many chains and give them back."""
        ring = self.device.ring
        assert ring is not None
        for _ in range(count):
            chain = ring.pop()
            assert chain is not None
            ring.push(chain, [])
        ring.publish()


@pytest.fixture
def vmm() -> Iterator[Vmm]:
    with nothing_is_left_open():
        vmm = Vmm()
        yield vmm
        vmm.close()
    assert not mapped()


# What is offered


def test_features(vmm: Vmm) -> None:
    offered = vmm.say(f.GET_FEATURES)
    assert offered == struct.pack("=Q", f.FEATURES | f.EVENT_IDX)
    vmm.number(f.SET_FEATURES, f.FEATURES)
    vmm.number(f.SET_FEATURES, 0)
    with pytest.raises(VhostError, match="features"):
        vmm.number(f.SET_FEATURES, 2)


def test_protocol_features(vmm: Vmm) -> None:
    assert vmm.say(f.GET_PROTOCOL_FEATURES) == struct.pack("=Q", PROTOCOL)
    assert PROTOCOL & (f.REPLY_ACK | f.CONFIG) == f.REPLY_ACK | f.CONFIG
    vmm.number(f.SET_PROTOCOL_FEATURES, f.REPLY_ACK)
    with pytest.raises(VhostError, match="protocol features"):
        vmm.number(f.SET_PROTOCOL_FEATURES, 2)


def test_one_queue_and_so_many_slots(vmm: Vmm) -> None:
    assert vmm.say(f.GET_QUEUE_NUM) == struct.pack("=Q", 1)
    assert vmm.say(f.GET_MAX_MEM_SLOTS) == struct.pack("=Q", SLOTS)


def test_a_reply_to_what_has_none_if_it_is_wanted(vmm: Vmm) -> None:
    assert vmm.say(f.SET_OWNER) is None
    assert vmm.say(f.SET_OWNER, flags=f.NEED_REPLY) == bytes(8)
    assert vmm.say(f.GET_QUEUE_NUM, flags=f.NEED_REPLY) == struct.pack("=Q", 1)


@pytest.mark.parametrize("request_", [0, 6, 7, 19, 20, 34, 40, 255, 0xFFFFFFFF])
def test_a_request_that_was_not_offered(vmm: Vmm, request_: int) -> None:
    with pytest.raises(VhostError, match=f"request {request_}, which"):
        vmm.say(request_, fds=[vmm.event])


# Configuration


def config(vmm: Vmm, offset: int, size: int) -> bytes:
    head = struct.pack("=III", offset, size, 0)
    reply = vmm.say(f.GET_CONFIG, head + bytes(size))
    assert reply is not None
    assert reply[:12] == head
    return reply[12:]


def test_the_configuration_is_what_there_is_and_zeros(vmm: Vmm) -> None:
    assert config(vmm, 0, len(TAG)) == TAG
    assert config(vmm, 2, 9) == TAG[2:] + bytes(2)
    assert config(vmm, 0, CONFIG_MAX) == TAG.ljust(CONFIG_MAX, b"\0")
    assert config(vmm, CONFIG_MAX, 0) == b""


@pytest.mark.parametrize(("offset", "size"), [(0, 257), (256, 1), (0xFFFFFFFF, 1), (1, 256)])
def test_the_configuration_behind_its_end(vmm: Vmm, offset: int, size: int) -> None:
    with pytest.raises(VhostError, match="configuration of 256"):
        config(vmm, offset, size)


def test_the_configuration_without_a_head(vmm: Vmm) -> None:
    with pytest.raises(VhostError, match="without its head"):
        vmm.say(f.GET_CONFIG, bytes(11))


def test_the_configuration_stays_as_it_is(vmm: Vmm) -> None:
    vmm.say(f.SET_CONFIG, struct.pack("=III", 0, 9, 0) + b"\x07\x00another")
    assert config(vmm, 0, 9) == TAG


# The queue


def test_the_queue_runs_from_its_kick_to_its_base(vmm: Vmm) -> None:
    vmm.prepare()
    vmm.state(f.SET_VRING_ENABLE, 1)
    assert vmm.device.ring is None
    vmm.number(f.SET_VRING_KICK, 0, [vmm.event])
    vmm.offer(3)
    vmm.take(2)
    assert vmm.device.kick is not None
    assert vmm.stop() == 2
    assert vmm.device.ring is None
    vmm.start(2)
    vmm.take()
    assert vmm.stop() == 3


def test_the_queue_does_not_run_while_it_is_disabled(vmm: Vmm) -> None:
    vmm.prepare()
    vmm.number(f.SET_VRING_KICK, 0, [vmm.event])
    assert vmm.device.ring is None
    vmm.state(f.SET_VRING_ENABLE, 1)
    ring = vmm.device.ring
    vmm.state(f.SET_VRING_ENABLE, 0)
    assert vmm.device.ring is None
    vmm.state(f.SET_VRING_ENABLE, 1)
    assert vmm.device.ring is ring is not None


def test_the_queue_is_enabled_where_that_can_not_be_said(vmm: Vmm) -> None:
    """Without the protocol's features, a queue is enabled as it starts."""
    vmm.prepare()
    vmm.number(f.SET_FEATURES, f.FEATURES & ~f.PROTOCOL_FEATURES)
    vmm.number(f.SET_VRING_KICK, 0, [vmm.event])
    assert vmm.device.ring is not None


def test_a_queue_that_was_never_started_has_a_base(vmm: Vmm) -> None:
    assert vmm.stop() == 0
    vmm.state(f.SET_VRING_BASE, 77)
    assert vmm.stop() == 77


@pytest.mark.parametrize(("base", "fresh"), [(0, True), (5, False)])
def test_a_queue_that_begins_or_goes_on(vmm: Vmm, base: int, fresh: bool) -> None:
    vmm.start(base)
    assert vmm.device.ring is not None
    assert vmm.device.ring.fresh == fresh


@pytest.mark.parametrize("event_index", [False, True])
def test_the_event_index_is_as_agreed(vmm: Vmm, event_index: bool) -> None:
    vmm.prepare()
    vmm.number(f.SET_FEATURES, f.FEATURES | (f.EVENT_IDX if event_index else 0))
    vmm.number(f.SET_VRING_KICK, 0, [vmm.event])
    vmm.state(f.SET_VRING_ENABLE, 1)
    vmm.offer(1)
    vmm.take()
    assert vmm.device.ring is not None
    assert vmm.device.ring.pop() is None
    place = f.USED + 4 + 8 * SIZE
    assert vmm.memory[place : place + 2] == struct.pack("<H", event_index)


def test_eventfds_are_replaced_and_taken_back(vmm: Vmm) -> None:
    vmm.start()
    for request, name in (
        (f.SET_VRING_KICK, "kick"),
        (f.SET_VRING_CALL, "call"),
        (f.SET_VRING_ERR, "fault"),
    ):
        for number in (3, 5):
            other = os.eventfd(number, os.EFD_NONBLOCK)
            vmm.number(request, 0, [other])
            os.close(other)
            assert os.eventfd_read(getattr(vmm.device, name).fileno()) == number
    ring = vmm.device.ring
    for request, name in ((f.SET_VRING_CALL, "call"), (f.SET_VRING_ERR, "fault")):
        vmm.number(request, m.NO_FD)
        assert getattr(vmm.device, name) is None
    assert vmm.device.ring is ring


@pytest.mark.parametrize("size", [0, 3, 100, 2048, 0xFFFFFFFF])
def test_sizes_that_can_not_be(vmm: Vmm, size: int) -> None:
    with pytest.raises(VhostError, match=f"queue of {size}"):
        vmm.state(f.SET_VRING_NUM, size)


def test_bases_that_can_not_be(vmm: Vmm) -> None:
    with pytest.raises(VhostError, match="index 65536"):
        vmm.state(f.SET_VRING_BASE, 0x10000)


@pytest.mark.parametrize("request_", [f.SET_VRING_NUM, f.SET_VRING_BASE])
def test_what_may_not_change_while_the_queue_runs(vmm: Vmm, request_: int) -> None:
    vmm.start()
    with pytest.raises(VhostError, match="while the queue runs"):
        vmm.state(request_, 64)


def test_a_queue_that_can_not_start(vmm: Vmm) -> None:
    with pytest.raises(VhostError, match="without a size"):
        vmm.number(f.SET_VRING_KICK, 0, [vmm.event])
    vmm.state(f.SET_VRING_NUM, SIZE)
    with pytest.raises(VhostError, match="without a size or a place"):
        vmm.number(f.SET_VRING_KICK, 0, [vmm.event])
    vmm.locate()
    with pytest.raises(VhostError, match="not in a region"):
        vmm.number(f.SET_VRING_KICK, 0, [vmm.event])


def test_a_queue_that_would_have_to_be_polled(vmm: Vmm) -> None:
    vmm.prepare()
    with pytest.raises(VhostError, match="polled"):
        vmm.number(f.SET_VRING_KICK, m.NO_FD)


def test_other_queues_than_the_first(vmm: Vmm) -> None:
    vmm.prepare()
    for request in (f.SET_VRING_NUM, f.SET_VRING_BASE, f.GET_VRING_BASE, f.SET_VRING_ENABLE):
        with pytest.raises(VhostError, match="queue 1 of 1"):
            vmm.state(request, 1, index=1)
    for request in (f.SET_VRING_KICK, f.SET_VRING_CALL, f.SET_VRING_ERR):
        with pytest.raises(VhostError, match="queue 1 of 1"):
            vmm.number(request, 1, [vmm.event])
    with pytest.raises(VhostError, match="queue 1 of 1"):
        vmm.locate(index=1)


# Memory and addresses that change while the queue runs


def test_the_queue_goes_on_in_other_memory(vmm: Vmm) -> None:
    vmm.start()
    vmm.offer(2)
    vmm.take()
    before = vmm.device.ring
    other = memory_file(MEMORY)
    os.pwrite(other, vmm.memory[:], 0)
    head = struct.pack("=II", 1, 0)
    place = struct.pack("=QQQQ", GUEST, MEMORY, USER, 0)
    vmm.say(f.SET_MEM_TABLE, head + place, [other])
    assert vmm.device.ring is not before
    vmm.take()
    assert os.pread(other, 4, f.USED) == struct.pack("<HH", 0, 2)
    assert vmm.stop() == 2
    os.close(other)


def test_the_queue_goes_on_at_other_addresses(vmm: Vmm) -> None:
    vmm.start()
    vmm.offer(1)
    vmm.take()
    moved = 8 << 20
    vmm.memory[moved : moved + f.BUFFERS] = vmm.memory[: f.BUFFERS]
    vmm.locate(moved=moved)
    vmm.offer(1, moved)
    vmm.take()
    assert vmm.memory[moved + f.USED : moved + f.USED + 4] == struct.pack("<HH", 0, 2)
    assert vmm.stop() == 2


def test_addresses_may_change_while_it_does_not_run(vmm: Vmm) -> None:
    vmm.locate(moved=1 << 40)
    vmm.start()
    vmm.stop()
    vmm.say(f.SET_MEM_TABLE, bytes(8))
    vmm.locate(moved=1 << 40)


@pytest.mark.parametrize(
    "change",
    [
        lambda vmm: vmm.share(user=USER + MEMORY),
        lambda vmm: vmm.say(f.REM_MEM_REG, struct.pack("=QQQQQ", 0, GUEST, MEMORY, USER, 0)),
        lambda vmm: vmm.locate(moved=MEMORY),
    ],
    ids=["replaced", "removed", "moved"],
)
def test_a_queue_that_would_lose_its_memory(vmm: Vmm, change: Callable[[Vmm], object]) -> None:
    vmm.start()
    with pytest.raises(VhostError, match="not in a region"):
        change(vmm)


def test_regions_come_and_go_while_the_queue_runs(vmm: Vmm) -> None:
    vmm.start()
    vmm.offer(2)
    vmm.take()
    for place in range(3):
        vmm.region(f.ADD_MEM_REG, place, [vmm.fd])
    assert mapped() == 5
    for place in range(3):
        vmm.region(f.REM_MEM_REG, place)
    assert mapped() == 2
    vmm.take()
    assert vmm.stop() == 2


def test_regions_that_can_not_be(vmm: Vmm) -> None:
    vmm.region(f.ADD_MEM_REG, 0, [vmm.fd])
    for request, place, fds, why in (
        (f.ADD_MEM_REG, 0, [vmm.fd], "overlap"),
        (f.ADD_MEM_REG, 1, [], "without its file"),
        (f.ADD_MEM_REG, 1, [vmm.fd, vmm.fd], "without its file"),
        (f.ADD_MEM_REG, 1, [vmm.event], "not a file"),
        (f.REM_MEM_REG, 1, [], "no such region"),
    ):
        with pytest.raises(VhostError, match=why):
            vmm.region(request, place, fds)


def test_a_descriptor_that_comes_with_a_removal_is_closed(vmm: Vmm) -> None:
    vmm.region(f.ADD_MEM_REG, 0, [vmm.fd])
    vmm.region(f.REM_MEM_REG, 0, [vmm.fd])


def test_no_region_is_mapped_of_a_table_that_can_not_be(vmm: Vmm) -> None:
    payload = struct.pack("=II", 2, 0) + struct.pack("=QQQQ", 0, PAGE, 0, 0) * 2
    with pytest.raises(VhostError, match="overlap"):
        vmm.say(f.SET_MEM_TABLE, payload, [vmm.fd, vmm.fd])
    with pytest.raises(VhostError, match="not a file"):
        vmm.say(f.SET_MEM_TABLE, payload, [vmm.fd, vmm.event])
    assert mapped() == 1  # the VMM's


# The end


def test_nothing_is_kept_at_the_end(vmm: Vmm) -> None:
    vmm.start()
    vmm.number(f.SET_VRING_CALL, 0, [vmm.event])
    vmm.number(f.SET_VRING_ERR, 0, [vmm.event])
    vmm.device.close()
    assert vmm.device.ring is None
    assert mapped() == 1  # the VMM's


@pytest.mark.parametrize("request_", range(41))
@pytest.mark.parametrize("length", [0, 8, 40])
def test_descriptors_that_nobody_wants_are_closed(vmm: Vmm, request_: int, length: int) -> None:
    """Whether the message can be or not."""
    vmm.prepare()
    with suppress(VhostError):
        vmm.say(request_, bytes(length), [vmm.event, vmm.fd])

"""ring: what a driver offers is what is read, and what is given back is what it finds."""

import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.vhost.memory import Memory, Place, Region, VhostError
from server.vhost.ring import MOST, Chain, Ring, Span

from . import frontend as f
from .frontend import (
    AVAILABLE,
    BUFFERS,
    DESCRIPTORS,
    GUEST,
    MEMORY,
    SIZE,
    USED,
    USER,
    WRITE,
    Frontend,
    Piece,
)

#: Where a test's own data is, and its room.
HERE, THERE = BUFFERS, BUFFERS + 0x10000


class Driver:
    """A driver, and the device's side of its queue."""

    def __init__(self, event_index: bool = False) -> None:
        self._sock, other = socket.socketpair()
        other.close()
        self.vm = Frontend(self._sock, event_index=event_index)
        self.memory = Memory()
        self.memory.add(Region(Place(GUEST, MEMORY, USER, 0), self.vm.fd))
        self.ring = self.make()

    def make(self, base: int = 0, size: int = SIZE) -> Ring:
        places = (USER + DESCRIPTORS, USER + AVAILABLE, USER + USED)
        return Ring(self.memory, size, *places, base, self.vm.event_index)

    def begin_at(self, index: int) -> None:
        """Have the queue as it is after so many requests."""
        self.vm.base = self.vm.taken = index
        self.vm.put(USED + 2, struct.pack("<H", index))
        self.vm.put(AVAILABLE + 2, struct.pack("<H", index))
        self.ring = self.make(index)

    def offer(self, *pieces: Piece, head: int = 0) -> None:
        self.vm.chain(pieces, head)
        self.vm.offer(head)

    def chain(self) -> Chain:
        chain = self.ring.pop()
        assert chain is not None
        return chain

    def serve(self, answer: bytes = b"") -> bytes:
        """What the next chain says, which gets this answer."""
        chain = self.chain()
        said = content(chain.request)
        self.ring.push(chain, [answer])
        return said

    def close(self) -> None:
        self.vm.__exit__()


def content(span: Span) -> bytes:
    """All that was not read yet."""
    data = bytearray(span.left)
    if data:
        span.read(memoryview(data))
    return bytes(data)


@pytest.fixture
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


@pytest.fixture
def eventful() -> Iterator[Driver]:
    """One that says which answer it waits for."""
    driver = Driver(event_index=True)
    yield driver
    driver.close()


# Chains


def test_an_empty_queue(driver: Driver) -> None:
    assert driver.ring.pop() is None
    assert not driver.ring.publish()


def test_a_request_and_its_answer(driver: Driver) -> None:
    driver.vm.put(HERE, b"request")
    driver.offer((GUEST + HERE, 7, 0), (GUEST + THERE, 100, WRITE), head=5)
    assert driver.serve(b"answer") == b"request"
    assert driver.vm.take() == []  # not yet
    assert driver.ring.publish()
    assert driver.vm.take() == [(5, 6)]
    assert driver.vm.memory[THERE : THERE + 8] == b"answer\0\0"
    assert driver.ring.pop() is None


def test_an_indirect_table(driver: Driver) -> None:
    driver.vm.put(HERE, b"request")
    pieces = [(GUEST + HERE, 3, 0), (GUEST + HERE + 3, 4, 0), (GUEST + THERE, 100, WRITE)]
    driver.vm.table(pieces, 7)
    driver.vm.offer(7)
    chain = driver.chain()
    assert (chain.head, chain.descriptors) == (7, 3)
    assert content(chain.request) == b"request"
    assert chain.answer.left == 100


def test_an_indirect_table_at_the_end_of_a_chain(driver: Driver) -> None:
    driver.vm.put(HERE, b"request")
    driver.vm.table([(GUEST + HERE + 3, 4, 0), (GUEST + THERE, 100, WRITE)], 1)
    driver.vm.describe(DESCRIPTORS, GUEST + HERE, 3, f.NEXT, 1)
    driver.vm.offer(0)
    assert driver.serve(b"answer") == b"request"


def test_a_table_that_changes_after_it_was_read(driver: Driver) -> None:
    driver.vm.put(HERE, b"request")
    driver.vm.table([(GUEST + HERE, 7, 0), (GUEST + THERE, 100, WRITE)], 0)
    driver.vm.offer(0)
    chain = driver.chain()
    driver.vm.put(f.TABLES, bytes(32))
    driver.vm.put(DESCRIPTORS, bytes(16))
    assert content(chain.request) == b"request"
    driver.ring.push(chain, [b"answer"])
    assert driver.vm.memory[THERE : THERE + 6] == b"answer"


def test_an_answer_of_several_parts_in_several_pieces(driver: Driver) -> None:
    room = [(GUEST + THERE + 10 * place, 4, WRITE) for place in range(3)]
    driver.offer((GUEST + HERE, 1, 0), *room)
    chain = driver.chain()
    assert driver.ring.push(chain, [b"ab", memoryview(b"cdef"), b"", bytearray(b"ghij")]) == 10
    written = [driver.vm.memory[THERE + 10 * place :][:4] for place in range(3)]
    assert written == [b"abcd", b"efgh", b"ij\0\0"]


def test_an_answer_may_be_empty(driver: Driver) -> None:
    driver.offer((GUEST + HERE, 1, 0))
    driver.ring.push(driver.chain(), [])
    driver.ring.publish()
    assert driver.vm.take() == [(0, 0)]


def test_pieces_that_go_on_are_one(driver: Driver) -> None:
    """They are found in the table of memory but once."""
    span = Span(driver.memory)
    for place in (0, 10, 20, 31, 41, 50):
        span.append(GUEST + place, 10)
    assert (span._addresses, span._lengths) == ([GUEST, GUEST + 31, GUEST + 50], [30, 20, 10])


def test_a_piece_over_two_regions(driver: Driver) -> None:
    near, far = (os.memfd_create("guest", os.MFD_ALLOW_SEALING) for _ in range(2))
    for fd in (near, far):
        os.ftruncate(fd, 4096)
        driver.memory.add(Region(Place(GUEST + MEMORY + 4096 * (fd == far), 4096, 0, 0), fd))
    driver.vm.put(MEMORY - 3, b"one")
    os.pwrite(near, b"two", 0)
    at = GUEST + MEMORY
    driver.offer((at - 3, 6, 0), (at + 4096 - 2, 5, WRITE))
    assert driver.serve(b"abcde") == b"onetwo"
    assert (os.pread(near, 2, 4094), os.pread(far, 3, 0)) == (b"ab", b"cde")
    for fd in (near, far):
        os.close(fd)


def test_an_answer_goes_to_what_is_memory_then(driver: Driver) -> None:
    driver.offer((GUEST + HERE, 1, 0), (GUEST + THERE, 10, WRITE))
    chain = driver.chain()
    fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, MEMORY)
    driver.memory.replace([Region(Place(GUEST, MEMORY, USER, 0), fd)])
    driver.ring.push(chain, [b"answer"])
    assert os.pread(fd, 6, THERE) == b"answer"
    assert driver.vm.memory[THERE : THERE + 6] == bytes(6)
    os.close(fd)


@pytest.mark.parametrize("indirect", [False, True])
def test_the_longest_chain(driver: Driver, indirect: bool) -> None:
    data = bytes(place % 251 for place in range(MOST))
    driver.vm.put(HERE, data)
    pieces = [(GUEST + HERE + MOST - 1 - place, 1, 0) for place in range(MOST)]
    driver.ring = driver.make(size=MOST)
    if indirect:
        driver.vm.table(pieces, 0)
    else:
        driver.vm.chain(pieces)
    driver.vm.offer(0, size=MOST)
    assert content(driver.chain().request) == data[::-1]


def test_no_room_is_left_unless_there_is(driver: Driver) -> None:
    driver.offer((GUEST + HERE, 1, 0), (GUEST + THERE, 6, WRITE))
    chain = driver.chain()
    with pytest.raises(VhostError, match="room for 6 bytes"):
        driver.ring.push(chain, [b"answers"])
    assert driver.vm.memory[THERE : THERE + 7] == bytes(7)
    driver.ring.publish()
    assert driver.vm.take() == []


numbers = st.integers(1, 60)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=200), st.binary(max_size=200), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.integers(1, 3), min_size=1, max_size=6),
    st.integers(0, 0xFFFF),
    st.data(),
)
def test_what_is_read_and_written_is_what_was_meant(
    requests: list[tuple[bytes, bytes, bool]],
    regions: list[int],
    index: int,
    data: st.DataObject,
) -> None:
    """Requests and answers in pieces of any size, over regions of any size, in any order."""
    driver = Driver()
    try:
        driver.memory.replace(in_regions(driver.vm.fd, regions))
        driver.begin_at(index)
        expected: list[tuple[int, int, list[Piece]]] = []
        at, descriptor = HERE - 100, 0
        for said, answer, indirect in requests:
            pieces: list[Piece] = []
            for part, flags in ((said, 0), (answer + b"?", WRITE)):
                done = 0
                while done < len(part):
                    count = min(data.draw(numbers), len(part) - done)
                    at += data.draw(st.integers(0, 5))
                    pieces.append((GUEST + at, count, flags))
                    driver.vm.put(at, b"?" * count if flags else part[done : done + count])
                    at, done = at + count, done + count
            if indirect or descriptor + len(pieces) > SIZE:
                driver.vm.table(pieces, descriptor, f.TABLES + 0x4000 * len(expected))
            else:
                driver.vm.chain(pieces, descriptor)
            driver.vm.offer(descriptor)
            expected.append((descriptor, len(answer), pieces))
            descriptor += 1 if indirect else len(pieces)
            if descriptor > SIZE - 10:
                break
        chains = [driver.chain() for _ in expected]
        assert driver.ring.pop() is None
        asked = requests[: len(expected)]
        assert [content(chain.request) for chain in chains] == [said for said, _, _ in asked]
        order = data.draw(st.permutations(range(len(expected))))
        for number in order:
            answer = asked[number][1]
            cut = data.draw(st.integers(0, len(answer)))
            driver.ring.push(chains[number], [answer[:cut], answer[cut:]])
        assert driver.ring.publish()
        assert driver.vm.take() == [expected[number][:2] for number in order]
        for (_, answer, _), (_, _, pieces) in zip(asked, expected, strict=True):
            room = [piece for piece in pieces if piece[2]]
            written = b"".join(driver.vm.memory[at - GUEST :][:count] for at, count, _ in room)
            assert written == answer + b"?"
    finally:
        driver.close()


def in_regions(fd: int, sizes: list[int]) -> list[Region]:
    """All the memory of a guest: its queue, so many pages one after another, and what is left."""
    table = []
    at = 0
    for size in (HERE, *(size * 64 for size in sizes)):
        table.append(Region(Place(GUEST + at, size, USER + at, at), fd))
        at += size
    return [*table, Region(Place(GUEST + at, MEMORY - at, USER + at, at), fd)]


# What can not be


@pytest.mark.parametrize("jump", [SIZE + 1, 0x8000, 0xFFFF])
def test_an_available_index_that_jumps(driver: Driver, jump: int) -> None:
    driver.begin_at(0xFFF0)
    driver.vm.put(AVAILABLE + 2, struct.pack("<H", 0xFFF0 + jump & 0xFFFF))
    with pytest.raises(VhostError, match="available index"):
        driver.ring.pop()


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([(GUEST, 0, 0)], "empty"),
        ([(GUEST, 5, WRITE), (GUEST, 5, 0)], "behind"),
        ([(GUEST, 5, f.INDIRECT)], "table of 5"),
        ([(GUEST, 0, f.INDIRECT)], "table of 0"),
        ([(GUEST, 16 * (MOST + 1), f.INDIRECT)], "table of"),
        ([(GUEST + MEMORY, 16, f.INDIRECT)], "not in the guest's memory"),
        ([(GUEST + MEMORY - 16, 32, f.INDIRECT)], "not in one region"),
        ([(GUEST, 16, f.INDIRECT), (GUEST, 5, 0)], "indirect"),
        ([(GUEST + DESCRIPTORS, 16, f.INDIRECT)], "indirect"),
    ],
)
def test_descriptors_that_can_not_be(driver: Driver, pieces: list[Piece], why: str) -> None:
    driver.offer(*pieces)
    with pytest.raises(VhostError, match=why):
        driver.ring.pop()


@pytest.mark.parametrize("head", [SIZE, 0x7FFF, 0xFFFF])
def test_a_descriptor_that_is_none(driver: Driver, head: int) -> None:
    driver.vm.offer(head)
    with pytest.raises(VhostError, match=f"descriptor {head} of {SIZE}"):
        driver.ring.pop()
    driver.vm.describe(DESCRIPTORS, GUEST, 1, f.NEXT, head)
    driver.vm.offer(0)
    with pytest.raises(VhostError, match=f"descriptor {head} of {SIZE}"):
        driver.ring.pop()


def test_a_descriptor_that_is_none_of_its_table(driver: Driver) -> None:
    driver.vm.table([(GUEST, 1, 0), (GUEST, 1, 0)], 0)
    driver.vm.describe(f.TABLES + 16, GUEST, 1, f.NEXT, 2)
    driver.vm.offer(0)
    with pytest.raises(VhostError, match="descriptor 2 of 2"):
        driver.ring.pop()


@pytest.mark.parametrize("flags", [f.NEXT, f.NEXT | WRITE])
def test_a_chain_without_end(driver: Driver, flags: int) -> None:
    driver.vm.describe(DESCRIPTORS, GUEST, 1, flags, 0)
    driver.vm.offer(0)
    with pytest.raises(VhostError, match="more than 1024"):
        driver.ring.pop()


@pytest.mark.parametrize("address", [0, GUEST - 1, GUEST + MEMORY - 2, (1 << 64) - 1])
def test_what_is_not_memory_is_neither_read_nor_written(driver: Driver, address: int) -> None:
    driver.offer((address, 3, 0), (address, 3, WRITE))
    chain = driver.chain()
    with pytest.raises(VhostError, match="not in the guest's memory"):
        content(chain.request)
    with pytest.raises(VhostError, match="not in the guest's memory"):
        driver.ring.push(chain, [b"abc"])


@pytest.mark.parametrize(
    ("descriptors", "available", "used"),
    [(8, AVAILABLE, USED), (0, AVAILABLE + 1, USED), (0, AVAILABLE, USED + 2)],
)
def test_a_ring_that_is_not_aligned(
    driver: Driver, descriptors: int, available: int, used: int
) -> None:
    with pytest.raises(VhostError, match="not aligned"):
        Ring(driver.memory, SIZE, USER + descriptors, USER + available, USER + used, 0, False)


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("at", [0, USER - 16, USER + MEMORY - 16, (1 << 64) - 16])
def test_a_ring_that_is_not_in_memory(driver: Driver, part: int, at: int) -> None:
    places = [USER + DESCRIPTORS, USER + AVAILABLE, USER + USED]
    places[part] = at
    descriptors, available, used = places
    with pytest.raises(VhostError, match="not in a region"):
        Ring(driver.memory, SIZE, descriptors, available, used, 0, False)


# Indices


@pytest.mark.parametrize("event_index", [False, True])
def test_indices_wrap(event_index: bool) -> None:
    driver = Driver(event_index)
    driver.begin_at(0xFFFF - 2)
    for number in range(6):
        driver.vm.put(HERE, b"%d" % number)
        driver.offer((GUEST + HERE, 1, 0), (GUEST + THERE, 1, WRITE), head=2 * number)
        assert driver.serve(b"x") == b"%d" % number
        driver.ring.publish()
    assert [head for head, _ in driver.vm.take()] == [0, 2, 4, 6, 8, 10]
    assert driver.ring.base == driver.vm.base == driver.vm.used == 3
    driver.close()


def test_a_full_queue_at_the_wrap(driver: Driver) -> None:
    driver.begin_at(0x10000 - SIZE // 2)
    for head in range(SIZE):
        driver.vm.describe(DESCRIPTORS + 16 * head, GUEST + HERE, 1, 0)
    driver.vm.offer(*range(SIZE))
    for _ in range(SIZE):
        driver.serve()
    assert driver.ring.pop() is None
    assert driver.ring.publish()
    assert [head for head, _ in driver.vm.take()] == list(range(SIZE))


@pytest.mark.parametrize("size", [1, 2, 1024])
def test_queues_of_other_sizes(driver: Driver, size: int) -> None:
    driver.ring = driver.make(size=size)
    for number in range(3 * size):
        driver.vm.describe(DESCRIPTORS, GUEST + HERE, 1 + number % 7, 0)
        driver.vm.offer(0, size=size)
        assert len(driver.serve()) == 1 + number % 7
        driver.ring.publish()
    assert driver.vm.used == 3 * size


def test_it_goes_on_from_its_base(driver: Driver) -> None:
    driver.offer((GUEST + HERE, 1, 0))
    driver.serve()
    driver.ring.publish()
    driver.vm.put(HERE, b"next")
    driver.offer((GUEST + HERE, 4, 0), head=3)
    driver.ring = driver.make(driver.ring.base)
    assert driver.serve() == b"next"
    driver.ring.publish()
    assert [head for head, _ in driver.vm.take()] == [0, 3]


# Whose it is


def test_it_is_fresh_until_something_is_taken(driver: Driver) -> None:
    fresh = [driver.ring.fresh]
    driver.offer((GUEST + HERE, 1, 0))
    fresh.append(driver.ring.fresh)
    chain = driver.chain()
    fresh.append(driver.ring.fresh)
    driver.ring.push(chain, [])
    driver.ring.publish()
    fresh.append(driver.make(driver.ring.base).fresh)
    assert fresh == [True, True, False, False]


def test_it_is_not_fresh_after_65536_requests(driver: Driver) -> None:
    driver.begin_at(0xFFFF)
    driver.offer((GUEST + HERE, 1, 0), (GUEST + THERE, 1, WRITE))
    driver.serve(b"x")
    driver.ring.publish()
    ring = driver.make(driver.ring.base)
    assert (ring.base, driver.vm.used) == (0, 0)
    assert not ring.fresh


# Who is told


def test_the_guest_is_told_unless_it_says_not_to(driver: Driver) -> None:
    driver.offer((GUEST + HERE, 1, 0))
    driver.vm.put(AVAILABLE, struct.pack("<H", 1))  # NO_INTERRUPT
    driver.serve()
    assert not driver.ring.publish()
    assert driver.vm.take() == [(0, 0)]
    driver.vm.put(AVAILABLE, bytes(2))
    driver.offer((GUEST + HERE, 1, 0))
    driver.serve()
    assert driver.ring.publish()
    assert not driver.ring.publish()  # again


def test_nothing_is_said_about_events_where_they_were_not_agreed_on(driver: Driver) -> None:
    driver.offer((GUEST + HERE, 1, 0))
    driver.serve()
    assert driver.ring.pop() is None
    assert driver.vm.avail_event == 0


def test_the_device_says_what_it_waits_for_when_it_has_all(eventful: Driver) -> None:
    for number in range(3):
        eventful.offer((GUEST + HERE, 1, 0), head=number)
    for _ in range(3):
        eventful.serve()
        assert eventful.vm.avail_event == 0
    assert eventful.ring.pop() is None
    assert eventful.vm.avail_event == 3


@pytest.mark.parametrize("start", [0, 0xFFFE])
@pytest.mark.parametrize("waited_for", range(-1, 6))
def test_the_guest_is_told_when_what_it_waits_for_is_there(
    eventful: Driver, start: int, waited_for: int
) -> None:
    """Of four answers; not before, nor if it was told already."""
    eventful.begin_at(start)
    eventful.vm.wait_for(start + waited_for)
    told = []
    for number in range(4):
        eventful.offer((GUEST + HERE, 1, 0), head=number)
        eventful.serve()
        told.append(eventful.ring.publish())
    assert told == [number == waited_for for number in range(4)]


@pytest.mark.parametrize("waited_for", range(-1, 6))
def test_answers_that_are_published_together_tell_once(eventful: Driver, waited_for: int) -> None:
    eventful.vm.wait_for(waited_for)
    for number in range(4):
        eventful.offer((GUEST + HERE, 1, 0), head=number)
        eventful.serve()
    assert eventful.ring.publish() == (0 <= waited_for < 4)

"""message: what frames messages, and whose descriptors are whose."""

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.vhost import message as m
from server.vhost.memory import Place, VhostError
from server.vhost.message import FDS_MAX, PAYLOAD_MAX, Inbox, Message

from .guestmemory import nothing_is_left_open


class Ends(NamedTuple):
    """Both ends of a socket, and who receives at one of them."""

    vmm: socket.socket
    inbox: Inbox

    def send(self, data: bytes, fds: list[int] | None = None) -> None:
        socket.send_fds(self.vmm, [data], fds or [])

    def receive(self) -> Message:
        message = self.inbox.receive()
        assert message is not None
        return message


@pytest.fixture
def ends() -> Iterator[Ends]:
    with nothing_is_left_open():
        vmm, sock = socket.socketpair()
        sock.setblocking(False)
        inbox = Inbox(sock)
        yield Ends(vmm, inbox)
        inbox.close()
        vmm.close()
        sock.close()


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Descriptors of eventfds that hold 1, 2, and so on."""
    fds = [os.eventfd(number, os.EFD_NONBLOCK) for number in range(1, 11)]
    yield fds
    for fd in fds:
        os.close(fd)


def frame(request: int, payload: bytes = b"", flags: int = 1) -> bytes:
    return struct.pack("=III", request, flags, len(payload)) + payload


def held(message: Message) -> list[int]:
    """What the eventfds of a message hold."""
    numbers = [os.eventfd_read(fd) for fd in message.fds]
    message.close()
    return numbers


# The inbox


def test_a_message_comes_whole(ends: Ends) -> None:
    ends.send(frame(2, b"payload", 1 | m.NEED_REPLY))
    message = ends.receive()
    assert (message.request, message.payload, message.fds) == (2, b"payload", [])
    assert message.needs_reply
    assert ends.inbox.receive() is None


def test_a_message_comes_byte_by_byte(ends: Ends, fds: list[int]) -> None:
    data = frame(5, b"payload")
    for place in range(len(data) - 1):
        ends.send(data[place : place + 1], fds[:1] if place == 3 else fds[1:3] * (place == 14))
        assert ends.inbox.receive() is None
    ends.send(data[-1:])
    message = ends.receive()
    assert (message.request, message.payload) == (5, b"payload")
    assert held(message) == [1, 2, 3]


def test_descriptors_belong_to_the_message_that_they_came_with(ends: Ends, fds: list[int]) -> None:
    ends.send(frame(1, b"one"), fds[:1])
    ends.send(frame(2))
    ends.send(frame(3, b"three"), fds[1:3])
    ends.send(frame(4), fds[3:4])
    messages = [ends.receive() for _ in range(4)]
    assert [message.request for message in messages] == [1, 2, 3, 4]
    assert [held(message) for message in messages] == [[1], [], [2, 3], [4]]


def test_descriptors_that_come_with_a_head_are_closed_if_no_more_comes(
    ends: Ends, fds: list[int]
) -> None:
    ends.send(frame(5, b"payload")[:15], fds[:4])
    assert ends.inbox.receive() is None  # they are closed at the end of the test


def test_the_end_of_input(ends: Ends, fds: list[int]) -> None:
    ends.send(frame(1))
    ends.send(frame(2, b"payload")[:14], fds[:2])
    ends.vmm.shutdown(socket.SHUT_WR)
    assert ends.receive().request == 1
    with pytest.raises(EOFError):
        ends.inbox.receive()


def test_a_socket_that_fails(ends: Ends) -> None:
    ends.inbox._sock.send(b"not read")
    ends.vmm.close()
    with pytest.raises(ConnectionResetError):
        ends.inbox.receive()


@pytest.mark.parametrize("flags", [0, 2, 3, 5])
def test_flags_that_no_vmm_may_send(ends: Ends, flags: int) -> None:
    ends.send(frame(1, flags=flags))
    with pytest.raises(VhostError, match=f"flags {flags:#x}"):
        ends.inbox.receive()


def test_the_longest_payload(ends: Ends) -> None:
    ends.send(frame(1, bytes(PAYLOAD_MAX)))
    assert len(ends.receive().payload) == PAYLOAD_MAX
    ends.send(frame(1, bytes(PAYLOAD_MAX + 1)))
    with pytest.raises(VhostError, match=str(PAYLOAD_MAX + 1)):
        ends.inbox.receive()


def test_the_most_descriptors(ends: Ends, fds: list[int]) -> None:
    ends.send(frame(1), fds[:FDS_MAX])
    assert held(ends.receive()) == list(range(1, FDS_MAX + 1))
    ends.send(frame(1), fds[: FDS_MAX + 1])
    with pytest.raises(VhostError, match="too many descriptors"):
        ends.inbox.receive()


def test_descriptors_that_are_too_many_in_all(ends: Ends, fds: list[int]) -> None:
    data = frame(1, b"payload")
    for place in range(FDS_MAX):
        ends.send(data[place : place + 1], fds[:1])
    assert ends.inbox.receive() is None
    ends.send(data[FDS_MAX : FDS_MAX + 1], fds[:1])
    with pytest.raises(VhostError, match="too many descriptors"):
        ends.inbox.receive()


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.binary(max_size=30), max_size=6), st.data())
def test_messages_come_as_they_were_sent_however_they_are_cut(
    payloads: list[bytes], data: st.DataObject
) -> None:
    vmm, sock = socket.socketpair()
    sock.setblocking(False)
    with vmm, sock:
        inbox = Inbox(sock)
        stream = b"".join(frame(number, payload) for number, payload in enumerate(payloads))
        came = []
        while stream:
            count = data.draw(st.integers(1, len(stream)))
            vmm.send(stream[:count])
            stream = stream[count:]
            while (message := inbox.receive()) is not None:
                came.append((message.request, message.payload))
    assert came == list(enumerate(payloads))


@pytest.mark.parametrize("count", [1, 12, 15])
def test_a_socket_never_comes_along(ends: Ends, fds: list[int], count: int) -> None:
    """Least of all in a message that does not end."""
    ends.send(frame(5, b"payload")[:count], [fds[0], ends.vmm.fileno()])
    with pytest.raises(VhostError, match="socket"):
        ends.inbox.receive()


# What is in a message


def test_fields_are_all_that_there_is() -> None:
    assert Message(1, 1, struct.pack("=Q", 7), []).number() == 7
    for payload in (b"", bytes(7), bytes(9)):
        with pytest.raises(VhostError, match=f"{len(payload)} bytes"):
            Message(1, 1, payload, []).number()


def test_the_one_descriptor_is_taken_over(fds: list[int]) -> None:
    message = Message(1, 1, b"", [fd := os.dup(fds[0])])
    assert message.take_fd() == fd
    message.close()
    os.close(fd)


@pytest.mark.parametrize("count", [0, 2])
def test_not_exactly_one_descriptor(fds: list[int], count: int) -> None:
    with nothing_is_left_open():
        message = Message(12, 1, b"", [os.dup(fd) for fd in fds[:count]])
        with pytest.raises(VhostError, match=f"{count} descriptors"):
            message.take_fd()
        message.close()


def test_a_table_of_memory() -> None:
    places = [Place(1, 2, 3, 4), Place(5, 6, 7, 8)]
    payload = struct.pack("=II", 2, 0) + b"".join(struct.pack("=QQQQ", *it) for it in places)
    assert Message(5, 1, payload, [7, 8]).regions() == places
    for wrong, fds in (
        (payload, [7]),
        (payload[:-1], [7, 8]),
        (payload + b"x", [7, 8]),
        (payload[:4], []),
        (b"\xff\xff\xff\xff" + payload[4:], [7, 8]),
    ):
        with pytest.raises(VhostError, match="table"):
            Message(5, 1, wrong, fds).regions()


def test_a_single_region() -> None:
    payload = struct.pack("=QQQQQ", 0, 1, 2, 3, 4)
    assert Message(37, 1, payload, []).region() == Place(1, 2, 3, 4)
    for wrong in (payload[:-1], payload + b"x", b""):
        with pytest.raises(VhostError, match="37"):
            Message(37, 1, wrong, []).region()


def test_a_reply_is_framed_as_its_request() -> None:
    reply = Message(11, 1 | m.NEED_REPLY, b"", []).reply(b"payload")
    assert struct.unpack("=III", reply[:12]) == (11, 5, 7)
    assert reply[12:] == b"payload"

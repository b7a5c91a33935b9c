"""handover: what is asked for, what is taken, and what is not."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from server import handover
from server.handover import ABLE, ASKED, GIVEN, Pipes, asked, give, take
from server.wire.codec import HEADER, Malformed, parse
from server.wire.constants import NOTAG
from server.wire.messages import Tversion

from .peer import GUARD


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's socket and the client's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(GUARD)
        yield ours, theirs


@pytest.fixture
def ends() -> Iterator[dict[str, int]]:
    """Descriptors by what they are of."""
    incoming, to_server = os.pipe()
    from_server, outgoing = os.pipe()
    ends = {
        "incoming": incoming,
        "to server": to_server,
        "from server": from_server,
        "outgoing": outgoing,
        "file": os.open("/dev/null", os.O_RDWR),
        "path": os.open(f"/proc/self/fd/{incoming}", os.O_PATH),
    }
    yield ends
    for descriptor in ends.values():
        os.close(descriptor)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


Pair = tuple[socket.socket, socket.socket]
Ends = dict[str, int]


def gives(theirs: socket.socket, *given: int, said: bytes = GIVEN) -> None:
    socket.send_fds(theirs, [said], given)


def test_they_are_messages_that_no_dialect_has() -> None:
    for frame, kind in ((ASKED, 46), (ABLE, 47), (GIVEN, 48)):
        assert HEADER.unpack(frame) == (len(frame), kind, NOTAG)
        with pytest.raises(Malformed):
            parse(frame)


def test_pipes_are_taken_and_used_as_a_socket(pair: Pair, ends: Ends) -> None:
    ours, theirs = pair
    gives(theirs, ends["incoming"], ends["outgoing"])
    pipes = take(ours)
    assert isinstance(pipes, Pipes)
    room = memoryview(bytearray(8))
    with pytest.raises(BlockingIOError):
        pipes.recv_into(room)
    os.write(ends["to server"], b"abcdefgh")
    assert pipes.recv_into(room, 3) == 3
    assert pipes.recv_into(room[3:5]) == 2
    assert pipes.recvmsg_into([room[5:6], room[6:]]) == (3,)
    assert bytes(room) == b"abcdefgh"
    assert pipes.sendmsg([b"ab", memoryview(b"cd")]) == 4
    assert pipes.send(b"ef") == 2
    assert os.read(ends["from server"], 100) == b"abcdef"
    assert pipes.send(bytes(1 << 20)) < 1 << 20
    with pytest.raises(BlockingIOError):
        pipes.send(b"more")
    pipes.close()
    assert theirs.recv(1) == b""


def test_what_is_written_ends_before_what_is_read(pair: Pair, ends: Ends) -> None:
    ours, theirs = pair
    gives(theirs, ends["incoming"], ends["outgoing"])
    pipes = take(ours)
    assert pipes is not None
    os.close(ends["outgoing"])
    pipes.shutdown(socket.SHUT_WR)
    assert os.read(ends["from server"], 1) == b""
    os.write(ends["to server"], b"a")
    assert pipes.recv_into(memoryview(bytearray(8))) == 1
    ends["outgoing"] = os.open("/dev/null", os.O_RDWR)
    pipes.close()


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("incoming",),
        ("outgoing", "incoming"),
        ("incoming", "file"),
        ("file", "outgoing"),
        ("incoming", "from server"),
        ("path", "outgoing"),
    ],
)
def test_nothing_else_is_taken(pair: Pair, ends: Ends, given: tuple[str, ...]) -> None:
    ours, theirs = pair
    gives(theirs, *(ends[name] for name in given))
    before = descriptors()
    assert take(ours) is None
    assert ours.recv(100) == GIVEN
    assert descriptors() == before


def test_of_more_than_two_nothing_is_left(pair: Pair, ends: Ends) -> None:
    ours, theirs = pair
    gives(theirs, *(ends[name] for name in ("incoming", "outgoing", "file", "file", "file")))
    before = descriptors()
    pipes = take(ours)
    assert pipes is not None
    pipes.close()
    assert descriptors() == before - 1  # the socket


@pytest.mark.parametrize("said", [Tversion(8192, b"9P2000.L").frame(NOTAG), GIVEN[:3], b"x" * 7])
def test_an_ordinary_message_is_left_where_it_is(pair: Pair, ends: Ends, said: bytes) -> None:
    ours, theirs = pair
    gives(theirs, ends["incoming"], ends["outgoing"], said=said)
    before = descriptors()
    assert take(ours) is None
    assert ours.recv(100) == said
    assert descriptors() == before


def test_who_asks_is_answered(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(ASKED + b"more")
    assert asked(ours)
    assert theirs.recv(100) == ABLE
    assert not asked(ours)
    assert ours.recv(100) == b"more"


def test_a_socket_that_has_ended_asks_and_gives_nothing(pair: Pair) -> None:
    ours, theirs = pair
    assert not asked(ours)
    assert take(ours) is None
    theirs.close()
    assert not asked(ours)
    assert take(ours) is None


def test_who_has_gone_since_he_asked_gets_no_answer(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(ASKED)
    theirs.close()
    assert not asked(ours)
    assert ours.recv(100) == b""


@pytest.mark.parametrize("answer", [ABLE[:-1], Tversion(1, b"").frame(NOTAG), b""])
def test_for_another_answer_nothing_is_given(pair: Pair, ends: Ends, answer: bytes) -> None:
    ours, theirs = pair
    ours.send(answer)
    ours.shutdown(socket.SHUT_WR)
    assert not give(theirs, ends["incoming"], ends["outgoing"])
    theirs.close()
    assert ours.recv(100) == ASKED
    assert take(ours) is None


def test_who_does_not_answer_is_given_nothing(
    pair: Pair, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    monkeypatch.setattr(handover, "PATIENCE", 0.001)
    assert not give(theirs, ends["incoming"], ends["outgoing"])
    assert ours.recv(100) == ASKED
    assert take(ours) is None


def test_what_are_no_pipes_is_not_given(pair: Pair, ends: Ends) -> None:
    ours, theirs = pair
    assert not give(theirs, ends["file"], ends["outgoing"])
    assert not give(theirs, ends["to server"], ends["from server"])
    with pytest.raises(BlockingIOError):
        ours.recv(1)


def test_giving_and_taking_go_together(pair: Pair, ends: Ends) -> None:
    ours, theirs = pair
    ours.setblocking(True)
    results: list[bool] = []
    giving = threading.Thread(
        target=lambda: results.append(give(theirs, ends["incoming"], ends["outgoing"]))
    )
    giving.start()
    assert asked(ours)
    pipes = take(ours)
    giving.join(GUARD)
    assert results == [True]
    assert pipes is not None
    pipes.close()

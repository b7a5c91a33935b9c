"""codec: what is derived from the declaration of a message."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.wire import legacy
from server.wire import messages as m
from server.wire.codec import HEADER, MESSAGES, Malformed, Message, Qid, Table, parse
from server.wire.own import OWN

from ..strategies import kinds, messages

TABLES = (MESSAGES, OWN, legacy.UNIX, legacy.PLAIN)
ALL = sorted(
    {cls for table in TABLES for cls in table.values()}, key=lambda cls: (cls.TYPE, cls.__name__)
)
WITH_DATA = [cls for cls in ALL if any(kind.shape == "data" for kind in kinds(cls).values())]

every_message = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)

SAMPLES = {
    "B": 1,
    "H": 2,
    "I": 3,
    "Q": 4,
    "q": -5,
    "BIQ": Qid(6, 7, 8),
    "string": b"name",
    "strings": [b"one", b"", b"three"],
    "qids": [Qid(1, 2, 3), Qid(4, 5, 6)],
    "data": b"payload",
}


def table_of(cls: type[Message]) -> Table:
    """A dialect that has the message."""
    return next(table for table in TABLES if table.get(cls.TYPE) is cls)


def sample(cls: type[Message]) -> Message:
    """A message of this class with something in each of its fields."""
    return cls(*(SAMPLES[kind.code or kind.shape] for kind in kinds(cls).values()))


def resized(frame: bytes) -> bytes:
    """The frame with a size that fits its length."""
    return struct.pack("<I", len(frame)) + frame[4:]


# Round trips


@every_message
@settings(derandomize=True, deadline=None, max_examples=15)
@given(data=st.data(), tag=st.integers(0, 0xFFFF))
def test_every_message_survives_a_round_trip(
    cls: type[Message], data: st.DataObject, tag: int
) -> None:
    message = data.draw(messages(cls))
    frame = message.frame(tag)
    assert parse(frame, table_of(cls)) == (tag, message)
    assert HEADER.unpack_from(frame) == (len(frame), cls.TYPE, tag)


@every_message
def test_a_frame_is_found_anywhere_in_a_buffer(cls: type[Message]) -> None:
    message = sample(cls)
    frame = message.frame(1)
    buffer = memoryview(b"before" + frame + b"behind")
    assert cls(*cls.unpack(buffer, 6 + HEADER.size, 6 + len(frame))) == message


# Bytes that are no message


@every_message
def test_a_frame_cut_anywhere_is_malformed(cls: type[Message]) -> None:
    frame = sample(cls).frame(1)
    for length in range(HEADER.size, len(frame)):
        with pytest.raises(Malformed):
            parse(resized(frame[:length]), table_of(cls))


@every_message
def test_a_cut_frame_does_not_take_bytes_of_the_next(cls: type[Message]) -> None:
    frame = sample(cls).frame(1)
    for stop in range(HEADER.size, len(frame)):
        with pytest.raises(Malformed):
            cls.unpack(frame + frame, HEADER.size, stop)


@every_message
def test_a_byte_behind_the_last_field_is_malformed(cls: type[Message]) -> None:
    with pytest.raises(Malformed):
        parse(resized(sample(cls).frame(1) + b"\0"), table_of(cls))


@pytest.mark.parametrize("length", range(HEADER.size))
def test_less_than_a_header_is_malformed(length: int) -> None:
    with pytest.raises(Malformed):
        parse(m.Rclunk().frame(1)[:length])


@pytest.mark.parametrize("size", [0, 6, 10, 12, 0xFFFFFFFF])
def test_a_size_other_than_the_length_is_malformed(size: int) -> None:
    frame = m.Tclunk(1).frame(1)
    with pytest.raises(Malformed, match=f"size {size}"):
        parse(struct.pack("<I", size) + frame[4:])


def test_an_undeclared_type_is_malformed() -> None:
    with pytest.raises(Malformed, match="type 6"):
        parse(HEADER.pack(7, 6, 1))


@pytest.mark.parametrize("cls", [m.Twalk, m.Rwalk])
def test_a_list_longer_than_its_frame_is_malformed(cls: type[Message]) -> None:
    fixed = 10 if cls is m.Twalk else 2
    body = bytes(fixed - 2) + struct.pack("<H", 0xFFFF)
    with pytest.raises(Malformed):
        parse(HEADER.pack(7 + len(body), cls.TYPE, 1) + body)


def test_data_longer_than_its_frame_is_malformed() -> None:
    body = struct.pack("<IQI", 1, 0, 0xFFFFFFFF) + b"x"
    with pytest.raises(Malformed, match="Twrite"):
        parse(HEADER.pack(7 + len(body), m.Twrite.TYPE, 1) + body)


# Data


def test_these_messages_have_data() -> None:
    names = ["Rreaddir", "Rreaddirplus", "Rcreateplus", "Rread", "Twrite"]
    assert sorted(cls.__name__ for cls in WITH_DATA) == sorted(names)


@pytest.mark.parametrize("cls", WITH_DATA, ids=lambda cls: cls.__name__)
def test_a_head_and_its_data_are_the_frame(cls: type[Message]) -> None:
    message = sample(cls)
    *fixed, data = (getattr(message, name) for name in cls.__match_args__)
    assert cls.head(1, *fixed, len(data)) + data == message.frame(1)


def test_received_data_is_a_view_and_no_copy() -> None:
    buffer = bytearray(m.Twrite(1, 0, b"old").frame(1))
    *_, data = m.Twrite.unpack(memoryview(buffer), HEADER.size, len(buffer))
    buffer[-3:] = b"new"
    assert data == b"new"


def test_received_names_are_copies() -> None:
    buffer = bytearray(m.Twalk(1, 2, [b"old"]).frame(1))
    *_, names = m.Twalk.unpack(memoryview(buffer), HEADER.size, len(buffer))
    buffer[-3:] = b"new"
    assert names == [b"old"]


@pytest.mark.parametrize("data", [b"secret", bytearray(b"secret"), memoryview(b"secret")])
def test_a_repr_shows_only_the_length_of_data(data: bytes | bytearray | memoryview) -> None:
    assert repr(m.Twrite(1, 2, data)) == "Twrite(fid=1, offset=2, data=<6 bytes>)"


def test_a_repr_shows_the_other_fields() -> None:
    assert repr(m.Twalk(1, 2, [b"a"])) == "Twalk(fid=1, newfid=2, wnames=[b'a'])"


# Classes


def test_messages_are_slotted_and_compare_by_value() -> None:
    message = m.Tclunk(1)
    assert message == m.Tclunk(1)
    assert message != m.Tclunk(2)
    assert not hasattr(message, "__dict__")

"""messages: numbers and layouts, against frames written down by hand from the protocol's text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.wire import messages as m
from server.wire.codec import MESSAGES, Message, Qid, parse

from ..strategies import QIDS

#: net/9p's enum p9_msg_t: T-message -> number; each reply is one more.
NUMBERS = {
    "statfs": 8,
    "lopen": 12,
    "lcreate": 14,
    "symlink": 16,
    "mknod": 18,
    "rename": 20,
    "readlink": 22,
    "getattr": 24,
    "setattr": 26,
    "xattrwalk": 30,
    "xattrcreate": 32,
    "readdir": 40,
    "fsync": 50,
    "lock": 52,
    "getlock": 54,
    "link": 70,
    "mkdir": 72,
    "renameat": 74,
    "unlinkat": 76,
    "version": 100,
    "auth": 102,
    "attach": 104,
    "flush": 108,
    "walk": 110,
    "read": 116,
    "write": 118,
    "clunk": 120,
    "remove": 122,
}

QID = Qid(0x80, 0x01020304, 0x1122334455667788)
QID_HEX = "80 04030201 8877665544332211"

#: (message, its frame after size[4], with tag 0x2211)
FRAMES = [
    (m.Rlerror(2), "07 1122 02000000"),
    (m.Tversion(8192, b"9P2000.L"), "64 1122 00200000 0800 395032303030 2e4c"),
    (m.Rversion(8192, b"unknown"), "65 1122 00200000 0700 756e6b6e6f776e"),
    (m.Tauth(1, b"u", b"", 1000), "66 1122 01000000 0100 75 0000 e8030000"),
    (m.Rauth(QID), f"67 1122 {QID_HEX}"),
    (
        m.Tattach(1, 0xFFFFFFFF, b"root", b"/", 0),
        "68 1122 01000000 ffffffff 0400 726f6f74 0100 2f 00000000",
    ),
    (m.Rattach(QID), f"69 1122 {QID_HEX}"),
    (m.Tflush(0x0102), "6c 1122 0201"),
    (m.Rflush(), "6d 1122"),
    (m.Twalk(1, 2, [b"a", b"bc"]), "6e 1122 01000000 02000000 0200 0100 61 0200 6263"),
    (m.Rwalk([QID, QID]), f"6f 1122 0200 {QID_HEX} {QID_HEX}"),
    (m.Tlopen(1, 0o1002), "0c 1122 01000000 02020000"),
    (m.Rlopen(QID, 24), f"0d 1122 {QID_HEX} 18000000"),
    (
        m.Tlcreate(1, b"f", 0o102, 0o644, 1000),
        "0e 1122 01000000 0100 66 42000000 a4010000 e8030000",
    ),
    (m.Rlcreate(QID, 0), f"0f 1122 {QID_HEX} 00000000"),
    (m.Tsymlink(1, b"s", b"to", 5), "10 1122 01000000 0100 73 0200 746f 05000000"),
    (m.Rsymlink(QID), f"11 1122 {QID_HEX}"),
    (
        m.Tmknod(1, b"n", 0o020666, 1, 3, 0),
        "12 1122 01000000 0100 6e b6210000 01000000 03000000 00000000",
    ),
    (m.Trename(1, 2, b"n"), "14 1122 01000000 02000000 0100 6e"),
    (m.Treadlink(1), "16 1122 01000000"),
    (m.Rreadlink(b"to"), "17 1122 0200 746f"),
    (m.Tgetattr(1, 0x3FFF), "18 1122 01000000 ff3f000000000000"),
    (
        m.Rgetattr(1, QID, 2, 3, 4, 5, 6, 7, 8, 9, -1, 11, 12, 13, 14, 15, 16, 17, 18, 19),
        f"19 1122 0100000000000000 {QID_HEX} 02000000 03000000 04000000 "
        "0500000000000000 0600000000000000 0700000000000000 0800000000000000 0900000000000000 "
        "ffffffffffffffff 0b00000000000000 0c00000000000000 0d00000000000000 0e00000000000000 "
        "0f00000000000000 1000000000000000 1100000000000000 1200000000000000 1300000000000000",
    ),
    (
        m.Tsetattr(1, 2, 3, 4, 5, 6, -7, 8, 9, 10),
        "1a 1122 01000000 02000000 03000000 04000000 05000000 0600000000000000 "
        "f9ffffffffffffff 0800000000000000 0900000000000000 0a00000000000000",
    ),
    (m.Txattrwalk(1, 2, b"user.a"), "1e 1122 01000000 02000000 0600 757365722e61"),
    (m.Rxattrwalk(5), "1f 1122 0500000000000000"),
    (
        m.Txattrcreate(1, b"user.a", 5, 2),
        "20 1122 01000000 0600 757365722e61 0500000000000000 02000000",
    ),
    (m.Treaddir(1, 2, 3), "28 1122 01000000 0200000000000000 03000000"),
    (m.Rreaddir(b"abc"), "29 1122 03000000 616263"),
    (m.Tfsync(1, 1), "32 1122 01000000 01000000"),
    (
        m.Tlock(1, 2, 1, 3, 4, 5, b"me"),
        "34 1122 01000000 02 01000000 0300000000000000 0400000000000000 05000000 0200 6d65",
    ),
    (m.Rlock(1), "35 1122 01"),
    (
        m.Tgetlock(1, 2, 3, 4, 5, b"me"),
        "36 1122 01000000 02 0300000000000000 0400000000000000 05000000 0200 6d65",
    ),
    (
        m.Rgetlock(2, 3, 4, 5, b"me"),
        "37 1122 02 0300000000000000 0400000000000000 05000000 0200 6d65",
    ),
    (m.Tlink(1, 2, b"l"), "46 1122 01000000 02000000 0100 6c"),
    (m.Tmkdir(1, b"d", 0o755, 0), "48 1122 01000000 0100 64 ed010000 00000000"),
    (m.Trenameat(1, b"a", 2, b"b"), "4a 1122 01000000 0100 61 02000000 0100 62"),
    (m.Tunlinkat(1, b"a", 0x200), "4c 1122 01000000 0100 61 00020000"),
    (m.Tstatfs(1), "08 1122 01000000"),
    (
        m.Rstatfs(0x01021997, 2, 3, 4, 5, 6, 7, 8, 255),
        "09 1122 97190201 02000000 0300000000000000 0400000000000000 0500000000000000 "
        "0600000000000000 0700000000000000 0800000000000000 ff000000",
    ),
    (m.Tread(1, 2, 3), "74 1122 01000000 0200000000000000 03000000"),
    (m.Rread(b"abc"), "75 1122 03000000 616263"),
    (m.Twrite(1, 2, b"abc"), "76 1122 01000000 0200000000000000 03000000 616263"),
    (m.Rwrite(3), "77 1122 03000000"),
    (m.Tclunk(1), "78 1122 01000000"),
    (m.Rclunk(), "79 1122"),
    (m.Tremove(1), "7a 1122 01000000"),
    (m.Rremove(), "7b 1122"),
]


@pytest.mark.parametrize(
    ("message", "text"), FRAMES, ids=[type(message).__name__ for message, _ in FRAMES]
)
def test_frames_are_as_the_protocol_has_them(message: Message, text: str) -> None:
    body = bytes.fromhex(text)
    frame = (len(body) + 4).to_bytes(4, "little") + body
    assert message.frame(0x2211) == frame
    assert parse(frame) == (0x2211, message)


def test_the_numbers_are_those_of_the_protocol() -> None:
    expected = {7: "Rlerror"}
    for name, number in NUMBERS.items():
        expected |= {number: f"T{name}", number + 1: f"R{name}"}
    assert {number: cls.__name__ for number, cls in MESSAGES.items()} == expected


names = st.binary(max_size=255)
records = st.lists(st.tuples(QIDS, st.integers(0, (1 << 64) - 1), st.integers(0, 255), names))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(records)
def test_directory_records_survive_a_round_trip(
    listing: list[tuple[Qid, int, int, bytes]],
) -> None:
    data = b"".join(m.pack_record(*record) for record in listing)
    assert list(m.split_records(data)) == listing
    assert len(data) == sum(m.RECORD_SIZE + len(name) for *_, name in listing)


def test_a_directory_record_is_qid_offset_type_name() -> None:
    record = m.pack_record(QID, 7, 4, b"dir")
    assert record == bytes.fromhex(f"{QID_HEX} 0700000000000000 04 0300 646972")

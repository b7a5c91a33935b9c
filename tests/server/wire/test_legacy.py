"""legacy messages: numbers and layouts, against frames written down by hand from the manuals."""

from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.wire import legacy
from server.wire import messages as m
from server.wire.codec import Malformed, Message, Qid, Record, Table, parse

from ..strategies import ANYTHING

#: <fcall.h>: T-message -> number; each reply is one more.
NUMBERS = {
    "version": 100,
    "auth": 102,
    "attach": 104,
    "flush": 108,
    "walk": 110,
    "open": 112,
    "create": 114,
    "read": 116,
    "write": 118,
    "clunk": 120,
    "remove": 122,
    "stat": 124,
    "wstat": 126,
}
QID = Qid(0x80, 0x01020304, 0x1122334455667788)
QID_HEX = "80 04030201 8877665544332211"

#: What both dialects have in a stat, behind its size[2].
STAT = (0x0201, 0x06050403, QID, 0x800001ED, 3, 4, 5, b"name", b"us", b"g", b"")
STAT_HEX = (
    f"0102 03040506 {QID_HEX} ed010080 03000000 04000000 0500000000000000 "
    "0400 6e616d65 0200 7573 0100 67 0000"
)
RECORDS: list[tuple[type[Record], tuple[Any, ...], str]] = [
    (legacy.Stat, STAT, f"3600 {STAT_HEX}"),
    (
        legacy.StatUnix,
        (*STAT, b"to", 1000, 100, 0xFFFFFFFF),
        f"4600 {STAT_HEX} 0200 746f e8030000 64000000 ffffffff",
    ),
]

BOTH = [
    (legacy.Topen(1, 0x51), "70 1122 01000000 51"),
    (legacy.Ropen(QID, 24), f"71 1122 {QID_HEX} 18000000"),
    (legacy.Rcreate(QID, 24), f"73 1122 {QID_HEX} 18000000"),
    (legacy.Tstat(1), "7c 1122 01000000"),
    (legacy.Rstat(b"stat"), "7d 1122 0400 73746174"),
    (legacy.Twstat(1, b"stat"), "7e 1122 01000000 0400 73746174"),
    (legacy.Rwstat(), "7f 1122"),
    (m.Twalk(1, 2, [b"a"]), "6e 1122 01000000 02000000 0100 0100 61"),
]
#: (dialect, message, its frame after size[4], with tag 0x2211)
FRAMES: list[tuple[Table, Message, str]] = [
    *((legacy.PLAIN, *both) for both in BOTH),
    *((legacy.UNIX, *both) for both in BOTH),
    (legacy.PLAIN, legacy.Rerror(b"no"), "6b 1122 0200 6e6f"),
    (legacy.UNIX, legacy.RerrorUnix(b"no", 2), "6b 1122 0200 6e6f 02000000"),
    (legacy.PLAIN, legacy.TauthPlain(1, b"u", b""), "66 1122 01000000 0100 75 0000"),
    (legacy.UNIX, m.Tauth(1, b"u", b"", 7), "66 1122 01000000 0100 75 0000 07000000"),
    (
        legacy.PLAIN,
        legacy.TattachPlain(1, 0xFFFFFFFF, b"u", b"a"),
        "68 1122 01000000 ffffffff 0100 75 0100 61",
    ),
    (
        legacy.UNIX,
        m.Tattach(1, 0xFFFFFFFF, b"u", b"a", 7),
        "68 1122 01000000 ffffffff 0100 75 0100 61 07000000",
    ),
    (
        legacy.PLAIN,
        legacy.Tcreate(1, b"f", 0x800001ED, 2),
        "72 1122 01000000 0100 66 ed010080 02",
    ),
    (
        legacy.UNIX,
        legacy.TcreateUnix(1, b"f", 0x020001FF, 0, b"to"),
        "72 1122 01000000 0100 66 ff010002 00 0200 746f",
    ),
]


@pytest.mark.parametrize(
    ("table", "message", "text"), FRAMES, ids=[type(message).__name__ for _, message, _ in FRAMES]
)
def test_frames_are_as_the_manuals_have_them(table: Table, message: Message, text: str) -> None:
    body = bytes.fromhex(text)
    frame = (len(body) + 4).to_bytes(4, "little") + body
    assert message.frame(0x2211) == frame
    assert parse(frame, table) == (0x2211, message)


@pytest.mark.parametrize("table", [legacy.PLAIN, legacy.UNIX])
def test_the_numbers_are_those_of_the_manual(table: Table) -> None:
    expected = {107: "Rerror"}
    for name, number in NUMBERS.items():
        expected |= {number: f"T{name}", number + 1: f"R{name}"}
    found = {
        number: cls.__name__.removesuffix("Plain").removesuffix("Unix")
        for number, cls in table.items()
    }
    assert found == expected
    assert all(number == cls.TYPE for number, cls in table.items())


# Records


@pytest.mark.parametrize(("cls", "values", "text"), RECORDS, ids=["plain", "unix"])
def test_stats_are_as_the_manuals_have_them(
    cls: type[Record], values: tuple[Any, ...], text: str
) -> None:
    packed = bytes.fromhex(text)
    assert cls.pack(*values) == packed
    assert cls.unpack(packed, 2, len(packed)) == values


@pytest.mark.parametrize("cls", [legacy.Stat, legacy.StatUnix])
@settings(derandomize=True, deadline=None, max_examples=50)
@given(data=st.data())
def test_stats_survive_a_round_trip(cls: type[Record], data: st.DataObject) -> None:
    hints = get_type_hints(cls, include_extras=True)
    kinds = [hints[name].__metadata__[0] for name in cls.__match_args__]
    values = tuple(data.draw(ANYTHING[kind.code or kind.shape]) for kind in kinds)
    packed = cls.pack(*values)
    assert int.from_bytes(packed[:2], "little") == len(packed) - 2
    assert cls.unpack(packed, 2, len(packed)) == values


@pytest.mark.parametrize(("cls", "values"), [record[:2] for record in RECORDS])
def test_a_stat_cut_anywhere_is_malformed(cls: type[Record], values: tuple[Any, ...]) -> None:
    packed = cls.pack(*values)
    for length in range(2, len(packed)):
        with pytest.raises(Malformed):
            cls.unpack(packed, 2, length)
    with pytest.raises(Malformed):
        cls.unpack(packed + b"\0", 2, len(packed) + 1)

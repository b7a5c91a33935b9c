"""own: the messages of this project's own dialect, byte for byte."""

from server.wire.codec import MESSAGES, parse
from server.wire.own import OWN, Rreaddirplus, Treaddirplus


def test_the_dialect_is_9p2000_l_and_one_message_more() -> None:
    assert MESSAGES | {42: Treaddirplus, 43: Rreaddirplus} == OWN


def test_frames_are_as_they_are_declared() -> None:
    for message, text in (
        (Treaddirplus(1, 2, 3), "17000000 2a 1122 01000000 0200000000000000 03000000"),
        (Rreaddirplus(1, b"data"), "10000000 2b 1122 01 04000000 64617461"),
    ):
        frame = bytes.fromhex(text)
        assert message.frame(0x2211) == frame
        assert parse(frame, OWN) == (0x2211, message)

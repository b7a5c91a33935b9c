"""own: the messages of this project's own dialect, byte for byte."""

from server.wire.codec import MESSAGES, parse
from server.wire.own import OWN, Rcreateplus, Rreaddirplus, Tcreateplus, Treaddirplus


def test_the_dialect_is_9p2000_l_and_two_requests_more() -> None:
    more = {42: Treaddirplus, 43: Rreaddirplus, 44: Tcreateplus, 45: Rcreateplus}
    assert MESSAGES | more == OWN


def test_frames_are_as_they_are_declared() -> None:
    for message, text in (
        (Treaddirplus(1, 2, 3), "17000000 2a 1122 01000000 0200000000000000 03000000"),
        (Rreaddirplus(1, b"data"), "10000000 2b 1122 01 04000000 64617461"),
        (
            Tcreateplus(1, 2, b"name", 3, 4, 5),
            "21000000 2c 1122 01000000 02000000 0400 6e616d65 03000000 04000000 05000000",
        ),
        (Rcreateplus(b"data"), "0f000000 2d 1122 04000000 64617461"),
    ):
        frame = bytes.fromhex(text)
        assert message.frame(0x2211) == frame
        assert parse(frame, OWN) == (0x2211, message)

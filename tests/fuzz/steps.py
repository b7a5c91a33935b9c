"""Steps: what an input of the fuzzer says, as bytes and as a list.

Rules of this file:

* Any bytes are steps: ``code[1] number[2]``, and behind a FEED as many bytes.
* ``code`` is the operation, the connection it is done on, and whether swap is in the host's cache.
"""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

_HEAD = Struct("<BH")

#: How many connections there are: three of root, of which one has tight limits and one does not
#: wait for locks, and one of another user.
CONNECTIONS = 4
#: Who they are.
USERS = (0, 0, 0, 1000)
#: A FILL feeds as many bytes for each that it counts.
GRAIN = 16


class Op(IntEnum):
    """What can be done, with a number as the argument."""

    FEED = 0  # bytes come in
    FILL = 1  # so many times GRAIN bytes come in, which no input needs to hold
    RUN = 2  # the loop takes some steps (5 bits), and the disk one (the next bit)
    SETTLE = 3  # everything runs that can
    PAGE_OUT = 4  # page-out begins, of all that there is
    CLOSE = 5  # the connection ends, and a new one takes its place
    EXPORT = 6  # the export "more" comes, or goes


class Step(NamedTuple):
    """One step.

    Attributes:
        cached: what is in swap can be read without waiting for a disk.
    """

    op: Op
    conn: int = 0
    number: int = 0
    data: bytes = b""
    cached: bool = False

    def encoded(self) -> bytes:
        number = len(self.data) if self.op is Op.FEED else self.number
        return _HEAD.pack(self.op | self.conn << 3 | self.cached << 5, number) + self.data


def feed(data: bytes, conn: int = 0) -> Step:
    return Step(Op.FEED, conn, len(data), data)


def encode(steps: Iterable[Step]) -> bytes:
    return b"".join(step.encoded() for step in steps)


def decode(data: bytes) -> Iterator[Step]:
    at = 0
    while at + _HEAD.size <= len(data):
        code, number = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        op = Op((code & 7) % len(Op))
        fed = b""
        if op is Op.FEED:
            fed = data[at : at + number]
            at += number
        yield Step(op, (code >> 3 & 3) % CONNECTIONS, number, fed, bool(code & 32))

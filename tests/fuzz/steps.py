"""Steps: what an input of the fuzzer says, as bytes and as a list.

Rules of this file:

* Any bytes are steps: ``code[1] number[2]``, and behind some operations as many bytes.
* ``code`` is the operation, the connection or machine it is done on, and whether swap is in the
  host's cache.
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
    # Those of virtual machines (see machine.py)
    SAY = 8  # the VMM says these bytes, with the descriptors that the first of them tells
    POKE = 9  # bytes from the fifth on are written to memory, where the first four of them tell
    ASK = 10  # the guest makes a request, in pieces of memory as the first byte tells
    OFFER = 11  # it makes the chain of this number available, whatever that is
    KICK = 12  # it tells that there is something
    PLUG = 13  # another VMM comes in place of this one; how it begins, the number tells


#: What bytes come with.
WITH_DATA = (Op.FEED, Op.SAY, Op.POKE, Op.ASK)
#: How many operations there are without machines, and with them alone.
_PLAIN, _MACHINE = 7, 6


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
        number = len(self.data) if self.op in WITH_DATA else self.number
        code = self.op & 7 | self.conn << 3 | self.cached << 5 | (self.op & 8) << 3
        return _HEAD.pack(code, number) + self.data


def feed(data: bytes, conn: int = 0) -> Step:
    return Step(Op.FEED, conn, len(data), data)


def encode(steps: Iterable[Step]) -> bytes:
    return b"".join(step.encoded() for step in steps)


def decode(data: bytes) -> Iterator[Step]:
    at = 0
    while at + _HEAD.size <= len(data):
        code, number = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        op = Op(8 + (code & 7) % _MACHINE if code & 64 else (code & 7) % _PLAIN)
        fed = b""
        if op in WITH_DATA:
            fed = data[at : at + number]
            at += number
        yield Step(op, (code >> 3 & 3) % CONNECTIONS, number, fed, bool(code & 32))

"""What the generated encoders and decoders of :mod:`.codec` are built on.

Rules of this file:

* Lists stand in a frame behind their count, which the generated code packs and unpacks.
* A list that leads outside its frame is :exc:`Malformed` before it is read.
"""

from struct import Struct
from typing import Final, NamedTuple

Buffer = bytes | bytearray | memoryview

#: size[4] type[1] tag[2], which every frame begins with; size counts itself.
HEADER: Final = Struct("<IBH")
HEADER_SIZE: Final = HEADER.size


class Malformed(ValueError):  # noqa: N818 an adjective says it best
    """Bytes that are no message: short, trailing, or a length that leads outside the frame."""


class Qid(NamedTuple):
    """What identifies a file to clients (intro(5)): 13 bytes on the wire."""

    type: int
    version: int
    path: int


#: What may stand for a Qid that is packed.
QidFields = tuple[int, int, int]


_U16: Final = Struct("<H")
_QID: Final = Struct("<BIQ")


def join_strings(strings: list[bytes]) -> bytes:
    return b"".join(part for string in strings for part in (_U16.pack(len(string)), string))


def split_strings(buffer: Buffer, at: int, stop: int, count: int) -> tuple[list[bytes], int]:
    strings = []
    for _ in range(count):
        if at >= stop:
            raise Malformed("a list that leads outside its frame")
        length = _U16.unpack_from(buffer, at)[0]
        strings.append(bytes(buffer[at + 2 : at + 2 + length]))
        at += 2 + length
    return strings, at


def pack_qids(qids: list[QidFields]) -> bytes:
    return b"".join(_QID.pack(*qid) for qid in qids)


def split_qids(buffer: Buffer, at: int, stop: int, count: int) -> tuple[list[Qid], int]:
    end = at + count * _QID.size
    if end > stop:
        raise Malformed("a list that leads outside its frame")
    return [Qid(*_QID.unpack_from(buffer, place)) for place in range(at, end, _QID.size)], end

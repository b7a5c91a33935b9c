"""The records that the data of an Rreaddirplus is made of: offset[8] name[s], and as Rgetattr."""

from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

from .messages import Rgetattr
from .primitives import HEADER

_HEAD: Final = Struct("<QH")
#: Bytes of a file's attributes.
_ATTRIBUTES: Final = len(Rgetattr.pack(0, 0, (0, 0, 0), *(0,) * 18)) - HEADER.size


def pack_entry(offset: int, name: bytes, attributes: bytes) -> bytes:
    """One entry: ``offset`` resumes behind it; its attributes are a frame, an Rgetattr."""
    return _HEAD.pack(offset, len(name)) + name + attributes[HEADER.size :]


def split_entries(data: bytes) -> Iterator[tuple[int, bytes, tuple[Any, ...]]]:
    """The entries: offset, name, and the fields of the Rgetattr.

    Raises:
        Malformed, struct.error: there are none such.
    """
    at = 0
    while at < len(data):
        offset, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        stop = at + _ATTRIBUTES
        yield offset, data[at - length : at], Rgetattr.unpack(data, at, stop)
        at = stop

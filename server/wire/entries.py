"""What the data of an Rreaddirplus and of an Rcreateplus is made of.

An Rreaddirplus has records.  Each is offset[8] xattrs[1] name[s], and what an Rgetattr has; xattrs
is 0 if the file has no extended attributes, else 1.  An Rcreateplus has what two Rgetattrs have.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

from .messages import Rgetattr
from .primitives import HEADER, Buffer

_HEAD: Final = Struct("<QBH")
#: Bytes of a file's attributes.
_ATTRIBUTES: Final = len(Rgetattr.pack(0, 0, (0, 0, 0), *(0,) * 18)) - HEADER.size


def pack_entry(offset: int, xattrs: bool, name: bytes, attributes: bytes) -> bytes:
    """One entry: ``offset`` resumes behind it; its attributes are a frame, an Rgetattr."""
    return _HEAD.pack(offset, xattrs, len(name)) + name + attributes[HEADER.size :]


def split_entries(data: bytes) -> Iterator[tuple[int, bool, bytes, tuple[Any, ...]]]:
    """The entries: offset, whether there are extended attributes, name, fields of the Rgetattr.

    Raises:
        Malformed, struct.error: there are none such.
    """
    at = 0
    while at < len(data):
        offset, xattrs, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        stop = at + _ATTRIBUTES
        yield offset, bool(xattrs), data[at - length : at], Rgetattr.unpack(data, at, stop)
        at = stop


def pack_two(first: bytes, second: bytes) -> bytes:
    """The attributes of two files; each is a frame, an Rgetattr."""
    return first[HEADER.size :] + second[HEADER.size :]


def split_two(data: Buffer) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The fields of both Rgetattrs.

    Raises:
        Malformed: there are none such.
    """
    second = Rgetattr.unpack(data, _ATTRIBUTES, len(data))
    return Rgetattr.unpack(data, 0, _ATTRIBUTES), second

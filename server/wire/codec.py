"""Encoders and decoders, derived from the declaration of a message.

A message is a class whose annotated fields, in their order, ARE the wire format::

    @message(24)
    class Tgetattr:
        fid: U32
        request_mask: U64

:func:`message` makes it a slotted dataclass and generates, once, from the fields' kinds:

* ``Tgetattr.pack(tag, fid, request_mask) -> bytes``, the whole frame;
* ``Tgetattr.unpack(buffer, start, stop) -> (fid, request_mask)``, from the body of a frame, which
  must end exactly at ``stop`` (else :exc:`Malformed`); data fields are views into the buffer;
* ``Tgetattr.call(buffer, start, stop, function, client, tag)``, which unpacks in the same way, and
  returns ``function(client, tag, fid, request_mask)``;
* for a message that ends in data, ``head(tag, ..., count) -> bytes``: the frame up to its data,
  so that the data itself can be sent from where it lies.

A run of fields of fixed size is one precompiled :class:`struct.Struct`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from struct import Struct, error
from typing import (
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    TypeVar,
    dataclass_transform,
    get_type_hints,
)

Buffer = bytes | bytearray | memoryview

#: size[4] type[1] tag[2], which every frame begins with; size counts itself.
HEADER = Struct("<IBH")


class Malformed(ValueError):  # noqa: N818 an adjective says it best
    """Bytes that are no message: short, trailing, or a length that leads outside the frame."""


class Qid(NamedTuple):
    """What identifies a file to clients (intro(5)): 13 bytes on the wire."""

    type: int
    version: int
    path: int


#: What may stand for a Qid that is packed.
QidFields = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a field is laid out: ``code`` its struct code if its size is fixed, else ``shape``."""

    code: str = ""
    shape: str = ""


U8 = Annotated[int, Kind("B")]
U16 = Annotated[int, Kind("H")]
U32 = Annotated[int, Kind("I")]
U64 = Annotated[int, Kind("Q")]
I64 = Annotated[int, Kind("q")]
QID = Annotated[Qid, Kind("BIQ")]
STRING = Annotated[bytes, Kind(shape="string")]
STRINGS = Annotated[list[bytes], Kind(shape="strings")]
QIDS = Annotated[list[Qid], Kind(shape="qids")]
DATA = Annotated[Buffer, Kind(shape="data")]


class Message:
    """What every declared message has besides its fields."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]]
    TYPE: ClassVar[int]
    pack: ClassVar[Callable[..., bytes]]
    head: ClassVar[Callable[..., bytes]]
    unpack: ClassVar[Callable[[Buffer, int, int], tuple[Any, ...]]]
    call: ClassVar[Callable[..., Any]]

    def frame(self, tag: int) -> bytes:
        """This message as a frame."""
        return type(self).pack(tag, *(getattr(self, field) for field in self.__match_args__))

    def __repr__(self) -> str:
        shown = []
        for name in self.__match_args__:
            value = getattr(self, name)
            if isinstance(value, bytearray | memoryview) or name == "data":
                value = f"<{len(value)} bytes>"
            shown.append(f"{name}={value}")
        return f"{type(self).__name__}({', '.join(shown)})"


M = TypeVar("M", bound=Message)

#: All declared messages by type.
MESSAGES: dict[int, type[Message]] = {}


@dataclass_transform()
def message(number: int) -> Callable[[type[M]], type[M]]:
    """Declare a class as the message of type ``number``."""

    def declare(cls: type[M]) -> type[M]:
        made = dataclass(slots=True, repr=False)(cls)
        made.TYPE = number
        _derive(made)
        MESSAGES[number] = made
        return made

    return declare


def parse(frame: Buffer) -> tuple[int, Message]:
    """A whole frame as (tag, message).

    Raises:
        Malformed: it is not one frame of a declared message.
    """
    if len(frame) < HEADER.size:
        raise Malformed(f"frame of {len(frame)} bytes")
    size, number, tag = HEADER.unpack_from(frame)
    cls = MESSAGES.get(number)
    if size != len(frame) or cls is None:
        raise Malformed(f"frame of {len(frame)} bytes: size {size}, type {number}")
    return tag, cls(*cls.unpack(frame, HEADER.size, size))


# Code generation.  A message is a sequence of runs: fixed fields, then at most one field of
# variable size, whose 16- or 32-bit count is the last item of the fixed part.

_COUNT = {"string": "H", "strings": "H", "qids": "H", "data": "I"}


def _runs(cls: type[Message]) -> list[tuple[list[tuple[str, str]], tuple[str, str] | None]]:
    """The fields as runs: ([(name, struct code), ...], (name, shape) or None)."""
    hints = get_type_hints(cls, include_extras=True)
    runs: list[tuple[list[tuple[str, str]], tuple[str, str] | None]] = []
    fixed: list[tuple[str, str]] = []
    for name in cls.__match_args__:
        kind = hints[name].__metadata__[0]
        if kind.code:
            fixed.append((name, kind.code))
        else:
            runs.append((fixed, (name, kind.shape)))
            fixed = []
    if fixed or not runs:
        runs.append((fixed, None))
    return runs


def _derive(cls: type[Message]) -> None:
    """Generate pack, head, unpack and call of a message and attach them."""
    runs = _runs(cls)
    scope: dict[str, Any] = {
        "Malformed": Malformed,
        "Qid": Qid,
        "error": error,
        "join_strings": _join_strings,
        "split_strings": _split_strings,
        "pack_qids": _pack_qids,
        "split_qids": _split_qids,
    }
    for i, (fixed, variable) in enumerate(runs):
        codes = _codes(fixed, variable)
        scope[f"pack{i}"] = Struct("<" + ("IBH" if i == 0 else "") + codes).pack
        scope[f"unpack{i}"] = Struct("<" + codes).unpack_from
    sources = {
        "pack": _pack_source(cls, runs),
        "unpack": _unpack_source(cls, runs, "unpack(buffer, at, stop)", "({})", ""),
        "call": _unpack_source(
            cls, runs, "call(buffer, at, stop, function, client, tag)", "function({})", "client, tag, "
        ),
    }
    if runs[-1][1] and runs[-1][1][1] == "data":
        sources["head"] = _head_source(cls, runs)
    for name, source in sources.items():
        exec(source, scope)  # noqa: S102 generated from the declarations in this package alone
        setattr(cls, name, staticmethod(scope[name]))


def _codes(fixed: list[tuple[str, str]], variable: tuple[str, str] | None) -> str:
    """The struct codes of a run's fixed part."""
    return "".join(code for _, code in fixed) + (_COUNT[variable[1]] if variable else "")


def _size(fixed: list[tuple[str, str]], variable: tuple[str, str] | None) -> int:
    """The bytes of a run's fixed part."""
    return Struct("<" + _codes(fixed, variable)).size


def _qid_parts(name: str) -> list[str]:
    """The names of the parts of a qid field."""
    return [f"{name}_type", f"{name}_version", f"{name}_path"]


def _parts(cls: type[Message], runs: list[Any]) -> tuple[list[str], list[str]]:
    """Of the encoder: its statements, and the expressions it joins."""
    body: list[str] = []
    parts: list[str] = []
    size = str(HEADER.size + sum(_size(fixed, variable) for fixed, variable in runs))
    for i, (fixed, variable) in enumerate(runs):
        values = ["{size}", str(cls.TYPE), "tag"] if i == 0 else []
        for name, code in fixed:
            if code == "BIQ":
                body.append(f"{', '.join(_qid_parts(name))} = {name}")
                values += _qid_parts(name)
            else:
                values.append(name)
        if variable:
            name, shape = variable
            encoded = name
            values.append(f"len({name})")
            if shape in ("strings", "qids"):
                encoded = f"{name}_bytes"
                encode = "join_strings" if shape == "strings" else "pack_qids"
                body.append(f"{encoded} = {encode}({name})")
            size += f" + len({encoded})"
        parts.append(f"pack{i}({', '.join(values)})")
        if variable:
            parts.append(encoded)
    parts[0] = parts[0].replace("{size}", size)
    return body, parts


def _pack_source(cls: type[Message], runs: list[Any]) -> str:
    body, parts = _parts(cls, runs)
    result = parts[0] if len(parts) == 1 else f"b''.join(({', '.join(parts)}))"
    lines = [f"def pack({', '.join(['tag', *cls.__match_args__])}):", *body, f"return {result}"]
    return "\n    ".join(lines)


def _head_source(cls: type[Message], runs: list[Any]) -> str:
    """The encoder of a message with one run, up to its data, of which only the length is given."""
    (fixed, variable) = runs[0]
    _, parts = _parts(cls, runs)
    arguments = ["tag", *(name for name, _ in fixed), "count"]
    packed = parts[0].replace(f"len({variable[0]})", "count")
    return f"def head({', '.join(arguments)}):\n    return {packed}"


def _unpack_source(
    cls: type[Message], runs: list[Any], signature: str, result: str, first: str
) -> str:
    """The decoder: a function that returns ``result`` of what is ``first``, and the fields."""
    body: list[str] = []
    fields: list[str] = []
    for i, (fixed, variable) in enumerate(runs):
        targets: list[str] = []
        for name, code in fixed:
            if code == "BIQ":
                targets += _qid_parts(name)
                fields.append(f"Qid({', '.join(_qid_parts(name))})")
            else:
                targets.append(name)
                fields.append(name)
        if variable:
            targets.append("count")
        if targets:
            body.append(f"{', '.join(targets)}, = unpack{i}(buffer, at)")
            body.append(f"at += {_size(fixed, variable)}")
        if variable:
            name, shape = variable
            fields.append(name)
            if shape == "string":
                body += [f"{name} = bytes(buffer[at:at + count])", "at += count"]
            elif shape == "data":
                body += [f"{name} = buffer[at:at + count]", "at += count"]
            else:
                body.append(f"{name}, at = split_{shape}(buffer, at, stop, count)")
    if body:
        body = [
            "try:",
            *(f"    {line}" for line in body),
            "except error as e:",
            f"    raise Malformed(f'{cls.__name__}: {{e}}') from None",
        ]
    lines = [
        f"def {signature}:",
        *body,
        "if at != stop:",
        f"    raise Malformed(f'{cls.__name__}: {{stop - at}} bytes behind its last field')",
        "return " + result.format(first + "".join(f"{field}, " for field in fields)),
    ]
    return "\n    ".join(lines)


_U16 = Struct("<H")
_QID = Struct("<BIQ")


def _join_strings(strings: list[bytes]) -> bytes:
    return b"".join(part for string in strings for part in (_U16.pack(len(string)), string))


def _split_strings(buffer: Buffer, at: int, stop: int, count: int) -> tuple[list[bytes], int]:
    strings = []
    for _ in range(count):
        if at >= stop:
            raise Malformed("a list that leads outside its frame")
        length = _U16.unpack_from(buffer, at)[0]
        strings.append(bytes(buffer[at + 2 : at + 2 + length]))
        at += 2 + length
    return strings, at


def _pack_qids(qids: list[QidFields]) -> bytes:
    return b"".join(_QID.pack(*qid) for qid in qids)


def _split_qids(buffer: Buffer, at: int, stop: int, count: int) -> tuple[list[Qid], int]:
    end = at + count * _QID.size
    if end > stop:
        raise Malformed("a list that leads outside its frame")
    return [Qid(*_QID.unpack_from(buffer, place)) for place in range(at, end, _QID.size)], end

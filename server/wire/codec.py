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
  so that the data itself can be sent from where it lies; and ``HEAD``, the layout of its fields up
  to the data and its count, so that the data itself can be received where it shall lie.

What stands inside of messages as a whole, such as what 9P2000 tells of a file, is declared in the
same way by :func:`record`; it has ``pack(...)`` and ``unpack(buffer, start, stop)`` alone, without
a tag, and ``unpack`` begins behind its size[2].

A dialect is a table of messages by their numbers; :func:`message` enters one into those it is told.

Their source comes from :mod:`.generator`.  A build that compiles has them in a module, else they
are made of that source here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from struct import Struct
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform, get_type_hints

from .generator import FUNCTIONS, PREAMBLE, Field, Kind, Run, source
from .primitives import HEADER, Buffer, Malformed, Qid

__all__ = [
    "DECLARED",
    "HEADER",
    "MESSAGES",
    "Buffer",
    "Kind",
    "Malformed",
    "Message",
    "Qid",
    "Record",
    "message",
    "parse",
    "record",
]

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


class Record:
    """What everything that is declared has besides its fields."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]]
    pack: ClassVar[Callable[..., bytes]]
    unpack: ClassVar[Callable[[Buffer, int, int], tuple[Any, ...]]]


class Message(Record):
    """What every declared message has besides its fields."""

    __slots__ = ()
    TYPE: ClassVar[int]
    head: ClassVar[Callable[..., bytes]]
    HEAD: ClassVar[Struct]
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
R = TypeVar("R", bound=Record)

#: A dialect: its messages by type.
Table = dict[int, type[Message]]
#: All messages of 9P2000.L.
MESSAGES: Table = {}
#: All that was declared.
DECLARED: list[type[Record]] = []


@dataclass_transform()
def message(number: int, *tables: Table) -> Callable[[type[M]], type[M]]:
    """Declare a class as the message of type ``number``, of 9P2000.L or else of these dialects."""

    def declare(cls: type[M]) -> type[M]:
        made = dataclass(slots=True, repr=False)(cls)
        made.TYPE = number
        _derive(made)
        for table in tables or (MESSAGES,):
            table[number] = made
        return made

    return declare


@dataclass_transform()
def record(cls: type[R]) -> type[R]:
    """Declare a class as a record."""
    made = dataclass(slots=True)(cls)
    _derive(made)
    return made


def parse(frame: Buffer, messages: Table = MESSAGES) -> tuple[int, Message]:
    """A whole frame as (tag, message).

    Raises:
        Malformed: it is not one frame of a message of the dialect.
    """
    if len(frame) < HEADER.size:
        raise Malformed(f"frame of {len(frame)} bytes")
    size, number, tag = HEADER.unpack_from(frame)
    cls = messages.get(number)
    if size != len(frame) or cls is None:
        raise Malformed(f"frame of {len(frame)} bytes: size {size}, type {number}")
    return tag, cls(*cls.unpack(frame, HEADER.size, size))


#: Where setup.py puts the functions of all messages if it compiles.
COMPILED = "server.wire.compiled"


def _scope() -> dict[str, Any]:
    """What holds the functions of the messages: those that were compiled, or as yet none."""
    if find_spec(COMPILED):
        return vars(import_module(COMPILED))
    scope: dict[str, Any] = {}
    exec(PREAMBLE, scope)  # noqa: S102 a constant
    return scope


_SCOPE = _scope()


def source_of(cls: type[Record]) -> str:
    """The functions of a message or record, as the generator makes them from its fields."""
    number = cls.TYPE if issubclass(cls, Message) else None
    return source(cls.__name__, number, _fields(cls))


def _fields(cls: type[Record]) -> list[Field]:
    hints = get_type_hints(cls, include_extras=True)
    return [Field(name, hints[name].__metadata__[0]) for name in cls.__match_args__]


def _derive(cls: type[Record]) -> None:
    """Attach the functions of a message or record."""
    DECLARED.append(cls)
    if f"pack_{cls.__name__}" not in _SCOPE:
        exec(source_of(cls), _SCOPE)  # noqa: S102 made from the declarations in this package alone
    for function in FUNCTIONS:
        made = _SCOPE.get(f"{function}_{cls.__name__}")
        if made is not None:
            setattr(cls, function, staticmethod(made))
    if issubclass(cls, Message) and hasattr(cls, "head"):
        *fixed, data = _fields(cls)
        cls.HEAD = Struct("<" + Run(fixed, data).codes)

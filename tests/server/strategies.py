"""Hypothesis strategies for messages, derived from the declared kinds of their fields."""

from typing import Any, get_type_hints

from hypothesis import strategies as st

from server.wire.codec import Kind, Message, Qid
from server.wire.own import OWN

REQUESTS = [cls for cls in OWN.values() if cls.__name__.startswith("T")]

#: Kind -> what such a field may hold.
Choices = dict[str, st.SearchStrategy[Any]]

INTEGERS: Choices = {
    "B": st.integers(0, 0xFF),
    "H": st.integers(0, 0xFFFF),
    "I": st.integers(0, 0xFFFFFFFF),
    "Q": st.integers(0, (1 << 64) - 1),
    "q": st.integers(-(1 << 63), (1 << 63) - 1),
}
QIDS = st.builds(Qid, INTEGERS["B"], INTEGERS["I"], INTEGERS["Q"])
ANYTHING: Choices = {
    **INTEGERS,
    "BIQ": QIDS,
    "string": st.binary(max_size=300),
    "strings": st.lists(st.binary(max_size=30), max_size=20),
    "qids": st.lists(QIDS, max_size=20),
    "data": st.binary(max_size=300),
}

#: What names the few files that a fuzzed session has, so that requests do meet each other.
SMALL = st.sampled_from([0, 1, 2, 3, 4, 0o1000, 4096, 65536, (1 << 31) + 1, (1 << 32) - 1])
NAMES = st.sampled_from([b"a", b"b", b"c", b"..", b".", b"", b"a/b", b"a\0", b"user.a", b"x" * 256])
NEAR: Choices = {
    "B": st.integers(0, 3),
    "H": st.integers(0, 5),
    "I": st.integers(0, 4) | SMALL,
    "Q": st.integers(0, 4) | SMALL | st.sampled_from([(1 << 63) - 1, (1 << 64) - 1]),
    "q": st.sampled_from([0, 1, -1, (1 << 63) - 1]),
    "string": NAMES,
    "strings": st.lists(NAMES, max_size=3),
    "data": st.binary(max_size=20),
}


def kinds(cls: type[Message]) -> dict[str, Kind]:
    """The fields of a message and how each is laid out."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: hints[name].__metadata__[0] for name in cls.__match_args__}


def messages(cls: type[Message], choices: Choices = ANYTHING) -> st.SearchStrategy[Message]:
    fields = {name: choices[kind.code or kind.shape] for name, kind in kinds(cls).items()}
    return st.builds(cls, **fields)


def requests(choices: Choices = NEAR) -> st.SearchStrategy[Message]:
    """Any request but Tversion, after which there is nothing left to ask for."""
    classes = [cls for cls in REQUESTS if cls.__name__ != "Tversion"]
    return st.sampled_from(classes).flatmap(lambda cls: messages(cls, choices))

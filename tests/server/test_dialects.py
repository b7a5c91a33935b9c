"""dialects: which one a version string chooses, and that all of a dialect is answered."""

import pytest

from server.dialects import NATIVE, Dialect, dialect_of
from server.wire import constants as c
from server.wire import legacy
from server.wire.codec import MESSAGES, Table
from server.wire.messages import Tflush, Tversion
from server.wire.own import OWN

#: What a session answers itself.
BY_SESSION = {Tversion.TYPE, Tflush.TYPE}


def dialect(version: bytes) -> Dialect:
    found = dialect_of(version)
    assert found is not None
    return found


@pytest.mark.parametrize("version", [c.VERSION, c.VERSION_OWN, c.VERSION_UNIX, c.VERSION_PLAIN])
def test_a_dialect_is_found_by_its_name(version: bytes) -> None:
    assert dialect(version).version == version
    assert (dialect(version) is NATIVE) == (version == c.VERSION)


def test_an_unknown_extension_is_the_dialect_that_it_extends() -> None:
    assert dialect(b"9P2000.e").version == c.VERSION_PLAIN
    assert dialect_of(b"9P2020.L") is None


@pytest.mark.parametrize(
    ("version", "messages"),
    [
        (c.VERSION, MESSAGES),
        (c.VERSION_OWN, OWN),
        (c.VERSION_UNIX, legacy.UNIX),
        (c.VERSION_PLAIN, legacy.PLAIN),
    ],
)
def test_every_request_of_a_dialect_is_answered(version: bytes, messages: Table) -> None:
    requests = {cls.TYPE for cls in messages.values() if cls.__name__.startswith("T")}
    handlers = dialect(version).handlers
    assert requests == handlers.keys() | BY_SESSION
    assert all(call is messages[kind].call for kind, (call, _) in handlers.items())

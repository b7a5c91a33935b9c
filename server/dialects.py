"""Dialects: what of 9P a client speaks, as its Tversion says, and what answers it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .handlers import HANDLERS, Handlers
from .legacy import Plain, Unix
from .own import OWN
from .wire.constants import VERSION, VERSION_OWN, VERSION_PLAIN, VERSION_UNIX
from .wire.messages import Rlerror


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect.

    Attributes:
        version: its name, as Rversion says it.
        handlers: of its requests.
        error: makes the frame that refuses a request, of its tag and an errno.
    """

    version: bytes
    handlers: Handlers
    error: Callable[[int, int], bytes]


#: The one that is spoken until something else was agreed on.
NATIVE: Final = Dialect(VERSION, HANDLERS, Rlerror.pack)

_DIALECTS: Final = {
    VERSION: NATIVE,
    VERSION_OWN: Dialect(VERSION_OWN, HANDLERS | OWN, Rlerror.pack),
    VERSION_UNIX: Dialect(VERSION_UNIX, Unix().handlers(), Unix.error),
    VERSION_PLAIN: Dialect(VERSION_PLAIN, Plain().handlers(), Plain.error),
}


def dialect_of(version: bytes) -> Dialect | None:
    """The dialect to answer a client in; of an extension that is unknown, what it extends
    (version(5)); None if it is no version that this server knows.
    """
    return _DIALECTS.get(version) or _DIALECTS.get(version.partition(b".")[0])

"""The one door from exceptions to errno, which is all that a 9P2000.L client can be told.

Clients of 9P2000 are told its text instead, those of 9P2000.u both.
"""

import errno
import os

import structlog

log = structlog.get_logger()


class ProtocolError(Exception):
    """The peer broke the framing, so that nothing after it can be trusted: the connection ends."""


def errno_of(error: Exception) -> int:
    """The errno, within 1..4095, that answers a request which raised ``error``.

    What nobody foresaw is EIO, and its traceback is logged.
    """
    if isinstance(error, OSError) and error.errno is not None and 0 < error.errno < 4096:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    log.error("request failed unexpectedly", exc_info=error)
    return errno.EIO


def text_of(code: int) -> bytes:
    """What an errno means, in the words of strerror(3), which Unix clients turn back into one."""
    return os.strerror(code).encode()

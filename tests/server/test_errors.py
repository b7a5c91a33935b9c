"""errors: any exception becomes an errno, or a text, that a client understands."""

import errno
import struct

import pytest
from structlog.testing import capture_logs

from server.errors import errno_of, text_of


@pytest.mark.parametrize("code", [1, errno.ENOENT, errno.EOPNOTSUPP, 4095])
def test_an_oserror_answers_with_its_errno(code: int) -> None:
    with capture_logs() as logs:
        assert errno_of(OSError(code, "why")) == code
    assert logs == []


def test_memory_that_is_gone_is_enomem() -> None:
    with capture_logs() as logs:
        assert errno_of(MemoryError()) == errno.ENOMEM
    assert logs == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(0, "none"),
        OSError("no errno at all"),
        OSError(-5, "negative"),
        OSError(4096, "too large for Rlerror"),
        ValueError("a bug"),
        struct.error("a bug"),
    ],
    ids=repr,
)
def test_what_nobody_foresaw_is_eio_and_logged_with_its_traceback(error: Exception) -> None:
    with capture_logs() as logs:
        assert errno_of(error) == errno.EIO
    (line,) = logs
    assert line["log_level"] == "error"
    assert line["exc_info"] is error


def test_an_errno_is_told_in_words_that_linux_turns_back_into_it() -> None:
    """net/9p/error.c has them in a table."""
    assert text_of(errno.ENOENT) == b"No such file or directory"
    assert text_of(errno.ENOTEMPTY) == b"Directory not empty"

"""Memory of guests for tests, and what this process holds of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.vhost.memory import Place, Region


def memory_file(size: int) -> int:
    """A descriptor of a new file that can be sealed."""
    fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def region(guest: int, size: int, user: int = 0, data: bytes = b"") -> Region:
    """A region of a file of its own, which begins with ``data``."""
    fd = memory_file(size)
    try:
        os.pwrite(fd, data, 0)
        return Region(Place(guest, size, user, 0), fd)
    finally:
        os.close(fd)


def mapped() -> int:
    """How many mappings of such files there are."""
    return Path("/proc/self/maps").read_text().count("/memfd:guest")


@contextmanager
def nothing_is_left_open() -> Iterator[None]:
    """What is inside closes each descriptor that it has opened, or was given."""
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before

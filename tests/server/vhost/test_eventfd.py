"""eventfd: what is told and heard, and what is not one."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from server.vhost.eventfd import Eventfd
from server.vhost.memory import VhostError

from .guestmemory import memory_file, nothing_is_left_open

FULL = (1 << 64) - 2


def test_what_is_told_is_heard_once() -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    event = Eventfd(os.dup(fd))
    event.signal()
    event.signal()
    assert os.eventfd_read(fd) == 2
    os.eventfd_write(fd, 5)
    event.clear()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(fd)
    event.close()
    os.close(fd)


def test_nothing_waits_for_the_other_side() -> None:
    """Even if it has made an eventfd that would."""
    fd = os.eventfd(0)
    event = Eventfd(os.dup(fd))
    event.clear()
    os.eventfd_write(fd, FULL)
    event.signal()
    assert os.eventfd_read(fd) == FULL
    event.close()
    os.close(fd)


def test_it_is_closed_once_and_by_its_number() -> None:
    with nothing_is_left_open():
        fd = os.eventfd(0)
        event = Eventfd(fd)
        assert event.fileno() == fd
        event.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda: os.pipe()[0],
        lambda: socket.socket().detach(),
        lambda: memory_file(8),
        lambda: os.open("/dev/zero", os.O_RDWR),
        lambda: os.memfd_create("anon_inode:[eventfd]"),
    ],
    ids=["pipe", "socket", "memory", "device", "name of one"],
)
def test_what_is_no_eventfd_is_closed_and_refused(make: Callable[[], int]) -> None:
    fd = make()
    with pytest.raises(VhostError, match="not an eventfd"):
        Eventfd(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_file_of_that_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "anon_inode:[eventfd]"
    path.touch()
    with pytest.raises(VhostError):
        Eventfd(os.open(path, os.O_RDWR))

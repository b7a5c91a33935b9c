"""unixsocket: the socket's file, while it listens and after."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from server.unixsocket import UnixSocket

from .peer import raises_errno


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_mode_holds_whatever_the_umask_is(path: Path, mode: int) -> None:
    umask = os.umask(0)
    try:
        unix = UnixSocket(str(path), mode=mode)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    unix.close()


def test_its_file_goes_with_it(path: Path) -> None:
    UnixSocket(str(path)).close()
    assert not path.exists()


def test_a_file_that_another_has_made_there_stays(path: Path) -> None:
    first = UnixSocket(str(path))
    path.rename(path.with_name("moved"))
    second = UnixSocket(str(path))
    first.close()
    assert path.exists()
    second.close()


def test_a_stale_socket_is_replaced_and_one_in_use_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    unix = UnixSocket(str(path))
    with raises_errno(errno.EADDRINUSE):
        UnixSocket(str(path))
    unix.close()


def test_what_is_no_socket_is_not_replaced(path: Path) -> None:
    path.write_text("data")
    with raises_errno(errno.EADDRINUSE):
        UnixSocket(str(path))
    assert path.read_text() == "data"

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


@pytest.mark.parametrize("mode", [0o600, 0o666])
@pytest.mark.parametrize("mask", [0, 0o077])
def test_a_mode_holds_whatever_the_umask_is(path: Path, mode: int, mask: int) -> None:
    umask = os.umask(mask)
    try:
        unix = UnixSocket(str(path), mode=mode)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    unix.close()


def test_its_file_goes_with_it(path: Path) -> None:
    UnixSocket(str(path), 0o666).close()
    assert not path.exists()


def test_a_file_that_another_has_made_there_stays(path: Path) -> None:
    first = UnixSocket(str(path), 0o666)
    path.rename(path.with_name("moved"))
    second = UnixSocket(str(path), 0o666)
    first.close()
    assert path.exists()
    second.close()


def test_a_stale_socket_is_replaced_and_one_in_use_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    unix = UnixSocket(str(path), 0o666)
    with raises_errno(errno.EADDRINUSE):
        UnixSocket(str(path), 0o666)
    unix.close()


def test_what_is_no_socket_is_not_replaced(path: Path) -> None:
    path.write_text("data")
    with raises_errno(errno.EADDRINUSE):
        UnixSocket(str(path), 0o666)
    assert path.read_text() == "data"

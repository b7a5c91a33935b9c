"""bridge: what is carried over two descriptors."""

import os
import socket
import threading
from pathlib import Path

import pytest

from client.bridge import bridge


def test_bytes_go_both_ways_until_both_ends_have_ended(tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    ours, its = socket.socketpair()
    with listening, ours, its:
        carrying = threading.Thread(
            target=bridge, args=(str(tmp_path / "s"), its.fileno(), its.fileno())
        )
        carrying.start()
        there, _ = listening.accept()
        for source, target in ((ours, there), (there, ours)):
            sending = threading.Thread(target=source.sendall, args=(data,))
            sending.start()
            with target.dup() as copy, copy.makefile("rb") as file:
                assert file.read(len(data)) == data
            sending.join()
        ours.shutdown(socket.SHUT_WR)
        assert there.recv(1) == b""
        there.close()
        carrying.join()


def test_where_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bridge(str(tmp_path / "none"), 0, 1)

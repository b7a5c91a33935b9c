"""Locks on FUSE mounts exclude programs on other mounts, and other clients; who has one sees what
others have written."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from client.sync import SyncFile, SyncFileSystem

from .fuse import LIMIT, Host, Served

pytestmark = pytest.mark.kernel

KINDS = pytest.mark.parametrize("lock", [fcntl.lockf, fcntl.flock], ids=["fcntl", "flock"])


@pytest.fixture
def tops(served: Served, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two mounts of the same server."""
    host = Host(tmp_path)
    with host.mount(served, "a") as a, host.mount(served, "b") as b:
        yield Path(a), Path(b)


@KINDS
def test_two_mounts_exclude_each_other(tops: tuple[Path, Path], lock: type) -> None:
    a, b = (top / "f" for top in tops)
    with a.open("w+b") as mine, b.open("r+b") as theirs:
        lock(mine, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            lock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock(mine, fcntl.LOCK_UN)
        lock(theirs, fcntl.LOCK_SH)
        lock(mine, fcntl.LOCK_SH)
        with pytest.raises(BlockingIOError):
            lock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        theirs.close()
        lock(mine, fcntl.LOCK_EX)


def test_ranges_are_locked(tops: tuple[Path, Path]) -> None:
    a, b = (top / "f" for top in tops)
    with a.open("w+b") as mine, b.open("r+b") as theirs:
        fcntl.lockf(mine, fcntl.LOCK_EX, 10, 5)
        fcntl.lockf(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
        fcntl.lockf(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 15)
        with pytest.raises(BlockingIOError):
            fcntl.lockf(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14)


ASK = """
import fcntl, struct, sys
with open(sys.argv[1], "r+b") as file:
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    kind, _, start, length, _ = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    print(kind == fcntl.F_UNLCK or (start, length))
"""


def test_who_asks_is_told_what_is_locked(tops: tuple[Path, Path]) -> None:
    a, b = (top / "f" for top in tops)
    with a.open("w+b") as mine:
        for expected in ("(5, 10)\n", "True\n"):
            kind = fcntl.LOCK_EX if expected[0] == "(" else fcntl.LOCK_UN
            fcntl.lockf(mine, kind, 10, 5)
            asked = [sys.executable, "-c", ASK]
            for place in (a, b):
                assert subprocess.check_output([*asked, place], text=True) == expected


def test_a_process_that_ends_unlocks(tops: tuple[Path, Path]) -> None:
    a, b = (top / "f" for top in tops)
    with a.open("w+b") as inherited:
        child = os.fork()
        if not child:
            fcntl.lockf(inherited, fcntl.LOCK_EX)
            os._exit(0)
        os.waitpid(child, 0)
        with b.open("r+b") as theirs:
            fcntl.lockf(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)


COUNT = """
import fcntl, sys
for _ in range(int(sys.argv[2])):
    with open(sys.argv[1], "r+b", buffering=0) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        number = int(file.read())
        file.seek(0)
        file.write(b"%d" % (number + 1))
"""


def test_who_has_a_lock_sees_what_others_wrote(tops: tuple[Path, Path]) -> None:
    (tops[0] / "f").write_text("0")
    command = [sys.executable, "-c", COUNT]
    counting = [subprocess.Popen([*command, top / "f", "50"]) for top in (*tops, *tops)]
    assert [process.wait(LIMIT) for process in counting] == [0] * 4
    with SyncFileSystem(f"unix://{tops[0].parent}/socket") as other:
        assert other.read_bytes("/f") == b"200"


def test_other_clients_are_excluded(tops: tuple[Path, Path], served: Served) -> None:
    with (
        (tops[0] / "f").open("w+b") as mine,
        SyncFileSystem(served.address) as other,
        cast(SyncFile, other.open("/f", "r+b", buffering=0)) as theirs,
    ):
        fcntl.lockf(mine, fcntl.LOCK_EX)
        assert not theirs.lock(wait=False)
        fcntl.lockf(mine, fcntl.LOCK_UN)
        assert theirs.lock(wait=False)
        with pytest.raises(BlockingIOError):
            fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)

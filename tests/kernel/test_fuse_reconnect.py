"""A FUSE mount whose connection is cut, or whose server is away, goes on; what can not is told."""

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.sync import SyncFileSystem
from server.address import Unix
from server.wire.codec import Message
from server.wire.messages import Tlock, Tmkdir, Twalk
from tests.client.cable import Cable
from tests.server.peer import raises_errno

from .fuse import LIMIT, Host, Served

pytestmark = pytest.mark.kernel


class Link:
    """The cable between a mount and its server, for tests that have no event loop."""

    def __init__(self, cable: Cable) -> None:
        self.cable = cable
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.plug()

    @property
    def address(self) -> str:
        return self.cable.address

    def plug(self) -> None:
        self._run(self.cable.plug())

    def unplug(self) -> None:
        self._run(self.cable.unplug())

    def cut(self) -> None:
        """Cut the connection."""

        async def cut() -> None:
            self.cable.cut()

        self._run(cut())

    def reached(self, kind: type[Message], count: int) -> None:
        """Wait until so many such requests have passed in all."""
        self._run(self.cable.reached(kind, count))

    def close(self) -> None:
        self.unplug()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT)


@pytest.fixture
def link(served: Served, tmp_path: Path) -> Iterator[Link]:
    link = Link(Cable(str(tmp_path / "cable"), Unix(str(served.path))))
    yield link
    link.close()


@pytest.fixture
def top(link: Link, tmp_path: Path) -> Iterator[Path]:
    with Host(tmp_path).mount(link, cache="none") as top:
        yield Path(top)


@pytest.fixture
def other(served: Served) -> Iterator[SyncFileSystem]:
    """Another client, whose connection is never cut."""
    with SyncFileSystem(served.address) as other:
        yield other


def test_open_files_go_on(link: Link, top: Path) -> None:
    data = os.urandom(3_000_000)
    (top / "d").mkdir()
    with (top / "d/f").open("w+b", buffering=0) as file:
        for part in range(3):
            file.write(data[part * 1_000_000 : (part + 1) * 1_000_000])
            os.fsync(file.fileno())
            link.cut()
        file.seek(0)
        assert file.read() == data
        os.rename(top / "d", top / "e")
        link.cut()
        assert os.fstat(file.fileno()).st_size == len(data)
        os.ftruncate(file.fileno(), 10)
    link.cut()
    assert os.listdir(top / "e") == ["f"]
    assert (top / "e/f").read_bytes() == data[:10]
    assert link.cable.connections >= 6


def test_a_server_that_is_away_is_waited_for(link: Link, top: Path) -> None:
    (top / "f").write_text("here")
    link.unplug()
    reading = subprocess.Popen(["cat", top / "f"], stdout=subprocess.PIPE)
    link.plug()
    assert reading.communicate(timeout=LIMIT)[0] == b"here"


def test_who_waits_for_a_server_can_be_interrupted(link: Link, top: Path) -> None:
    (top / "f").write_text("here")
    link.unplug()
    with subprocess.Popen(["cat", top / "f"], stderr=subprocess.DEVNULL) as reading:
        while " S " not in Path(f"/proc/{reading.pid}/stat").read_text():
            assert reading.poll() is None
        reading.send_signal(signal.SIGINT)
        assert reading.wait(LIMIT) != 0
    link.plug()


def test_a_file_that_was_unlinked_meanwhile_is_stale(
    link: Link, top: Path, other: SyncFileSystem
) -> None:
    with (top / "f").open("w+b", buffering=0) as file:
        file.write(b"data")
        os.fsync(file.fileno())
        other.unlink("/f")
        assert os.pread(file.fileno(), 4, 0) == b"data"
        link.cut()
        with raises_errno(errno.ESTALE):
            os.pread(file.fileno(), 4, 0)
    (top / "f").write_text("another")
    assert (top / "f").read_text() == "another"


def test_another_file_in_its_place_is_not_taken_for_it(
    link: Link, top: Path, other: SyncFileSystem
) -> None:
    with (top / "f").open("w+b", buffering=0) as file:
        file.write(b"data")
        os.fsync(file.fileno())
        other.rename("/f", "/g")
        other.write_bytes("/f", b"more")
        link.cut()
        with raises_errno(errno.ESTALE):
            os.pread(file.fileno(), 4, 0)
    assert (top / "f").read_bytes() == b"more"
    assert (top / "g").read_bytes() == b"data"


def test_a_file_whose_locks_were_lost_is_refused(link: Link, top: Path) -> None:
    (top / "f").write_text("data")
    descriptor = os.open(top / "f", os.O_RDWR)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    link.cut()
    with raises_errno(errno.EIO):
        os.pread(descriptor, 4, 0)
    with raises_errno(errno.EIO):
        os.close(descriptor)
    with (top / "f").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert file.read() == b"data"


def test_what_may_or_may_not_have_been_done_is_told(link: Link, top: Path) -> None:
    link.cable.cut_at(Tmkdir)
    with raises_errno(errno.EIO):
        (top / "d").mkdir()
    assert (top / "d").is_dir()


def test_what_does_no_harm_is_done_again(link: Link, top: Path) -> None:
    (top / "f").write_text("here")
    link.cable.cut_at(Twalk)
    assert (top / "f").stat().st_size == 4
    assert link.cable.connections == 2


WAIT_FOR_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
"""


def test_who_waits_for_a_lock_can_be_interrupted(link: Link, top: Path) -> None:
    with (top / "f").open("w+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        before = link.cable.requests[Tlock.TYPE]
        command = [sys.executable, "-c", WAIT_FOR_LOCK, str(top / "f")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as waiting:
            link.reached(Tlock, before + 1)
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(LIMIT) != 0
    with (top / "f").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

"""sync: the file system without an event loop."""

import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from client.errors import UnreachableError
from client.filesystem import FileSystem
from client.sync import SyncFileSystem
from tests.tmpfs_core.paging import pattern

from .serving import Serving

BIG = pattern(9, 3_000_001)


@pytest.fixture
def fs(serving: Serving) -> Iterator[SyncFileSystem]:
    with SyncFileSystem(serving.unix) as fs:
        yield fs


def test_every_operation_has_its_synchronous_face() -> None:
    """But those that are how it is done, not what."""
    inner = {"close", "do", "entered", "left", "open", "renamed"}
    inner |= {"data_max", "is_connected", "is_plus"}
    for name in vars(FileSystem):
        if not name.startswith("_") and name not in inner:
            assert getattr(SyncFileSystem, name).__doc__ == getattr(FileSystem, name).__doc__


def test_files_are_used_as_those_that_open_opens(fs: SyncFileSystem) -> None:
    fs.makedirs("/d/e")
    with fs.open("/d/e/f.json", "w") as file:
        json.dump({"a": [1, 2, "ü"]}, file)
    with fs.open("/d/e/f.json", encoding="utf-8") as file:
        assert json.load(file) == {"a": [1, 2, "ü"]}
    with fs.open("/d/e/f.json", "a") as file:
        assert file.tell() == fs.stat("/d/e/f.json").st_size
        file.write("\nmore")
    with fs.open("/d/e/f.json") as file:
        assert list(file)[1] == "more"
    with pytest.raises(FileExistsError):
        fs.open("/d/e/f.json", "x")
    fs.rmtree("/d")


def test_files_have_places(fs: SyncFileSystem) -> None:
    with fs.open("/f", "w+b") as file:
        file.write(BIG)
        file.seek(1000)
        file.write(b"here")
        file.seek(-4, os.SEEK_CUR)
        assert file.read(6) == b"here" + BIG[1004:1006]
        assert file.seek(-3, os.SEEK_END) == len(BIG) - 3
        assert file.read() == BIG[-3:]
        with pytest.raises(ValueError, match="no place"):
            file.seek(-1)
        file.truncate(10)
        assert file.seek(0, os.SEEK_END) == 10
    assert fs.read_bytes("/f") == BIG[:10]


def test_large_files_are_read_at_once(fs: SyncFileSystem) -> None:
    fs.write_bytes("/f", BIG)
    with fs.open("/f", "rb") as file:
        assert file.read(2_000_000) == BIG[:2_000_000]
        assert file.read() == BIG[2_000_000:]


def test_files_without_a_buffer(fs: SyncFileSystem) -> None:
    with fs.open("/f", "xb", buffering=0) as file:
        assert isinstance(file, io.RawIOBase)
        assert (file.readable(), file.writable(), file.seekable()) == (False, True, True)
        assert file.name == "/f"
        file.write(b"123")
        assert fs.read_bytes("/f") == b"123"
    assert file.closed
    with fs.open("/f", "ab", buffering=0) as file:
        file.write(b"4")
        assert file.tell() == 4


@pytest.mark.parametrize("mode", ["", "q", "rw", "rr", "rbt", "+", "b"])
def test_modes_that_are_none(fs: SyncFileSystem, mode: str) -> None:
    with pytest.raises(ValueError, match="no mode"):
        fs.open("/f", mode)


def test_text_has_a_buffer(fs: SyncFileSystem) -> None:
    with pytest.raises(ValueError, match="buffer"):
        fs.open("/f", "w", buffering=0)
    assert not fs.exists("/f")


def test_locks(fs: SyncFileSystem) -> None:
    with fs.open("/f", "wb", 0) as one, fs.open("/f", "wb", 0) as other:
        assert one.lock()  # type: ignore[attr-defined]
        assert not other.lock(wait=False)  # type: ignore[attr-defined]
        one.unlock()  # type: ignore[attr-defined]
        assert other.lock(wait=False)  # type: ignore[attr-defined]
        other.sync()  # type: ignore[attr-defined]


def test_threads_use_it_at_the_same_time(fs: SyncFileSystem) -> None:
    def use(number: int) -> bool:
        fs.write_bytes(f"/{number}", BIG[: number * 1000])
        return fs.read_bytes(f"/{number}") == BIG[: number * 1000]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(64)))
    assert len(fs.listdir()) == 64


def test_who_waits_can_be_interrupted(fs: SyncFileSystem) -> None:
    with fs.open("/f", "wb", 0) as one, fs.open("/f", "wb", 0) as other:
        one.lock()  # type: ignore[attr-defined]
        main = threading.main_thread().ident
        assert main is not None
        threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            other.lock()  # type: ignore[attr-defined]
        one.unlock()  # type: ignore[attr-defined]
        assert one.lock(wait=False)  # type: ignore[attr-defined]


def test_where_nobody_is_no_thread_is_left(serving: Serving) -> None:
    before = threading.active_count()
    with pytest.raises(UnreachableError):
        SyncFileSystem(serving.unix + "-none")
    with pytest.raises(ValueError, match="tcp://"):
        SyncFileSystem("http://x")
    assert threading.active_count() == before


def test_a_closed_one_can_not_be_used(serving: Serving) -> None:
    fs = SyncFileSystem(serving.unix)
    fs.close()
    fs.close()
    with pytest.raises(ValueError, match="closed"):
        fs.listdir()


def test_a_file_may_be_closed_after_its_file_system(serving: Serving) -> None:
    fs = SyncFileSystem(serving.unix)
    file = fs.open("/f", "wb", 0)
    fs.close()
    file.close()
    assert file.closed

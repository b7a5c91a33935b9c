"""fsspec: its own abstract tests, and what is particular here."""

import pickle
from collections.abc import Iterator
from datetime import UTC, datetime

import dask.dataframe
import fsspec
import pandas
import pytest
from fsspec.tests import abstract

from client.fsspec import Tmpfs9pFileSystem

from .serving import Serving


class Fixtures(abstract.AbstractFixtures):  # type: ignore[misc]
    @pytest.fixture
    def fs(self, remote: Tmpfs9pFileSystem) -> Tmpfs9pFileSystem:
        return remote

    @pytest.fixture
    def fs_path(self) -> str:
        return "/"


@pytest.fixture
def remote(serving: Serving) -> Iterator[Tmpfs9pFileSystem]:
    fs = Tmpfs9pFileSystem(address=serving.unix, auto_mkdir=True, skip_instance_cache=True)
    yield fs
    fs.close()


class TestCopy(abstract.AbstractCopyTests, Fixtures):  # type: ignore[misc]
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):  # type: ignore[misc]
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):  # type: ignore[misc]
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):  # type: ignore[misc]
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):  # type: ignore[misc]
    pass


def end_all() -> None:
    """Close what was opened by URL."""
    for fs in Tmpfs9pFileSystem._cache.values():
        fs.close()
    Tmpfs9pFileSystem.clear_instance_cache()


URL = "tmpfs9p://127.0.0.1:5640/a/b"


def test_urls_name_host_port_and_path() -> None:
    assert Tmpfs9pFileSystem._get_kwargs_from_urls(URL) == {"host": "127.0.0.1", "port": 5640}
    assert Tmpfs9pFileSystem._strip_protocol(URL) == "/a/b"
    assert Tmpfs9pFileSystem._strip_protocol(["a/", "/"]) == ["/a", "/"]


def test_it_is_registered(serving: Serving) -> None:
    url = serving.tcp.replace("tcp", "tmpfs9p") + "/f"
    with fsspec.open(url, "w") as file:
        file.write("hello")
    with fsspec.open(url) as file:
        assert file.read() == b"hello"
    fs, _ = fsspec.url_to_fs(url)
    assert isinstance(fs, Tmpfs9pFileSystem)
    end_all()


def test_a_copy_from_another_process_connects_anew(remote: Tmpfs9pFileSystem) -> None:
    remote.pipe_file("/f", b"x")
    copy = pickle.loads(pickle.dumps(remote))
    assert copy.cat_file("/f") == b"x"
    copy.close()


def test_what_is_there_is_described(remote: Tmpfs9pFileSystem) -> None:
    before = datetime.now(UTC)
    remote.pipe_file("/d/f", b"12345")
    remote.run(remote.files.symlink("f", "/d/good"))
    remote.run(remote.files.symlink("none", "/d/bad"))
    found = {info["name"]: info for info in remote.ls("/d")}
    assert found["/d/f"] == remote.info("/d/f")
    assert {name: info["type"] for name, info in found.items()} == {
        "/d/f": "file",
        "/d/good": "file",
        "/d/bad": "link",
    }
    assert (found["/d/good"]["size"], found["/d/good"]["destination"]) == (5, "f")
    assert remote.ls("/d/f") == [found["/d/f"]]
    assert remote.ls("/d/f", detail=False) == ["/d/f"]
    assert before <= remote.created("/d/f") <= remote.modified("/d/f") <= datetime.now(UTC)
    assert remote.info("/")["type"] == "directory"


def test_parts_of_a_file_are_read(remote: Tmpfs9pFileSystem) -> None:
    remote.pipe_file("/f", b"0123456789")
    assert remote.cat_file("/f", 2, 5) == b"234"
    assert remote.cat_file("/f", -3) == b"789"
    assert remote.cat_file("/f", end=-7) == b"012"
    assert remote.cat_file("/f", 7, 3) == b""
    with remote.open("/f") as file:
        file.seek(-2, 2)
        assert file.read() == b"89"


def test_files_are_moved_not_copied(remote: Tmpfs9pFileSystem) -> None:
    remote.pipe_file("/f", b"x")
    number = remote.info("/f")["ino"]
    remote.mv("/f", "/d/g")
    assert remote.info("/d/g")["ino"] == number
    assert not remote.exists("/f")


def test_directories_are_removed_only_if_that_is_meant(remote: Tmpfs9pFileSystem) -> None:
    remote.pipe({"/d/a": b"1", "/d/b": b"2", "/x": b"3"})
    with pytest.raises(IsADirectoryError):
        remote.rm("/d")
    remote.rm(["/d", "/x"], recursive=True)
    remote.mkdir("/e", create_parents=False)
    remote.rmdir("/e")
    assert remote.ls("/") == []


def test_directories_are_made_only_if_that_is_meant(serving: Serving) -> None:
    fs = Tmpfs9pFileSystem(address=serving.unix, skip_instance_cache=True)
    with pytest.raises(FileNotFoundError):
        fs.pipe_file("/d/f", b"x")
    with pytest.raises(FileNotFoundError):
        fs.mkdir("/d/e", create_parents=False)
    with pytest.raises(NotImplementedError), fs.transaction, fs.open("/f", "wb"):
        raise AssertionError
    fs.close()


def test_pandas_writes_and_reads(serving: Serving) -> None:
    url = serving.tcp.replace("tcp", "tmpfs9p")
    frame = pandas.DataFrame({"a": range(1000), "b": [f"row {n}" for n in range(1000)]})
    frame.to_csv(f"{url}/f.csv", index=False)
    frame.to_parquet(f"{url}/f.parquet")
    assert pandas.read_csv(f"{url}/f.csv").equals(frame)
    assert pandas.read_parquet(f"{url}/f.parquet").equals(frame)
    end_all()


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # dask's use of pandas
def test_dask_writes_and_reads(serving: Serving) -> None:
    url = serving.tcp.replace("tcp", "tmpfs9p")
    frame = pandas.DataFrame({"a": range(1000), "b": [n / 2 for n in range(1000)]})
    parts = dask.dataframe.from_pandas(frame, npartitions=4)
    parts.to_parquet(f"{url}/p")
    parts.to_csv(f"{url}/c/*.csv", index=False)
    assert dask.dataframe.read_parquet(f"{url}/p").a.sum().compute() == frame.a.sum()
    assert dask.dataframe.read_csv(f"{url}/c/*.csv").b.sum().compute() == frame.b.sum()
    end_all()

"""A FUSE mount: the programs that work on the kernel's own mount, and what is particular."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import test_programs as programs
from .fuse import LIMIT, PROGRAM, Host, Served, mounted, why_not

pytestmark = pytest.mark.kernel


@pytest.fixture
def guest(tmp_path: Path) -> Host:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return Host(tmp_path)


@pytest.fixture
def server(guest: Host, tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.stop()


@pytest.fixture
def top(guest: Host, server: Served) -> Iterator[Path]:
    with guest.mount(server) as top:
        yield Path(top)


def test_it_returns_when_it_is_ready_and_leaves_no_process(
    guest: Host, server: Served, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    command = [*PROGRAM, "mount", "-o", "driver=fuse", server.address, str(place)]
    subprocess.run(command, check=True, timeout=LIMIT)
    with mounted(place) as processes:
        assert len(processes) == 1
        (place / "f").write_text("here")
    assert not (place / "f").exists()


def test_a_mount_that_was_not_used_ends_too(guest: Host, server: Served) -> None:
    """Its end is the only thing that the kernel ever tells of it then."""
    with guest.mount(server):
        pass


def test_what_can_not_be_mounted_is_told(guest: Host, server: Served, tmp_path: Path) -> None:
    for address, place, told in (
        ("unix:///none", tmp_path, "unix:///none: No such file or directory"),
        (server.address, tmp_path / "none", "none: failed to access mountpoint"),
    ):
        for more in ([], ["--foreground"]):
            command = [*PROGRAM, "mount", *more, "-o", "driver=fuse", address, str(place)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (32, "")
            assert told in done.stderr


def test_large_files_are_written_and_read(top: Path) -> None:
    data = os.urandom(40_000_001)
    (top / "f").write_bytes(data)
    assert (top / "f").stat().st_size == len(data)
    assert (top / "f").read_bytes() == data
    with (top / "f").open("r+b") as file:
        file.seek(20_000_000)
        assert file.read(10) == data[20_000_000:20_000_010]
        file.seek(-5, os.SEEK_END)
        file.write(b"12345more")
        file.seek(-9, os.SEEK_END)
        assert file.read() == b"12345more"
        file.truncate(7)
    assert (top / "f").read_bytes() == data[:7]


def test_a_file_that_was_unlinked_can_be_used(top: Path) -> None:
    with (top / "f").open("w+b") as file:
        (top / "f").unlink()
        file.write(b"x" * 100_000)
        file.seek(0)
        assert file.read() == b"x" * 100_000
        assert os.fstat(file.fileno()).st_nlink == 0
        os.ftruncate(file.fileno(), 5)
        assert os.fstat(file.fileno()).st_size == 5
        os.fchmod(file.fileno(), 0o600)


def test_a_listing_has_attributes(top: Path) -> None:
    (top / "d").mkdir()
    for number in range(300):
        (top / f"d/{number}").write_bytes(b"x" * number)
    os.link(top / "d/7", top / "d/also7")
    found = {entry.name: entry.stat().st_size for entry in os.scandir(top / "d")}
    assert found == {**{str(number): number for number in range(300)}, "also7": 7}
    assert (top / "d/7").stat().st_nlink == 2
    (top / "d/7").unlink()
    assert (top / "d/also7").read_bytes() == b"x" * 7


def test_attributes_are_kept(top: Path) -> None:
    file = top / "f"
    file.write_text("f")
    os.chown(file, 12, 34)
    file.chmod(0o4751)
    os.utime(file, ns=(5, 1_999_999_999_999_999_999))
    os.setxattr(file, "user.a", b"value")
    os.setxattr(file, "user.b", b"")
    found = file.stat()
    assert (found.st_uid, found.st_gid, found.st_mode) == (12, 34, 0o104751)
    assert (found.st_atime_ns, found.st_mtime_ns) == (5, 1_999_999_999_999_999_999)
    assert os.getxattr(file, "user.a") == b"value"
    assert sorted(os.listxattr(file)) == ["user.a", "user.b"]
    os.removexattr(file, "user.a")
    with pytest.raises(OSError) as refused:  # noqa: PT011 its errno is checked
        os.getxattr(file, "user.a")
    assert refused.value.errno == errno.ENODATA


def test_extended_attributes_are_kept_of_what_was_listed(top: Path) -> None:
    for name in ("with", "without"):
        (top / name).touch()
    os.setxattr(top / "with", "user.a", b"value")
    files = [top / entry.name for entry in os.scandir(top) if entry.stat().st_size == 0]
    assert {file.name: os.listxattr(file) for file in files} == {"with": ["user.a"], "without": []}
    assert os.getxattr(top / "with", "user.a") == b"value"
    for file in files:
        os.setxattr(file, "user.b", b"new")
        assert "user.b" in os.listxattr(file)
        assert os.getxattr(file, "user.b") == b"new"


def test_files_belong_to_who_made_them(guest: Host, top: Path) -> None:
    top.chmod(0o1777)
    guest.sh(f"""
        cd {top}
        setpriv --reuid=1234 --regid=1235 --clear-groups sh -c 'echo 1 >f; mkdir d; ln -s f l'
        test "$(stat -c %u:%g f d l | sort -u)" = 1234:1235
        ! setpriv --reuid=99 --regid=99 --clear-groups sh -c 'echo 2 >f'
    """)


@pytest.fixture
def squashed(guest: Host, tmp_path: Path) -> Iterator[Served]:
    """A server for which everybody is user 4321."""
    served = Served(tmp_path, "--export", "/:squash=all,anonuid=4321,anongid=4321,mode=777")
    yield served
    served.stop()


def test_what_root_makes_there_is_of_who_he_is_there(guest: Host, squashed: Served) -> None:
    with guest.mount(squashed) as top:
        guest.sh(f"cd {top}; echo 1 >f; mkdir d; test $(stat -c %u f d | sort -u) = 4321")


def test_a_full_server_is_told_of(top: Path) -> None:
    data = b"f" * (600 << 20)  # zeros that nobody has touched are passed on page by page
    with pytest.raises(OSError) as refused:  # noqa: PT011 its errno is checked
        (top / "f").write_bytes(data)
    assert refused.value.errno == errno.ENOSPC


def test_a_mount_may_be_read_only(guest: Host, server: Served) -> None:
    with guest.mount(server) as top:
        Path(top, "f").write_text("f")
    with guest.mount(server, extra="ro") as top:
        assert Path(top, "f").read_text() == "f"
        with pytest.raises(OSError, match="Read-only"):
            Path(top, "g").write_text("g")


# The programs that work on the kernel's own mount; a host has the face of a guest.

every_cache = pytest.mark.parametrize("cache", ["none", "mmap", "loose"])


@every_cache
def test_tar(guest: Any, server: Any, cache: str) -> None:
    programs.test_tar_brings_a_tree_there_and_back(guest, server, cache)


@every_cache
def test_git(guest: Any, server: Any, cache: str) -> None:
    programs.test_git_clones_checks_and_commits(guest, server, {"cache": cache})


@every_cache
def test_a_compiler(guest: Any, server: Any, cache: str) -> None:
    programs.test_a_program_is_built_and_run(guest, server, {"cache": cache})


@pytest.mark.parametrize(
    ("mode", "cache"),
    [
        ("delete", "none"),
        ("delete", "mmap"),
        ("delete", "loose"),
        ("wal", "mmap"),
        ("wal", "loose"),
    ],
)
def test_sqlite(guest: Any, server: Any, mode: str, cache: str) -> None:
    programs.test_sqlite(guest, server, mode, {"cache": cache})

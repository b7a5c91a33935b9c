"""Files and directories that have lost their name stay usable while they are open."""

import os
from errno import ENOENT
from pathlib import Path

from .check import equal, fails, run_case


def _use(descriptor: int, content: bytes) -> None:
    """An open nameless file with this content can be read, written, cut, extended and asked."""
    equal(os.pread(descriptor, 100, 0), content)
    equal(os.pwrite(descriptor, b"more", len(content)), 4)
    equal(os.fstat(descriptor).st_size, len(content) + 4)
    os.ftruncate(descriptor, 2)
    equal(os.fstat(descriptor).st_size, 2)
    os.ftruncate(descriptor, 10)
    equal(os.pread(descriptor, 100, 0), content[:2] + bytes(8))
    os.fchmod(descriptor, 0o600)
    equal(os.fstat(descriptor).st_mode & 0o777, 0o600)
    os.fsync(descriptor)


def an_unlinked_file(top: Path) -> None:
    file = top / "file"
    file.write_bytes(b"content")
    with file.open("r+b") as stream:
        file.unlink()
        equal(os.fstat(stream.fileno()).st_nlink, 0)
        equal(list(top.iterdir()), [])
        _use(stream.fileno(), b"content")
    with fails(ENOENT):
        file.stat()


def a_file_that_another_was_renamed_over(top: Path) -> None:
    old, new = top / "old", top / "new"
    old.write_bytes(b"old content")
    new.write_bytes(b"new content")
    with old.open("r+b") as stream:
        new.rename(old)
        _use(stream.fileno(), b"old content")
        equal(old.read_bytes(), b"new content")


def a_file_whose_name_was_given_away_anew(top: Path) -> None:
    file = top / "file"
    file.write_bytes(b"first")
    with file.open("r+b") as stream:
        number = os.fstat(stream.fileno()).st_ino
        file.unlink()
        file.write_bytes(b"second")
        equal(file.stat().st_ino != number, True)
        _use(stream.fileno(), b"first")
        equal(file.read_bytes(), b"second")


def a_file_opened_twice_before_it_was_unlinked(top: Path) -> None:
    file = top / "file"
    file.write_bytes(b"content")
    with file.open("rb") as reader:
        with file.open("r+b") as writer:
            file.unlink()
            os.pwrite(writer.fileno(), b"C", 0)
        equal(os.pread(reader.fileno(), 100, 0), b"Content")


def its_space_comes_back_at_the_last_close(top: Path) -> None:
    free = os.statvfs(top).f_bfree
    with (top / "file").open("wb") as stream:
        stream.write(bytes(1 << 20))
        stream.flush()
        os.fsync(stream.fileno())
        (top / "file").unlink()
        equal(os.statvfs(top).f_bfree < free, True)
    equal(os.statvfs(top).f_bfree, free)


def a_removed_working_directory(top: Path) -> None:
    directory = top / "directory"
    directory.mkdir()
    os.chdir(directory)
    directory.rmdir()
    with fails(ENOENT):
        Path("file").touch()
    with fails(ENOENT):
        directory.stat()
    os.chdir("/")


def a_removed_directory_that_is_open(top: Path) -> None:
    directory = top / "directory"
    directory.mkdir()
    descriptor = os.open(directory, os.O_RDONLY)
    directory.rmdir()
    equal(os.listdir(descriptor), [])
    directory.mkdir()
    (directory / "file").touch()
    equal(os.listdir(descriptor), [])
    os.close(descriptor)


if __name__ == "__main__":
    run_case(globals())

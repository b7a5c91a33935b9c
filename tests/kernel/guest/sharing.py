"""Two uncached mounts of one export: what is done through one is seen through the other at once."""

import mmap
import os
import stat
import subprocess
import sys
from collections import Counter
from errno import ENOENT
from pathlib import Path

from .check import equal, fails, run_case

APPENDER = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for number in range(500):
    os.write(descriptor, f"{sys.argv[2]} {number} {'x' * (number % 97)}\\n".encode())
"""


def created_files_and_directories(a: Path, b: Path) -> None:
    (a / "file").write_text("data")
    (b / "directory").mkdir()
    equal((b / "file").read_text(), "data")
    equal(sorted(os.listdir(a)), ["directory", "file"])


def written_data_and_the_size(a: Path, b: Path) -> None:
    with (a / "file").open("wb", buffering=0) as writer, (b / "file").open("rb") as reader:
        for number in range(20):
            writer.write(b"%04d" % number)
            equal(os.fstat(reader.fileno()).st_size, 4 * number + 4)
            equal(os.pread(reader.fileno(), 100, 4 * number), b"%04d" % number)
        os.pwrite(writer.fileno(), b"changed", 10)
        equal(os.pread(reader.fileno(), 7, 10), b"changed")


def truncation(a: Path, b: Path) -> None:
    (a / "file").write_bytes(b"x" * 10000)
    with (b / "file").open("r+b", buffering=0) as stream:
        os.truncate(a / "file", 5)
        equal(os.fstat(stream.fileno()).st_size, 5)
        equal(stream.read(), b"xxxxx")
        stream.truncate(8)
        equal((a / "file").read_bytes(), b"xxxxx\0\0\0")


def renamed_files(a: Path, b: Path) -> None:
    (a / "old").write_text("data")
    with (b / "old").open() as stream:
        (a / "old").rename(a / "new")
        equal(stream.read(), "data")
    with fails(ENOENT):
        (b / "old").stat()
    equal((b / "new").read_text(), "data")


def renamed_directories(a: Path, b: Path) -> None:
    (a / "old" / "inner").mkdir(parents=True)
    (a / "old" / "inner" / "file").write_text("data")
    (b / "old").rename(b / "new")
    equal((a / "new" / "inner" / "file").read_text(), "data")
    equal(os.listdir(a), ["new"])


def unlinked_files_and_a_new_one_of_the_name(a: Path, b: Path) -> None:
    (a / "file").write_text("first")
    equal((b / "file").read_text(), "first")
    (a / "file").unlink()
    with fails(ENOENT):
        (b / "file").read_text()
    (a / "file").write_text("second")
    equal((b / "file").read_text(), "second")


def a_file_unlinked_elsewhere_stays_usable(a: Path, b: Path) -> None:
    (a / "file").write_text("data")
    with (b / "file").open("r+b", buffering=0) as stream:
        (a / "file").unlink()
        equal(stream.read(), b"data")
        stream.write(b" and more")
        equal(os.fstat(stream.fileno()).st_size, 13)


def attributes(a: Path, b: Path) -> None:
    (a / "file").touch()
    (a / "file").chmod(0o640)
    equal(stat.S_IMODE((b / "file").stat().st_mode), 0o640)
    os.chown(b / "file", 12, 34)
    os.utime(b / "file", (123, 456))
    os.link(b / "file", b / "link")
    os.setxattr(b / "file", "user.a", b"1")
    got = (a / "file").stat()
    equal((got.st_uid, got.st_gid, got.st_mtime, got.st_nlink), (12, 34, 456, 2))
    equal(os.getxattr(a / "file", "user.a"), b"1")


def identity(a: Path, b: Path) -> None:
    (a / "file").touch()
    equal((a / "file").stat().st_ino, (b / "file").stat().st_ino)


def a_directory_read_while_it_changes(a: Path, b: Path) -> None:
    """What was there all the time is listed exactly once, whatever else comes and goes."""
    for number in range(1000):
        (a / f"stays{number}").touch()
        (a / f"goes{number}").touch()
    seen = Counter[str]()
    with os.scandir(b) as entries:
        for number, entry in enumerate(entries):
            seen[entry.name] += 1
            if number < 1000:
                (a / f"goes{number}").unlink()
                (a / f"comes{number}").touch()
    equal([seen[f"stays{number}"] for number in range(1000)], [1] * 1000)
    equal(max(seen.values()), 1)


def appended_lines_of_two_writers(a: Path, b: Path) -> None:
    """Nothing is lost or torn, and each writer's lines keep their order."""
    (a / "log").touch()
    writers = [
        subprocess.Popen([sys.executable, "-c", APPENDER, top / "log", name])
        for top, name in ((a, "a"), (b, "b"))
    ]
    for writer in writers:
        equal(writer.wait(), 0)
    lines = (a / "log").read_text().splitlines()
    for name in "ab":
        expected = [f"{name} {number} {'x' * (number % 97)}" for number in range(500)]
        equal([line for line in lines if line.startswith(name)], expected)
    equal(len(lines), 1000)


def a_private_map(a: Path, b: Path) -> None:
    content = os.urandom(100_000)
    (a / "file").write_bytes(content)
    with (b / "file").open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        equal(bytes(mapped) == content, True)


if __name__ == "__main__":
    run_case(globals())

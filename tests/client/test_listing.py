"""listing: attributes as text, as coreutils write them."""

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from client.attributes import Stat, StatVfs
from client.listing import FIELDS, formatted, long_rows, printable, room_rows, sized

S = Stat(stat.S_IFREG | 0o4640, 7, 2, 54321, 54322, 0, 1234, 4096, 3, 1, 2, 3, 4, 9)


def of(path: Path) -> Stat:
    """Attributes of a file of this machine, as if it were the server's."""
    it = path.lstat()
    times = it.st_atime_ns, it.st_mtime_ns, it.st_ctime_ns, 1_600_000_000_000_000_001
    sizes = it.st_size, it.st_blksize, it.st_blocks
    return Stat(
        it.st_mode, it.st_ino, it.st_nlink, it.st_uid, it.st_gid, it.st_rdev, *sizes, *times, 0
    )


@pytest.mark.parametrize("letter", sorted(set(FIELDS) - {"w", "W"}))
def test_formats_are_those_of_stat(letter: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("empty")
    os.mkfifo(tmp_path / "fifo", 0o600)
    os.utime(tmp_path / "file", ns=(-1, 1))
    for path in (tmp_path, *tmp_path.iterdir()):
        told = subprocess.check_output(["stat", "-c", f"%{letter}", path], text=True)
        assert formatted(f"%{letter}", str(path), of(path)) + "\n" == told


def test_what_a_format_does_not_have_stays() -> None:
    assert formatted("%n is %s, %q %%n %", "x", S) == "x is 1234, %q %n %"
    assert formatted("%W", "x", of(Path("/"))) == "1600000000"


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 9900, 10239, 10240, 10241, 1 << 20])
def test_sizes_are_those_of_ls(size: int, tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(size)
    told = subprocess.check_output(["ls", "-lh", file.name], text=True)
    assert sized(size) == told.split()[4]


def test_very_large_sizes() -> None:
    assert [sized(1 << 60), sized((1 << 63) - 1), sized((1 << 40) - 1)] == ["1.0E", "8.0E", "1.0T"]


@pytest.mark.parametrize("ago", [0, 100 * 86400, 300 * 86400, -86400])
def test_long_lines_are_those_of_ls(ago: int, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3000)
    when = time.time() - ago
    os.utime(path, (when, when))
    env = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    for human in (False, True):
        command = ["ls", "-lh" if human else "-l", path]
        told = subprocess.check_output(command, text=True, env=env).rstrip("\n")
        assert long_rows([(str(path), of(path))], human) == [told]


def test_columns_are_aligned_and_strangers_are_numbers() -> None:
    rows = long_rows([("a", S), ("b", S._replace(st_size=5, st_nlink=100, st_uid=0))], False)
    assert rows[0].startswith("-rwSr-----   2 54321 54322 1234 ")
    assert rows[1].startswith("-rwSr----- 100 root  54322    5 ")


ROOM = StatVfs(4096, 1000, 400, 400, 50, 20, 0, 255)


def test_room_is_told_as_df_does() -> None:
    assert room_rows("x", ROOM, human=False, inodes=False) == [
        "Filesystem  1K-blocks  Used  Available  Use%",
        "x                4000  2400       1600   60%",
    ]
    assert room_rows("x", ROOM, human=True, inodes=False)[1].split() == [
        "x", "4.0M", "2.4M", "1.6M", "60%",
    ]  # fmt: skip
    assert room_rows("x", ROOM, human=False, inodes=True)[1].split()[1:] == [
        "50",
        "30",
        "20",
        "60%",
    ]
    assert room_rows("x", ROOM._replace(f_files=0, f_ffree=0), False, True)[1].endswith("-")


def test_names_do_nothing_to_a_terminal() -> None:
    assert printable("ü\x1b[2J\n\udcff x") == "ü?[2J?? x"

"""Two gigabytes of files of several kinds, written, used at random, and verified by checksum.

`swapping write|use|verify SEED directory`: one large file, a source tree, an sqlite database.
"""

import functools
import hashlib
import os
import random
import shutil
import sqlite3
import sys
from pathlib import Path

MIB = 1 << 20
LARGE = 1900  # MiB
TREES = 2
ROWS = 1500
ROW = 65536
SOURCE = Path("/usr/lib/python3")


@functools.cache
def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(2 * MIB)


def block(seed: int, number: int) -> bytes:
    """Block ``number`` of the large file, 1 MiB, unlike all others."""
    start = number * 541
    return noise(seed)[start : start + MIB - 8] + number.to_bytes(8, "little")


def write(seed: int, top: Path) -> None:
    large = os.open(top / "large", os.O_WRONLY | os.O_CREAT)  # what is there is written over
    for number in range(LARGE):
        assert os.write(large, block(seed, number)) == MIB
    os.close(large)
    for copy in range(TREES):
        shutil.rmtree(top / f"tree{copy}", ignore_errors=True)
        shutil.copytree(SOURCE, top / f"tree{copy}", symlinks=True)
    (top / "base").unlink(missing_ok=True)
    with sqlite3.connect(top / "base") as base:
        base.execute("pragma page_size = 65536")
        base.execute("create table rows (number integer primary key, data blob, sum text)")
        for number in range(ROWS):
            data = random.Random(f"{seed} row {number}").randbytes(ROW)
            values = (number, data, hashlib.md5(data).hexdigest())
            base.execute("insert into rows values (?, ?, ?)", values)


def use(seed: int, top: Path) -> None:
    """Random access: parts of the large file are read, and written anew with the same bytes."""
    chosen = random.Random(seed)
    descriptor = os.open(top / "large", os.O_RDWR)
    for _ in range(300):
        number = chosen.randrange(LARGE)
        start = chosen.randrange(MIB - 70000)
        length = chosen.choice([1, 4096, 65536])
        expected = block(seed, number)[start : start + length]
        assert os.pread(descriptor, length, number * MIB + start) == expected, number
        assert os.pwrite(descriptor, expected, number * MIB + start) == length
    os.close(descriptor)
    with sqlite3.connect(top / "base") as base:
        for number in chosen.sample(range(ROWS), 200):
            query = "select data, sum from rows where number = ?"
            data, checksum = base.execute(query, (number,)).fetchone()
            assert hashlib.md5(data).hexdigest() == checksum, number
            base.execute("update rows set data = ? where number = ?", (data, number))


def verify(seed: int, top: Path) -> None:
    with (top / "large").open("rb", buffering=0) as large:
        for number in range(LARGE):
            assert large.read(MIB) == block(seed, number), number
        assert large.read(1) == b""
    for copy in range(TREES):
        for source in SOURCE.rglob("*"):
            if source.is_file() and not source.is_symlink():
                there = top / f"tree{copy}" / source.relative_to(SOURCE)
                assert there.read_bytes() == source.read_bytes(), there
    with sqlite3.connect(top / "base") as base:
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
        for number, data, checksum in base.execute("select * from rows"):
            assert hashlib.md5(data).hexdigest() == checksum, number


if __name__ == "__main__":
    {"write": write, "use": use, "verify": verify}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))

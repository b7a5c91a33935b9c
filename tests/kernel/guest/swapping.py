"""Two gigabytes of files of several kinds, written, used at random, and verified by checksum.

`swapping write|use|verify SEED directory`: one large file, a source tree, an sqlite database.
"""

import contextlib
import functools
import hashlib
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
LARGE = 1920  # MiB
ROWS = 2000
ROW = 65536
SOURCE = Path(os.__file__).parent  # Python's own library


@functools.cache
def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(2 * MIB)


def block(seed: int, number: int, length: int = MIB) -> bytes:
    """Bytes of which no page is like one of another number or seed; numbers are below 4096.

    A page is at 257 * number + 4096 * index of the noise: made fast, as there are two gigabytes.
    """
    start = 257 * number
    return noise(seed)[start : start + length]


def row(seed: int, number: int) -> tuple[int, bytes, str]:
    data = block(seed, LARGE + number, ROW)
    return number, data, hashlib.md5(data).hexdigest()


def sources() -> list[Path]:
    return sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py"))


@contextlib.contextmanager
def database(top: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(top / "base")) as base, base:
        yield base


def write(seed: int, top: Path) -> None:
    large = os.open(top / "large", os.O_WRONLY | os.O_CREAT)  # what is there is written over
    for number in range(LARGE):
        assert os.write(large, block(seed, number)) == MIB
    os.close(large)
    shutil.rmtree(top / "tree", ignore_errors=True)
    for source in sources():
        there = top / "tree" / source
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes((SOURCE / source).read_bytes())
    (top / "base").unlink(missing_ok=True)
    with database(top) as base:
        base.execute("pragma page_size = 65536")
        base.execute("create table rows (number integer primary key, data blob, sum text)")
        rows = (row(seed, number) for number in range(ROWS))
        base.executemany("insert into rows values (?, ?, ?)", rows)


def use(seed: int, top: Path) -> None:
    """Random access: parts of the large file are read, and written anew with the same bytes."""
    chosen = random.Random(seed)
    descriptor = os.open(top / "large", os.O_RDWR)
    for _ in range(1000):
        number = chosen.randrange(LARGE)
        start = chosen.randrange(MIB - 70000)
        length = chosen.choice([1, 4096, 65536])
        expected = block(seed, number)[start : start + length]
        assert os.pread(descriptor, length, number * MIB + start) == expected, number
        assert os.pwrite(descriptor, expected, number * MIB + start) == length
    os.close(descriptor)
    with database(top) as base:
        for number in chosen.sample(range(ROWS), 200):
            query = "select * from rows where number = ?"
            found = base.execute(query, (number,)).fetchone()
            assert found == row(seed, number), number
            base.execute("insert or replace into rows values (?, ?, ?)", found)


def verify(seed: int, top: Path) -> None:
    with (top / "large").open("rb", buffering=0) as large:
        for number in range(LARGE):
            assert large.read(MIB) == block(seed, number), number
        assert large.read(1) == b""
    for source in sources():
        there = top / "tree" / source
        assert there.read_bytes() == (SOURCE / source).read_bytes(), there
    with database(top) as base:
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
        found = base.execute("select * from rows order by number")
        assert all(values == row(seed, number) for number, values in enumerate(found))
        assert base.execute("select count(*) from rows").fetchone() == (ROWS,)


if __name__ == "__main__":
    {"write": write, "use": use, "verify": verify}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]))

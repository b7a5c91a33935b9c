"""Maps on a mount with a page cache; what the server was given shows on the other mount."""

import mmap
import os
from pathlib import Path

from .check import equal, run_case

SIZE = 300_000


def msync_stores_what_was_written(cached: Path, other: Path) -> None:
    (cached / "file").write_bytes(bytes(SIZE))
    with (cached / "file").open("r+b") as stream, mmap.mmap(stream.fileno(), SIZE) as mapped:
        for offset in (0, 4095, 4096, 123_456, SIZE - 5):
            mapped[offset : offset + 5] = b"dirty"
            mapped.flush()
            with (other / "file").open("rb") as reader:
                equal(os.pread(reader.fileno(), 5, offset), b"dirty")


def sync_stores_it_too(cached: Path, other: Path) -> None:
    content = bytearray(SIZE)
    (cached / "file").write_bytes(content)
    with (cached / "file").open("r+b") as stream, mmap.mmap(stream.fileno(), SIZE) as mapped:
        for offset in range(0, SIZE - 4, 997):
            mapped[offset : offset + 4] = content[offset : offset + 4] = b"%04d" % (offset % 9999)
    os.sync()
    equal((other / "file").read_bytes() == content, True)


def two_maps_of_one_file_are_one_memory(cached: Path, _: Path) -> None:
    (cached / "file").write_bytes(bytes(SIZE))
    with (
        (cached / "file").open("r+b") as one,
        (cached / "file").open("r+b") as two,
        mmap.mmap(one.fileno(), SIZE) as first,
        mmap.mmap(two.fileno(), SIZE) as second,
    ):
        first[5000:5005] = b"hello"
        equal(second[5000:5005], b"hello")


def a_private_map_changes_nothing(cached: Path, _: Path) -> None:
    (cached / "file").write_bytes(b"x" * SIZE)
    with (
        (cached / "file").open("r+b") as stream,
        mmap.mmap(stream.fileno(), SIZE, flags=mmap.MAP_PRIVATE) as mapped,
    ):
        mapped[0:5] = b"local"
        equal(mapped[0:6], b"localx")
    equal((cached / "file").read_bytes() == b"x" * SIZE, True)


if __name__ == "__main__":
    run_case(globals())

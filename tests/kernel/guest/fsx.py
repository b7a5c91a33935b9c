"""Random operations on one file, compared with a model in memory: `fsx directory seed count [map]`.

The file is read, written, mapped, cut and extended at random places, closed and opened; it must
always hold what the model holds. With the argument `map`, some writes go through a shared map.
"""

import mmap
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

LIMIT = 400_000
LONGEST = 70_000


class Exerciser:
    def __init__(self, path: Path, seed: int, mapping: bool) -> None:
        self._path = path
        self._random = random.Random(seed)
        self._model = bytearray()
        self._history: list[str] = []
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._operations: list[Callable[[], str]] = [
            *[self._read] * 4,
            *[self._write] * 4,
            *[self._map_read] * 2,
            *[self._map_write] * (3 if mapping else 0),
            self._truncate,
            self._append,
            self._reopen,
        ]

    def run(self, count: int) -> None:
        for number in range(count):
            operation = self._random.choice(self._operations)
            self._history.append(f"{number}: {operation()}")
            size = os.fstat(self._file).st_size
            if size != len(self._model):
                self._fail(f"the size is {size}, not {len(self._model)}")
        self._reopen()
        self._compare(0, os.pread(self._file, len(self._model) + 1, 0), bytes(self._model))
        os.close(self._file)

    def _span(self, limit: int) -> tuple[int, int]:
        offset = self._random.randrange(limit)
        return offset, min(self._random.randint(1, LONGEST), limit - offset)

    def _put(self, offset: int, data: bytes) -> None:
        """Change the model; a gap before the data reads as zeros."""
        self._model.extend(bytes(max(offset - len(self._model), 0)))
        self._model[offset : offset + len(data)] = data

    def _read(self) -> str:
        offset, length = self._span(LIMIT)
        data = os.pread(self._file, length, offset)
        self._compare(offset, data, bytes(self._model[offset : offset + length]))
        return f"read {length} at {offset}"

    def _write(self) -> str:
        offset, length = self._span(LIMIT)
        data = self._random.randbytes(length)
        self._write_all(data, offset)
        self._put(offset, data)
        return f"write {length} at {offset}"

    def _append(self) -> str:
        length = self._random.randint(1, 5000)
        data, end = self._random.randbytes(length), len(self._model)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        if os.write(descriptor, data) != length:
            self._fail("a short append")
        os.close(descriptor)
        self._put(end, data)
        return f"append {length} at {end}"

    def _map_read(self) -> str:
        if not self._model:
            return "nothing to map"
        offset, length = self._span(len(self._model))
        with mmap.mmap(self._file, len(self._model), mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
            self._compare(
                offset, mapped[offset : offset + length], self._model[offset : offset + length]
            )
        return f"map-read {length} at {offset}"

    def _map_write(self) -> str:
        if not self._model:
            return "nothing to map"
        offset, length = self._span(len(self._model))
        data = self._random.randbytes(length)
        with mmap.mmap(self._file, len(self._model)) as mapped:
            mapped[offset : offset + length] = data
            mapped.flush()
        self._put(offset, data)
        return f"map-write {length} at {offset}"

    def _truncate(self) -> str:
        size = self._random.randrange(LIMIT)
        os.ftruncate(self._file, size)
        self._model = self._model[:size].ljust(size, b"\0")
        return f"truncate to {size}"

    def _reopen(self) -> str:
        os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR)
        return "reopen"

    def _write_all(self, data: bytes, offset: int) -> None:
        if os.pwrite(self._file, data, offset) != len(data):
            self._fail(f"a short write of {len(data)} at {offset}")

    def _compare(self, offset: int, actual: bytes, expected: bytes | bytearray) -> None:
        if actual == expected:
            return
        if len(actual) != len(expected):
            self._fail(f"{len(actual)} bytes instead of {len(expected)} at {offset}")
        first = next(
            i for i, pair in enumerate(zip(actual, expected, strict=True)) if pair[0] != pair[1]
        )
        self._fail(f"wrong data at {offset + first}: {actual[first : first + 8]!r}")

    def _fail(self, reason: str) -> None:
        raise AssertionError("\n".join([*self._history[-30:], reason]))


def main() -> None:
    directory, seed, count, *mapping = sys.argv[1:]
    Exerciser(Path(directory, "file"), int(seed), mapping == ["map"]).run(int(count))


main()

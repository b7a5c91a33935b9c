"""Files whose checksums are kept in mind: `checksums directory seed count`.

Of a few files, one at a time is written anew, appended to, renamed, removed or read; it must always
have the checksum of what was written, and in the end all do.
"""

import hashlib
import random
import sys
from pathlib import Path

from .check import equal

FILES = 8
LONGEST = 1 << 20


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    directory, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    sums: dict[Path, str] = {}
    for number in range(count):
        action = dice.choice(["write", "append", "rename", "remove", "read", "read"])
        if action == "write" or not sums:
            path = directory / str(dice.randrange(FILES))
            data = dice.randbytes(dice.randint(1, LONGEST))
            path.write_bytes(data)
            sums[path] = _sum(data)
            continue
        path = dice.choice(list(sums))
        if action == "append":
            data = path.read_bytes()
            more = dice.randbytes(dice.randint(1, 5000))
            with path.open("ab") as file:
                file.write(more)
            equal(_sum(data), sums[path])
            sums[path] = _sum(data + more)
        elif action == "rename":
            sums[path.rename(directory / f"moved.{number}")] = sums.pop(path)
        elif action == "remove":
            path.unlink()
            del sums[path]
        else:
            equal(_sum(path.read_bytes()), sums[path])
    equal({path: _sum(path.read_bytes()) for path in directory.iterdir()}, sums)


main()

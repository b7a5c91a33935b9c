"""Names of any kind, many in one directory, and deep trees."""

import os
import shutil
import subprocess
from errno import ENAMETOOLONG
from pathlib import Path

from .check import equal, fails, run_case

MANY = 10_000
ODD = [
    b"two\nlines",
    b"'single' \"double\" `back`",
    b"\xff\xfe\x80",
    "späße 漢字 \U0001f600".encode(),
    b"  spaces  ",
    b"-rf",
    b"*?[a]",
    b"back\\slash",
    b"...",
    b"\x01\x7f\t\r",
    b"x" * 255,
    "ä".encode() * 127,
]


def odd_names_are_kept_byte_for_byte(top: Path) -> None:
    base = os.fsencode(top)
    for name in ODD:
        with open(base + b"/" + name, "xb") as stream:
            stream.write(name)
    equal(sorted(os.listdir(base)), sorted(ODD))
    for name in ODD:
        with open(base + b"/" + name, "rb") as stream:
            equal(stream.read(), name)
        os.rename(base + b"/" + name, base + b"/moved")
        os.mkdir(base + b"/" + name)
        os.symlink(name, base + b"/link")
        equal(os.readlink(base + b"/link"), name)
        for leftover in (b"/moved", b"/link"):
            os.unlink(base + leftover)
    equal(sorted(os.listdir(base)), sorted(ODD))


def names_of_256_bytes_are_refused(top: Path) -> None:
    name = top / ("x" * 256)
    with fails(ENAMETOOLONG):
        name.touch()
    with fails(ENAMETOOLONG):
        name.mkdir()
    with fails(ENAMETOOLONG):
        name.stat()
    (top / "file").touch()
    with fails(ENAMETOOLONG):
        (top / "file").rename(name)


def many_files_in_one_directory(top: Path) -> None:
    directory = top / "many"
    directory.mkdir()
    for number in range(MANY):
        os.close(os.open(directory / f"file{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    names = os.listdir(directory)
    equal(len(names), MANY)
    equal(set(names), {f"file{number}" for number in range(MANY)})
    with os.scandir(directory) as entries:
        equal(len({entry.stat().st_ino for entry in entries}), MANY)
    for number in range(0, MANY, 2):
        (directory / f"file{number}").unlink()
    equal(len(os.listdir(directory)), MANY // 2)
    subprocess.run(["rm", "-r", directory], check=True)
    equal(os.listdir(top), [])


def a_directory_emptied_while_it_is_read(top: Path) -> None:
    for number in range(3000):
        (top / f"file{number}").touch()
    removed = 0
    with os.scandir(top) as entries:
        for entry in entries:
            os.unlink(entry)
            removed += 1
    equal(removed, 3000)
    equal(os.listdir(top), [])


def a_directory_rewound_shows_the_present(top: Path) -> None:
    (top / "old").touch()
    descriptor = os.open(top, os.O_RDONLY)
    equal(os.listdir(descriptor), ["old"])
    (top / "old").rename(top / "new")
    equal(os.listdir(descriptor), ["new"])
    os.close(descriptor)


def trees_of_two_hundred_levels(top: Path) -> None:
    os.chdir(top)
    for level in range(200):
        Path(f"level{level}").mkdir()
        os.chdir(f"level{level}")
        Path("file").write_text(str(level))
    os.chdir(top)
    deepest = Path(*(f"level{level}" for level in range(200)), "file")
    equal(deepest.read_text(), "199")
    equal(sum(len(files) for _, _, files, _ in os.fwalk()), 200)
    Path("level0").rename("moved")
    equal((Path("moved") / deepest.relative_to("level0")).read_text(), "199")
    shutil.rmtree("moved")
    equal(os.listdir(), [])
    os.chdir("/")


if __name__ == "__main__":
    run_case(globals())

"""Many files for a bench to work with: a git repository and a tar archive."""

import io
import itertools
import random  # the contents of files are no secret
import shutil
import subprocess
import tarfile
from pathlib import Path

SOURCES = [("/usr/share/perl", "*.p[lm]"), ("/usr/lib/python3.11", "*.py"), ("/usr/include", "*.h")]
SOURCE_FILES = 2000
SMALL_FILES = 5000


def make_repository(top: Path) -> str:
    """A git repository of source files that Debian has; what is in it."""
    found = (
        (path, top / Path(place).name / path.relative_to(place))
        for place, name in SOURCES
        for path in sorted(Path(place).rglob(name))
        if path.is_file()
    )
    sizes = []
    for source, copy in itertools.islice(found, SOURCE_FILES):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        sizes.append(copy.stat().st_size)
    git = ["git", "-C", str(top), "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=bench"], check=True)
    subprocess.run([*git, "gc", "--quiet"], check=True)
    return f"{len(sizes):,} files, {sum(sizes) / 1e6:.0f} MB"


def make_archive(path: Path) -> str:
    """A tar archive of small files, 100 in a directory; what is in it."""
    chosen = random.Random(1)
    total = 0
    with tarfile.open(path, "w") as archive:
        for number in range(SMALL_FILES):
            if number % 100 == 0:
                directory = tarfile.TarInfo(f"tree/{number // 100}")
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(directory)
            file = tarfile.TarInfo(f"{directory.name}/{number}")
            file.size = chosen.randrange(1, 8192)
            total += file.size
            archive.addfile(file, io.BytesIO(chosen.randbytes(file.size)))
    return f"{SMALL_FILES:,} files, {total / 1e6:.0f} MB"

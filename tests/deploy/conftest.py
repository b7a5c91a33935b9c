"""Fixtures: the repository with what it builds, and a machine for each module."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .machine import Machine, why_not

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def documented(heading: str) -> str:
    """The last commands before a table under this heading of docs/operations.md."""
    text = (ROOT / "docs/operations.md").read_text()
    section = re.split(r"^#+ ", text.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]
    blocks = re.findall(r"(?:^    .*\n)+", section.partition("\n|")[0], flags=re.MULTILINE)
    return re.sub("^    ", "", blocks[-1], flags=re.MULTILINE)


@pytest.fixture(scope="session")
def single_file() -> Path:
    """What ``make dist`` makes as one file, up to date; two tests may ask for it at a time."""
    file = ROOT / "dist/tmpfs9p.pyz"
    (ROOT / "build").mkdir(exist_ok=True)
    make = ["make", "--silent", str(file.relative_to(ROOT))]
    subprocess.run(["flock", "build", *make], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return file


@pytest.fixture(scope="module")
def machine(single_file: Path) -> Iterator[Machine]:
    """A machine with systemd that has the repository, where it can only be read."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    machine = Machine(ROOT)
    yield machine
    machine.close()

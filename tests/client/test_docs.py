"""docs/python.md: its programs run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .serving import Serving

TEXT = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs_in_the_docs_run(program: str, serving: Serving) -> None:
    where = serving.tcp.removeprefix("tcp://")
    done = subprocess.run(
        [sys.executable, "-c", program.replace("127.0.0.1:5640", where)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

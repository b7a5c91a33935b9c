"""SECURITY.md: the tests that it names are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_it_names_is_there() -> None:
    named = re.findall(r"`(tests/[^`]+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []

"""The build that is tested is the one that was meant."""

import runpy
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import pytest

from server.__main__ import described

COMPILED = runpy.run_path(str(Path(__file__).parents[1] / "setup.py"))["COMPILED"]


@pytest.mark.parametrize("path", COMPILED)
def test_a_module_is_compiled_if_it_should_be(path: str, pytestconfig: pytest.Config) -> None:
    spec = find_spec(path.removesuffix(".py").replace("/", "."))
    origin = spec.origin if spec else None
    compiled = origin is not None and origin.endswith(tuple(EXTENSION_SUFFIXES))
    assert compiled == pytestconfig.getoption("compiled"), origin


def test_the_version_tells(pytestconfig: pytest.Config) -> None:
    assert described().endswith("(compiled)") == pytestconfig.getoption("compiled")

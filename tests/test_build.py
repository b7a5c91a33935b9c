"""The build that is tested is the one that was meant."""

import ast
import runpy
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import pytest

from server.__main__ import described

COMPILED = runpy.run_path(str(Path(__file__).parents[1] / "setup.py"))["COMPILED"]
SOURCES = [path for path in COMPILED if path != "server/wire/compiled.py"]  # that is generated


@pytest.mark.parametrize("path", COMPILED)
def test_a_module_is_compiled_if_it_should_be(path: str, pytestconfig: pytest.Config) -> None:
    spec = find_spec(path.removesuffix(".py").replace("/", "."))
    origin = spec.origin if spec else None
    compiled = origin is not None and origin.endswith(tuple(EXTENSION_SUFFIXES))
    assert compiled == pytestconfig.getoption("compiled"), origin


def test_the_version_tells(pytestconfig: pytest.Config) -> None:
    assert described().endswith("(compiled)") == pytestconfig.getoption("compiled")


def functions(path: str) -> Iterator[ast.AST]:
    source = Path(__file__).parents[1].joinpath(path).read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES)
def test_the_bounds_of_slices_have_no_effects(path: str) -> None:
    """They may be evaluated twice: see setup.py."""
    for function in functions(path):
        for node in ast.walk(function):
            if isinstance(node, ast.Slice):
                called = {ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
                assert called <= {"len", "min", "max"}, ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES)
def test_a_caught_exception_has_one_type_under_one_name(path: str) -> None:
    """Else the second is a TypeError in the compiled build."""
    for function in functions(path):
        caught: dict[str, str] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                kind = ast.unparse(node.type)
                assert caught.setdefault(node.name, kind) == kind, ast.unparse(node)

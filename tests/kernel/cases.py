"""The cases of a guest program, each of which becomes a test of its own."""

import ast

from .uml import GUEST_PROGRAMS


def cases(program: str) -> list[str]:
    """The names of the program's public functions, in order."""
    tree = ast.parse((GUEST_PROGRAMS / f"{program}.py").read_text())
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [name for name in functions if not name.startswith("_")]

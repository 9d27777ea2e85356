"""Tests that pages name, as `tests/….py::test_…`.

In: a page's text. Out: the names for which there is no test.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def missing_tests(text: str) -> list[str]:
    """The tests that a text names and that do not exist."""
    return [f"{path}::{name}" for path, name in NAMED.findall(text) if name not in tests_in(ROOT / path)]


@cache
def tests_in(path: Path) -> frozenset[str]:
    """The names of a file's tests; none if there is no such file."""
    if not path.exists():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = (node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(name for name in functions if name.startswith("test_"))

"""The deadlines of tests are stretched by one factor, which is measured once."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import deadlines

TESTS = Path(__file__).parent.parent
ASKED = "import deadlines; print(deadlines.stretched(2.0))"


def told(**variables: str) -> float:
    """Two seconds, stretched by a new process."""
    outside = {name: value for name, value in os.environ.items() if name != deadlines.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        cwd=TESTS, env={**outside, **variables}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def test_a_process_measures_for_itself_and_shortens_no_deadline() -> None:
    assert 2.0 <= told() <= 2.0 * deadlines.LARGEST


def test_the_processes_of_a_run_have_the_factor_of_the_first() -> None:
    assert told(**{deadlines.VARIABLE: "7.5"}) == 15.0
    assert os.environ[deadlines.VARIABLE] == f"{deadlines.FACTOR:.2f}"


CALLS = {"wait_for": 1, "timeout": 0, "flush": 0, "result": 0, "poll": 0, "join": 0}
"""Which argument says how long to wait."""
KEYWORDS = {"timeout", "operation_timeout"}
NO_DEADLINE = 2.0
"""A shorter time is a pause between two checks."""
OTHERS = {"pytest.mark", "batches"}
"""conftest.py stretches the time limits of marks; `batches` is passed the present time."""
OF_THE_PLAY = {"chaos", "cluster", "compose", "image"}
"""Folders whose seconds say how long faults last, or how long a container engine takes."""


def deadlines_of(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions with which a module says how long to wait."""
    awaited = {node.value for node in ast.walk(tree) if isinstance(node, ast.Await)}
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(ast.Call(ast.Attribute(ast.Name("time"), "monotonic")), ast.Add(), seconds):
                yield seconds
            case ast.Call(ast.Attribute(owner, name), arguments, keywords):
                yield from (each.value for each in keywords if each.arg in KEYWORDS)
                at = CALLS.get(name, len(arguments))
                whose = ast.unparse(owner)
                if (
                    at < len(arguments)
                    and whose not in OTHERS
                    and (node not in awaited or whose == "asyncio")
                ):
                    yield arguments[at]


def is_literal(seconds: ast.expr) -> bool:
    """Whether a time to wait is a plain number of at least `NO_DEADLINE`, or a constant."""
    match seconds:
        case ast.Constant(int() | float() as value):
            return not isinstance(value, bool) and value >= NO_DEADLINE
        case ast.Name(name):
            return name.endswith("SECONDS")
    return False


def test_every_deadline_is_stretched() -> None:
    raw = [
        f"{path.relative_to(TESTS)}:{each.lineno}: {ast.unparse(each)}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.relative_to(TESTS).parts[0] not in OF_THE_PLAY
        for each in deadlines_of(ast.parse(path.read_text()))
        if is_literal(each)
    ]
    assert raw == []


def test_a_deadline_that_is_not_stretched_is_found() -> None:
    written = (
        "asyncio.wait_for(x, 30), time.monotonic() + SECONDS, run(timeout=5), p.poll(0.1), a.b(timeout=5)"
    )
    found = [ast.unparse(each) for each in deadlines_of(ast.parse(written)) if is_literal(each)]
    assert sorted(found) == ["30", "5", "SECONDS"]

"""Reads mutmut's mutants: what each one changes, and whether a test failed because of it.

In: the folder that mutmut worked in. Out: one `Mutant` for each. A mutant is named by what it changes, and not by
mutmut's number, which may change whenever the function changes.
"""

from __future__ import annotations

import ast
import copy
import difflib
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutation.rooms import CORE

_SURVIVED = 0
NO_TESTS = 33
"""The exit code of a mutant if no test reaches its function."""
_FAILED = 1
_TIMED_OUT = {-signal.SIGXCPU, -signal.SIGKILL}
"""The exit codes of a mutant whose test used up its CPU time."""
_KILLED = {_FAILED, *_TIMED_OUT}
_NAME = re.compile(r"^(?P<function>x.*)__mutmut_(?P<number>\d+|orig)$")
_CLASS_SEPARATOR = "ǁ"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to one function."""

    mutmut_name: str
    module: Path
    """Its path within the core."""
    function: str
    """With its class: `Endpoint.start`."""
    change: str
    """The lines before, `->`, the lines after, as `ast.unparse` writes them."""
    is_wording: bool
    """Whether only the words of a sentence differ: a text for people, which no test has to check."""
    exit_code: int | None

    @property
    def key(self) -> str:
        """Its name in survivors.toml."""
        return f"{self.module.as_posix()} {self.function}: {self.change}"

    @property
    def is_judged(self) -> bool:
        """Whether the result is known: it survived, it was killed, or no test reaches it."""
        return self.exit_code in {_SURVIVED, NO_TESTS, *_KILLED}

    @property
    def is_killed(self) -> bool:
        """Whether a test failed, or used up its CPU time, because of it."""
        return self.exit_code in _KILLED

    @property
    def is_timed_out(self) -> bool:
        """Whether it is killed only because a test used up its CPU time."""
        return self.exit_code in _TIMED_OUT


def is_noticed_by_a_test(exit_code: int | None) -> bool:
    """Whether a test failed because of a mutant, other than by using up its CPU time."""
    return exit_code == _FAILED


def read_mutants(folder: Path, modules: list[Path]) -> Iterator[Mutant]:
    """All mutants of these modules; a module may have none."""
    for module in modules:
        mutated = folder / "mutants" / "src" / module
        meta = mutated.with_name(mutated.name + ".meta")
        if meta.exists():
            codes = json.loads(meta.read_text("utf-8"))["exit_code_by_key"]
            yield from _of_module(module.relative_to(CORE), mutated.read_text("utf-8"), codes)


def _of_module(module: Path, text: str, codes: dict[str, int | None]) -> Iterator[Mutant]:
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and _NAME.match(node.name)
    }
    for name, exit_code in codes.items():
        mangled = name.rpartition(".")[2]
        match = _NAME.match(mangled)
        if match is None:
            raise ValueError(f"mutmut calls a mutant {name!r}, which this program cannot read")
        before, after = functions[match["function"] + "__mutmut_orig"], functions[mangled]
        yield Mutant(
            name,
            module,
            _plain_name(match["function"]),
            _change(before, after),
            _silent(before) == _silent(after),
            exit_code,
        )


def _plain_name(mangled: str) -> str:
    """`xǁEndpointǁstart` is `Endpoint.start`, and `x__poison` is `_poison`."""
    if _CLASS_SEPARATOR in mangled:
        return mangled.removeprefix("x" + _CLASS_SEPARATOR).replace(_CLASS_SEPARATOR, ".")
    return mangled.removeprefix("x_")


def _printed(function: ast.FunctionDef) -> list[str]:
    """The function's lines, with `_` in place of the name that mutmut gave it."""
    lines = ast.unparse(function).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("def "))
    lines[first] = re.sub(r"^def \w+", "def _", lines[first])
    return lines


def _change(before: ast.FunctionDef, after: ast.FunctionDef) -> str:
    compared = difflib.ndiff(_printed(before), _printed(after))
    sides: dict[str, list[str]] = {"-": [], "+": []}
    for line in compared:
        if line[0] in sides:
            sides[line[0]].append(line[2:].strip())
    return f"{' '.join(sides['-'])} -> {' '.join(sides['+'])}"


def _silent(function: ast.FunctionDef) -> list[str]:
    """The function's lines without the words of its sentences."""
    return _printed(_Silent().visit(copy.deepcopy(function)))


class _Silent(ast.NodeTransformer):
    """Removes the wording of sentences: of each text that has a space between two letters."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        """Replace each sentence by the same text."""
        if isinstance(node.value, str) and re.search(r"\w\W* \W*\w", node.value):
            return ast.Constant("a sentence")
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
        """Remove all fixed parts of an f-string if one of them has a space: they are wording."""
        self.generic_visit(node)
        fixed = [each for each in node.values if isinstance(each, ast.Constant)]
        if any(isinstance(each.value, str) and " " in each.value for each in fixed):
            node.values = [each for each in node.values if not isinstance(each, ast.Constant)]
        return node

"""What the parts of an import share.

In: nothing. Out: rows, and two kinds of errors: about one row, or about the whole file. No message contains a row's
values: they may be personal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

MAX_ROW_CHARACTERS = 1_048_576
"""As large as a record of the events topic may be; anything longer is not a row (a quote is not closed, no line
ends), and is not read into memory.
"""

HOLDS_NUL = "contains a NUL character; remove it, and check the program that wrote the file"

Members: TypeAlias = dict[str, Any]
"""A row's values by column; for JSON lines by the object's members."""


class Row(NamedTuple):
    """One row as it was read."""

    line: int
    """The line of the file on which it begins, from 1."""
    text: str | bytes
    """Its lines as they are in the file."""
    members: Members


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not imported."""

    line: int
    column: str | None
    """None: no single column is at fault."""
    problem: str
    """What is wrong and what to do; follows the column's name."""
    text: str | bytes = ""
    """The row as it is in the file; empty if no longer available."""


class RowError(ValueError):
    """One row cannot be imported."""

    def __init__(self, column: str | None, problem: str) -> None:
        """`problem` follows the column's name; it must not contain a value."""
        super().__init__(problem)
        self.column = column
        self.problem = problem


class FileProblem(Exception):  # noqa: N818 (the file's, no fault of ours)
    """The file, or its rest, cannot be read; the text says where, why and what to do."""

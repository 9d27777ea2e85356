"""What the parts of an import hand to one another.

In: nothing. Out: rows, and two ways to go wrong: one row, or the whole file. No message holds a row's values: they
may be personal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

MAX_ROW_CHARACTERS = 1_048_576
"""As much as the events topic takes in a record; what is longer is no row (a quote that is not closed, no line
ends), and is not read into memory."""

HOLDS_NUL = "holds a NUL character, which no text has; take it out, and look at what wrote the file"

Members: TypeAlias = dict[str, Any]
"""A row's values by column; in JSON lines by the object's members."""


class Row(NamedTuple):
    """One row as it was read."""

    line: int
    """The line of the file on which it begins, from 1."""
    text: str | bytes
    """Its lines as they stand in the file."""
    members: Members


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not imported."""

    line: int
    column: str | None
    """None: no one column is to blame."""
    problem: str
    """What is wrong and what to do, to be read after the column's name."""
    text: str | bytes = ""
    """The row as it stands in the file; empty where it is not at hand any more."""


class RowError(ValueError):
    """One row cannot be imported."""

    def __init__(self, column: str | None, problem: str) -> None:
        """`problem` is read after the column's name; give no value."""
        super().__init__(problem)
        self.column = column
        self.problem = problem


class FileProblem(Exception):  # noqa: N818 (the file's, no fault of ours)
    """The file, or what is left of it, cannot be read; the text says where, why and what to do."""

"""Reads rows from a CSV file.

In: bytes, with a header. Out: rows with typed values by column, and refusals for what is not a row. A row's line is
the one on which it begins, because a quoted cell may contain line breaks. A broken row costs only itself: reading
goes on with the line after the one on which it begins.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from flagpost_consumer.commands.imports.columns import (
    READERS,
    CellError,
    Column,
    ColumnType,
    Reader,
    read_columns,
    read_occurred_at,
)
from flagpost_consumer.commands.imports.roles import RoleFinder, Roles
from flagpost_consumer.commands.imports.rows import (
    HOLDS_NUL,
    MAX_ROW_CHARACTERS,
    FileProblem,
    Members,
    Refusal,
    Row,
    RowError,
)
from flagpost_consumer.commands.imports.text_lines import RowTooLong, TextLines
from flagpost_consumer.core.planning.legible import quoted

DELIMITERS = ",;\t|"
"""The recognised delimiters, the likeliest first."""

_QUOTED = re.compile('"[^"]*"?')
_PROBLEMS = {
    "expected after": "a cell continues after its closing quote; double the quotes that are part of the text",
    "end of data": "a quote that opens a cell is not closed; close it, or double it if it is part of the text",
    "field limit": f"a cell has more than {csv.field_size_limit():,} characters; look for a quote that is not closed",
}
"""By the message of Python's csv module."""


class CsvRows:
    """The rows of one file; iterate once."""

    def __init__(
        self,
        stream: BinaryIO,
        roles: RoleFinder,
        *,
        delimiter: str | None = None,
        typed: Iterable[str] = (),
        clears: bool = False,
    ) -> None:
        """Reads the header.

        Args:
            stream: the file's bytes.
            roles: decides which column is which field.
            delimiter: separates cells; None: whichever is most frequent in the header.
            typed: further `NAME:TYPE`.
            clears: whether an empty cell clears the field; otherwise it leaves the field unchanged.

        Raises:
            FileProblem: the file has no usable header.
        """
        self._lines = TextLines(stream)
        self._csv = csv.reader(self._lines, delimiter=delimiter or self._likely_delimiter(), strict=True)
        self._clears = clears
        columns = read_columns(self._header(), typed)
        try:
            self.roles = roles.find(tuple(column.name for column in columns))
        except RowError as error:
            raise FileProblem(f"{error.column} {error.problem}") from None
        ours = self.roles.column_of.values()
        self.fields = [column for column in columns if column.name not in ours]
        """The columns that are metadata fields, or properties."""
        self._columns = [(column.name, _reader(column, self.roles)) for column in columns]

    def __iter__(self) -> Iterator[Row | Refusal]:
        lines, width = self._lines, len(self._columns)
        while True:
            line = lines.begin_row()
            try:
                cells = next(self._csv)
            except StopIteration:
                return
            except (csv.Error, RowTooLong) as error:
                lines.draw_again(after=1)
                yield Refusal(line, None, _explained(error), lines.row_text())
                continue
            if not any(cells):
                continue  # what spreadsheet programs leave behind counts as a blank line
            if len(cells) == width:
                yield self._row(line, cells)
            else:
                yield Refusal(line, None, _misfit(len(cells), width), lines.row_text())

    def _row(self, line: int, cells: list[str]) -> Row | Refusal:
        text = self._lines.row_text()
        holds_nul = "\0" in text
        members: Members = {}
        name = None
        try:
            for (name, read), cell in zip(self._columns, cells, strict=True):
                if holds_nul:
                    _require_no_nul(cell)
                if cell:
                    members[name] = cell if read is None else read(cell)
                elif self._clears:
                    members[name] = None
        except CellError as error:
            return Refusal(line, name, str(error), text)
        return Row(line, text, members)

    def _header(self) -> Sequence[str]:
        try:
            return next(cells for cells in self._csv if any(cells))
        except StopIteration:
            raise FileProblem("it is empty; its first row must name the columns") from None
        except (csv.Error, RowTooLong) as error:
            raise FileProblem(f"its header cannot be read: {_explained(error)}") from None

    def _likely_delimiter(self) -> str:
        """The most frequent delimiter of the first line; if there is none, a comma."""
        first = ""
        with suppress(RowTooLong):  # the header will be refused for it
            first = next((line for line in self._lines if not line.isspace()), "")
        self._lines.draw_again(after=0)
        self._lines.begin_row()
        unquoted = _QUOTED.sub("", first)
        return max(DELIMITERS, key=unquoted.count)


def _require_no_nul(cell: str) -> None:
    if "\0" in cell:
        raise CellError(HOLDS_NUL)


def _reader(column: Column, roles: Roles) -> Reader | None:
    """How a column's cells are read: the event's own fields have their own types."""
    if column.name == roles.occurred_at:
        return read_occurred_at
    if column.name in roles.column_of.values() and column.type is not ColumnType.STRING:
        raise FileProblem(
            f"the column {quoted(column.name)} is a field of the event, and that is always text; "
            f"remove :{column.type}"
        )
    return READERS[column.type]


def _explained(error: csv.Error | RowTooLong) -> str:
    if isinstance(error, RowTooLong):
        return f"the row has more than {MAX_ROW_CHARACTERS:,} characters; look for a quote that is not closed"
    return next(
        (told for said, told in _PROBLEMS.items() if said in str(error)), f"the row is not CSV: {error}"
    )


def _misfit(cells: int, width: int) -> str:
    return f"the row has {cells} cells and the header {width}; put cells that contain the delimiter in quotes"

"""The lines of a CSV file: counted, in bounded memory, and read again if what began as a row is not one.

In: bytes, UTF-8 with or without a byte order mark. Out: lines with their ends. Bytes that are not UTF-8 become lone
surrogates, which no event can contain: so they cost only their own row.
"""

from __future__ import annotations

import io
from collections import deque
from typing import BinaryIO

from flagpost_consumer.commands.imports.files import READING_FAILS
from flagpost_consumer.commands.imports.rows import MAX_ROW_CHARACTERS, FileProblem

_CUT = "a line that is too long\n"
"""Replaces a line that is too long, of which nothing is kept; recognised by its identity."""


class RowTooLong(Exception):  # noqa: N818 (the file's, no fault of ours)
    """The row that has begun is longer than any real one."""


class TextLines:
    """An iterator over lines, which `csv.reader` draws from."""

    def __init__(self, stream: BinaryIO) -> None:
        self._text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self._characters = 0
        self.number = 0
        """How many lines have been read, which is the number of the last one."""

    def __iter__(self) -> TextLines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        if not line:
            raise StopIteration
        self.number += 1
        self._row.append(line)
        self._characters += len(line)
        if line is _CUT or self._characters > MAX_ROW_CHARACTERS:
            raise RowTooLong
        return line

    def begin_row(self) -> int:
        """The next line begins a row; returns its number."""
        self._row = []
        self._characters = 0
        return self.number + 1

    def row_text(self) -> str:
        """What has been read since the row began, as far as it was kept."""
        return "".join(line for line in self._row if line is not _CUT)

    def draw_again(self, after: int) -> None:
        """Forget what was read since the row began, except this many lines: the lines after these are read again."""
        rest = self._row[after:]
        self._again.extendleft(reversed(rest))
        self.number -= len(rest)
        del self._row[after:]

    def _read(self) -> str:
        try:
            line = rest = self._text.readline(MAX_ROW_CHARACTERS)
            while len(rest) == MAX_ROW_CHARACTERS and not rest.endswith(("\n", "\r")):
                rest = self._text.readline(MAX_ROW_CHARACTERS)
        except READING_FAILS as error:
            raise FileProblem(f"it cannot be read beyond line {self.number}: {error}") from None
        return line if rest is line else _CUT

"""Reads rows from JSON lines.

In: bytes, one JSON object for each line. Out: rows with their JSON values, and refusals for other lines.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import BinaryIO

import orjson

from flagpost_consumer.commands.imports.files import READING_FAILS
from flagpost_consumer.commands.imports.rows import MAX_ROW_CHARACTERS, FileProblem, Refusal, Row


class JsonRows:
    """The rows of one file; iterate once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._line = 0

    def __iter__(self) -> Iterator[Row | Refusal]:
        while text := self._read():
            self._line += 1
            if len(text) > MAX_ROW_CHARACTERS:
                yield Refusal(
                    self._line, None, f"the line has more than {MAX_ROW_CHARACTERS:,} bytes; split it"
                )
            elif not text.isspace():
                yield self._row(text)

    def _row(self, text: bytes) -> Row | Refusal:
        try:
            members = orjson.loads(text if self._line > 1 else text.removeprefix(BOM_UTF8))
        except orjson.JSONDecodeError as error:
            return Refusal(
                self._line, None, f"the line is not JSON: {error.msg} (column {error.colno})", text
            )
        if not isinstance(members, dict):
            return Refusal(self._line, None, 'the line is not a JSON object; write {"name": value, …}', text)
        return Row(self._line, text, members)

    def _read(self) -> bytes:
        """The next line, or the beginning of one that is too long, whose rest is skipped."""
        try:
            text = self._stream.readline(MAX_ROW_CHARACTERS + 1)
            rest = text
            while len(rest) > MAX_ROW_CHARACTERS and not rest.endswith(b"\n"):
                rest = self._stream.readline(MAX_ROW_CHARACTERS + 1)
        except READING_FAILS as error:
            raise FileProblem(f"it cannot be read beyond line {self._line}: {error}") from None
        return text

"""The columns of a CSV file: their names and types, and how cells become values.

In: the header's cells (`plan`, `age:integer`), cells as text. Out: columns; typed values, or a RowError's words. Text
stays text unless a column says otherwise: a zip code keeps its zero, and an id all its digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson

from flagpost_consumer.commands.imports.rows import HOLDS_NUL, FileProblem
from flagpost_consumer.core.planning.legible import quoted
from flagpost_schemas.times import epoch_ms, read_time

Reader = Callable[[str], Any]
"""Converts a cell's text to its value; raises CellError."""


class CellError(ValueError):
    """A cell's text does not fit its column's type; the message says what is expected."""


class ColumnType(StrEnum):
    """What a column's cells are."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Column:
    """A name, and the type of its cells."""

    name: str
    type: ColumnType = ColumnType.STRING


PENDO_TYPES: Mapping[ColumnType, str] = {
    ColumnType.STRING: "text",
    ColumnType.INTEGER: "number",
    ColumnType.NUMBER: "number",
    ColumnType.BOOLEAN: "boolean",
    ColumnType.TIMESTAMP: "date",
    ColumnType.LIST: "list",
}
"""Pendo's type of field for the cells of a column."""


def read_columns(header: Sequence[str], typed: Iterable[str]) -> list[Column]:
    """Read a header; `typed` are further `NAME:TYPE`, for files whose header cannot be changed.

    Raises:
        FileProblem: the header has no columns that rows could have. The message gives columns by number: their cells
        may be a row, in a file without a header.
    """
    columns: dict[str, Column] = {}
    for number, text in enumerate(header, start=1):
        where = f"column {number} of the header"
        column = _column(text, where)
        if not column.name:
            raise FileProblem(f"{where} has no name; name it or remove it")
        if column.name in columns:
            raise FileProblem(f"{where} has the same name as an earlier column; rename one of them")
        columns[column.name] = column
    for text in typed:
        column = _column(text, "--column")
        if column.name not in columns:
            raise FileProblem(f"the header has no column {quoted(column.name)}, which --column names")
        columns[column.name] = column
    return list(columns.values())


def _column(text: str, where: str) -> Column:
    if not is_utf8(text):
        raise FileProblem(f"{where} is not UTF-8; save the file as UTF-8")
    if "\0" in text:
        raise FileProblem(f"{where} {HOLDS_NUL}")
    name, colon, type_name = text.strip().rpartition(":")
    if not colon:
        return Column(type_name)
    if type_name not in set(ColumnType):
        raise FileProblem(
            f"{where}: the text after the colon is not a type; types are {', '.join(ColumnType)}. "
            "If the colon is part of the name, add the type: utm:source:string"
        )
    return Column(name.strip(), ColumnType(type_name))


def is_utf8(text: str) -> bool:
    """Whether a text was valid UTF-8: other bytes are lone surrogates in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_INT64 = range(-(2**63), 2**63)
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_BOOLEANS: Mapping[str, bool] = {"true": True, "false": False}
LIST_SEPARATOR = "|"


def read_integer(cell: str) -> int:
    """A whole number of 64 bits."""
    text = cell.strip()
    value = int(text) if _INTEGER.fullmatch(text) else None
    if value is None or value not in _INT64:
        raise CellError("is not a 64-bit integer; write digits only, such as 42")
    return value


def read_number(cell: str) -> float:
    """A finite number."""
    text = cell.strip()
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise CellError(
            "is not a number; write it with a decimal point and no thousands separators, such as 1234.5"
        )
    return value


def read_boolean(cell: str) -> bool:
    """`true` or `false`, in capitals or not."""
    value = _BOOLEANS.get(cell.strip().lower())
    if value is None:
        raise CellError("is not a boolean; write true or false")
    return value


def read_timestamp(cell: str) -> str:
    """RFC 3339 in UTC, which Pendo's date fields accept ("Data mapping and data types in Pendo")."""
    text = cell.strip()
    moment = _with_offset(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    try:
        in_utc = None if moment is None else moment.astimezone(UTC)
    except OverflowError:  # of the year 1, whose offset leads to the year before
        in_utc = None
    if in_utc is None:
        raise CellError(
            "is not a time; write RFC 3339 with its offset (2026-01-31T12:00:00Z), a date (2026-01-31), "
            "or epoch milliseconds"
        )
    return in_utc.isoformat().replace("+00:00", "Z")


def _with_offset(text: str) -> datetime | None:
    """A time with an offset; without one it could be any zone's."""
    moment = read_time(text)
    return None if moment is None or moment.tzinfo is None else moment


def read_list(cell: str) -> list[str]:
    """Texts separated by `|`, or a JSON list of texts."""
    if not cell.lstrip().startswith("["):
        return [part.strip() for part in cell.split(LIST_SEPARATOR)]
    try:
        parts = orjson.loads(cell)
    except orjson.JSONDecodeError:
        parts = None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise CellError('is not a list of strings; write red|blue, or ["red","blue"]')
    return parts


def read_occurred_at(cell: str) -> int:
    """When an event occurred: epoch milliseconds."""
    moment = _with_offset(cell.strip())
    if moment is None:
        raise CellError(
            "is not a time; write epoch milliseconds, or RFC 3339 with its offset (2026-01-31T12:00:00Z)"
        )
    return epoch_ms(moment)


READERS: Mapping[ColumnType, Reader | None] = {
    ColumnType.STRING: None,
    ColumnType.INTEGER: read_integer,
    ColumnType.NUMBER: read_number,
    ColumnType.BOOLEAN: read_boolean,
    ColumnType.TIMESTAMP: read_timestamp,
    ColumnType.LIST: read_list,
}
"""How cells are read; None: as they are."""

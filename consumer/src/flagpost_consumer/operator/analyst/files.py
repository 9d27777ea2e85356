"""Files of settlements: Parquet, CSV, JSON lines.

In: rows, where the file is to be. Out: the file, whole or not at all: it is written beside its place under another
name and renamed at the end. Rows go through; they are not held.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from flagpost_consumer.operator.analyst.rows import COLUMNS, TIMES, Row
from flagpost_consumer.operator.csv_cells import safe_cell

Write = Callable[[Path, Iterable[Row]], None]
"""Writes rows to a file that does not exist yet. Raises OSError."""


@contextmanager
def whole_or_not(target: Path) -> Iterator[Path]:
    """A place beside `target`; what is there becomes `target` if the block ends well, and is removed otherwise.

    Raises OSError.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield beside
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def write_json_lines(place: Path, rows: Iterable[Row]) -> None:
    """A JSON object a line, as `flagpost tail --json` prints it."""
    with place.open("xb") as file:
        for row in rows:
            file.write(orjson.dumps(dict(zip(COLUMNS, row, strict=True))) + b"\n")


def write_csv(place: Path, rows: Iterable[Row]) -> None:
    """A head line and a line a row (RFC 4180), times in RFC 3339; no cell is a spreadsheet's formula."""
    with place.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(map(_cells, rows))


def write_parquet(place: Path, rows: Iterable[Row]) -> None:
    """A Parquet file, by way of JSON lines beside it."""
    from flagpost_consumer.operator.analyst.database import parquet_of  # noqa: PLC0415 - of an extra

    lines = place.with_name(f"{place.name}.jsonl")
    try:
        write_json_lines(lines, rows)
        parquet_of(lines, place)
    finally:
        lines.unlink(missing_ok=True)


WRITERS: Mapping[str, Write] = {
    ".parquet": write_parquet,
    ".csv": write_csv,
    ".jsonl": write_json_lines,
}
"""By how the file's name ends."""


def _cells(row: Row) -> list[Any]:
    return [
        _rfc_3339(value) if name in TIMES else safe_cell(value)
        for name, value in zip(COLUMNS, row, strict=True)
    ]


def _rfc_3339(at_ms: int | None) -> str | int | None:
    """A time as text; a number that is no time stays one."""
    if at_ms is None:
        return None
    try:
        moment = datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)
    except (OverflowError, ValueError, OSError):
        return at_ms
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Files of settlements: Parquet, CSV, JSON lines.

In: rows, the path of the file. Out: the file, complete or not at all: it is written under another name in the same
directory and renamed at the end. Rows are not kept in memory.
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

from flagpost_consumer.commands.analyst.rows import COLUMNS, TIMES, Row
from flagpost_consumer.terminal.csv_cells import safe_cell

Write = Callable[[Path, Iterable[Row]], None]
"""Writes rows to a file that does not exist yet. Raises OSError."""


@contextmanager
def whole_or_not(target: Path) -> Iterator[Path]:
    """Yield a path next to `target`; its file becomes `target` if the block succeeds, and is removed otherwise.

    Every file that the block creates is readable only by its owner: it names visitors. Raises OSError.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    before = os.umask(0o077)
    try:
        yield beside
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
        os.umask(before)


def write_json_lines(place: Path, rows: Iterable[Row]) -> None:
    """One JSON object for each line, as `flagpost tail --json` prints it."""
    with place.open("xb") as file:
        for row in rows:
            file.write(orjson.dumps(dict(zip(COLUMNS, row, strict=True))) + b"\n")


def write_csv(place: Path, rows: Iterable[Row]) -> None:
    """A header line and a line for each row (RFC 4180), times in RFC 3339; no cell is a formula for spreadsheets."""
    with place.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(map(_cells, rows))


def write_parquet(place: Path, rows: Iterable[Row]) -> None:
    """A Parquet file, made from JSON lines next to it."""
    from flagpost_consumer.commands.analyst.database import parquet_of  # noqa: PLC0415 - of an extra

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
"""By the ending of the file's name."""


def _cells(row: Row) -> list[Any]:
    return [
        _rfc_3339(value) if name in TIMES else safe_cell(value)
        for name, value in zip(COLUMNS, row, strict=True)
    ]


def _rfc_3339(at_ms: int | None) -> str | int | None:
    """A time as text; a number that is not a time stays a number."""
    if at_ms is None:
        return None
    try:
        moment = datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)
    except (OverflowError, ValueError, OSError):
        return at_ms
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Prints the result of a query: a table for people, CSV or a JSON object for each line for programs.

In: the names of the columns, rows. Out: stdout. Texts are shown without anything that a terminal would obey.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from functools import singledispatch
from itertools import islice
from math import isfinite
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from flagpost_consumer.commands.analyst.rows import Row
from flagpost_consumer.terminal.csv_cells import safe_cell
from flagpost_consumer.terminal.echo import Coloured, echo, echo_json, echo_lines
from flagpost_consumer.terminal.rich_console import Terminal
from flagpost_settings.visible import visible

MAX_TABLE_ROWS = 1_000
UNFOLDED_COLUMNS = 100_000
"""How wide a table may be if there is no terminal."""
_TOO_LARGE = 1 << 63


def print_table(names: Sequence[str], rows: Iterator[Row]) -> None:
    """Print a table of at most `MAX_TABLE_ROWS` rows, or a block for each if the terminal is too narrow.

    If there are more rows, a line says so.
    """
    shown = list(islice(rows, MAX_TABLE_ROWS))
    table = Table(*(visible(name) for name in names), box=SIMPLE_HEAD)
    for row in shown:
        table.add_row(*map(_told, row))
    console = Terminal()
    whole = Terminal(width=UNFOLDED_COLUMNS)
    needed = Measurement.get(whole, whole.options, table).maximum
    if not console.is_terminal:
        whole.print(table)  # lines are searched there, not read
    elif needed <= console.width:
        console.print(table)
    else:
        _print_blocks(names, shown)
    if next(rows, None) is not None:
        echo(f"Only the first {MAX_TABLE_ROWS:,} rows are shown: --csv and --json print all.", err=True)


def _print_blocks(names: Sequence[str], rows: Iterable[Row]) -> None:
    longest = max(map(len, names))
    for number, row in enumerate(rows, start=1):
        echo(Coloured(f"row {number:,}", bold=True))
        for name, cell in zip(names, row, strict=True):
            echo(f"  {name:<{longest}}", _told(cell).plain)


def _told(cell: object) -> Text:
    return Text("NULL", "dim") if cell is None else Text(visible(_text(cell)))


def print_csv(names: Sequence[str], rows: Iterable[Row]) -> None:
    """CSV with a header line; no cell is a formula for spreadsheets."""
    echo_lines(_csv_line(names))
    for row in rows:
        echo_lines(_csv_line([None if cell is None else safe_cell(_csv_cell(cell)) for cell in row]))


def print_json(names: Sequence[str], rows: Iterable[Row]) -> None:
    """A JSON object for each line; times are RFC 3339."""
    for row in rows:
        echo_json(dict(zip(names, map(_json, row), strict=True)))


def _csv_line(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _csv_cell(cell: object) -> object:
    return cell if isinstance(cell, int | float) else _text(cell)


def _text(cell: object) -> str:
    told = _json(cell)
    return told if isinstance(told, str) else str(told)


@singledispatch
def _json(cell: object) -> Any:  # noqa: ANN401 - any JSON
    """A DuckDB value as a JSON value."""
    return str(cell)


@_json.register
def _same(cell: bool | str | None) -> Any:  # noqa: ANN401 - as above
    return cell


@_json.register
def _integer(cell: int) -> int | str:
    return cell if -_TOO_LARGE <= cell < 2 * _TOO_LARGE else str(cell)


@_json.register
def _number(cell: float | Decimal) -> float | None:
    return float(cell) if isfinite(cell) else None


@_json.register
def _moment(cell: date | time) -> str:
    return cell.isoformat().replace("+00:00", "Z")


@_json.register
def _seconds(cell: timedelta) -> float:
    return cell.total_seconds()


@_json.register
def _bytes(cell: bytes) -> str:
    return cell.hex()


@_json.register
def _object(cell: dict) -> dict[str, Any]:  # type: ignore[type-arg] # dispatched by its class
    return {str(name): _json(value) for name, value in cell.items()}


@_json.register
def _array(cell: list | tuple) -> list[Any]:  # type: ignore[type-arg] # dispatched by its class
    return [_json(value) for value in cell]

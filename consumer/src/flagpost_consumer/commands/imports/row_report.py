"""Reports how each row of an import ended, as they end, so that a million of them take no memory.

In: refused rows, settlements, rows that have not ended. Out: a CSV file or JSON lines, by its name, and counts. It
contains no value of a row; the line says which row it is.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from io import TextIOWrapper

import orjson

from flagpost_consumer.commands.imports.awaited import AwaitedRow
from flagpost_consumer.commands.imports.options import report_format
from flagpost_consumer.commands.imports.reporting import explained_file, open_for_owner, shown
from flagpost_consumer.commands.imports.rows import Refusal
from flagpost_consumer.terminal.csv_cells import safe_cell
from flagpost_schemas import LedgerEntry
from flagpost_schemas.times import rfc3339

FIELDS = (
    "line",
    "outcome",
    "reason",
    "detail",
    "attempts",
    "status",
    "settled_at",
    "partition",
    "offset",
    "duplicate_of",
)
REFUSED = "refused"
"""The row is not in Kafka."""
PENDING = "pending"
"""The row is in Kafka, and had not ended when the waiting ended."""
ARRIVED = frozenset({"delivered", "duplicate"})
"""Pendo has the contents of these rows."""


class RowReport:
    """The report of one import; without a path it only counts."""

    def __init__(self, path: str | None) -> None:
        """Raises click.ClickException: the file cannot be written."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Rows that Kafka has, by outcome and reason."""
        self._file: TextIOWrapper | None = None
        self._is_csv = path is not None and report_format(path) == "csv"
        if path is not None:
            self._file = TextIOWrapper(open_for_owner(path, "--report"), "utf-8", newline="")
            if self._is_csv:
                self._csv(dict.fromkeys(FIELDS), header=True)

    @property
    def is_well(self) -> bool:
        """Whether Pendo has the contents of every row that is in Kafka."""
        return all(outcome in ARRIVED for outcome, _ in self.counts)

    def refuse(self, refusal: Refusal) -> None:
        """A row is not imported."""
        where = "" if refusal.column is None else f"column {refusal.column}: "
        self._write({"line": refusal.line, "outcome": REFUSED, "detail": shown(where + refusal.problem)})

    def end(self, row: AwaitedRow, entry: LedgerEntry, settled_at_ms: int) -> None:
        """A row's delivery has ended."""
        self.counts[entry.outcome, entry.reason] += 1
        self._write(
            {
                "line": row.line,
                "outcome": entry.outcome,
                "reason": entry.reason,
                "attempts": entry.attempts,
                "status": entry.status,
                "settled_at": rfc3339(settled_at_ms),
                "partition": row.partition,
                "offset": row.offset,
                "duplicate_of": entry.duplicate_of,
            }
        )

    def leave(self, row: AwaitedRow, reason: str, why: str) -> None:
        """A row is no longer waited for."""
        self.counts[PENDING, reason] += 1
        told = {"line": row.line, "outcome": PENDING, "reason": reason, "detail": shown(why)}
        self._write({**told, "partition": row.partition, "offset": row.offset})

    def close(self) -> None:
        """Write what is not written yet. Raises click.ClickException: it cannot be."""
        if self._file is not None:
            with explained_file("--report"):
                self._file.close()

    def _write(self, told: Mapping[str, object]) -> None:
        if self._file is None:
            return
        row = {name: told.get(name) for name in FIELDS}
        with explained_file("--report"):
            if self._is_csv:
                self._csv(row)
            else:
                self._file.write(orjson.dumps(row).decode() + "\n")

    def _csv(self, row: Mapping[str, object], *, header: bool = False) -> None:
        writer = csv.writer(self._file)  # type: ignore[arg-type] # called only while there is one
        writer.writerow(row.keys() if header else map(safe_cell, row.values()))

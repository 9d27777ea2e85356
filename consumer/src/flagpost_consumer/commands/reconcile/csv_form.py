"""A reconciliation as CSV: a line for each flag and variation, and for each of their reasons, days or sources.

In: the report. Out: text. A name that a spreadsheet would take for a formula gets an apostrophe before it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from flagpost_consumer.commands.reconcile.counting import Counts, Part, Row
from flagpost_consumer.commands.reconcile.parts import By
from flagpost_consumer.commands.reconcile.report import COLUMNS, Report, part_json
from flagpost_consumer.commands.reconcile.visitors import VisitorCounts
from flagpost_consumer.terminal.csv_cells import safe_cell

Line = dict[str, Any]


def csv_text(report: Report) -> str:
    """The whole file, with a header line."""
    lines = list(_lines(report))
    names = list(dict.fromkeys(name for line in (_head(report), *lines) for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: safe_cell(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _lines(report: Report) -> Iterator[Line]:
    for row in report.rows:
        if report.by is By.REASON:
            yield from _reasons(report, row)
        elif report.by is None:
            yield _line(report, row, None, report.visitors(row), report.counts(row))
        else:
            for part in report.parts(row):
                yield _line(report, row, part, report.visitor_part(row, part), report.part(row, part))


def _head(report: Report) -> Line:
    """An empty line, which gives the columns if there is no row."""
    row: Row = ("", None)
    if report.by is By.REASON:
        return {**_names(row), "reason": "", "visitors": 0, "events": 0}
    part: Part | None = "" if report.by is By.DAY else None
    return _line(report, row, part, VisitorCounts(), Counts())


def _names(row: Row) -> Line:
    return {"flag_key": row[0], "variation_key": row[1]}


def _reasons(report: Report, row: Row) -> Iterator[Line]:
    visitors, counts = report.visitors(row), report.counts(row)
    events = {**counts.reasons, "pending": counts.pending, "unexplained": counts.unexplained}
    yield {**_names(row), "reason": "delivered", "visitors": visitors.delivered, "events": counts.delivered}
    names = (*visitors.by_reason, *(name for name, count in events.items() if count))
    for name in dict.fromkeys(names):
        found = {"visitors": visitors.by_reason.get(name, 0), "events": events.get(name, 0)}
        yield {**_names(row), "reason": name, **found}


def _line(report: Report, row: Row, part: Part | None, visitors: VisitorCounts, counts: Counts) -> Line:
    pendo = report.pendo(row) if part is None else None
    return {
        **_names(row),
        **({} if part is None else part_json(part)),
        "visitors_decided": visitors.decided,
        "visitors_delivered": visitors.delivered,
        "visitors_lost": visitors.lost,
        **{name: getattr(counts, name) for name in COLUMNS},
        **({} if pendo is None else {f"pendo_{name}": value for name, value in pendo.as_json().items()}),
        **({} if pendo is None else {"pendo_visitors": pendo.visitors}),
    }

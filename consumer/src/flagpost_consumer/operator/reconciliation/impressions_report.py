"""Shows impressions against published decisions: a part of the JSON document, or a table and sentences for people.

In: the books of a window. Out: values, text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from flagpost_consumer.core.legible import MAX_NAME_CHARACTERS, legible
from flagpost_consumer.operator.reconciliation.impressions import Compared, Decided, ImpressionBooks, Service
from flagpost_consumer.operator.rich_terminal import Terminal

COLUMNS = ("impressions", "published", "duplicates", "refused", "failed", "difference")


def impressions_json(books: ImpressionBooks) -> dict[str, Any]:
    """The document's member `impressions`."""
    return {
        "rows": [
            {"flag_key": flag, "rule_type": rule_type, **asdict(row), "difference": row.difference}
            for (flag, rule_type), row in books.rows().items()
        ],
        "reports": books.reports,
        "missing_reports": books.missing,
        "uncounted": books.uncounted,
        "damaged": books.damaged,
        "not_reporting": [
            {"service": service.name, "environment": service.environment, "published": count}
            for service, count in books.silent().items()
        ],
    }


def show_impressions(books: ImpressionBooks, console: Terminal) -> None:
    """Print them for people."""
    rows = books.rows()
    if books.reports:
        console.print(_table(rows))
    for sentence in _sentences(books, rows):
        console.print(Text(legible(sentence, len(sentence))), soft_wrap=not console.is_terminal)


def _table(rows: dict[Decided, Compared]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), title="Impressions at Optimizely", title_justify="left")
    for title in ("flag", "rule"):
        table.add_column(title, overflow="fold")
    for title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for (flag, rule_type), row in rows.items():
        numbers = (f"{getattr(row, column):,}" for column in COLUMNS)
        names = (Text(legible(name, MAX_NAME_CHARACTERS)) for name in (flag, rule_type or "unknown"))
        table.add_row(*names, *numbers)
    return table


def _sentences(books: ImpressionBooks, rows: dict[Decided, Compared]) -> Iterator[str]:
    if not books.reports:
        yield "No publisher reported impressions in the window: see docs/reconcile.md, Impressions."
    for flag, total in _by_flag(rows).items():
        yield (
            f"{flag}: {total.impressions:,} impressions at Optimizely; {total.published:,} decisions published, "
            f"{total.duplicates:,} that said nothing new, {total.refused + total.failed:,} refused or failed; "
            f"difference {total.difference:,}."
        )
    if books.missing:
        yield f"Reports of impressions that are missing: {books.missing:,}. What they told is among the differences."
    if books.uncounted:
        yield f"Impressions that a publisher had no room to count by flag: {books.uncounted:,}."
    if books.damaged:
        yield f"Records of the topic of impressions that cannot be read: {books.damaged:,}."
    for service, count in books.silent().items():
        yield f"{_named(service)} reports no impressions: what it published is left out ({count:,})."


def _by_flag(rows: dict[Decided, Compared]) -> dict[str, Compared]:
    totals: dict[str, Compared] = {}
    for (flag, _), row in rows.items():
        total = totals.setdefault(flag, Compared())
        for name, count in asdict(row).items():
            setattr(total, name, getattr(total, name) + count)
    return totals


def _named(service: Service) -> str:
    name = "A service without a name" if service.name is None else service.name
    return name if service.environment is None else f"{name} ({service.environment})"

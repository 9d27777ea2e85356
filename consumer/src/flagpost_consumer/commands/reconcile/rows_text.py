"""The rows of a reconciliation for people: a table if there is room for it, else a block for each variation.

In: the report, a console. Out: text. Each row begins with a line that can be read aloud: the number of visitors at
each stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flagpost_consumer.commands.reconcile.counting import Counts, Row
from flagpost_consumer.commands.reconcile.parts import By, part_name
from flagpost_consumer.commands.reconcile.report import COLUMNS, Report, expected_range
from flagpost_consumer.commands.reconcile.visitors import VisitorCounts
from flagpost_consumer.core.planning.legible import MAX_NAME_CHARACTERS, legible
from flagpost_consumer.terminal.rich_console import Terminal

INDENT = 4
ROOM = 400
"""More than the table's width with folded names and uncut numbers."""
MIN_NAME_WIDTH = 12
ALWAYS = ("delivered", "pending", "unexplained")
"""Counts of events that are shown even if they are 0."""
WORDS = {"dead_lettered": "dead-lettered", "sent_again": "sent again"}
NOBODY = VisitorCounts()


def show_rows(report: Report, console: Terminal) -> None:
    """Print all rows, and what belongs to no row."""
    if report.by is None:
        table = _table(report)
        if Measurement.get(console, console.options.update(width=ROOM), table).minimum <= console.width:
            console.print(table)
            for row in report.rows:
                _print(console, _lost_sentence(report.visitors(row), row_name(row)))
            return
    for row in report.rows:
        _show_block(report, row, console)
    books = report.found.books
    for name, counts in (("track events without a flag", books.other), ("metadata", books.metadata)):
        if counts.published:
            _print(console, f"{name}: {events_text(counts)}")


def row_name(row: Row) -> str:
    """The name of a row for people."""
    flag, variation = (legible(part, MAX_NAME_CHARACTERS) for part in (row[0], row[1] or "no variation"))
    return f"{flag}, {variation}"


def way_text(report: Report, row: Row) -> str:
    """The number of visitors at each stage, as far as known."""
    visitors, pendo = report.visitors(row), report.pendo(row)
    stations = [
        (report.decided(row), "decided by Optimizely"),
        (visitors.decided, "published"),
        (visitors.delivered, "delivered"),
        (None if pendo is None else pendo.visitors, "counted by Pendo"),
    ]
    (first, word), *others = [(count, what) for count, what in stations if count is not None]
    begin = f"{first:,} {'visitor' if first == 1 else 'visitors'} {word}"
    return " → ".join([begin, *(f"{count:,} {what}" for count, what in others)])


def reasons_text(reasons: Mapping[str, int]) -> str:
    """Reasons and how often, the most frequent first."""
    ordered = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ordered)


def events_text(counts: Counts) -> str:
    """How events ended, in a line."""
    told = [name for name in COLUMNS if name != "published" and (name in ALWAYS or getattr(counts, name))]
    ends = ", ".join(f"{getattr(counts, name):,} {WORDS.get(name, name)}" for name in told)
    why = f" (why: {reasons_text(counts.reasons)})" if counts.reasons else ""
    return f"{counts.published:,} {'event' if counts.published == 1 else 'events'}: {ends}{why}"


def _lost_sentence(visitors: VisitorCounts, name: str = "") -> str:
    if not visitors.lost:
        return ""
    share = f"{100 * visitors.lost / visitors.decided:.1f} %"
    of = f" of {name}" if name else ""
    return f"{visitors.lost:,}{of} not delivered ({share}): {reasons_text(visitors.by_reason)}"


def _show_block(report: Report, row: Row, console: Terminal) -> None:
    _print(console, row_name(row), bold=True)
    for line in _block_lines(report, row):
        _print(console, line, indent=INDENT)
    if report.by is not None:
        console.print(Padding(_split_table(report, row, report.by), (0, 0, 0, INDENT)))


def _block_lines(report: Report, row: Row) -> Iterator[str]:
    yield way_text(report, row)
    yield _lost_sentence(report.visitors(row))
    yield events_text(report.counts(row))
    pendo = report.pendo(row)
    if pendo is not None:
        difference = f", {pendo.difference:+,}" if pendo.difference else ""
        yield f"Pendo counts {pendo.counted:,} events; expected {expected_range(pendo)}{difference}"


def _split_table(report: Report, row: Row, by: By) -> Table:
    if by is By.REASON:
        return _reasons_table(report.visitors(row), report.counts(row))
    table = _columns(by.value, ("published", "delivered", "lost", "events"))
    table.add_column("why lost", overflow="fold")
    for part in report.parts(row):
        visitors, counts = report.visitor_part(row, part), report.part(row, part)
        numbers = (visitors.decided, visitors.delivered, visitors.lost, counts.published)
        _add(table, part_name(part), numbers, reasons_text(visitors.by_reason))
    return table


def _reasons_table(visitors: VisitorCounts, counts: Counts) -> Table:
    table = _columns("reason", ("visitors", "events"))
    events = {**counts.reasons, "pending": counts.pending, "unexplained": counts.unexplained}
    names = [*visitors.by_reason, *(name for name, count in events.items() if count)]
    for name in dict.fromkeys(names):
        _add(table, name, (visitors.by_reason.get(name, 0), events.get(name, 0)))
    _add(table, "not delivered", (visitors.lost, counts.published - counts.delivered))
    return table


def _columns(first: str, numbers: Iterable[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold", min_width=MIN_NAME_WIDTH)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _add(table: Table, name: str, numbers: Iterable[int], *texts: str) -> None:
    # Text: names from outside may look like markup.
    table.add_row(
        Text(legible(name, 2 * MAX_NAME_CHARACTERS)), *(f"{count:,}" for count in numbers), *map(Text, texts)
    )


def _table(report: Report) -> Table:
    """All columns."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("flag", "variation"):
        table.add_column(title, overflow="fold", min_width=MIN_NAME_WIDTH)
    pendo = () if report.at_pendo is None else ("at Pendo", "expected", "difference")
    visitors = ("visitors\npublished", "visitors\ndelivered", "visitors\nlost")
    for title in (*visitors, *COLUMNS.values(), *pendo):
        table.add_column(title, justify="right", no_wrap=True)
    for row in report.rows:
        counted = report.visitors(row)
        shown = [f"{count:,}" for count in (counted.decided, counted.delivered, counted.lost)]
        names = [legible(name, MAX_NAME_CHARACTERS) for name in (row[0], row[1] or "-")]
        table.add_row(*map(Text, names), *shown, *_numbers(report.counts(row)), *_pendo_cells(report, row))
    books = report.found.books
    for name, counts in (
        ("(no flag)", books.other),
        ("all track events", books.totals),
        ("metadata", books.metadata),
    ):
        table.add_row(name, "", "", "", "", *_numbers(counts))
    return table


def _numbers(counts: Counts) -> list[str]:
    return [f"{getattr(counts, name):,}" for name in COLUMNS]


def _pendo_cells(report: Report, row: Row) -> list[str]:
    pendo = report.pendo(row)
    if pendo is None:
        return []
    difference = f"{pendo.difference:+,}" if pendo.difference else "0"
    return [f"{pendo.counted:,}", expected_range(pendo), difference]


def _print(console: Terminal, text: str, *, indent: int = 0, bold: bool = False) -> None:
    if text:
        shown = Text(legible(text, len(text)), style="bold" if bold else "")
        console.print(Padding(shown, (0, 0, 0, indent)))

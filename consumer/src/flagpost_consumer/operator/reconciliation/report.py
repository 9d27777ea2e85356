"""Shows a reconciliation: one JSON document (CONTRACT section 10), or a table and sentences for people.

In: what was found, Pendo's counts where they were asked for, the sample ratios. Out: text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from flagpost_consumer.core.legible import MAX_NAME_CHARACTERS, legible
from flagpost_consumer.operator.reconciliation.counting import Counts, Row
from flagpost_consumer.operator.reconciliation.pendo_counts import PendoCheck, compare
from flagpost_consumer.operator.reconciliation.ratio_words import ratio_json, ratio_remark, ratio_warnings
from flagpost_consumer.operator.reconciliation.reading import Reconciliation
from flagpost_consumer.operator.reconciliation.sample_ratio import SampleRatio
from flagpost_consumer.operator.rich_terminal import Terminal
from flagpost_consumer.operator.times import moment_text

COLUMNS = {
    "published": "published",
    "delivered": "delivered",
    "duplicate": "duplicate",
    "dropped": "dropped",
    "dead_lettered": "dead-\nlettered",
    "replayed": "replayed",
    "sent_again": "sent\nagain",
    "pending": "pending",
    "unexplained": "unexplained",
}
"""CONTRACT section 10's counts, and what people read above them."""
ALWAYS = ("published", "delivered", "pending", "unexplained")
"""Columns that are shown even where they are 0 throughout."""

PLAIN_WIDTH = 200
"""How wide a table is where there is no terminal."""
MIN_NAME_WIDTH = 12

PENDOS_DAYS = (
    "Pendo counts whole days, by the events' own times, and late events only after hours: a window of whole past "
    "days compares best."
)

NONE = Counts()

WHAT_TO_DO = (
    "The group has committed beyond them, and the ledger does not say how they ended. If decisions.visitor_metadata "
    'was switched on within the window, give a --since after that; else see docs/reconcile.md, "Unexplained".'
)


@dataclass(frozen=True, slots=True)
class Report:
    """All that is to be shown."""

    found: Reconciliation
    ratios: tuple[SampleRatio, ...]
    at_pendo: Mapping[Row, int] | None = None
    """None: Pendo was not asked, or gave no counts."""

    @property
    def rows(self) -> list[Row]:
        """By flag, then variation; those that only Pendo has are among them."""
        return sorted(
            {*self.found.books.rows, *(self.at_pendo or ())}, key=lambda row: (row[0], row[1] or "")
        )

    def counts(self, row: Row) -> Counts:
        """Ours."""
        return self.found.books.rows.get(row, NONE)

    def pendo(self, row: Row) -> PendoCheck | None:
        """Pendo's, if they are known."""
        return None if self.at_pendo is None else compare(self.counts(row), self.at_pendo.get(row, 0))

    def as_json(self) -> dict[str, Any]:
        """The document."""
        found = self.found
        return {
            "window": {"since": found.since_ms, "until": found.until_ms, "cut_offsets": found.cut_offsets},
            "rows": [self._row_json(row) for row in self.rows],
            "other": _counts_json(found.books.other),
            "totals": _counts_json(found.books.totals),
            "metadata": _counts_json(found.books.metadata),
            "lost_offsets": found.lost_offsets,
            "unexplained": found.books.unexplained,
            "sample_ratio": [ratio_json(ratio) for ratio in self.ratios],
            "warnings": list(self.warnings()),
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        check = self.pendo(row)
        pendo = {} if check is None else {"pendo": asdict(check)}
        return {"flag_key": row[0], "variation_key": row[1], **_counts_json(self.counts(row)), **pendo}

    def warnings(self) -> Iterator[str]:
        """What somebody should look at although it does not fail the command."""
        yield from self._reading_warnings()
        yield from self._pendo_warnings()
        for ratio in self.ratios:
            yield from ratio_warnings(ratio)

    def _pendo_warnings(self) -> Iterator[str]:
        checks = ((row, self.pendo(row)) for row in self.rows)
        differing = [(row, check) for row, check in checks if check is not None and check.difference]
        for row, check in differing:
            yield f"{_named(row)}: Pendo counts {check.counted:,} where {_range(check)} are expected."
        if differing:
            yield PENDOS_DAYS

    def _reading_warnings(self) -> Iterator[str]:
        found = self.found
        if found.cut_offsets:
            begin = (
                "" if found.covered_ms is None else f": the window begins at {moment_text(found.covered_ms)}"
            )
            yield (
                f"The ledger no longer covers {found.cut_offsets:,} offsets of the window, so they are left out"
                f"{begin}. Keep the ledger longer than the events (flagpost check)."
            )
        if found.damaged:
            yield (
                f"{found.damaged:,} records of the ledger cannot be read; what they settled counts as unexplained "
                "or pending."
            )


def _counts_json(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in COLUMNS}


def _named(row: Row) -> str:
    return f"{row[0]}, {'no variation' if row[1] is None else row[1]}"


def show(report: Report, console: Terminal) -> None:
    """Print the report for people; its last sentence says how it stands."""
    found = report.found
    since = "the beginning" if found.since_ms is None else moment_text(found.since_ms)
    _say(console, f"From {since} to {moment_text(found.until_ms)}")
    _show_table(report, console)
    for ratio in report.ratios:
        if not ratio.skewed:
            _say(console, ratio_remark(ratio))
    for warning in report.warnings():
        _say(console, warning, "yellow")
    if found.books.examples:
        places = ", ".join(str(example) for example in found.books.examples)
        more = "" if len(found.books.examples) == found.books.unexplained else ", …"
        _say(console, f"Unexplained (partition/offset/kind): {places}{more}. {WHAT_TO_DO}", "red")
    _say(console, summary(found), "green" if found.adds_up else "bold red")


def _say(console: Terminal, text: str, style: str = "") -> None:
    """A line; where there is no terminal it is not broken."""
    console.print(Text(legible(text, len(text)), style=style), soft_wrap=not console.is_terminal)


def _show_table(report: Report, console: Terminal) -> None:
    """All columns; where they do not fit, those with a number. A number is never cut."""
    table = _table(report, list(COLUMNS))
    if _least_width(table, console) > console.width:
        every = report.found.books.totals
        every.add(report.found.books.metadata)
        table = _table(report, [name for name in COLUMNS if name in ALWAYS or getattr(every, name)])
    width = console.width
    console.width = max(width, _least_width(table, console))
    console.print(table)
    console.width = width


def _least_width(table: Table, console: Terminal) -> int:
    """How wide a table is when its names are folded, and its numbers are not."""
    return Measurement.get(console, console.options.update(width=PLAIN_WIDTH), table).minimum


def _table(report: Report, columns: list[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("flag", "variation"):
        table.add_column(title, overflow="fold", min_width=MIN_NAME_WIDTH)
    pendo = () if report.at_pendo is None else ("at Pendo", "expected", "difference")
    for title in (*(COLUMNS[name] for name in columns), *pendo):
        table.add_column(title, justify="right", no_wrap=True)
    for row in report.rows:
        _add(table, columns, row[0], row[1] or "-", report.counts(row), report.pendo(row))
    books = report.found.books
    _add(table, columns, "(no flag)", "", books.other)
    _add(table, columns, "all track events", "", books.totals)
    _add(table, columns, "metadata", "", books.metadata)
    return table


def _add(
    table: Table,
    columns: list[str],
    flag: str,
    variation: str,
    counts: Counts,
    pendo: PendoCheck | None = None,
) -> None:
    numbers = [f"{getattr(counts, name):,}" for name in columns]
    if pendo is not None:
        numbers += [
            f"{pendo.counted:,}",
            _range(pendo),
            f"{pendo.difference:+,}" if pendo.difference else "0",
        ]
    # Text: a flag's key may look like markup.
    names = (Text(legible(name, MAX_NAME_CHARACTERS)) for name in (flag, variation))
    table.add_row(*names, *numbers)


def _range(pendo: PendoCheck) -> str:
    least, most = f"{pendo.expected_min:,}", f"{pendo.expected_max:,}"
    return least if least == most else f"{least} to {most}"


def summary(found: Reconciliation) -> str:
    """How it stands, in one sentence."""
    every = found.books.totals
    every.add(found.books.metadata)
    lost = (
        f"; {found.lost_offsets:,} offsets were lost before the group read them" if found.lost_offsets else ""
    )
    return (
        f"{every.published:,} deliveries were published: {every.delivered:,} are delivered, "
        f"{every.duplicate:,} are duplicates, {every.dropped:,} dropped, {every.dead_lettered:,} dead-lettered "
        f"({every.replayed:,} of them replayed), {every.pending:,} pending, {every.unexplained:,} unexplained{lost}."
    )

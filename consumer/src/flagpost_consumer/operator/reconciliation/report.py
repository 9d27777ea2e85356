"""Shows a reconciliation: one JSON document (CONTRACT section 10), or a table and sentences for people.

In: what was found, Pendo's counts where they were asked for, the sample ratios. Out: text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flagpost_consumer.core.legible import MAX_NAME_CHARACTERS, legible
from flagpost_consumer.operator.reconciliation.counting import Counts, Row
from flagpost_consumer.operator.reconciliation.pendo_counts import PendoCheck, compare
from flagpost_consumer.operator.reconciliation.reading import Reconciliation
from flagpost_consumer.operator.reconciliation.sample_ratio import SampleRatio

COLUMNS = {
    "published": "published",
    "delivered": "delivered",
    "duplicate": "duplicate",
    "dropped": "dropped",
    "dead_lettered": "dead-lettered",
    "replayed": "replayed",
    "sent_again": "sent again",
    "pending": "pending",
    "unexplained": "unexplained",
}
"""CONTRACT section 10's counts, and what people read above them."""

PLAIN_WIDTH = 200
"""Where there is no terminal, lines are not broken."""

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
            "sample_ratio": [{**asdict(ratio), "skewed": ratio.skewed} for ratio in self.ratios],
            "warnings": list(self.warnings()),
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        check = self.pendo(row)
        pendo = {} if check is None else {"pendo": asdict(check)}
        return {"flag_key": row[0], "variation_key": row[1], **_counts_json(self.counts(row)), **pendo}

    def warnings(self) -> Iterator[str]:
        """What somebody should look at although it does not fail the command."""
        yield from self._reading_warnings()
        for row in self.rows:
            check = self.pendo(row)
            if check is not None and check.difference:
                yield _pendo_warning(row, check)
        for ratio in self.ratios:
            if ratio.skewed:
                yield _skew_warning(ratio)

    def _reading_warnings(self) -> Iterator[str]:
        found = self.found
        if found.cut_offsets:
            begin = "" if found.covered_ms is None else f": the window begins at {moment(found.covered_ms)}"
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


def _pendo_warning(row: Row, check: PendoCheck) -> str:
    expected = f"{check.expected_min:,}"
    if check.expected_max != check.expected_min:
        expected += f" to {check.expected_max:,}"
    return (
        f"{_named(row)}: Pendo counts {check.counted:,} where {expected} are expected. Pendo counts whole days, by "
        "the times of the events, and late events only after hours: compare a window of whole past days."
    )


def _skew_warning(ratio: SampleRatio) -> str:
    seen = ", ".join(f"{name} {count:,}" for name, count in ratio.variations.items())
    expected = ", ".join(f"{name} {count:,.0f}" for name, count in ratio.expected.items())
    shares = ",".join(f"{name}:SHARE" for name in ratio.variations)
    return (
        f"{ratio.flag_key}: visitors are split {seen} where {expected} are expected; by chance that happens with a "
        f"probability of {ratio.p_value:.2g}. An experiment with such a split measures nothing until the cause is "
        f"found. If unequal shares are meant (a rollout, a weighted experiment), say so: "
        f"--expect {ratio.flag_key}={shares}"
    )


def _named(row: Row) -> str:
    return f"{row[0]}, {'no variation' if row[1] is None else row[1]}"


def moment(at_ms: int) -> str:
    """A time as people read it, in UTC."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"


def show(report: Report, console: Console) -> None:
    """Print the report for people; its last sentence says how it stands."""
    found = report.found
    since = "the beginning" if found.since_ms is None else moment(found.since_ms)
    console.print(f"From {since} to {moment(found.until_ms)}")
    console.print(_table(report))
    for warning in report.warnings():
        console.print(Text(legible(warning, len(warning)), style="yellow"))
    if found.books.examples:
        places = ", ".join(str(example) for example in found.books.examples)
        more = "" if len(found.books.examples) == found.books.unexplained else ", …"
        console.print(Text(f"Unexplained (partition/offset/kind): {places}{more}. {WHAT_TO_DO}", style="red"))
    console.print(Text(summary(found), style="green" if found.adds_up else "bold red"))


def _table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("flag")
    table.add_column("variation")
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    if report.at_pendo is not None:
        for title in ("at Pendo", "expected", "difference"):
            table.add_column(title, justify="right")
    for row in report.rows:
        _add(table, row[0], row[1] or "-", report.counts(row), report.pendo(row))
    books = report.found.books
    _add(table, "(no flag)", "", books.other)
    _add(table, "all track events", "", books.totals)
    _add(table, "metadata", "", books.metadata)
    return table


def _add(table: Table, flag: str, variation: str, counts: Counts, pendo: PendoCheck | None = None) -> None:
    numbers = [f"{getattr(counts, name):,}" for name in COLUMNS]
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

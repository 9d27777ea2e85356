"""The content of a reconciliation: one JSON document (docs/contract.md#json-output), warnings, the summary.

In: what was found, Pendo's counts if requested, the sample ratios. Out: `Report`, which `rows_text`, `sentences` and
`csv_form` show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flagpost_consumer.commands.reconcile.at_pendo import AtPendo, PendoCheck, compare
from flagpost_consumer.commands.reconcile.counting import Counts, Part, Row
from flagpost_consumer.commands.reconcile.impressions_report import impressions_json
from flagpost_consumer.commands.reconcile.parts import By, part_name
from flagpost_consumer.commands.reconcile.ratio_words import ratio_json, ratio_warnings
from flagpost_consumer.commands.reconcile.reading import Reconciliation
from flagpost_consumer.commands.reconcile.sample_ratio import SampleRatio
from flagpost_consumer.commands.reconcile.three_way_report import Compared, optimizely_json
from flagpost_consumer.commands.reconcile.visitors import VisitorCounts
from flagpost_consumer.terminal.times import moment_text

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
"""The counts of docs/contract.md#json-output, and what people read above them."""
PENDOS_DAYS = (
    "Pendo counts whole days, by the times of the events, and counts late events only after hours: the comparison is "
    "best for a window of whole past days."
)

NONE = Counts()
NOBODY = VisitorCounts()
NOT_AT_PENDO = AtPendo()

WHAT_TO_DO = (
    "The group committed past them, but the ledger does not say how they ended. If decisions.visitor_metadata was "
    'switched on within the window, give a later --since; otherwise see docs/reconcile.md, "Unexplained".'
)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is to be shown."""

    found: Reconciliation
    ratios: tuple[SampleRatio, ...]
    at_pendo: Mapping[Row, AtPendo] | None = None
    """None: Pendo was not asked, or returned no counts."""
    by: By | None = None
    """What the rows are split by."""
    compared: Compared | None = None
    """Optimizely's own decisions compared with ours; None: no export was given."""

    @property
    def rows(self) -> list[Row]:
        """By flag, then variation; including those that only Pendo has."""
        return sorted(
            {*self.found.books.rows, *self.found.visitors, *(self.at_pendo or ())},
            key=lambda row: (row[0], row[1] or ""),
        )

    def counts(self, row: Row) -> Counts:
        """Ours."""
        return self.found.books.rows.get(row, NONE)

    def visitors(self, row: Row) -> VisitorCounts:
        """Our visitors."""
        return self.found.visitors.get(row, NOBODY)

    def parts(self, row: Row) -> list[Part]:
        """The parts of a row, in order."""
        mine = {part for each, part in (*self.found.books.parts, *self.found.visitor_parts) if each == row}
        return sorted(mine, key=part_name)

    def part(self, row: Row, part: Part) -> Counts:
        """The events of a part."""
        return self.found.books.parts.get((row, part), NONE)

    def visitor_part(self, row: Row, part: Part) -> VisitorCounts:
        """The visitors of a part; a visitor may be in several."""
        return self.found.visitor_parts.get((row, part), NOBODY)

    def decided(self, row: Row) -> int | None:
        """The visitors that Optimizely decided; None: not known."""
        return None if self.compared is None else self.compared.decided(row)

    def pendo(self, row: Row) -> PendoCheck | None:
        """Pendo's numbers, if known."""
        return (
            None if self.at_pendo is None else compare(self.counts(row), self.at_pendo.get(row, NOT_AT_PENDO))
        )

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
            **({} if self.compared is None else {"optimizely": optimizely_json(self.compared)}),
            "sample_ratio": [ratio_json(ratio) for ratio in self.ratios],
            "warnings": list(self.warnings()),
            **({} if found.impressions is None else {"impressions": impressions_json(found.impressions)}),
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        check = self.pendo(row)
        return {
            "flag_key": row[0],
            "variation_key": row[1],
            **_counts_json(self.counts(row)),
            "visitors": _visitors_json(self.visitors(row)),
            **({} if check is None else {"pendo": check.as_json(), "pendo_visitors": check.visitors}),
            **({} if self.by not in (By.DAY, By.SOURCE) else {"parts": list(self._parts_json(row))}),
        }

    def _parts_json(self, row: Row) -> Iterator[dict[str, Any]]:
        for part in self.parts(row):
            visitors = {"visitors": _visitors_json(self.visitor_part(row, part))}
            yield {**part_json(part), **_counts_json(self.part(row, part)), **visitors}

    def warnings(self) -> Iterator[str]:
        """What somebody should look at although the command does not fail."""
        yield from self._reading_warnings()
        yield from self._pendo_warnings()
        for ratio in self.ratios:
            yield from ratio_warnings(ratio)

    def _pendo_warnings(self) -> Iterator[str]:
        checks = ((row, self.pendo(row)) for row in self.rows)
        differing = [(row, check) for row, check in checks if check is not None and check.difference]
        for row, check in differing:
            yield f"{_named(row)}: Pendo counts {check.counted:,}, but {expected_range(check)} are expected."
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
                f"{found.damaged:,} records of the ledger cannot be read; the deliveries in them count as "
                "unexplained or pending."
            )


def _counts_json(counts: Counts) -> dict[str, Any]:
    return {**{name: getattr(counts, name) for name in COLUMNS}, "reasons": dict(counts.reasons)}


def _visitors_json(visitors: VisitorCounts) -> dict[str, Any]:
    return {
        "decided": visitors.decided,
        "delivered": visitors.delivered,
        "lost": visitors.lost,
        "by_reason": visitors.by_reason,
    }


def part_json(part: Part) -> dict[str, str | None]:
    """A day, or the four fields of a source."""
    return {"day": part} if isinstance(part, str) else asdict(part)


def _named(row: Row) -> str:
    return f"{row[0]}, {'no variation' if row[1] is None else row[1]}"


def expected_range(pendo: PendoCheck) -> str:
    """The range that Pendo may count, for people."""
    least, most = f"{pendo.expected_min:,}", f"{pendo.expected_max:,}"
    return least if least == most else f"{least} to {most}"


def summary(found: Reconciliation) -> str:
    """The result, in one sentence."""
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

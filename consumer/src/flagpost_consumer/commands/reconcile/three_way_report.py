"""Shows Optimizely's decisions compared with Flagpost's: a part of the JSON document, CSV visitor by visitor, or
text.

In: the comparison, the window. Out: values, text.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from flagpost_consumer.commands.reconcile.counting import Row
from flagpost_consumer.commands.reconcile.lost_at_publishers import (
    Extent,
    Lost,
    LostAtPublishers,
    Service,
    told_in_words,
)
from flagpost_consumer.commands.reconcile.three_way import (
    Cause,
    Difference,
    ThreeWay,
    Unreadable,
    VariationCounts,
)
from flagpost_consumer.core.planning.legible import quoted
from flagpost_consumer.terminal.csv_cells import safe_cell

MAX_NAMED = 5
"""How many visitors of each cause the text names."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The result of a comparison."""

    counts: dict[tuple[str, str], VariationCounts]
    differences: list[Difference]
    left_out: int
    without_ids: int
    not_in_export: Counter[tuple[str, str]]
    """Decisions, by experiment and flag."""
    lost: LostAtPublishers
    unreadable: tuple[Unreadable, ...]

    def decided(self, row: Row) -> int | None:
        """The visitors that Optimizely decided for a flag's variation, if known."""
        found = [counts.decided for counts in self.counts.values() if counts.row == row]
        return sum(found) if found else None


def compared(three_way: ThreeWay, since_ms: int | None, until_ms: int) -> Compared:
    """The result of a comparison for a window."""
    return Compared(
        three_way.counts(since_ms, until_ms),
        sorted(three_way.differences(since_ms, until_ms), key=attrgetter("exposure")),
        three_way.left_out(since_ms, until_ms),
        three_way.without_ids,
        three_way.not_in_export,
        three_way.lost,
        three_way.unreadable,
    )


def optimizely_json(found: Compared) -> dict[str, Any]:
    """The document's member `optimizely`."""
    return {
        "rows": [
            {
                "experiment_id": experiment_id,
                "variation_id": variation_id,
                "flag_key": None if counts.row is None else counts.row[0],
                "variation_key": None if counts.row is None else counts.row[1],
                "decided": counts.decided,
                "published": counts.published,
                "delivered": counts.delivered,
                "by_cause": dict(counts.by_cause),
            }
            for (experiment_id, variation_id), counts in sorted(found.counts.items())
        ],
        "differences": [_difference_json(difference) for difference in found.differences],
        "left_out": found.left_out,
        "unreadable": [each._asdict() for each in found.unreadable],
        "without_ids": found.without_ids,
        "not_in_export": [
            {"experiment_id": experiment_id, "flag_key": flag_key, "decisions": count}
            for (experiment_id, flag_key), count in sorted(found.not_in_export.items())
        ],
    }


def differences_csv(found: Compared) -> str:
    """A line for each visitor who is in only one of the two."""
    names = [*_difference_json(Difference(("", "", ""), Cause.OTHER))]  # type: ignore[arg-type]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for difference in found.differences:
        line = {**_difference_json(difference), "services": "; ".join(difference.services)}
        writer.writerow({name: safe_cell(value) for name, value in line.items()})
    return text.getvalue()


def sentences(found: Compared) -> Iterator[str]:
    """The comparison for people."""
    for (experiment_id, variation_id), counts in sorted(found.counts.items()):
        variation = f", variation {variation_id}" if variation_id else ""
        name = f"experiment {experiment_id}{variation}" if experiment_id else "no rule"
        if counts.row is not None:
            name = f"{counts.row[0]}, {counts.row[1] or 'no variation'} ({name})"
        yield (
            f"{name}: {counts.decided:,} visitors decided by Optimizely → {counts.published:,} published → "
            f"{counts.delivered:,} delivered"
        )
        for cause, count in counts.by_cause.most_common():
            named = [
                each
                for each in found.differences
                if each.cause == cause and each.exposure[:2] == (experiment_id, variation_id)
            ]
            yield f"    {count:,} {cause}: {_who(named)}"
        if counts.row is not None and counts.by_cause[Cause.NEVER_PUBLISHED]:
            yield from _others_lost(found.lost.of_variation(*counts.row))
    yield from map(unreadable_told, found.unreadable)
    if found.left_out:
        yield (
            f"{found.left_out:,} decisions of the export are left out: they were made outside the window, or within "
            "a minute of its ends."
        )
    if found.without_ids:
        yield (
            f"{found.without_ids:,} decisions do not name their experiment and could not be compared: publish them "
            "with a newer SDK or publisher."
        )
    for (experiment_id, flag_key), count in sorted(found.not_in_export.items()):
        name = f"experiment {experiment_id}" if experiment_id else "no rule"
        yield f"{flag_key} ({name}) is not in the export; its {count:,} decisions are not compared."


def unreadable_told(unreadable: Unreadable) -> str:
    """A sentence on the rows of a file that are left out because of their time."""
    rows = "1 row has" if unreadable.rows == 1 else f"{unreadable.rows:,} rows have"
    shown = "they are empty" if unreadable.example is None else f"for example {quoted(unreadable.example)}"
    return f"{unreadable.file}: {rows} no time that can be read ({shown}), so they are not compared."


def _others_lost(of_variation: Mapping[Lost, Extent]) -> Iterator[str]:
    """If a publisher lost more than its reports list, visitors who were never published may be among these."""
    unlisted: Counter[tuple[Service, str, str]] = Counter(
        {
            (lost.service, lost.fate, lost.reason): extent.decisions
            for lost, extent in of_variation.items()
            if extent.decisions > extent.listed
        }
    )
    if unlisted:
        yield (
            f"    for this variation, {told_in_words(unlisted)}, but not every visitor is listed: some of the "
            "never_published may be among them"
        )


def _who(named: list[Difference]) -> str:
    ids = ", ".join(each.exposure.visitor_id for each in named[:MAX_NAMED])
    more = ", …" if len(named) > MAX_NAMED else ""
    first = named[0]
    told = (
        f"; reported to Optimizely by {first.client}"
        if first.cause is Cause.NEVER_PUBLISHED and first.client
        else ""
    )
    if first.cause in (Cause.REFUSED, Cause.FAILED):
        reasons = Counter((each.services[0], each.reason) for each in named)
        told = "; ".join(f"{count:,} by {of}: {reason}" for (of, reason), count in reasons.most_common())
        return f"{ids}{more} ({told})"
    if first.cause is not Cause.NEVER_PUBLISHED:
        return f"{ids}{more}"
    by = (
        f"decisions of this experiment come from {', '.join(first.services)}"
        if first.services
        else ("no service publishes decisions of this experiment")
    )
    return f"{ids}{more} ({by}{told})"


def _difference_json(difference: Difference) -> dict[str, Any]:
    exposure = difference.exposure
    return {
        "visitor_id": exposure[2],
        "experiment_id": exposure[0],
        "variation_id": exposure[1],
        "cause": difference.cause.value,
        "reason": difference.reason,
        "client": difference.client,
        "services": list(difference.services),
    }

"""Shows Optimizely's decisions against Flagpost's: a part of the JSON document, CSV visitor by visitor, or text.

In: the comparison, the window. Out: values, text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flagpost_consumer.operator.csv_cells import safe_cell
from flagpost_consumer.operator.reconciliation.counting import Row
from flagpost_consumer.operator.reconciliation.three_way import (
    Cause,
    Difference,
    ThreeWay,
    VariationCounts,
)

MAX_NAMED = 5
"""Visitors of each cause that the text names."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison that has ended."""

    counts: dict[tuple[str, str], VariationCounts]
    differences: list[Difference]
    left_out: int
    without_ids: int

    def decided(self, row: Row) -> int | None:
        """The visitors that Optimizely decided for a flag's variation, if it knows of it."""
        found = [counts.decided for counts in self.counts.values() if counts.row == row]
        return sum(found) if found else None


def compared(three_way: ThreeWay, since_ms: int | None, until_ms: int) -> Compared:
    """What a comparison gives for a window."""
    return Compared(
        three_way.counts(since_ms, until_ms),
        list(three_way.differences(since_ms, until_ms)),
        three_way.left_out(since_ms, until_ms),
        three_way.without_ids,
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
        "without_ids": found.without_ids,
    }


def differences_csv(found: Compared) -> str:
    """A line for everybody who is in one and not in the other."""
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
        name = f"experiment {experiment_id}, variation {variation_id}"
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
            yield f"  {count:,} {cause}: {_who(named)}"
    if found.left_out:
        yield f"{found.left_out:,} of the export were decided outside the window, or within a minute of its ends."
    if found.without_ids:
        yield (
            f"{found.without_ids:,} decisions do not name their experiment and could not be compared: publish them "
            "with a newer SDK or publisher."
        )


def _who(named: list[Difference]) -> str:
    ids = ", ".join(each.exposure.visitor_id for each in named[:MAX_NAMED])
    more = ", …" if len(named) > MAX_NAMED else ""
    first = named[0]
    told = (
        f"; told to Optimizely by {first.client}"
        if first.cause is Cause.NEVER_PUBLISHED and first.client
        else ""
    )
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

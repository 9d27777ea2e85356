"""Shows impressions compared with published decisions: a part of the JSON document, or sentences for people.

In: the books of a window. Out: values, text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from flagpost_consumer.commands.reconcile.impressions import ImpressionBooks
from flagpost_consumer.commands.reconcile.lost_at_publishers import Extent, Lost, told_in_words


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
        "lost": [lost_json(lost, extent) for lost, extent in sorted(books.lost.extents.items(), key=repr)],
    }


def lost_json(lost: Lost, extent: Extent) -> dict[str, Any]:
    """What publishers refused, or Kafka did not take from them, for one reason."""
    service, *told = lost
    named = dict(zip(lost._fields[1:], told, strict=True))
    return {"service": service.name, "environment": service.environment, **named, **asdict(extent)}


def impression_sentences(books: ImpressionBooks) -> Iterator[str]:
    """A line for each flag and type of rule, and for each doubt."""
    if not books.reports:
        yield "No publisher reported impressions in the window: see docs/reconcile.md, Impressions."
    for (flag, rule_type), row in books.rows().items():
        rule = _RULES.get(rule_type, "rule of unknown type")
        yield (
            f"{flag}, {rule}: {row.impressions:,} impressions at Optimizely → "
            f"{row.published:,} published, {row.duplicates:,} duplicates, "
            f"{row.refused + row.failed:,} refused or failed; difference {row.difference:,}"
        )
        if words := told_in_words(books.lost.by_service(flag, rule_type)):
            yield f"    {words}"
    if books.missing:
        yield f"Reports of impressions that are missing: {books.missing:,}. Their impressions are in the differences."
    if books.uncounted:
        yield f"Impressions that a publisher could not count by flag, because it had no room: {books.uncounted:,}."
    if books.damaged:
        yield f"Records of the impressions topic that cannot be read: {books.damaged:,}."
    for service, count in books.silent().items():
        title = service.title[0].upper() + service.title[1:] if service.name is None else service.title
        yield f"{title} reports no impressions, so its published decisions are left out ({count:,})."


_RULES: dict[str | None, str] = {
    "experiment": "experiment",
    "delivery": "delivery",
    "holdout": "holdout",
    "none": "no rule",
}

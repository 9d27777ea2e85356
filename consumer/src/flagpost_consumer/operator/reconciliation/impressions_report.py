"""Shows impressions against published decisions: a part of the JSON document, or sentences for people.

In: the books of a window. Out: values, text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from flagpost_consumer.operator.reconciliation.impressions import ImpressionBooks, Service


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


def impression_sentences(books: ImpressionBooks) -> Iterator[str]:
    """A line for each flag and type of rule, and for what is doubtful."""
    if not books.reports:
        yield "No publisher reported impressions in the window: see docs/reconcile.md, Impressions."
    for (flag, rule_type), row in books.rows().items():
        rule = _RULES.get(rule_type, "rule of unknown type")
        yield (
            f"{flag}, {rule}: {row.impressions:,} impressions at Optimizely → "
            f"{row.published:,} published, {row.duplicates:,} said nothing new, "
            f"{row.refused + row.failed:,} refused or failed; difference {row.difference:,}"
        )
    if books.missing:
        yield f"Reports of impressions that are missing: {books.missing:,}. What they told is among the differences."
    if books.uncounted:
        yield f"Impressions that a publisher had no room to count by flag: {books.uncounted:,}."
    if books.damaged:
        yield f"Records of the topic of impressions that cannot be read: {books.damaged:,}."
    for service, count in books.silent().items():
        yield f"{_named(service)} reports no impressions: what it published is left out ({count:,})."


_RULES: dict[str | None, str] = {
    "experiment": "experiment",
    "delivery": "delivery",
    "holdout": "holdout",
    "none": "no rule",
}


def _named(service: Service) -> str:
    name = "A service without a name" if service.name is None else service.name
    return name if service.environment is None else f"{name} ({service.environment})"

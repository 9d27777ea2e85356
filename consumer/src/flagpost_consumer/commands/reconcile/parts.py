"""How the rows of a reconciliation can be split.

In: the request, decisions. Out: the part of its row to which a decision belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

from flagpost_consumer.commands.reconcile.counting import Part
from flagpost_schemas import DecisionEvent, Source

DAY_MS = 86_400_000
NO_DAY = "no day"
"""For a decision whose time is invalid."""
NOBODY = Source()


class By(StrEnum):
    """By what rows are split."""

    REASON = "reason"
    DAY = "day"
    """By the decisions' own times (UTC), as Pendo and Optimizely count them."""
    SOURCE = "source"


def part_of(by: By | None) -> Callable[[DecisionEvent], Part] | None:
    """How decisions are split; None: not at all. (Reasons are always counted.)"""
    if by is By.DAY:
        return _day_of
    return _source_of if by is By.SOURCE else None


def part_name(part: Part) -> str:
    """The name of a part for people."""
    if isinstance(part, str):
        return part
    sdk = " ".join(filter(None, (part.sdk, part.sdk_version)))
    beside = ", ".join(filter(None, (part.environment, sdk)))
    return f"{part.service or 'no service'} ({beside})" if beside else part.service or "no service"


def _day_of(decision: DecisionEvent) -> str:
    return _day(decision.occurred_at // DAY_MS)


@lru_cache(maxsize=1000)
def _day(number: int) -> str:
    try:
        return datetime.fromtimestamp(number * (DAY_MS // 1000), UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return NO_DAY


def _source_of(decision: DecisionEvent) -> Source:
    return decision.source or NOBODY

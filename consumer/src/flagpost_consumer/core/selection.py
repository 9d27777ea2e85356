"""Which events are selected (CONTRACT section 5, `select`): those of some environments, services or accounts only.

In: an event and the patterns. Out: how what is not selected ends.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.policy import Patterns, SelectSettings
from flagpost_schemas import Event


def not_selected(event: Event, select: SelectSettings) -> Ending | None:
    """How an event ends that is not selected; None: it is. The detail names the pattern's key and no account."""
    source = event.source
    given = (
        ("environments", None if source is None else source.environment, select.environments),
        ("services", None if source is None else source.service, select.services),
        ("accounts", event.account_id, select.accounts),
    )
    for key, value, patterns in given:
        if (said := _against(value, patterns)) is not None:
            return Ending(Reason.NOT_SELECTED, f"select.{key}.{said}")
    return None


def _against(value: str | None, patterns: Patterns) -> str | None:
    """What speaks against a value: an event that does not tell it is none of those that are allowed."""
    if patterns.allow is not None and (value is None or not matches(value, patterns.allow)):
        return "allow does not name where the event is from"
    if patterns.deny is not None and value is not None and matches(value, patterns.deny):
        return "deny names where the event is from"
    return None


def matches(value: str, patterns: list[str]) -> bool:
    """Whether one of some glob patterns fits, upper and lower case told apart."""
    return any(fnmatchcase(value, pattern) for pattern in patterns)

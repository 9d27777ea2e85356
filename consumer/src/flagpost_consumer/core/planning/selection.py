"""Which events are selected (`select` in the settings), by environment, service or account.

In: an event and the patterns. Out: the ending of an event that is not selected.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.policy import Patterns, SelectSettings
from flagpost_schemas import Event


def not_selected(event: Event, select: SelectSettings) -> Ending | None:
    """The ending of an event that is not selected; None: it is. The detail names the setting but no account."""
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
    """Why a value is not selected. An event without the value matches no `allow` pattern."""
    if patterns.allow is not None and (value is None or not matches(value, patterns.allow)):
        return "allow does not match the event"
    if patterns.deny is not None and value is not None and matches(value, patterns.deny):
        return "deny matches the event"
    return None


def matches(value: str, patterns: list[str]) -> bool:
    """Whether a value matches one of some glob patterns, case-sensitively."""
    return any(fnmatchcase(value, pattern) for pattern in patterns)

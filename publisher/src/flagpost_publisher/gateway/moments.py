"""Moments as Segment's libraries and Pendo's webhooks write them.

In: a JSON value. Out: epoch milliseconds, or None for what is no moment.
"""

from __future__ import annotations

from datetime import UTC, datetime

_SECONDS_BELOW = 100_000_000_000
"""A number below this is in seconds (until the year 5138), from it on in milliseconds (since March 1973)."""

_LAST_MS = 253_402_300_799_999
"""The end of the year 9999, as far as ISO 8601 texts go."""


def moment_ms(value: object) -> int | None:
    """Read an ISO 8601 text (UTC where it gives no offset), or a number of seconds or milliseconds since 1970.

    Pendo's examples of webhooks give seconds, its track API takes milliseconds, Segment's libraries write texts.
    """
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    milliseconds = value * 1000 if abs(value) < _SECONDS_BELOW else value
    return round(milliseconds) if abs(milliseconds) <= _LAST_MS else None  # a NaN is not


def _from_text(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)

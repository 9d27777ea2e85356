"""Times as people, programs and libraries write them: the one reader of all of them.

In: a JSON value or a text. Out: a `datetime`, or None for what is not a time; `epoch_ms` makes one of ours of it.

| form | |
|---|---|
| `2026-01-31T12:00:00.123Z` | RFC 3339, and what is near it: a space for the T, small letters, a comma, no seconds |
| `2026-01-31 12:00:00 UTC` | Ruby's, also with `GMT` or `+0100` |
| `2026-01-31 12:00:00 +0000 UTC m=+0.0001` | Go's |
| `2026-01-31T12:00:00`, `2026-01-31` | without an offset: the `datetime` is naive, and the caller decides |
| `Sat Jan 31 2026 12:00:00 GMT+0000 (UTC)` | JavaScript's |
| a number | since 1970: seconds below 10^11 (until the year 5138), else milliseconds (since March 1973) |
| its digits as a text | the same, if there are nine or more: fewer may be a date without its hyphens, or a count |

Weeks (`2026-W05-6`), days of the year and dates without hyphens are none: the sender hardly meant them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

SECONDS_BELOW: Final = 100_000_000_000
"""A number below this counts seconds, from it on milliseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_CLOCK = r"\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
_OFFSET = r"[+-]\d\d(?::?\d\d)?"
_GO_REST = r"(?: (?:[A-Z]{1,5}|[+-]\d\d(?:\d\d)?))?(?: m=[+-]\d+\.\d+)?"
_ISO = re.compile(
    rf"(?P<date>\d{{4}}-\d\d-\d\d)(?:[Tt ](?P<clock>{_CLOCK}) ?(?P<zone>[Zz]|UTC|GMT|{_OFFSET}{_GO_REST})?)?",
    re.ASCII,
)
_JAVASCRIPT = re.compile(
    rf"[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) (?P<day>\d\d) (?P<year>\d{{4}}) (?P<clock>{_CLOCK}) "
    rf"GMT(?P<zone>{_OFFSET})?(?: \(.*\))?",
    re.ASCII,
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DIGITS = re.compile(r"\d{9,17}(?:\.\d{1,9})?", re.ASCII)
_MAX_CHARACTERS = 100
"""Of a text: the longest form, with room."""


def read_time(value: object) -> datetime | None:
    """The time in `value`, naive if it has no offset; None: it is not a time from the year 1 to 9999."""
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _from_number(value)
    return None


def epoch_ms(moment: datetime) -> int:
    """Epoch milliseconds, to the nearest one; UTC if `moment` is naive."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round((aware - _EPOCH) / _MILLISECOND)


def read_time_ms(value: object) -> int | None:
    """Like `read_time`, in epoch milliseconds, for senders who mean UTC when they leave out the offset."""
    moment = read_time(value)
    return None if moment is None else epoch_ms(moment)


def rfc3339(at_ms: int) -> str:
    """Epoch milliseconds for people and programs: `2026-01-31T12:00:00.123Z`."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _from_number(number: float) -> datetime | None:
    milliseconds = number * 1000 if abs(number) < SECONDS_BELOW else number
    try:
        return _EPOCH + timedelta(milliseconds=round(milliseconds))
    except (OverflowError, ValueError):  # beyond a datetime, infinite, or not a number
        return None


def _from_text(text: str) -> datetime | None:
    if len(text) > _MAX_CHARACTERS:
        return None
    if _DIGITS.fullmatch(text):
        return _from_number(float(text) if "." in text else int(text))
    iso = _iso(text)
    try:
        return None if iso is None else datetime.fromisoformat(iso)
    except ValueError:  # a 30th of February, a 25th hour
        return None


def _iso(text: str) -> str | None:
    """The text in the one form that `datetime` reads; None: it is in none of the accepted forms."""
    if found := _ISO.fullmatch(text):
        clock = found["clock"]
        return found["date"] if clock is None else f"{found['date']}T{clock}{_zone(found['zone'])}"
    found = _JAVASCRIPT.fullmatch(text)
    if found is None or found["month"] not in _MONTHS:
        return None
    month = _MONTHS.index(found["month"]) + 1
    return f"{found['year']}-{month:02}-{found['day']}T{found['clock']}{_zone(found['zone'] or 'Z')}"


def _zone(zone: str | None) -> str:
    """`+01:00`, `+0100` or `+01` for an offset with whatever follows it; `Z` for UTC's names."""
    if zone is None:
        return ""
    return zone.partition(" ")[0] if zone[0] in "+-" else "Z"

"""Times as people write and read them.

In: `10m`, `1h30m`, `7d` (ago), a day such as `2026-11-28` (its beginning in UTC), or a time with its offset
(`flagpost_schemas.times`). Out: epoch milliseconds. For the other direction: a record may contain any 64-bit integer,
which may not be a time; then it is shown as that number.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

from flagpost_schemas.times import epoch_ms, read_time

UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

TIME_FORMS = "10m, 1h30m or 7d ago, 2026-11-28 (UTC), or RFC 3339"
"""The forms that `--since` and `--until` accept, for the commands' help."""

_AGO = re.compile(r"(?=\d)(?:\d{1,9}d)?(?:\d{1,9}h)?(?:\d{1,9}m)?(?:\d{1,9}s)?", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class MomentError(ValueError):
    """A text is not a time; the message says what is wrong and what is accepted."""


def moment_ms(text: str, now_ms: int) -> int:
    """The moment, in epoch ms, that `text` means at `now_ms`.

    Raises:
        MomentError: it is not a time, or one before 1970.
    """
    moment = _ago(text, now_ms) if _AGO.fullmatch(text) else _written_out(text)
    if moment < 0:
        raise MomentError(f"{text!r} is before 1970; give a later time")
    return moment


def _ago(text: str, now_ms: int) -> int:
    return now_ms - sum(int(number) * UNIT_MS[unit] for number, unit in re.findall(r"(\d+)(\D)", text))


def _written_out(text: str) -> int:
    moment = read_time(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)
    if moment is None or moment.tzinfo is None:
        raise MomentError(
            f"{text!r} is not a time: give 10m, 1h30m or 7d (so long ago), a day such as 2026-01-31 (in UTC), "
            "or RFC 3339 with its offset and a day that exists, like 2026-01-31T12:00:00Z"
        )
    return epoch_ms(moment)


def moment_text(at_ms: int) -> str:
    """Epoch ms in a form for people, in UTC."""
    moment = _moment(at_ms)
    return _no_time(at_ms) if moment is None else f"{moment:%Y-%m-%d %H:%M:%SZ}"


def time_on(today_ms: int, at_ms: int) -> str:
    """Epoch ms in UTC as a time of day to the millisecond; if it is another day than that of `today_ms`, the date and
    the time to the second.
    """
    moment, today = _moment(at_ms), _moment(today_ms)
    if moment is None or today is None or moment.date() != today.date():
        return moment_text(at_ms)
    return f"{moment:%H:%M:%S.%f}"[:-3] + "Z"


def _moment(at_ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _no_time(at_ms: int) -> str:
    return f"{at_ms} ms"


class Moment(click.ParamType):  # type: ignore[type-arg] # generic in newer releases of click only
    """The type of an option whose value becomes epoch milliseconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The moment that the text means now; anything else is a usage error."""
        try:
            return moment_ms(str(value), time.time_ns() // 1_000_000)
        except MomentError as error:
            self.fail(str(error), param, ctx)


MOMENT = Moment()
"""The type of `--since` and `--until`."""


def require_order(since: int | None, until: int | None = None) -> None:
    """Raise click.UsageError if a window from `since` to before `until` (epoch ms; None: no bound) is empty, or has
    not begun yet: that nothing was found there would mean nothing.
    """
    if since is None:
        return
    if until is not None and since >= until:
        raise click.UsageError("--since is not before --until; the window would be empty")
    if since > time.time_ns() // 1_000_000:
        raise click.UsageError(f"--since {moment_text(since)} is in the future; the window would be empty")

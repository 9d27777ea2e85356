"""Times as people write and read them.

In: `10m`, `2h`, `7d` (so long ago), or a time with its offset (`flagpost_schemas.times`). Out: epoch milliseconds.
And back: a record may say any whole number of 64 bits, which may be no time; then it is shown as that number.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

from flagpost_schemas.times import epoch_ms, read_time

UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_AGO = re.compile(r"(\d{1,9})([smhd])", re.ASCII)


class MomentError(ValueError):
    """A text that is no time; the message says what is wrong with it and what is accepted."""


def moment_ms(text: str, now_ms: int) -> int:
    """The moment, in epoch ms, that `text` names at `now_ms`.

    Raises:
        MomentError: it names none, or one before 1970.
    """
    moment = _ago(text, now_ms) if _AGO.fullmatch(text) else _written_out(text)
    if moment < 0:
        raise MomentError(f"{text!r} is before 1970; give a later time")
    return moment


def _ago(text: str, now_ms: int) -> int:
    return now_ms - int(text[:-1]) * UNIT_MS[text[-1]]


def _written_out(text: str) -> int:
    moment = read_time(text)
    if moment is None or moment.tzinfo is None:
        raise MomentError(
            f"{text!r} is no time: give 30s, 10m, 2h or 7d (so long ago), or RFC 3339 with its offset and "
            "a day that exists, like 2026-01-31T12:00:00Z"
        )
    return epoch_ms(moment)


def moment_text(at_ms: int) -> str:
    """Epoch ms as people read it, in UTC."""
    moment = _moment(at_ms)
    return _no_time(at_ms) if moment is None else f"{moment:%Y-%m-%d %H:%M:%SZ}"


def time_of_day(at_ms: int) -> str:
    """The time of epoch ms on this machine's clock, to the millisecond."""
    try:
        moment = _moment(at_ms)
        return _no_time(at_ms) if moment is None else f"{moment.astimezone():%H:%M:%S.%f}"[:-3]
    except (OverflowError, ValueError, OSError):  # within a day of the first or the last year
        return _no_time(at_ms)


def _moment(at_ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _no_time(at_ms: int) -> str:
    return f"{at_ms} ms"


class Moment(click.ParamType):  # type: ignore[type-arg] # generic in newer releases of click only
    """An option's value that becomes epoch milliseconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The moment that the text names now; what is no time is a usage error."""
        try:
            return moment_ms(str(value), time.time_ns() // 1_000_000)
        except MomentError as error:
            self.fail(str(error), param, ctx)


MOMENT = Moment()
"""The type of `--since` and `--until`."""

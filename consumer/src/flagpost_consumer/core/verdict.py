"""What an answer of Pendo's means.

In: a status, a Retry-After header, or the way in which no answer came. Out: a verdict.
The classes are those of CONTRACT section 4: any 2xx is success; 3xx, 401, 403 and 404 say that something is
set up wrongly; 408, 425, 429, 5xx and the lack of an answer call for another try; other 4xx are final.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import NamedTuple

MAX_RETRY_AFTER_SECONDS = 300.0

_TRANSIENT = frozenset({408, 425})
_SETUP = frozenset({401, 403, 404})


class Verdict(StrEnum):
    """What is to be done after an answer."""

    DELIVERED = "delivered"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    SETUP = "setup"
    REJECTED = "rejected"


class Failure(StrEnum):
    """Why there is no answer."""

    TIMEOUT = "timeout"
    """No answer in time; the request may have been taken."""
    BROKEN = "broken"
    """The connection ended, or spoke no HTTP, before the answer was whole; the request may have been taken."""
    UNREACHABLE = "unreachable"
    """No connection was made; Pendo cannot have seen the request."""


class Answer(NamedTuple):
    """What came back from one request: a status, or a failure, never both."""

    status: int | None = None
    retry_after: str | None = None
    body: bytes = b""
    failure: Failure | None = None
    detail: str = ""
    """What is wrong with TLS, where that is why no connection was made."""

    @property
    def unseen(self) -> bool:
        """Whether Pendo may have taken the request although its answer was never seen."""
        return self.failure in {Failure.TIMEOUT, Failure.BROKEN}

    @property
    def label(self) -> str:
        """The status as `flagpost_pendo_requests_total` shows it: the code, `timeout` or `connection`."""
        if self.status is not None:
            return str(self.status)
        return "timeout" if self.failure is Failure.TIMEOUT else "connection"


def judge(answer: Answer) -> Verdict:
    """Say what an answer means."""
    status = answer.status
    if status is None or status >= 500 or status in _TRANSIENT or status < 200:
        return Verdict.TRANSIENT
    if status < 300:
        return Verdict.DELIVERED
    if status == 429:
        return Verdict.THROTTLED
    return Verdict.SETUP if status < 400 or status in _SETUP else Verdict.REJECTED


def retry_after_seconds(text: str | None, now_ms: int) -> float | None:
    """Read a Retry-After header, in seconds or as an HTTP date (RFC 9110), within 0 to 300 s.

    None: there is no header, or nobody can read it.
    """
    if text is None:
        return None
    seconds = _delta_seconds(text) if text.strip().isdecimal() else _seconds_until(text, now_ms)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _delta_seconds(text: str) -> float:
    digits = text.strip()
    return float(digits) if len(digits) < 10 else MAX_RETRY_AFTER_SECONDS


def _seconds_until(text: str, now_ms: int) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp() - now_ms / 1000
    except (ValueError, OverflowError):
        return None

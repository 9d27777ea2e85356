"""What an answer from Pendo means: a pure function.

In: a status, a Retry-After header, or the reason why there is no answer. Out: a verdict. The classes are those of
docs/contract.md#requests-to-pendo: any 2xx is success; 3xx, 401, 403 and 404 say that something is set up wrongly;
408, 425, 429, 5xx and the lack of an answer are retried; other 4xx are final.
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
    """What to do after an answer."""

    DELIVERED = "delivered"
    TRANSIENT = "transient"
    THROTTLED = "throttled"
    SETUP = "setup"
    REJECTED = "rejected"


class Failure(StrEnum):
    """Why there is no answer."""

    TIMEOUT = "timeout"
    """No answer in time; Pendo may have accepted the request."""
    BROKEN = "broken"
    """The connection ended, or the peer did not speak HTTP, before the answer was complete; Pendo may have accepted
    the request.
    """
    UNREACHABLE = "unreachable"
    """No connection was made; Pendo cannot have seen the request."""


class Answer(NamedTuple):
    """The result of one request: a status, or a failure, never both."""

    status: int | None = None
    retry_after: str | None = None
    body: bytes = b""
    failure: Failure | None = None
    detail: str = ""
    """What is wrong with TLS, if no connection was made because of it."""

    @property
    def unseen(self) -> bool:
        """Whether Pendo may have accepted the request although its answer was never seen."""
        return self.failure in {Failure.TIMEOUT, Failure.BROKEN}

    @property
    def label(self) -> str:
        """The status as `flagpost_pendo_requests_total` shows it: the code, `timeout` or `connection`."""
        if self.status is not None:
            return str(self.status)
        return "timeout" if self.failure is Failure.TIMEOUT else "connection"


def judge(answer: Answer) -> Verdict:
    """Return what an answer means."""
    status = answer.status
    if status is None or status >= 500 or status in _TRANSIENT or status < 200:
        return Verdict.TRANSIENT
    if status < 300:
        return Verdict.DELIVERED
    if status == 429:
        return Verdict.THROTTLED
    return Verdict.SETUP if status < 400 or status in _SETUP else Verdict.REJECTED


def retry_after_seconds(text: str | None, now_ms: int) -> float | None:
    """Read a Retry-After header, in seconds or as an HTTP date (RFC 9110), clamped to 0 to 300 s.

    None: there is no header, or it cannot be parsed.
    """
    if text is None:
        return None
    seconds = float(text) if text.strip().isdecimal() else _seconds_until(text, now_ms)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _seconds_until(text: str, now_ms: int) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp() - now_ms / 1000
    except (ValueError, OverflowError):
        return None

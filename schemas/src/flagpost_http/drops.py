"""Connections that were closed before they had their answer: counted, and logged at most once a second.

In: a reason for each. Out: a count, and a log line with the numbers by reason. It contains nothing of what was sent:
that may contain keys and ids, and a flood of bad requests should not fill our disks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import structlog

log = structlog.get_logger(__name__)

LINE_SECONDS: Final = 1.0


class Drop(StrEnum):
    """Why a connection was closed."""

    MALFORMED = "malformed"
    """What came is not an HTTP request that we take; answered 400."""
    HEADERS_TOO_LONG = "headers_too_long"
    """Answered 400."""
    HEADERS_TOO_SLOW = "headers_too_slow"
    ANSWER_NOT_READ = "answer_not_read"
    TOO_MANY = "too_many"
    """Others came, and this one had shown no key for longest."""


class Drops:
    """What one port drops."""

    def __init__(
        self, port: str, count: Callable[[Drop], None], timer: Callable[[], float] = time.monotonic
    ) -> None:
        """Args:
        port: what the port is called in the log.
        count: told of each.
        timer: seconds.
        """
        self._port = port
        self._count = count
        self._timer = timer
        self._untold: Counter[str] = Counter()
        self._told_at = float("-inf")

    def note(self, drop: Drop) -> None:
        """One more."""
        self._count(drop)
        self._untold[drop.value] += 1
        now = self._timer()
        if now - self._told_at >= LINE_SECONDS:
            self._told_at = now
            log.warning("connections were dropped", port=self._port, **self._untold)
            self._untold.clear()

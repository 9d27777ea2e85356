"""When Kafka's client is replaced by a new one: not too often, whatever the reasons.

In: reasons. Out: when it is time. Each replacement is a rebalance for the whole group.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

import structlog

log = structlog.get_logger(__name__)

APART_SECONDS = 10.0
"""The least time between two replacements."""


class ClientReplacement:
    """The replacements of one process's client."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._replaced_at = -inf
        self.reason = ""
        """Why the client has to be replaced; empty: it does not."""

    def ask(self, reason: str) -> None:
        """Have the client replaced, now or as soon as allowed."""
        if not self.reason:
            log.warning("Kafka's client is replaced, and joins the group again", reason=reason)
            self.reason = reason

    def is_due(self) -> bool:
        """Whether to replace the client now."""
        return bool(self.reason) and self._monotonic() >= self._replaced_at + APART_SECONDS

    def happened(self) -> None:
        """The client has been replaced, for whatever reason."""
        self._replaced_at, self.reason = self._monotonic(), ""

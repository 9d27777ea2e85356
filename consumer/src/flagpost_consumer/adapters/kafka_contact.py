"""Whether Kafka can be reached, as one client finds it, and what is said of it: that it is waited for, and back.

In: errors of the client, and what it finds when it asks. Out: when to ask, and log lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

import structlog
from confluent_kafka import KafkaError

log = structlog.get_logger(__name__)

ASK_SECONDS = 2.0
"""How often Kafka is asked whether it is there while it was not."""


class KafkaContact:
    """What one client knows of its brokers."""

    def __init__(self, topic: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._monotonic = monotonic
        self._missing = ""
        """What was said last to be missing; empty: nothing is."""
        self._away_since = 0.0
        self._ask_at = inf

    def hear(self, error: KafkaError) -> None:
        """Hear an error of the client: librdkafka's `error_cb`. Whether it is so still is asked for."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._ask_at = min(self._ask_at, self._monotonic())

    def asks(self) -> bool:
        """Whether Kafka is to be asked for the topic."""
        return self._monotonic() >= self._ask_at

    def found(self, missing: str) -> None:
        """What came of asking: what is missing; empty: Kafka answers, and has the topic."""
        now = self._monotonic()
        if missing and not self._missing:
            self._away_since = now
        if missing and missing != self._missing:
            log.warning("waiting for Kafka", reason=missing, topic=self._topic)
        elif self._missing and not missing:
            log.info("Kafka is back", topic=self._topic, seconds=round(now - self._away_since, 1))
        self._missing = missing
        self._ask_at = now + ASK_SECONDS if missing else inf

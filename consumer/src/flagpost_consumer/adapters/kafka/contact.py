"""Whether one client reaches Kafka, and the log lines that say so.

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
"""How often to ask Kafka while it does not answer."""


class KafkaContact:
    """What one client knows of its brokers."""

    def __init__(self, topic: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._monotonic = monotonic
        self._missing = ""
        """What was last reported missing; empty: nothing."""
        self._away_since = 0.0
        self._ask_at = inf

    def hear(self, error: KafkaError) -> None:
        """Note an error of the client: librdkafka's `error_cb`. Then ask Kafka whether the error still exists."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._ask_at = min(self._ask_at, self._monotonic())

    def asks(self) -> bool:
        """Whether to ask Kafka for the topic now."""
        return self._monotonic() >= self._ask_at

    def found(self, missing: str) -> None:
        """Note the result of asking: what is missing; empty: Kafka answers, and has the topic."""
        now = self._monotonic()
        if missing and not self._missing:
            self._away_since = now
        if missing and missing != self._missing:
            log.warning("waiting for Kafka", reason=missing, topic=self._topic)
        elif self._missing and not missing:
            log.info("Kafka is back", topic=self._topic, seconds=round(now - self._away_since, 1))
        self._missing = missing
        self._ask_at = now + ASK_SECONDS if missing else inf

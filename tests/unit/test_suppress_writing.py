"""What `flagpost suppress` says when Kafka refuses the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from confluent_kafka import KafkaError

from flagpost_consumer.commands.privacy import suppress
from flagpost_consumer.commands.sources.kafka_admin import RightMissing
from flagpost_consumer.settings import KafkaSettings

REFUSED = KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED, "Failed to acquire idempotence PID", True)
PURGED = KafkaError(KafkaError._PURGE_QUEUE)


class Refused:
    """A producer that this user may not use: librdkafka reports the reason apart from the record."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._heard: Callable[[KafkaError], None] = properties["error_cb"]
        self._reported: Callable[[KafkaError, None], None] = lambda *_: None

    def produce(self, *_: object, on_delivery: Callable[[KafkaError, None], None]) -> None:
        self._reported = on_delivery

    def flush(self, _: float) -> int:
        self._heard(KafkaError(KafkaError._TRANSPORT))
        self._heard(REFUSED)
        self._reported(PURGED, None)
        return 0


def test_a_fatal_error_names_the_missing_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the fix, flush() raised it as a SystemError, and a person saw a traceback, depending on the moment."""
    monkeypatch.setattr(suppress, "silent_client", lambda _, properties: Refused(properties))
    kafka = KafkaSettings(bootstrap_servers="kafka:9092", suppressions_topic="suppressions")
    with pytest.raises(RightMissing, match="Write on Topic suppressions"):
        suppress._write(kafka, "v", None)

"""What `flagpost suppress` says when Kafka refuses the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from confluent_kafka import KafkaError

from flagpost_consumer.commands.privacy import suppress
from flagpost_consumer.commands.sources.kafka_admin import RightMissing
from flagpost_consumer.settings import KafkaSettings

REFUSED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


class Refused:
    """A producer whose user may not write to the topic."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self.properties = properties
        self._reported: Callable[[KafkaError, None], None] = lambda *_: None

    def produce(self, *_: object, on_delivery: Callable[[KafkaError, None], None]) -> None:
        self._reported = on_delivery

    def flush(self, _: float) -> int:
        self._reported(REFUSED, None)
        return 0


def test_a_missing_right_is_named_and_is_never_a_fatal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the fix, the producer was idempotent, and flush() could raise a SystemError instead."""
    made: list[Refused] = []

    def client(_: object, properties: Mapping[str, Any]) -> Refused:
        made.append(Refused(properties))
        return made[-1]

    monkeypatch.setattr(suppress, "silent_client", client)
    told = {"enable.idempotence": "true", "acks": "1"}
    kafka = KafkaSettings(bootstrap_servers="kafka:9092", suppressions_topic="suppressions", properties=told)
    with pytest.raises(RightMissing, match="Write on Topic suppressions"):
        suppress._write(kafka, "v", None)
    (producer,) = made
    assert producer.properties["enable.idempotence"] is False
    assert producer.properties["acks"] == "all"

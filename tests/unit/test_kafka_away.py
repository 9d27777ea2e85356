"""What commands say of a Kafka that is not there: also why, as librdkafka has told it beside."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flagpost_consumer.operator import kafka_admin, topic_reading
from flagpost_consumer.operator.kafka_admin import KafkaAdmin, KafkaUnavailable
from flagpost_consumer.operator.topic_reading import TopicReader
from flagpost_consumer.settings import KafkaSettings

NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1")


def by_reading() -> None:
    with TopicReader(NOBODY) as reader:
        reader.spans("flagpost.events")


def by_administering() -> None:
    KafkaAdmin(NOBODY).partitions("flagpost.events")


@pytest.mark.parametrize("ask", [by_reading, by_administering])
def test_why_kafka_is_not_there_is_told(ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """`tail` and `reconcile` said "Broker transport failure", also of a certificate that nobody trusts."""
    for module in (kafka_admin, topic_reading):
        monkeypatch.setattr(module, "CALL_SECONDS", 1.0)
    with pytest.raises(KafkaUnavailable, match="Connection refused"):
        ask()

"""The real broker's rights, which the tests of missing rights rely on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, Message, Producer

from deadlines import stretched
from real_kafka.broker import KafkaBroker

pytestmark = pytest.mark.kafka

FLUSH_SECONDS = 20.0


@pytest.mark.kafka_core
def test_a_user_may_do_what_a_test_allows_and_no_longer(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("rights")
    kafka.create_topics(topic)

    def answer() -> int | None:
        # A new producer each time, because a producer that was refused remembers it.
        producer = Producer({**kafka.user_properties, "bootstrap.servers": kafka.users_bootstrap_servers})
        codes: list[int | None] = []

        def report(error: KafkaError | None, _: Message) -> None:
            codes.append(None if error is None else error.code())

        producer.produce(topic, b"value", on_delivery=report)
        assert producer.flush(stretched(FLUSH_SECONDS)) == 0
        return codes[0]

    kafka.allow("topic", topic, "describe")
    assert answer() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    kafka.allow("topic", topic, "write")
    assert answer() is None
    kafka.disallow("topic", topic, "write")
    assert answer() == KafkaError.TOPIC_AUTHORIZATION_FAILED

"""The real broker of the tests: what other tests rely on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from real_kafka.broker import KafkaBroker

pytestmark = pytest.mark.kafka

FreshName = Callable[[str], str]


def _produce(broker: KafkaBroker, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0


def _read(broker: KafkaBroker, topic: str, group: str) -> tuple[bytes, int]:
    """The next value of the group, and the offset that it had committed before; commits after it."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group})
    try:
        (committed,) = consumer.committed([TopicPartition(topic, 0)], timeout=20)
        consumer.assign([TopicPartition(topic, 0, max(0, committed.offset))])
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        consumer.commit(message=message, asynchronous=False)
        value = message.value()
        assert isinstance(value, bytes)
        return value, committed.offset
    finally:
        consumer.close()


def test_the_shared_broker_serves_topics_of_its_own_to_each_test(
    kafka: KafkaBroker, fresh_name: FreshName
) -> None:
    topic = fresh_name("served")
    kafka.create_topics(topic, partitions=3, config={"retention.ms": "1000000"})
    _produce(kafka, topic, b"here")
    assert _read(kafka, topic, fresh_name("group"))[0] == b"here"
    assert len(kafka.admin().list_topics(topic, timeout=20).topics[topic].partitions) == 3


def test_a_broker_that_is_killed_comes_back_with_what_it_acknowledged(
    kafka_broker: KafkaBroker, fresh_name: FreshName
) -> None:
    topic, group = fresh_name("killed"), fresh_name("group")
    kafka_broker.create_topics(topic)
    _produce(kafka_broker, topic, b"one")
    _read(kafka_broker, topic, group)
    kafka_broker.kill()
    kafka_broker.restart()
    _produce(kafka_broker, topic, b"two")
    assert _read(kafka_broker, topic, group) == (b"two", 1)

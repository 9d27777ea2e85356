"""An import whose Kafka client has a fatal error, may not write, or gets no answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from flagpost_consumer.commands.imports import producing
from flagpost_consumer.commands.imports.producing import RowProducer
from flagpost_consumer.commands.imports.row_events import Produced
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.settings import KafkaSettings
from mock_kafka import FATAL, INIT_PRODUCER_ID, PRODUCE, MockKafka


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka({"flagpost.events": 2}) as kafka:
        yield kafka


def producer_on(kafka: MockKafka) -> tuple[RowProducer, list[tuple[int, str]]]:
    refused: list[tuple[int, str]] = []
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    return RowProducer(settings, lambda line, why: refused.append((line, why))), refused


def offer_all(producer: RowProducer, count: int) -> None:
    for line in range(count):
        row: Any = type("Row", (), {"value": b"%d" % line, "key": b"k%d" % (line % 5)})()
        while not producer.offer(line, cast("Produced", row)):
            pass
    producer.finish()


def test_a_fatal_error_costs_no_row(kafka: MockKafka) -> None:
    """Before the fix, the command ended with a traceback that did not say which of the last rows were written."""
    producer, refused = producer_on(kafka)
    kafka.answer(PRODUCE, 0, FATAL)
    offer_all(producer, 3000)
    assert producer.acknowledged == 3000
    assert refused == []
    assert {int(message.value() or b"") for message in kafka.read("flagpost.events")} == set(range(3000))


def test_without_a_right_the_command_ends_and_says_so(kafka: MockKafka) -> None:
    kafka.answer(INIT_PRODUCER_ID, *[KafkaError.CLUSTER_AUTHORIZATION_FAILED] * 5)
    producer, _ = producer_on(kafka)
    with pytest.raises(KafkaUnavailable, match="authorization failed: this user needs Write on Topic"):
        offer_all(producer, 10)


def test_a_kafka_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, kafka: MockKafka) -> None:
    monkeypatch.setattr(producing, "STALLED_SECONDS", 0.2)
    producer, _ = producer_on(kafka)
    for partition in range(2):
        kafka.set_leader("flagpost.events", partition, there=False)
    with pytest.raises(KafkaUnavailable, match="has not answered for 10 records"):
        offer_all(producer, 10)

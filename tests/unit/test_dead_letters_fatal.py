"""A replay whose Kafka producer has a fatal error: the error is reported, and the replay can be run again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from flagpost_consumer.commands.dead_letters.records import Place
from flagpost_consumer.commands.dead_letters.transactions import Replay, ReplayProducer
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.settings import KafkaSettings
from mock_kafka import PRODUCE, MockKafka


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka({"flagpost.events": 1, "flagpost.dead-letters": 1}) as kafka:
        yield kafka


@pytest.mark.parametrize(
    "error", [KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER]
)
def test_a_replay_that_kafka_ends_says_so_and_can_be_run_again(kafka: MockKafka, error: int) -> None:
    batch = [
        Replay(place=Place(0, n), source=f"e/0/{n}", kind="track", key=b"k", value=b"v", headers=())
        for n in range(5)
    ]
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    kafka.coordinate(f"flagpost-replay-{settings.group_id}")
    first = ReplayProducer(settings)
    first.open()
    kafka.answer(PRODUCE, *[error] * 4)
    with pytest.raises(KafkaUnavailable):
        first.replay(batch)
    kafka.answer_well(PRODUCE)
    second = ReplayProducer(settings)
    second.open()
    assert second.replay(batch) == frozenset()

"""A replay whose Kafka producer has a fatal error: the error is reported, and the replay can be run again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from flagpost_consumer.commands.dead_letters.records import Place
from flagpost_consumer.commands.dead_letters.transactions import Replay, ReplayProducer
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.core.records import Headers
from flagpost_consumer.settings import KafkaSettings
from mock_kafka import PRODUCE, MockKafka


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka({"flagpost.events": 1, "flagpost.dead-letters": 1}) as kafka:
        yield kafka


def replay_of(number: int, headers: Headers = ()) -> Replay:
    return Replay(
        place=Place(0, number), source=f"e/0/{number}", kind="track", key=b"k", value=b"v", headers=headers
    )


def opened(kafka: MockKafka) -> ReplayProducer:
    """A producer that may replay."""
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    kafka.coordinate(f"flagpost-replay-{settings.group_id}")
    producer = ReplayProducer(settings)
    producer.open()
    return producer


@pytest.mark.parametrize(
    "error", [KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER]
)
def test_a_replay_that_kafka_ends_says_so_and_can_be_run_again(kafka: MockKafka, error: int) -> None:
    batch = [replay_of(number) for number in range(5)]
    first = opened(kafka)
    kafka.answer(PRODUCE, *[error] * 4)
    with pytest.raises(KafkaUnavailable):
        first.replay(batch)
    kafka.answer_well(PRODUCE)
    assert opened(kafka).replay(batch) == frozenset()


class _Late(tuple[tuple[str, bytes], ...]):
    """Headers that are read only after Kafka has answered for the records before: as on a busy machine."""

    __slots__ = ()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        time.sleep(0.5)  # if the answer is even later, the test passes in the usual way
        return super().__iter__()


def test_a_missing_right_is_named_even_if_kafka_refuses_before_all_is_handed_over(kafka: MockKafka) -> None:
    """librdkafka takes no further records of the transaction, and only says that its state is erroneous."""
    producer = opened(kafka)
    kafka.answer(PRODUCE, *[KafkaError.TOPIC_AUTHORIZATION_FAILED] * 4)
    with pytest.raises(KafkaUnavailable, match="Write"):
        producer.replay([replay_of(0), replay_of(1, _Late())])


def test_a_replay_that_is_too_large_does_not_stop_one_that_comes_late(kafka: MockKafka) -> None:
    producer = opened(kafka)
    kafka.answer(PRODUCE, KafkaError.MSG_SIZE_TOO_LARGE)
    assert producer.replay([replay_of(0), replay_of(1, _Late())]) == {Place(0, 0)}

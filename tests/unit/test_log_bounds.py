"""The bounds of logs: what one broker or one partition does not tell hides nothing of the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin._metadata import TopicMetadata

from deadlines import stretched
from flagpost_consumer.adapters.kafka.log_bounds import Bounds, bounds_of
from mock_kafka import MockKafka

TOPIC = "events"


class Cluster:
    """A consumer of a topic whose partitions have these leaders; of some of them Kafka tells an error."""

    def __init__(self, leaders: dict[int, int], errors: dict[int, int], silent: frozenset[int]) -> None:
        self._leaders = leaders
        self._errors = errors
        self._silent = silent
        self.asked: list[list[int]] = []

    @property
    def topic(self) -> TopicMetadata:
        partitions = {number: SimpleNamespace(leader=leader) for number, leader in self._leaders.items()}
        return cast("TopicMetadata", SimpleNamespace(topic=TOPIC, partitions=partitions))

    def offsets_for_times(self, asked: list[TopicPartition], **_: object) -> list[Any]:
        numbers = [each.partition for each in asked]
        self.asked.append(numbers)
        assert len({self._leaders[number] for number in numbers}) == 1, "of one broker"
        if self._leaders[numbers[0]] in self._silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for number in numbers:
            if number in self._errors:
                raise KafkaException(KafkaError(self._errors[number]))
        return [
            SimpleNamespace(
                partition=each.partition,
                error=None,
                offset=90 if each.offset == OFFSET_END else each.partition,
            )
            for each in asked
        ]

    def bounds(self) -> dict[int, Bounds | int]:
        """The bounds, and the codes of errors."""
        found = bounds_of(cast("Consumer", self), self.topic, self._leaders, 1.0)
        return {
            number: each.code() if isinstance(each, KafkaError) else each for number, each in found.items()
        }


def test_a_broker_is_asked_twice_for_all_its_partitions() -> None:
    cluster = Cluster({0: 1, 1: 2, 2: 1, 3: 2}, {}, frozenset())
    assert cluster.bounds() == {number: Bounds(number, 90) for number in range(4)}
    assert cluster.asked == [[0, 2], [0, 2], [1, 3], [1, 3]]


def test_a_broker_that_does_not_answer_is_asked_once_and_hides_nothing_of_others() -> None:
    cluster = Cluster({0: 1, 1: 2, 2: 1, 3: 2}, {}, frozenset({2}))
    told = {0: Bounds(0, 90), 2: Bounds(2, 90), 1: KafkaError._TIMED_OUT, 3: KafkaError._TIMED_OUT}
    assert cluster.bounds() == told
    assert cluster.asked == [[0, 2], [0, 2], [1, 3]]


def test_a_partition_without_a_leader_is_not_asked_for() -> None:
    cluster = Cluster({0: 1, 1: -1}, {}, frozenset())
    assert cluster.bounds() == {0: Bounds(0, 90), 1: KafkaError.LEADER_NOT_AVAILABLE}
    assert cluster.asked == [[0], [0]]


@pytest.mark.parametrize("wrong", range(5))
def test_the_error_of_a_partition_is_its_own(wrong: int) -> None:
    """librdkafka raises it for all partitions of the same broker."""
    cluster = Cluster(dict.fromkeys(range(5), 1), {wrong: KafkaError.OFFSET_NOT_AVAILABLE}, frozenset())
    told: dict[int, Bounds | int] = {number: Bounds(number, 90) for number in range(5)}
    assert cluster.bounds() == {**told, wrong: KafkaError.OFFSET_NOT_AVAILABLE}


def test_a_real_client_tells_the_others_of_a_broker_that_leads_a_partition_no_more() -> None:
    with MockKafka({TOPIC: 4}) as kafka:
        consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "g", "log_level": 0})
        topic = consumer.list_topics(TOPIC, timeout=stretched(10)).topics[TOPIC]
        kafka.set_leader(TOPIC, 1, there=False)
        found = bounds_of(consumer, topic, range(5), stretched(10))
        consumer.close()
    assert {number for number, each in found.items() if isinstance(each, KafkaError)} == {1, 4}
    assert found[0] == found[2] == found[3] == Bounds(0, 0)

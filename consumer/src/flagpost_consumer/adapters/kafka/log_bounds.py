"""Where the logs of a topic begin and end, asked of each broker by itself: the partitions of one that does not answer
keep no others waiting.

In: a consumer, what the brokers say of a topic, partitions. Out: each one's bounds, or why they are not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin._metadata import TopicMetadata

from flagpost_kafka import errors

NOBODY = -1
"""In place of a leader: the partition has none."""
NO_LEADER = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)


class Bounds(NamedTuple):
    """Of one partition's log."""

    low: int
    """Its first offset."""
    high: int
    """The offset after its last."""


def bounds_of(
    consumer: Consumer, topic: TopicMetadata, numbers: Iterable[int], seconds: float
) -> dict[int, Bounds | KafkaError]:
    """The bounds of these partitions: two requests to each broker, and `seconds` for each that does not answer."""
    led: dict[int, list[int]] = {}
    for number in numbers:
        partition = topic.partitions.get(number)
        led.setdefault(NOBODY if partition is None else partition.leader, []).append(number)
    found: dict[int, Bounds | KafkaError] = dict.fromkeys(led.pop(NOBODY, ()), NO_LEADER)
    for of_one_broker in led.values():
        found |= _asked(consumer, str(topic.topic), of_one_broker, seconds)
    return found


def _asked(
    consumer: Consumer, topic: str, numbers: list[int], seconds: float
) -> dict[int, Bounds | KafkaError]:
    try:
        begins, ends = (
            consumer.offsets_for_times([TopicPartition(topic, n, place) for n in numbers], timeout=seconds)
            for place in (OFFSET_BEGINNING, OFFSET_END)
        )
    except KafkaException as failed:
        error: KafkaError = failed.args[0]
        if len(numbers) == 1 or error.code() in errors.NO_ANSWER:
            return dict.fromkeys(numbers, error)
        # librdkafka gives up all answers of a broker if one of them is an error.
        middle = len(numbers) // 2
        first, second = numbers[:middle], numbers[middle:]
        return _asked(consumer, topic, first, seconds) | _asked(consumer, topic, second, seconds)
    return {
        begin.partition: begin.error or end.error or Bounds(begin.offset, end.offset)
        for begin, end in zip(begins, ends, strict=True)
    }

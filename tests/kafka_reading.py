"""Reads a topic from its beginning to its present end, for tests that look at what was published."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, KafkaException, TopicPartition

from deadlines import stretched

DEADLINE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Read:
    """One record as it is in Kafka."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


def read_topic(bootstrap_servers: str, topic: str) -> list[Read]:
    """All records of `topic`, partition by partition. Fails if they are not read within a deadline."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "reading",
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=stretched(DEADLINE_SECONDS)).topics[topic].partitions
        ends = {number: _end(consumer, TopicPartition(topic, number)) for number in partitions}
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        return sorted(_read(consumer, sum(ends.values())), key=lambda read: (read.partition, read.offset))
    finally:
        consumer.close()


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    """The end offset of a partition; waits for a leader, which a new partition may not have yet."""
    deadline = time.monotonic() + stretched(DEADLINE_SECONDS)
    while True:
        try:
            return consumer.get_watermark_offsets(partition)[1]
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _read(consumer: Consumer, count: int) -> list[Read]:
    found: list[Read] = []
    deadline = time.monotonic() + stretched(DEADLINE_SECONDS)
    while len(found) < count and time.monotonic() < deadline:
        message = consumer.poll(0.1)
        if message is None or message.error() is not None:
            continue
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        headers = cast("Sequence[tuple[str, bytes | None]]", message.headers() or ())
        found.append(Read(partition, offset, message.key(), message.value(), headers))
    assert len(found) == count, f"{len(found)} of {count} records came within {DEADLINE_SECONDS} s"
    return found

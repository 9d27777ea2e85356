"""The offset at which the log of each partition begins, found as cheaply as possible.

In: a consumer, a partition. Out: the first offset of its log. Fetch responses contain it, and Kafka's client
remembers the last one; asking the broker takes half a second in which nothing else is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

log = structlog.get_logger(__name__)

ASK_SECONDS = 30.0
"""A broker is asked at most this often, for any partition; until then its last answer stands."""
CALL_SECONDS = 2.0


class LogBeginnings:
    """The beginnings of one topic's partitions."""

    def __init__(self, topic: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._monotonic = monotonic
        self._cached: dict[int, int] = {}
        self._asked: dict[int, int] = {}
        self._due = 0.0

    def forget_cached(self) -> None:
        """Read again what the client remembers: once for each batch."""
        self._cached.clear()

    def of(self, consumer: Consumer, number: int) -> int:
        """Where the log of a partition begins; -1: not known."""
        low = self._cached.get(number)
        if low is None:
            partition = TopicPartition(self._topic, number)
            low, _ = consumer.get_watermark_offsets(partition, cached=True)
            self._cached[number] = low
        return low if low >= 0 else self._ask(consumer, number)

    def _ask(self, consumer: Consumer, number: int) -> int:
        """Ask the broker: needed where fetch responses do not contain it, which is before Kafka 1.0."""
        if self._monotonic() >= self._due:
            self._due = self._monotonic() + ASK_SECONDS
            try:
                answer = consumer.get_watermark_offsets(
                    TopicPartition(self._topic, number), timeout=CALL_SECONDS
                )
            except KafkaException as error:
                log.warning("the broker does not return where a log begins", reason=error.args[0].str())
            else:
                self._asked[number] = answer[0]
        return self._asked.get(number, -1)

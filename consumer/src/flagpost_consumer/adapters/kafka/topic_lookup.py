"""Asks Kafka for the events topic: whether it is there, and how many partitions it has.

In: a client, and the partitions that the group assigns. Out: what is missing, in words; the number of partitions, to
the event loop. Only the Kafka thread calls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from confluent_kafka import Consumer, KafkaException

from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler
from flagpost_kafka import errors, rights

METADATA_SECONDS = 5.0


class TopicLookup:
    """What is known of one topic."""

    def __init__(self, topic: str, handler: IntakeHandler, loop: asyncio.AbstractEventLoop) -> None:
        self._topic = topic
        self._handler = handler
        self._loop = loop
        self._partition_count = 0
        self._count_due = False

    def missing(self, consumer: Consumer) -> str:
        """Learn the number of partitions; returns what is missing: empty if Kafka answers and has the topic."""
        try:
            found = consumer.list_topics(self._topic, timeout=METADATA_SECONDS).topics[self._topic]
        except KafkaException as error:
            return f"Kafka does not answer: {error.args[0].str()}"
        if found.error is not None:
            return errors.of_topic(found.error, rights.reads(self._topic))
        self._partition_count = len(found.partitions)
        return ""

    def count_with(self, assigned: Collection[int]) -> int:
        """The number of partitions, as far as it is known from these that were assigned; Kafka is asked soon."""
        self._partition_count = max(self._partition_count, *(number + 1 for number in assigned), 0)
        self._count_due = True
        return self._partition_count

    def count_if_due(self, consumer: Consumer) -> None:
        """Ask for the number of partitions after an assignment.

        Not within the callback: there list_topics() takes away the state that the next callback of the same
        poll() needs, and confluent-kafka aborts the process (CallState_get in its confluent_kafka.c).
        """
        if self._count_due:
            self._count_due = False
            if not self.missing(consumer):
                self._loop.call_soon_threadsafe(self._handler.on_partition_count, self._partition_count)

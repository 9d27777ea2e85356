"""The topics of one group, read a few partitions at a time while people see how far it is.

In: Kafka, stretches by partition. Out: messages; what this group wrote about this events topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from confluent_kafka import Message

from flagpost_consumer.adapters.topic_ids import read_topic_id
from flagpost_consumer.operator.progress import watched
from flagpost_consumer.operator.reconciliation.extent import Spans
from flagpost_consumer.operator.topic_reading import TopicReader
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import Settlements, UndecodableRecord, decode_settlements


def are_of(settlements: Settlements, group: str, topic_id: str | None) -> bool:
    """Whether the group wrote these, and of this topic.

    One that was made anew has another id; where either is not known, they pass for the same.
    """
    is_same_topic = settlements.topic_id is None or topic_id in (None, settlements.topic_id)
    return settlements.group == group and is_same_topic


class Topics:
    """The topics of one group."""

    def __init__(self, reader: TopicReader, kafka: KafkaSettings) -> None:
        self._reader = reader
        self._kafka = kafka
        # librdkafka's own lines would go to stderr as they are.
        self._topic_id = read_topic_id({**kafka.client_properties(), "log_level": 0}, kafka.topic)
        self.damaged = 0
        """Records of the ledger that could not be read."""

    def settlements(
        self, spans: Spans, numbers: list[int], may_matter: Callable[[Message], bool] = lambda _: True
    ) -> Iterator[tuple[int, int, Settlements]]:
        """What the group wrote about these partitions of this topic: the partition, the ledger's offset, the record.

        `may_matter`: which records are worth decoding. Raises UnknownSchema for what a later release wrote.
        """
        for message in self.messages(self._kafka.ledger_topic, spans, numbers):
            if not may_matter(message):
                continue
            try:
                settlements = decode_settlements(message.value())
            except UndecodableRecord:
                self.damaged += 1
                continue
            if are_of(settlements, self._kafka.group_id, self._topic_id):
                yield cast("int", message.partition()), cast("int", message.offset()), settlements

    def messages(self, topic: str, spans: Spans, numbers: list[int]) -> Iterator[Message]:
        """The messages of some partitions."""
        chosen = {number: spans[number] for number in numbers if number in spans}
        which = (
            f"partition {numbers[0]}" if len(numbers) == 1 else f"partitions {numbers[0]} to {numbers[-1]}"
        )
        title = f"reading {topic}, {which}"
        return watched(self._reader.read(topic, chosen), title, sum(map(len, chosen.values())))

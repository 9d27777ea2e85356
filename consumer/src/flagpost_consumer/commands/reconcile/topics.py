"""The topics of one group, read a few partitions at a time with a display of the progress.

In: Kafka, stretches by partition. Out: messages; what this group wrote about this events topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from confluent_kafka import Message

from flagpost_consumer.commands.reconcile.extent import Spans
from flagpost_consumer.commands.reconcile.own_settlements import OwnSettlements
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.settings import KafkaSettings
from flagpost_consumer.terminal.progress import watched
from flagpost_schemas import Settlements, UndecodableRecord, decode_outcomes, decode_settlements


class Topics:
    """The topics of one group."""

    def __init__(self, reader: TopicReader, kafka: KafkaSettings) -> None:
        self._reader = reader
        self._kafka = kafka
        self._own = OwnSettlements.asking(kafka)
        self.damaged = 0
        """Unreadable ledger records."""

    def outcomes(self, spans: Spans, numbers: list[int]) -> Iterator[tuple[int, Settlements]]:
        """Like `settlements`, but only how each entry ended (`decode_outcomes`), and without the ledger's offset."""
        for message in self.messages(self._kafka.ledger_topic, spans, numbers):
            outcomes = self._of_group(decode_outcomes, message)
            if outcomes is not None:
                yield cast("int", message.partition()), outcomes

    def settlements(
        self, spans: Spans, numbers: list[int], may_matter: Callable[[Message], bool] = lambda _: True
    ) -> Iterator[tuple[int, int, Settlements]]:
        """What the group wrote about these partitions of this topic: the partition, the ledger's offset, the record.

        `may_matter`: which records are worth decoding.

        Raises:
            UnknownSchema: a later release wrote a record.
            TopicUnknown: it cannot be told which records are about this topic.
        """
        for message in self.messages(self._kafka.ledger_topic, spans, numbers):
            if not may_matter(message):
                continue
            settlements = self._of_group(decode_settlements, message)
            if settlements is not None:
                yield cast("int", message.partition()), cast("int", message.offset()), settlements

    def _of_group(
        self, decode: Callable[[bytes | None], Settlements], message: Message
    ) -> Settlements | None:
        """The record in a ledger message; None: it is damaged, or not about this group and topic."""
        try:
            settlements = decode(message.value())
        except UndecodableRecord:
            self.damaged += 1
            return None
        return settlements if self._own.include(settlements) else None

    def messages(self, topic: str, spans: Spans, numbers: list[int]) -> Iterator[Message]:
        """The messages of some partitions."""
        chosen = {number: spans[number] for number in numbers if number in spans}
        which = (
            f"partition {numbers[0]}" if len(numbers) == 1 else f"partitions {numbers[0]} to {numbers[-1]}"
        )
        title = f"reading {topic}, {which}"
        return watched(self._reader.read(topic, chosen), title, sum(map(len, chosen.values())))

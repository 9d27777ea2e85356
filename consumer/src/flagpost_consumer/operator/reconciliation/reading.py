"""Reads the topics for a reconciliation, one partition at a time, so that memory is bound by the largest.

In: settings, what to read, Kafka. Out: `Reconciliation`: the books, what was lost, what the ledger no longer
covers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from confluent_kafka import Message

from flagpost_consumer.adapters.topic_ids import read_topic_id
from flagpost_consumer.operator.dead_letters.progress import watched
from flagpost_consumer.operator.reconciliation.counting import (
    Books,
    Interval,
    PartitionFacts,
    Published,
    size_of_union,
)
from flagpost_consumer.operator.reconciliation.extent import NOTHING, Extent, Window
from flagpost_consumer.operator.reconciliation.planning import Planning
from flagpost_consumer.operator.reconciliation.replays import replayed_deliveries
from flagpost_consumer.operator.reconciliation.settled import Delivered, Settled
from flagpost_consumer.operator.topic_reading import Span, TopicReader
from flagpost_consumer.settings import Settings
from flagpost_schemas import Settlements, UndecodableRecord, decode_settlements


@dataclass(slots=True)
class Reconciliation:
    """What was found."""

    since_ms: int | None
    """Where the window begins: as asked, or the oldest record's timestamp; None: there is no record."""
    until_ms: int
    books: Books = field(default_factory=Books)
    lost_offsets: int = 0
    """Offsets that Kafka no longer had when the group came to them."""
    covered_ms: int | None = None
    """Where the window begins because the ledger covers no more; None: nothing was cut off."""
    cut_offsets: int = 0
    damaged: int = 0
    """Records of the ledger that cannot be read."""

    @property
    def adds_up(self) -> bool:
        """Whether everything is explained and nothing was lost."""
        return self.books.unexplained == 0 and self.lost_offsets == 0


class Reading:
    """One reconciliation being made."""

    def __init__(self, reader: TopicReader, settings: Settings, window: Window) -> None:
        self._reader = reader
        self._kafka = settings.kafka
        self._window = window
        self._planning = Planning(settings)
        # librdkafka's own lines would go to stderr as they are.
        self._topic_id = read_topic_id(
            {**settings.kafka.client_properties(), "log_level": 0}, settings.kafka.topic
        )
        now_ms = time.time_ns() // 1_000_000
        self._found = Reconciliation(window.since_ms, now_ms if window.until_ms is None else window.until_ms)

    def run(self, extent: Extent) -> Reconciliation:
        """Count everything.

        Raises:
            KafkaUnavailable: Kafka does not answer.
            RegistryNotAnswering: a record's schema cannot be had.
            UnknownSchema, LaterRelease: a later release wrote the ledger.
        """
        found, kafka = self._found, self._kafka
        found.cut_offsets, found.covered_ms = extent.cut_offsets, extent.covered_ms
        if extent.covered_ms is not None:
            found.since_ms = extent.covered_ms
        letters = self._reader.read(kafka.dead_letter_topic, extent.dead_letters)
        replayed = replayed_deliveries(letters, kafka.topic)
        for number in extent.events:
            self._count_partition(extent, number, replayed.get(number, set()))
        return found

    def _count_partition(self, extent: Extent, number: int, replayed: set[Delivered]) -> None:
        settled = Settled(extent.events[number])
        gaps: list[Interval] = []
        for settlements in self._settlements(extent, number):
            settled.add(settlements)
            if self._is_in_window(settlements.settled_at):
                gaps += [(gap.from_offset, gap.to_offset) for gap in settlements.gaps]
        committed = extent.committed.get(number)
        if committed is not None:  # a gap that the group has not come to yet
            gaps.append((committed.offset, extent.available[number].first))
        self._found.lost_offsets += size_of_union(gaps)
        position = 0 if committed is None else committed.offset
        facts = PartitionFacts(number, settled, position, replayed)
        self._found.books.count(facts, self._published(extent, number))

    def _settlements(self, extent: Extent, number: int) -> Iterator[Settlements]:
        """What the group wrote about this partition of this topic."""
        span = extent.ledger.get(number, NOTHING)
        for message in self._read(self._kafka.ledger_topic, number, span):
            try:
                settlements = decode_settlements(message.value())
            except UndecodableRecord:
                self._found.damaged += 1
                continue
            if settlements.group == self._kafka.group_id and self._is_same_topic(settlements):
                yield settlements

    def _is_same_topic(self, settlements: Settlements) -> bool:
        """A topic that was made anew has another id; where either is not known, they pass for the same."""
        return settlements.topic_id is None or self._topic_id in (None, settlements.topic_id)

    def _is_in_window(self, settled_at: int) -> bool:
        since, until = self._window.since_ms, self._window.until_ms
        return (since is None or settled_at >= since) and (until is None or settled_at < until)

    def _published(self, extent: Extent, number: int) -> Iterator[Published]:
        for message in self._read(self._kafka.topic, number, extent.events[number]):
            self._note_oldest(message)
            yield self._planning.published(message)

    def _read(self, topic: str, number: int, span: Span) -> Iterator[Message]:
        """One partition's messages, while somebody may see how far it is."""
        return watched(self._reader.read(topic, {number: span}), f"{topic}, partition {number}", len(span))

    def _note_oldest(self, message: Message) -> None:
        """Where nothing else bounds the window, its oldest record does."""
        if self._window.since_ms is None and self._found.covered_ms is None:
            at = message.timestamp()[1]
            oldest = self._found.since_ms
            self._found.since_ms = at if oldest is None else min(oldest, at)

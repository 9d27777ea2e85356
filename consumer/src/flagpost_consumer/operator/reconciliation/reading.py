"""Reads the topics for a reconciliation, a few partitions at a time, so that memory is bound by the largest.

In: settings, what to read, Kafka. Out: `Reconciliation`: the books, what was lost, what the ledger no longer
covers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

from flagpost_consumer.core.experiments import Splits
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.policy import SelectSettings
from flagpost_consumer.core.selection import not_selected
from flagpost_consumer.operator.reconciliation.counting import (
    Books,
    Interval,
    Part,
    PartitionFacts,
    Published,
    Row,
    merged,
    size_of_union,
)
from flagpost_consumer.operator.reconciliation.extent import Extent, Spans, Window
from flagpost_consumer.operator.reconciliation.impressions import ImpressionBooks
from flagpost_consumer.operator.reconciliation.parts import By, part_of
from flagpost_consumer.operator.reconciliation.planning import Planning
from flagpost_consumer.operator.reconciliation.replays import Replayed, replayed_deliveries
from flagpost_consumer.operator.reconciliation.sample_ratio import Samples, assignment_of
from flagpost_consumer.operator.reconciliation.settled import Settled, ended
from flagpost_consumer.operator.reconciliation.three_way import ThreeWay
from flagpost_consumer.operator.reconciliation.topics import Topics
from flagpost_consumer.operator.reconciliation.visitors import OF_METADATA, VisitorCounts, Visitors
from flagpost_consumer.operator.topic_reading import TopicReader
from flagpost_consumer.settings import Settings
from flagpost_schemas import DecisionEvent, LedgerEntry

PORTION_OFFSETS = 1_000_000
"""What is read at once, unless one partition alone holds more."""


@dataclass(slots=True)
class Reconciliation:
    """What was found."""

    since_ms: int | None
    """Where the window begins: as asked, or the oldest record's timestamp; None: there is no record."""
    until_ms: int
    books: Books = field(default_factory=Books)
    visitors: Mapping[Row, VisitorCounts] = field(default_factory=dict)
    visitor_parts: Mapping[tuple[Row, Part], VisitorCounts] = field(default_factory=dict)
    """The same, split as `books.parts`."""
    samples: Samples = field(default_factory=Samples, init=False)
    """The visitors of experiments."""
    lost_offsets: int = 0
    """Offsets that Kafka no longer had when the group came to them."""
    covered_ms: int | None = None
    """Where the window begins because the ledger covers no more; None: nothing was cut off."""
    cut_offsets: int = 0
    damaged: int = 0
    """Records of the ledger that cannot be read."""
    impressions: ImpressionBooks | None = None
    """None: there is no topic of impressions."""

    @property
    def splits(self) -> Splits:
        """The traffic allocations of experiments that publishers told."""
        return Splits() if self.impressions is None else self.impressions.splits

    @property
    def adds_up(self) -> bool:
        """Whether everything is explained and nothing was lost."""
        return self.books.unexplained == 0 and self.lost_offsets == 0


class Reading:
    """One reconciliation being made."""

    def __init__(
        self,
        reader: TopicReader,
        settings: Settings,
        window: Window,
        by: By | None = None,
        three_way: ThreeWay | None = None,
    ) -> None:
        """`by`: what rows are split by. `three_way`: a comparison that is told of everything."""
        self._reader = reader
        self._kafka = settings.kafka
        self._window = window
        self._select = settings.select
        self._selects = settings.select != SelectSettings()
        impressions = None if settings.kafka.impressions_topic is None else ImpressionBooks(window)
        self._planning = Planning(settings, by, impressions)
        self._topics = Topics(reader, settings.kafka)
        self._visitors: Visitors[Row] = Visitors()
        self._parts: Visitors[tuple[Row, Part]] = Visitors()
        self._three_way = three_way
        self._counted: list[Visitors[Any]] = [self._visitors]
        if part_of(by) is not None:
            self._counted.append(self._parts)
        if three_way is not None:
            self._counted.append(three_way.visitors)
        now_ms = time.time_ns() // 1_000_000
        until_ms = now_ms if window.until_ms is None else window.until_ms
        self._found = Reconciliation(window.since_ms, until_ms, impressions=impressions)

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
        for numbers in portions(extent.events):
            self._count(extent, numbers, replayed)
        if found.impressions is not None and kafka.impressions_topic is not None:
            self._read_reports(found.impressions, kafka.impressions_topic)
        found.damaged = self._topics.damaged
        found.visitors, found.visitor_parts = self._visitors.counts(), self._parts.counts()
        return found

    def _read_reports(self, impressions: ImpressionBooks, topic: str) -> None:
        """A report is written when its time is over, by the same clock: before the window's begin there is none."""
        spans = self._reader.spans_if_there(topic)
        spans = self._reader.within(topic, spans, self._window.since_ms)
        if spans:
            for message in self._topics.messages(topic, spans, sorted(spans)):
                impressions.add(message.value())

    def _count(self, extent: Extent, numbers: list[int], replayed: Replayed) -> None:
        settled = {number: Settled(extent.events[number]) for number in numbers}
        gaps: dict[int, list[Interval]] = {number: [] for number in numbers}
        written: dict[int, list[Interval]] = {number: [] for number in numbers}
        for number, _, settlements in self._topics.settlements(extent.ledger, numbers):
            settled[number].add(settlements)
            self._settle(number, settlements.entries, extent.events[number].end)
            told = [(gap.from_offset, gap.to_offset) for gap in settlements.gaps]
            written[number] += told
            if self._is_in_window(settlements.settled_at):
                gaps[number] += told
        facts = {}
        for number in numbers:
            committed = extent.committed.get(number)
            if committed is not None:  # a gap that the group has not come to yet
                gaps[number].append((committed.offset, extent.available[number].first))
            self._found.lost_offsets += size_of_union(gaps[number])
            position = 0 if committed is None else committed.offset
            lost = list(merged(written[number]))
            facts[number] = PartitionFacts(settled[number], position, replayed.get(number, set()), lost)
            self._place(number, position, lost)
        self._found.books.count(facts, self._published(extent, numbers, facts))
        self._found.samples.partitions_end()
        for visitors in self._counted:
            for number in numbers:
                visitors.finish(number)

    def _settle(self, number: int, entries: list[LedgerEntry], end: int) -> None:
        """Tell the visitors, but of nothing that lies behind the window."""
        for visitors in self._counted:
            for entry in entries:
                if entry.offset < end and entry.kind not in OF_METADATA:
                    visitors.settle(
                        number, entry.offset, entry.kind, entry.outcome, entry.reason, entry.duplicate_of
                    )

    def _place(self, number: int, position: int, lost: list[Interval]) -> None:
        for visitors in self._counted:
            visitors.commit(number, position)
            for first, end in lost:
                visitors.lose(number, first, end)

    def _is_in_window(self, settled_at: int) -> bool:
        since, until = self._window.since_ms, self._window.until_ms
        return (since is None or settled_at >= since) and (until is None or settled_at < until)

    def _published(
        self, extent: Extent, numbers: list[int], facts: Mapping[int, PartitionFacts]
    ) -> Iterator[Published]:
        for message in self._topics.messages(self._kafka.topic, extent.events, numbers):
            self._note_oldest(message)
            record = self._planning.published(message)
            self._decide(record)
            if record.decision is not None:
                self._sample(record, record.decision, message.timestamp()[1], facts)
            yield record

    def _decide(self, record: Published) -> None:
        """Count the visitor of a decision that Pendo is to be told: a replay may be of its metadata alone."""
        decision, row, part = record.decision, record.row, record.part
        if decision is None or row is None or Kind.TRACK not in record.kinds:
            return
        self._visitors.publish(record.partition, record.offset, row, decision.visitor_id)
        if self._three_way is not None:
            self._three_way.publish(record.partition, record.offset, decision)
        if part is not None:
            self._parts.publish(record.partition, record.offset, (row, part), decision.visitor_id)

    def _sample(
        self,
        record: Published,
        decision: DecisionEvent,
        arrived_ms: int,
        facts: Mapping[int, PartitionFacts],
    ) -> None:
        """Count the visitor of an experiment."""
        assignment = assignment_of(decision)
        if assignment is None or (self._selects and not_selected(decision, self._select) is not None):
            return
        how = ended(facts[record.partition].settled.endings(record.offset), Kind.TRACK)
        delivered = how is not None and how.outcome is Outcome.DELIVERED
        self._found.samples.take(assignment, arrived_ms, delivered=delivered)

    def _note_oldest(self, message: Message) -> None:
        """Where nothing else bounds the window, its oldest record does."""
        if self._window.since_ms is None and self._found.covered_ms is None:
            at = message.timestamp()[1]
            oldest = self._found.since_ms
            self._found.since_ms = at if oldest is None else min(oldest, at)


def portions(events: Spans) -> Iterator[list[int]]:
    """Partitions to be read together: as many as hold few offsets, for each reading takes its time."""
    portion: list[int] = []
    size = 0
    for number, span in events.items():
        if portion and size + len(span) > PORTION_OFFSETS:
            yield portion
            portion, size = [], 0
        portion.append(number)
        size += len(span)
    if portion:
        yield portion

"""Reads the topics for a reconciliation, a few partitions at a time, so that the largest one limits the memory.

In: settings, what to read, Kafka. Out: `Reconciliation`: the books, what was lost, what the ledger no longer covers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flagpost_consumer.commands.reconcile.counting import (
    Books,
    Interval,
    Part,
    PartitionFacts,
    Published,
    Row,
    merged,
    size_of_union,
)
from flagpost_consumer.commands.reconcile.extent import Extent, Spans, Window
from flagpost_consumer.commands.reconcile.impressions import ImpressionBooks
from flagpost_consumer.commands.reconcile.parts import By, part_of
from flagpost_consumer.commands.reconcile.planning import Planning
from flagpost_consumer.commands.reconcile.replays import Replayed, replayed_deliveries
from flagpost_consumer.commands.reconcile.sample_ratio import Samples, assignment_of
from flagpost_consumer.commands.reconcile.settled import Settled, ended
from flagpost_consumer.commands.reconcile.three_way import ThreeWay
from flagpost_consumer.commands.reconcile.topics import Topics
from flagpost_consumer.commands.reconcile.visitors import VisitorCounts, Visitors
from flagpost_consumer.commands.sources.topic_reading import TopicReader
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.planning.selection import not_selected
from flagpost_consumer.core.policy import SelectSettings
from flagpost_consumer.core.splits.experiments import Splits
from flagpost_consumer.settings import Settings
from flagpost_schemas import DecisionEvent

PORTION_OFFSETS = 1_000_000
"""Offsets that are read at once, unless a single partition has more."""


@dataclass(slots=True)
class Reconciliation:
    """The result."""

    since_ms: int | None
    """Where the window begins: as requested, or the oldest record's timestamp; None: there is no record."""
    until_ms: int
    books: Books = field(default_factory=Books)
    visitors: Mapping[Row, VisitorCounts] = field(default_factory=dict)
    visitor_parts: Mapping[tuple[Row, Part], VisitorCounts] = field(default_factory=dict)
    """The same, split like `books.parts`."""
    samples: Samples = field(default_factory=Samples, init=False)
    """The visitors of experiments."""
    lost_offsets: int = 0
    """Offsets that Kafka no longer had when the group was to read them."""
    covered_ms: int | None = None
    """Where the window begins because the ledger covers no more; None: nothing was cut off."""
    cut_offsets: int = 0
    damaged: int = 0
    """Unreadable ledger records."""
    impressions: ImpressionBooks | None = None
    """None: there is no topic of impressions."""

    @property
    def splits(self) -> Splits:
        """The traffic allocations of experiments that publishers reported."""
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
        """`by`: how rows are split. `three_way`: a comparison that also gets everything."""
        self._reader = reader
        self._kafka = settings.kafka
        self._window = window
        self._select = settings.select
        self._selects = settings.select != SelectSettings()
        impressions = (
            None
            if settings.kafka.impressions_topic is None
            else ImpressionBooks(window, holds_lists=three_way is not None)
        )
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
            if self._three_way is not None:
                self._three_way.lost = found.impressions.lost
        found.damaged = self._topics.damaged
        found.visitors, found.visitor_parts = self._visitors.counts(), self._parts.counts()
        return found

    def _read_reports(self, impressions: ImpressionBooks, topic: str) -> None:
        """A report is written when its time is over, by the same clock: there is none before the window's begin."""
        spans = self._reader.spans_if_there(topic)
        spans = self._reader.within(topic, spans, self._window.since_ms)
        if spans:
            for message in self._topics.messages(topic, spans, sorted(spans)):
                impressions.add(message.value())

    def _count(self, extent: Extent, numbers: list[int], replayed: Replayed) -> None:
        settled = {number: Settled(extent.events[number]) for number in numbers}
        gaps: dict[int, list[Interval]] = {number: [] for number in numbers}
        written: dict[int, list[Interval]] = {number: [] for number in numbers}
        for number, settlements in self._topics.outcomes(extent.ledger, numbers):
            settled[number].add(settlements.entries)
            for visitors in self._counted:  # not of what lies behind the window
                visitors.settle(number, settlements.entries, extent.events[number].end)
            told = [(gap.from_offset, gap.to_offset) for gap in settlements.gaps]
            written[number] += told
            if self._is_in_window(settlements.settled_at):
                gaps[number] += told
        facts = {}
        for number in numbers:
            committed = extent.committed.get(number)
            if committed is not None:  # a gap that the group has not reached yet
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
        notes_oldest = self._window.since_ms is None and self._found.covered_ms is None
        for message in self._topics.messages(self._kafka.topic, extent.events, numbers):
            arrived_ms = message.timestamp()[1]
            if notes_oldest:
                self._note_oldest(arrived_ms)
            record = self._planning.published(message)
            if record.decision is not None:
                self._decide(record, record.decision)
                self._sample(record.decision, arrived_ms, facts[record.partition].settled, record.offset)
            yield record

    def _decide(self, record: Published, decision: DecisionEvent) -> None:
        """Count the visitor of a decision that Pendo is to be told: a replay may be of its metadata only."""
        partition, offset, kinds, row, part, _ = record
        if row is None or Kind.TRACK not in kinds:
            return
        self._visitors.publish(partition, offset, row, decision.visitor_id)
        if self._three_way is not None:
            self._three_way.publish(partition, offset, decision)
        if part is not None:
            self._parts.publish(partition, offset, (row, part), decision.visitor_id)

    def _sample(self, decision: DecisionEvent, arrived_ms: int, settled: Settled, offset: int) -> None:
        """Count the visitor of an experiment."""
        assignment = assignment_of(decision)
        if assignment is None or (self._selects and not_selected(decision, self._select) is not None):
            return
        how = ended(settled.endings(offset), Kind.TRACK)
        delivered = how is not None and how.outcome is Outcome.DELIVERED
        self._found.samples.take(assignment, arrived_ms, delivered=delivered)

    def _note_oldest(self, arrived_ms: int) -> None:
        """If nothing else bounds the window, its oldest record does."""
        oldest = self._found.since_ms
        if oldest is None or arrived_ms < oldest:
            self._found.since_ms = arrived_ms


def portions(events: Spans) -> Iterator[list[int]]:
    """Partitions to read together: several with few offsets, because each reading takes time."""
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

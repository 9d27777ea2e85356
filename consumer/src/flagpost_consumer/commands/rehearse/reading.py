"""Reads the topics for a rehearsal, a few partitions at a time.

In: settings, a window, Kafka. Out: `Rehearsal`: the differences, and the actual window. It only reads: it joins no
group, commits nothing, and asks Pendo nothing.

A stretch before the window is also read, but not counted: what was sent in it decides what is a duplicate, unchanged
or superseded in the window.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from confluent_kafka import Message

from flagpost_consumer.adapters.kafka.message_records import MessageReader
from flagpost_consumer.commands.reconcile.counting import Interval, merged
from flagpost_consumer.commands.reconcile.extent import Extent, ExtentFinder, Window
from flagpost_consumer.commands.reconcile.reading import portions
from flagpost_consumer.commands.reconcile.topics import Topics
from flagpost_consumer.commands.rehearse.differences import Differences
from flagpost_consumer.commands.rehearse.partition import PartitionRehearsal, Stretch
from flagpost_consumer.commands.rehearse.recorded import PartitionLedger
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.records import Record
from flagpost_consumer.settings import Settings, keyed_policy
from flagpost_schemas import SchemaNeeded

TTLS_BEFORE = 3
"""How many `dedupe.ttl_seconds` are read before the window: as far as the engine looks back, and for late events."""


@dataclass(slots=True)
class Rehearsal:
    """The result."""

    since_ms: int | None
    """Where the window begins; None: at the beginning of the topic."""
    until_ms: int
    differences: Differences = field(default_factory=Differences)
    cut_offsets: int = 0
    """Offsets of the window that the ledger no longer covers."""
    damaged: int = 0
    """Unreadable ledger records."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read, and from which offset it counts."""

    extent: Extent
    counted_from: Mapping[int, int]
    cut_offsets: int


def look(reader: TopicReader, settings: Settings, window: Window) -> Plan:
    """Find out what there is for a window. Raises KafkaUnavailable."""
    finder = ExtentFinder(reader, settings)
    if window.since_ms is None:
        extent = finder.find(window)
        return Plan(
            extent, {number: span.first for number, span in extent.events.items()}, extent.cut_offsets
        )
    before_ms = int(TTLS_BEFORE * settings.dedupe.ttl_seconds * 1000)
    extent = finder.find(Window(max(0, window.since_ms - before_ms), window.until_ms))
    first = reader.first_at(settings.kafka.topic, window.since_ms, extent.available)
    asked = {number: Span(first[number], span.end) for number, span in extent.events.items()}
    counted = {number: max(span.first, extent.events[number].first) for number, span in asked.items()}
    cut = sum(len(span) - len(Span(counted[number], span.end)) for number, span in asked.items())
    return Plan(extent, counted, cut)


class Reading:
    """One rehearsal being made."""

    def __init__(self, reader: TopicReader, settings: Settings, window: Window) -> None:
        self._settings = settings
        self._topics = Topics(reader, settings.kafka)
        self._values = Values(settings.kafka.schema_registry)
        self._messages = MessageReader(
            self._values.decoder, settings.kafka.max_event_bytes, on_quarantined=lambda: None
        )
        self._policy = keyed_policy(settings)
        self._planner = Planner(self._policy)
        now_ms = time.time_ns() // 1_000_000
        self._found = Rehearsal(window.since_ms, now_ms if window.until_ms is None else window.until_ms)

    def run(self, plan: Plan) -> Rehearsal:
        """Rehearse everything.

        Raises:
            KafkaUnavailable: Kafka does not answer.
            RegistryNotAnswering: a record's schema cannot be had.
            UnknownSchema, LaterRelease: a later release wrote the ledger.
        """
        found, covered_ms = self._found, plan.extent.covered_ms
        found.cut_offsets = plan.cut_offsets
        if covered_ms is not None:
            found.since_ms = covered_ms if found.since_ms is None else max(covered_ms, found.since_ms)
        for numbers in portions(plan.extent.events):
            self._rehearse(plan, numbers)
        found.damaged = self._topics.damaged
        return found

    def _rehearse(self, plan: Plan, numbers: list[int]) -> None:
        extent = plan.extent
        ledgers = {
            number: PartitionLedger(extent.events[number], self._settings.dedupe) for number in numbers
        }
        gaps: dict[int, list[Interval]] = {number: [] for number in numbers}
        for number, offset, settlements in self._topics.settlements(extent.ledger, numbers):
            ledgers[number].add(offset, settlements)
            gaps[number] += [(gap.from_offset, gap.to_offset) for gap in settlements.gaps]
        rehearsals = {}
        for number, ledger in ledgers.items():
            committed = extent.committed.get(number)
            stretch = Stretch(
                number,
                counted_from=plan.counted_from[number],
                is_whole=extent.events[number].first == 0,
                committed=0 if committed is None else committed.offset,
                gaps=list(merged(gaps[number])),
            )
            rehearsals[number] = PartitionRehearsal(
                self._policy, self._planner, ledger, stretch, self._found.differences
            )
        for message in self._topics.messages(self._settings.kafka.topic, extent.events, numbers):
            record = self._record(message)
            rehearsals[record.partition].take(record)
        for rehearsal in rehearsals.values():
            rehearsal.finish()

    def _record(self, message: Message) -> Record:
        """The record in a message, as the consumer would make it. Raises RegistryNotAnswering."""
        try:
            return self._messages.decode(message)
        except SchemaNeeded as needed:
            self._values.learn(needed.schema_id)
        return self._messages.decode(message)

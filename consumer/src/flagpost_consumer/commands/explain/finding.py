"""Finds what Kafka has of one visitor; reads only the partition that the key belongs on.

In: a reader, settings, the subject. Out: `Found`: the records of the events topic, what the ledger says of them,
their dead letters, and the group's progress. A million settlements are searched in about a second: a ledger record is
decoded only if its bytes contain the name, or if it settles a record that the ledger does not name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from confluent_kafka import Message

from flagpost_consumer.adapters.kafka.message_headers import UnreadableHeaders, headers_of
from flagpost_consumer.adapters.ledger.entries import read_part
from flagpost_consumer.commands.dead_letters.records import DeadLetter, Marker, Place, read_message
from flagpost_consumer.commands.explain.subject import Subject
from flagpost_consumer.commands.privacy.suppressed import read_spans
from flagpost_consumer.commands.reconcile.extent import NOTHING, Spans
from flagpost_consumer.commands.reconcile.replays import source_of
from flagpost_consumer.commands.reconcile.topics import Topics
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_consumer.core.planning.plan import Planner, replayed_only
from flagpost_consumer.core.records import Headers
from flagpost_consumer.settings import Settings, engine_policy
from flagpost_schemas import (
    DecodeError,
    Event,
    LedgerEntry,
    UndecodableRecord,
    UnknownSchema,
    text_in_settlements,
)

At = tuple[int, int]
"""A partition of the events topic, and an offset."""


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """One record of the events topic."""

    partition: int
    offset: int
    produced_at: int
    """Epoch ms."""
    headers: Headers
    event: Event | None
    unreadable: str = ""
    """Why there is no event."""

    @property
    def at(self) -> At:
        """Its partition and offset."""
        return self.partition, self.offset


class Settled(NamedTuple):
    """How one delivery ended, according to the ledger."""

    entry: LedgerEntry
    settled_at: int
    """Epoch ms."""


class Letter(NamedTuple):
    """The dead letter of one delivery."""

    place: Place
    detail: str
    replayed: bool


@dataclass(slots=True)
class Found:
    """What Kafka has of the subject."""

    homes: tuple[int, ...]
    """The partitions of their keys: one, unless an anonymous visitor has two names."""
    partitions: tuple[int, ...]
    """The partitions that were read."""
    since_ms: int | None
    is_suppressed: bool = False
    records: list[FoundRecord] = field(default_factory=list)
    settled: dict[At, list[Settled]] = field(default_factory=dict)
    letters: dict[tuple[int, int, Kind], Letter] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    """Below this offset the group has settled everything; 0 if it has committed nothing."""
    gaps: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """By partition, offsets that were lost before they were read: from, and the first that was there again."""
    ledger_from: dict[int, int] = field(default_factory=dict)
    """By partition, when the oldest remaining settlement was written, if older ones are gone; epoch ms."""
    damaged: int = 0
    """Ledger records that cannot be read."""


class Finder:
    """One search."""

    def __init__(self, reader: TopicReader, settings: Settings, subject: Subject) -> None:
        self._reader = reader
        self._kafka = settings.kafka
        self._subject = subject
        self._keys = subject.keys
        self._values = Values(settings.kafka.schema_registry)
        self._topics = Topics(reader, settings.kafka)
        self._planner = Planner(engine_policy(settings))
        # Clocks differ: a settlement may seem too early by as much as an event may be ahead of the consumer's clock.
        self._skew_ms = int(settings.delivery.max_future_seconds * 1000)

    def find(self, since_ms: int | None, *, everywhere: bool) -> Found:
        """Read what there is.

        Raises:
            KafkaUnavailable: Kafka does not answer.
            RegistryNotAnswering: a record's schema cannot be had.
            UnknownSchema: a later release wrote the ledger.
        """
        reader, kafka = self._reader, self._kafka
        committed = reader.committed(kafka.topic, reader.spans(kafka.topic))
        available = reader.spans(kafka.topic)
        homes = tuple(sorted({partition_of(key, len(available)) for key in self._keys}))
        numbers = tuple(available) if everywhere else homes
        found = Found(homes, numbers, since_ms)
        found.committed = {n: committed[n].offset if n in committed else 0 for n in numbers}
        found.is_suppressed = not self._subject.is_account and self._is_suppressed()
        self._find_records(found, self._since(kafka.topic, available, found, since_ms))
        earlier_ms = None if since_ms is None else max(0, since_ms - self._skew_ms)
        self._find_settlements(found, available, earlier_ms)
        letters = self._since(
            kafka.dead_letter_topic, reader.spans(kafka.dead_letter_topic), found, earlier_ms
        )
        found.letters = _letters(reader.read(kafka.dead_letter_topic, letters), kafka.topic)
        found.damaged = self._topics.damaged
        return found

    def _since(self, topic: str, spans: Spans, found: Found, since_ms: int | None) -> Spans:
        """The part of a topic to read: the partitions, from a moment on."""
        # A topic may lack partitions that the events topic has.
        there = {number: spans[number] for number in found.partitions if number in spans}
        return dict.fromkeys(found.partitions, NOTHING) | self._reader.within(topic, there, since_ms)

    def _is_suppressed(self) -> bool:
        topic = self._kafka.suppressions_topic
        spans = self._reader.spans_if_there(topic)
        if not spans:
            return False
        numbers = {partition_of(key, len(spans)) for key in self._keys}
        suppressions = read_spans(self._reader, topic, {number: spans[number] for number in numbers})
        return suppressions.hold(self._subject.id)

    # The events.

    def _find_records(self, found: Found, spans: Spans) -> None:
        for message in self._topics.messages(self._kafka.topic, spans, list(spans)):
            record = self._record(message)
            if record is not None:
                found.records.append(record)
        found.records.sort(key=lambda record: (record.produced_at, record.at))

    def _record(self, message: Message) -> FoundRecord | None:
        """The record in a message if it is the subject's, by its key or its content."""
        key, value = message.key(), message.value()
        is_theirs = key in self._keys
        if not is_theirs and (value is None or not any(each in value for each in self._keys)):
            return None
        event, unreadable = None, ""
        try:
            event = self._values.decode(value)
        except DecodeError as error:
            unreadable = str(error)
        if not (is_theirs if event is None else self._subject.has(event)):
            return None
        return FoundRecord(
            cast("int", message.partition()),
            cast("int", message.offset()),
            message.timestamp()[1],
            _headers(message),
            event,
            unreadable,
        )

    # The ledger.

    def _find_settlements(self, found: Found, available: Spans, since_ms: int | None) -> None:
        whole = self._reader.spans(self._kafka.ledger_topic)
        spans = self._since(self._kafka.ledger_topic, whole, found, since_ms)
        ours = {record.at for record in found.records}
        unnamed = {
            r.at for r in found.records if r.event is None or not self._subject.is_named_in_ledger(r.event)
        }
        names = [text_in_settlements(name) for name in self._subject.names]
        for at, settled in self._settlements(found, spans, _Sought(names, unnamed)):
            number, offset = at
            is_gone = offset < available[number].first and self._subject.is_named_by(settled.entry)
            if at in ours or is_gone:
                found.settled.setdefault(at, []).append(settled)
        self._look_again(found, spans)
        for number in found.partitions:
            oldest = self._oldest(whole.get(number, NOTHING), number)
            if oldest is not None:
                found.ledger_from[number] = oldest

    def _look_again(self, found: Found, spans: Spans) -> None:
        """Look for settlements that must exist and were not found by name: by offset, and in gaps."""
        left = {
            record.at: missing
            for record in found.records
            if record.offset < found.committed[record.partition] and (missing := self._missing(found, record))
        }
        if not left:
            return
        for at, settled in self._settlements(found, spans, _Sought([], left)):
            if settled.entry.kind in left.get(at, ()):
                found.settled.setdefault(at, []).append(settled)

    def _missing(self, found: Found, record: FoundRecord) -> frozenset[Kind]:
        """The deliveries of a record for which no settlement was found."""
        known = {settled.entry.kind for settled in found.settled.get(record.at, ())}
        return frozenset(Kind) if not known else self._kinds(record) - known

    def _kinds(self, record: FoundRecord) -> frozenset[Kind]:
        """The kinds that its planning gives; that does not depend on the time."""
        if record.event is None:
            return frozenset({Kind.UNKNOWN})
        planned = replayed_only(self._planner.plan(record.event, record.produced_at), record.headers)
        return frozenset(plan.kind for plan in planned)

    def _settlements(self, found: Found, spans: Spans, sought: _Sought) -> Iterator[tuple[At, Settled]]:
        numbers = list(spans)
        for number, _, record in self._topics.settlements(spans, numbers, sought.may_be_in):
            for gap in record.gaps:
                found.gaps.setdefault(number, []).append((gap.from_offset, gap.to_offset))
            for entry in record.entries:
                yield (number, entry.offset), Settled(entry, record.settled_at)

    def _oldest(self, span: Span, number: int) -> int | None:
        """When the oldest record of the ledger was written, if there were older ones."""
        if not span.first:
            return None
        oldest = next(self._reader.read(self._kafka.ledger_topic, {number: span}), None)
        return None if oldest is None else oldest.timestamp()[1]


@dataclass(frozen=True, slots=True)
class _Sought:
    """What to look for in the ledger."""

    names: list[bytes]
    unnamed: Collection[At]
    """Records that the ledger does not name."""

    def may_be_in(self, message: Message) -> bool:
        """Whether a ledger record is worth decoding; also true for one that cannot be read."""
        value = message.value()
        if value is None or any(name in value for name in self.names):
            return True
        if not self.unnamed:
            return False
        try:
            part = read_part(value)
        except (UndecodableRecord, UnknownSchema):
            return True
        number = message.partition()
        return bool(part.gaps) or any((number, offset) in self.unnamed for offset, *_ in part.settled)


def _headers(message: Message) -> Headers:
    try:
        return headers_of(message)
    except UnreadableHeaders:
        return ()


def _letters(messages: Iterable[Message], events_topic: str) -> dict[tuple[int, int, Kind], Letter]:
    """The dead letters of a partition, by delivery; of several copies the first."""
    letters: dict[Place, DeadLetter] = {}
    replayed: set[Place] = set()
    for message in messages:
        found = read_message(message)
        if isinstance(found, Marker):
            replayed.add(found.of)
        elif found is not None:
            letters[found.place] = found
    by_delivery: dict[tuple[int, int, Kind], Letter] = {}
    for place, letter in letters.items():
        source = source_of(letter, events_topic)
        if source is not None:
            partition, (offset, kind) = source
            by_delivery.setdefault((partition, offset, kind), Letter(place, letter.detail, place in replayed))
    return by_delivery

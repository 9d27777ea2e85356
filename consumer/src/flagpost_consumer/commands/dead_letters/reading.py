"""Finds dead letters on their topic.

In: a reader, the topic, a filter. Out: the dead letters that match, and which of them were replayed. Only records
below the end offsets at the beginning are read. There is one dead letter for each delivery: if Kafka has a second
copy, because its first acknowledgement was lost, the first counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from confluent_kafka import Message

from flagpost_consumer.commands.dead_letters.records import DeadLetter, Marker, Place, place_of, read_message
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.core.planning.visitor_names import both_names
from flagpost_consumer.terminal.progress import watched


class NoSuchDeadLetter(LookupError):  # noqa: N818 (a fact, told by an exception)
    """There is no dead letter at a place; the message says what is there instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which dead letters are wanted; None or an empty value filters nothing. Times are epoch ms."""

    reasons: frozenset[str] = frozenset()
    since: int | None = None
    until: int | None = None
    """Only deliveries that ended before this moment."""
    visitor: str | None = None
    """The key of the original."""

    def match(self, letter: DeadLetter) -> bool:
        """Whether a dead letter is wanted."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
            and (self.visitor is None or letter.key in {name.encode() for name in both_names(self.visitor)})
        )


class Scan:
    """One reading of the dead-letter topic, from its beginning to its present end."""

    def __init__(self, reader: TopicReader, topic: str) -> None:
        self._reader = reader
        self._topic = topic
        self._spans = reader.spans(topic)
        self.replayed: set[Place] = set()
        """The places that markers name; complete once `letters` is exhausted."""
        self.foreign = 0
        """Records that are neither dead letters nor markers."""
        self._seen: set[bytes] = set()

    def letters(self, filters: Filters) -> Iterator[tuple[DeadLetter, bytes | None]]:
        """The letters that match, each partition's in order, with their values."""
        spans = self._spans_since(filters.since)
        messages = self._reader.read(self._topic, spans)
        for message in watched(messages, "dead letters read", sum(map(len, spans.values()))):
            record = read_message(message)
            if isinstance(record, Marker):
                self.replayed.add(record.of)
            elif record is None:
                self.foreign += 1
            elif filters.match(record) and self._is_first(record, message.value()):
                yield record, message.value()

    def _is_first(self, letter: DeadLetter, value: bytes | None) -> bool:
        """Whether no copy of a dead letter came before.

        Its source alone does not tell: a topic created anew under its old name has the same offsets again.
        """
        parts = (letter.source.encode(), letter.kind.encode(), letter.key or b"", value or b"")
        identity = hashlib.blake2b(b"".join(hashlib.sha256(part).digest() for part in parts), digest_size=16)
        before = len(self._seen)
        self._seen.add(identity.digest())
        return len(self._seen) > before

    def _spans_since(self, since: int | None) -> dict[int, Span]:
        """A dead letter is written after its delivery has ended, and its marker after that."""
        return self._reader.within(self._topic, self._spans, since)


def read_places(reader: TopicReader, topic: str, places: Collection[Place]) -> Iterator[Message]:
    """The messages at these places; those that Kafka has deleted are missing."""
    for message in reader.read(topic, _spans_of(places)):
        if place_of(message) in places:
            yield message


@dataclass(frozen=True, slots=True)
class Found:
    """One dead letter, and everything about it."""

    letter: DeadLetter
    message: Message
    replayed: bool


def find(reader: TopicReader, topic: str, place: Place) -> Found:
    """The dead letter at a place.

    Raises:
        NoSuchDeadLetter: there is none.
    """
    span = _span_at(reader.spans(topic), topic, place)
    messages = reader.read(topic, {place.partition: Span(place.offset, span.end)})
    message = next(messages, None)
    if message is None or place_of(message) != place:
        raise NoSuchDeadLetter(f"{topic} has no record at {place}: there are gaps between offsets")
    letter = read_message(message)
    if isinstance(letter, Marker):
        raise NoSuchDeadLetter(f"{place} is not a dead letter: it marks {letter.of} as replayed")
    if letter is None:
        raise NoSuchDeadLetter(f"the record at {place} is not a dead letter: it has no Flagpost headers")
    replayed = any(read_message(later) == Marker(place) for later in messages)
    return Found(letter, message, replayed)


def _span_at(spans: dict[int, Span], topic: str, place: Place) -> Span:
    span = spans.get(place.partition)
    if span is None:
        raise NoSuchDeadLetter(f"{topic} has no partition {place.partition}; it has 0 to {max(spans)}")
    if not span.first <= place.offset < span.end:
        held = f"offsets {span.first} to {span.end - 1}" if len(span) else "nothing"
        raise NoSuchDeadLetter(f"{topic} has no record at {place}: partition {place.partition} holds {held}")
    return span


def _spans_of(places: Collection[Place]) -> dict[int, Span]:
    """For each partition, the stretch from the first place to the last."""
    offsets: dict[int, list[int]] = {}
    for place in places:
        offsets.setdefault(place.partition, []).append(place.offset)
    return {number: Span(min(held), max(held) + 1) for number, held in offsets.items()}

"""Which offsets a reconciliation counts, and where it finds their settlements.

In: the requested window, the topics' contents. Out: `Extent`: stretches of the events, ledger and dead-letter topics.
Settlements come after their events, so the needed part of the ledger begins with the window. A ledger that has lost
its beginning covers only what was produced after its oldest record; earlier records are cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flagpost_consumer.commands.sources.topic_reading import Committed, Span, TopicReader
from flagpost_consumer.settings import Settings

Spans = Mapping[int, Span]
"""By partition."""

NOTHING = Span(0, 0)


@dataclass(frozen=True, slots=True)
class Window:
    """The requested window, in epoch ms of Kafka's record timestamps: from `since` to before `until`."""

    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """What is read, by partition."""

    committed: Mapping[int, Committed]
    available: Spans
    """The events that Kafka holds."""
    events: Spans
    """The events that are counted."""
    ledger: Spans
    dead_letters: Spans
    covered_ms: int | None = None
    """Where the window begins because the ledger covers no more; None: nothing was cut off."""
    cut_offsets: int = 0
    """How many offsets of the requested window are not covered."""


class ExtentFinder:
    """Finds out what there is."""

    def __init__(self, reader: TopicReader, settings: Settings) -> None:
        self._reader = reader
        self._kafka = settings.kafka
        # Clocks differ: a settlement may seem too early by as much as an event may be ahead of the consumer's clock.
        self._skew_ms = int(settings.delivery.max_future_seconds * 1000)
        # A duplicate ends like the delivery that it duplicates, which may have been settled before the window.
        self._repeats_ms = int(settings.dedupe.ttl_seconds * 1000)

    def find(self, window: Window) -> Extent:
        """The parts of the topics that a window needs.

        The commits are read first: everything below them was settled before, so the ledger's ends, read later,
        include it.
        """
        reader, kafka = self._reader, self._kafka
        committed = reader.committed(kafka.topic, reader.spans(kafka.topic))
        ledger, dead_letters = reader.spans(kafka.ledger_topic), reader.spans(kafka.dead_letter_topic)
        available = reader.spans(kafka.topic)
        asked = reader.within(kafka.topic, available, window.since_ms, window.until_ms)
        covered_ms = self._covered_ms(asked, ledger)
        covered = reader.within(kafka.topic, asked, covered_ms)
        events = {number: _settled_cut(span, ledger, committed, number) for number, span in covered.items()}
        needed_ms = (
            None if window.since_ms is None else max(0, window.since_ms - self._skew_ms - self._repeats_ms)
        )
        return Extent(
            committed=committed,
            available=available,
            events=events,
            ledger=reader.within(kafka.ledger_topic, ledger, needed_ms),
            dead_letters=reader.within(kafka.dead_letter_topic, dead_letters, needed_ms),
            covered_ms=covered_ms,
            cut_offsets=_size(asked) - _size(events),
        )

    def _covered_ms(self, asked: Spans, ledger: Spans) -> int | None:
        """The moment from which the ledger covers everything; None: it covers the whole request."""
        moments = [self._covers_from(number, span, ledger) for number, span in asked.items()]
        return max((moment for moment in moments if moment is not None), default=None)

    def _covers_from(self, number: int, asked: Span, ledger: Spans) -> int | None:
        kept = ledger.get(number, NOTHING)
        oldest = (
            next(self._reader.read(self._kafka.ledger_topic, {number: kept}), None) if kept.first else None
        )
        if oldest is None:
            return None
        moment = oldest.timestamp()[1] + self._skew_ms
        first = self._reader.first_at(self._kafka.topic, moment, {number: asked})[number]
        return moment if first > asked.first else None


def _settled_cut(span: Span, ledger: Spans, committed: Mapping[int, Committed], number: int) -> Span:
    """A span without its committed offsets, if nothing at all is left of a partition's ledger."""
    kept = ledger.get(number, NOTHING)
    if kept.first == 0 or len(kept) or number not in committed:
        return span
    return Span(max(span.first, min(span.end, committed[number].offset)), span.end)


def _size(spans: Spans) -> int:
    return sum(len(span) for span in spans.values())

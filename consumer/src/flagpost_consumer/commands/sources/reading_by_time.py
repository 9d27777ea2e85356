"""Reads a stretch of a topic's partitions in the order of time.

In: a reader, and the stretches. Out: their messages, by the time at which they were produced. Partitions are read at
the same time, and only some thousand messages are held: a longer stretch is split in two at a moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from confluent_kafka import Message

from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader

MAX_HELD = 20_000
"""Messages that are held for sorting."""


def read_by_time(
    reader: TopicReader, topic: str, spans: Mapping[int, Span], since_ms: int, until_ms: int
) -> Iterator[Message]:
    """The messages of `spans`, produced from `since_ms` to before `until_ms` (epoch ms), oldest first.

    If a partition's own times go back, its messages may be out of order by as much.
    """
    if sum(map(len, spans.values())) <= MAX_HELD or until_ms - since_ms <= 1:
        yield from sorted(reader.read(topic, spans), key=_produced_at)
        return
    middle_ms = (since_ms + until_ms) // 2
    cuts = reader.first_at(topic, middle_ms, spans)
    cuts = {number: min(max(cuts[number], span.first), span.end) for number, span in spans.items()}
    earlier = {number: Span(span.first, cuts[number]) for number, span in spans.items()}
    later = {number: Span(cuts[number], span.end) for number, span in spans.items()}
    yield from read_by_time(reader, topic, earlier, since_ms, middle_ms)
    yield from read_by_time(reader, topic, later, middle_ms, until_ms)


def _produced_at(message: Message) -> int:
    return message.timestamp()[1]

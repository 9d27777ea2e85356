"""The newest events on the events topic: a sample of the traffic, for checks.

In: settings. Out: events. Only the ends of the partitions are read, so it takes a second or two however long the
topic is. It blocks, and joins no group.
"""

from __future__ import annotations

from collections.abc import Iterator

from flagpost_consumer.operator.event_values import Values
from flagpost_consumer.operator.topic_reading import Span, TopicReader
from flagpost_consumer.settings import Settings
from flagpost_schemas import DecodeError, Event

NEWEST = 10_000
"""How many records are read, all partitions together."""


def newest_events(settings: Settings) -> list[Event]:
    """The newest events, each partition's in order; what cannot be decoded is left out.

    Raises:
        KafkaUnavailable: Kafka does not answer, or has no such topic.
        RegistryNotAnswering: a schema is needed, and the registry does not tell it.
        SettingsError: librdkafka refuses a property.
    """
    return list(_decoded(settings, _newest_values(settings)))


def _newest_values(settings: Settings) -> Iterator[bytes | None]:
    topic = settings.kafka.topic
    with TopicReader(settings.kafka) as reader:
        spans = reader.spans(topic)
        share = max(1, NEWEST // max(1, len(spans)))
        ends = {number: Span(max(span.first, span.end - share), span.end) for number, span in spans.items()}
        for message in reader.read(topic, ends):
            yield message.value()


def _decoded(settings: Settings, values: Iterator[bytes | None]) -> Iterator[Event]:
    decoder = Values(settings.kafka.schema_registry)
    for value in values:
        try:
            yield decoder.decode(value)
        except DecodeError:
            continue

"""The newest events on the events topic: a sample of the traffic, for checks.

In: settings. Out: events, each with the key and the partition of its record. Only the ends of the partitions are
read, so it takes a second or two however long the topic is. It blocks, and joins no group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import Message

from flagpost_consumer.adapters.registry.errors import RegistryNotAnswering
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.settings import Settings
from flagpost_schemas import DecodeError, Event

NEWEST = 10_000
"""How many records are read, in all partitions together."""


class PlacedEvent(NamedTuple):
    """An event, with its key and partition."""

    event: Event
    key: bytes | None
    partition: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The sample of the traffic."""

    placed: tuple[PlacedEvent, ...] = ()
    partitions: int = 0
    """How many the topic has."""
    unread: str = ""
    """Why nothing could be read; empty: it was read."""

    @property
    def events(self) -> list[Event]:
        """The events alone."""
        return [placed.event for placed in self.placed]


def read_sample(settings: Settings) -> Sample:
    """Read the newest events, each partition's in order; what cannot be decoded is left out.

    Raises:
        SettingsError: librdkafka refuses a property.
    """
    if settings.kafka.bootstrap_servers is None:
        return Sample(unread="kafka.bootstrap_servers is not set")
    try:
        with TopicReader(settings.kafka) as reader:
            spans = reader.spans(settings.kafka.topic)
            messages = reader.read(settings.kafka.topic, _ends(spans))
            return Sample(tuple(_placed(settings, messages)), len(spans))
    except (KafkaUnavailable, RegistryNotAnswering) as error:
        return Sample(unread=str(error))


def _ends(spans: dict[int, Span]) -> dict[int, Span]:
    share = max(1, NEWEST // max(1, len(spans)))
    return {number: Span(max(span.first, span.end - share), span.end) for number, span in spans.items()}


def _placed(settings: Settings, messages: Iterable[Message]) -> Iterator[PlacedEvent]:
    decoder = Values(settings.kafka.schema_registry)
    for message in messages:
        try:
            event = decoder.decode(message.value())
        except DecodeError:
            continue
        yield PlacedEvent(event, message.key(), message.partition() or 0)

"""Who is suppressed, for operators' commands.

In: the suppressions topic. Out: `Suppressions`, as the consumers know them. A topic that does not exist suppresses
nobody; one that cannot be read is an error, because then nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping

from flagpost_consumer.adapters.kafka.suppression_records import NoVisitor, read_suppression
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.commands.sources.topic_reading import Span, TopicReader
from flagpost_consumer.core.planning.suppressions import Suppressions, TooManySuppressions


def read_suppressions(reader: TopicReader, topic: str) -> Suppressions:
    """The visitors that are suppressed now.

    Raises:
        KafkaUnavailable: the topic cannot be read, or is larger than the limit.
    """
    return read_spans(reader, topic, reader.spans_if_there(topic))


def read_spans(reader: TopicReader, topic: str, spans: Mapping[int, Span]) -> Suppressions:
    """The same for what the topic held at a moment."""
    suppressions = Suppressions()
    for message in reader.read(topic, spans):
        try:
            suppressions.take([read_suppression(message.key(), message.value())])
        except NoVisitor:
            continue
        except TooManySuppressions as error:
            raise KafkaUnavailable(f"{topic}: {error}") from None
    return suppressions

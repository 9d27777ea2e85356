"""Words for Kafka's errors to a member of the group, which name the missing right.

In: errors of Kafka's client. Out: the same errors with the right named; log lines, at a limited rate.
"""

from __future__ import annotations

import structlog
from confluent_kafka import KafkaError, KafkaException

from flagpost_consumer.adapters.kafka.client_replacement import ClientReplacement
from flagpost_kafka import rights
from flagpost_settings.logs import Lately

log = structlog.get_logger(__name__)


class GroupErrors:
    """The errors of one member."""

    def __init__(self, topic: str, group: str, replacement: ClientReplacement) -> None:
        self._needed = (rights.reads(topic), rights.joins(group))
        self._replacement = replacement
        self._lately = Lately()

    def reason(self, error: KafkaError) -> str:
        """An error in words."""
        return rights.named(error, *self._needed).str()

    def report(self, error: KafkaError) -> None:
        """Log an error that librdkafka recovers from by itself, or have the client replaced. Raises KafkaException
        for any other error.
        """
        if error.fatal():
            raise KafkaException(rights.named(error, *self._needed))
        if error.code() == KafkaError._FATAL:  # noqa: SLF001 (its public name) - a right, with the protocol of KIP-848
            self._replacement.ask(f"it can do nothing more: {self.reason(error)}")
            return
        if self._lately.is_news(reason := self.reason(error)):
            log.warning("Kafka reports an error", code=error.name(), reason=reason)

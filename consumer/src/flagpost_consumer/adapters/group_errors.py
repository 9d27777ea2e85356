"""What Kafka says to a member of the group, in words that name the right that is missing.

In: errors of Kafka's client. Out: the same, named; log lines, each now and then.
"""

from __future__ import annotations

import structlog
from confluent_kafka import KafkaError, KafkaException

from flagpost_kafka import rights
from flagpost_settings.logs import Lately

log = structlog.get_logger(__name__)


class GroupErrors:
    """The errors of one member."""

    def __init__(self, topic: str, group: str) -> None:
        self._needed = (rights.reads(topic), rights.joins(group))
        self._lately = Lately()

    def reason(self, error: KafkaError) -> str:
        """An error in words."""
        return rights.named(error, *self._needed).str()

    def report(self, error: KafkaError) -> None:
        """Log what librdkafka mends by itself. Raises KafkaException where it cannot."""
        if error.fatal():
            raise KafkaException(rights.named(error, *self._needed))
        if self._lately.is_news(reason := self.reason(error)):
            log.warning("Kafka reports an error", code=error.name(), reason=reason)

"""Words for Kafka's errors to a member of the group, which name the missing right.

In: errors of Kafka's client. Out: the same errors with the right named; log lines, at a limited rate.
"""

from __future__ import annotations

import structlog
from confluent_kafka import KafkaError, KafkaException

from flagpost_kafka import errors, rights
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
        """Log an error that librdkafka recovers from by itself. Raises KafkaException for any other."""
        if errors.is_fatal(error):
            raise KafkaException(rights.named(error, *self._needed))
        if self._lately.is_news(reason := self.reason(error)):
            log.warning("Kafka reports an error", code=error.name(), reason=reason)

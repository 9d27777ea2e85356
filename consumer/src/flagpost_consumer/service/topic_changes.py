"""Whether the topics are still the same.

In: ids of topics from Kafka. Out: what was known of a topic that was created anew under its name is dropped.
"""

from __future__ import annotations

import structlog

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.suppressions_reader import SuppressionsReader
from flagpost_consumer.adapters.kafka.topic_ids import TopicIds
from flagpost_consumer.core.books.deliveries import Partition
from flagpost_consumer.service.commits import Commits
from flagpost_consumer.service.defects import vital
from flagpost_consumer.service.engine_loop import EngineLoop
from flagpost_consumer.settings import KafkaSettings

log = structlog.get_logger(__name__)


class TopicChanges:
    """Reacts to the ids of the topics."""

    def __init__(self, loop: EngineLoop, commits: Commits, kafka: KafkaSettings) -> None:
        self.defects = loop.defects
        self._loop = loop
        self._commits = commits
        self._kafka = kafka
        self.suppressions: SuppressionsReader | None = None
        """The thread that reads the suppressions topic, once it exists."""
        self.ids: TopicIds | None = None
        """The last known ids, once they are asked for."""
        self._replaced_by: dict[str, str] = {}
        """Topics that were reported as created anew, and their newest id."""

    @vital
    def on_topic_id(self, topic: str, before: str | None) -> None:
        """Kafka has told a topic's id; `before`: the id it had before, if it was created anew."""
        intake, engine = self._loop.intake, self._loop.engine
        if intake is None or self.ids is None:
            return
        topic_id, ledger_id = self.ids.get(self._kafka.topic), self.ids.get(self._kafka.ledger_topic)
        if before is not None:
            self.note_other(topic, self.ids.get(topic))
            self._begin_anew(topic)
        for number in engine.assigned:
            current = engine.current(number)
            if current is not None and current.topic_id is None:
                current.topic_id = topic_id
        intake.know_ids(topic_id, ledger_id)
        self._commits.now(clock().monotonic)

    def _begin_anew(self, topic: str) -> None:
        kafka = self._kafka
        if topic == kafka.topic:
            if self._loop.intake is not None:
                self._loop.intake.begin_anew()
        elif topic == kafka.suppressions_topic:
            if self.suppressions is not None:
                self.suppressions.made_anew()
        elif topic == kafka.ledger_topic:
            self._loop.engine.ledger_replaced()
            self._loop.writing.ledger.made_anew()
        else:
            self._loop.writing.dead_letters.made_anew()

    def note_other(self, topic: str, topic_id: str | None) -> None:
        """A topic is not the same any more: it has a new id, or a commit belongs to another one."""
        if topic_id is None or self._replaced_by.get(topic) != topic_id:
            log.error(
                "a topic was created again under its old name: it is read from its beginning", topic=topic
            )
            self._loop.metrics.observed.topics_replaced[topic] += 1
        if topic_id is not None:
            self._replaced_by[topic] = topic_id

    def note_log_back(self, partition: Partition, offset: int) -> None:
        """The log of a partition has gone back to an offset, and is read from there."""
        log.error("a log has gone back: it is read from there", partition=partition.number, offset=offset)
        self._loop.metrics.observed.topics_replaced[self._kafka.topic] += 1

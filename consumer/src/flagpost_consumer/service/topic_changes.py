"""Whether the topics are still the same.

In: ids of topics from Kafka. Out: what was known of a topic that was created anew under its name is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import structlog

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.partition_reading import Start
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
        self._began_anew_for: str | None = None
        """The id of the events topic for which everything was begun anew."""

    @vital
    def on_topic_id(self, topic: str, before: str | None) -> None:
        """Kafka has told a topic's id; `before`: the id it had before, if it was created anew."""
        intake = self._loop.intake
        if intake is None or self.ids is None:
            return
        topic_id, ledger_id = self.ids.get(self._kafka.topic), self.ids.get(self._kafka.ledger_topic)
        if before is not None:
            self.note_other(topic, self.ids.get(topic))
            self._begin_anew(topic)
        engine = self._loop.engine
        partitions = [
            current for number in engine.assigned if (current := engine.current(number)) is not None
        ]
        for partition in partitions:
            if partition.topic_id is None:
                partition.topic_id = topic_id
        self.compare(partitions)
        intake.know_ids(topic_id, ledger_id)
        self._commits.now(clock().monotonic)

    def compare(self, partitions: Iterable[Partition]) -> None:
        """Begin anew if one of these was restored for another events topic than the present one: while nobody told
        the topic's id, it was taken to be that of the commit, or of the ledger.
        """
        topic = self._kafka.topic
        present = None if self.ids is None else self.ids.get(topic)
        if present is None or present == self._began_anew_for:
            return
        if any(partition.topic_id not in (None, present) for partition in partitions):
            self.note_other(topic, present)
            self._begin_anew(topic)

    def told_since(self, start: Start) -> Start:
        """The same start with the ids that were told since, where nothing says of which topics it is."""
        if self.ids is None:
            return start
        topic_id = start.topic_id or self.ids.get(self._kafka.topic)
        ledger_id = start.ledger_id or self.ids.get(self._kafka.ledger_topic)
        return replace(start, topic_id=topic_id, ledger_id=ledger_id)

    def _begin_anew(self, topic: str) -> None:
        kafka = self._kafka
        if topic == kafka.topic:
            if self._loop.intake is not None and self.ids is not None:
                self._began_anew_for = self.ids.get(topic)
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

"""When a partition's records may be read: once its ledger has been read, and it is known who is suppressed.

In: the calls of the two threads that read the ledger and the suppressions topic. Out: partitions released to Kafka's
thread; suppressions for the engine.
"""

from __future__ import annotations

import structlog

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.suppressions_reader import SuppressionsReader
from flagpost_consumer.adapters.ledger.restore import Restored
from flagpost_consumer.core.books.deliveries import Partition
from flagpost_consumer.core.planning.suppressions import Suppression, Suppressions, TooManySuppressions
from flagpost_consumer.service.commits import Commits
from flagpost_consumer.service.defects import vital
from flagpost_consumer.service.engine_loop import EngineLoop
from flagpost_consumer.service.kafka_calls import KafkaCalls
from flagpost_consumer.service.stalls import Stalls
from flagpost_consumer.service.topic_changes import TopicChanges

log = structlog.get_logger(__name__)


class Releases:
    """The handler of restores (`RestoreHandler`) and of suppressions (`SuppressionsHandler`)."""

    def __init__(
        self, loop: EngineLoop, calls: KafkaCalls, commits: Commits, stalls: Stalls, topics: TopicChanges
    ) -> None:
        self.defects = loop.defects
        self._loop = loop
        self._engine, self._observed = loop.engine, loop.metrics.observed
        self._calls = calls
        self._commits = commits
        self._stalls = stalls
        self._topics = topics
        self.suppressions: SuppressionsReader | None = None
        """The thread that reads the suppressions topic, once it exists."""
        self._unreleased: list[Restored] | None = []
        """Partitions that wait until it is known who is suppressed; None: it is known."""
        self._engine.follow_suppressions(followed=False)

    # From the ledger

    @vital
    def on_restored(self, restored: Restored) -> None:
        """The ledger of a partition has been read: release it once it is known who is suppressed."""
        if self._unreleased is None:
            self._release(restored)
        else:
            self._unreleased.append(restored)

    def _release(self, restored: Restored) -> None:
        partition, start = restored.partition, self._topics.told_since(restored.start)
        if not self._engine.is_current(partition):
            return
        self._engine.restore(partition, restored.restoration)
        partition.topic_id = start.topic_id
        if start.leader_epoch is not None:
            partition.epochs.begins(start.offset, start.leader_epoch)
        self._observed.restore_seconds = restored.seconds
        if restored.gap is not None:
            self._loop.writing.lose(partition, restored.gap)
        if self._loop.intake is not None:
            assignment = self._calls.assignment_of[partition]
            self._loop.intake.release(partition.number, start, assignment)
        self._topics.compare([partition])
        self._commits.now(clock().monotonic)
        if all(self._engine.is_restored(number) for number in self._engine.assigned):
            log.info("restored", partitions=len(self._engine.assigned), seconds=round(restored.seconds, 3))
        self._loop.wake()

    def on_held(self, partition: Partition, reason: str) -> None:
        """A partition cannot be consumed until somebody acts."""
        if self._engine.is_current(partition):
            log.error("a partition is not consumed", partition=partition.number, reason=reason)
            self._stalls.held[partition.number] = reason

    def on_damaged(self) -> None:
        """A ledger record was passed over."""
        self._observed.ledger_damaged += 1

    def on_other_topic(self, topic: str, topic_id: str | None) -> None:
        """A commit belongs to another topic of this name."""
        self._topics.note_other(topic, topic_id)

    def on_log_back(self, partition: Partition, offset: int) -> None:
        """The log of a partition has gone back to an offset; it is read from there."""
        self._topics.note_log_back(partition, offset)

    # From the suppressions topic

    @vital
    def on_suppressions_known(self, known: Suppressions) -> None:
        """It is known who is suppressed: release the partitions restored meanwhile."""
        self._engine.know_suppressions(known)
        unreleased, self._unreleased = self._unreleased, None
        for restored in unreleased or ():
            self._release(restored)
        self._loop.wake()

    @vital
    def on_suppressions(self, suppressions: list[Suppression]) -> None:
        """Visitors are suppressed, or are no longer."""
        try:
            self._engine.suppress(suppressions)
        except TooManySuppressions as error:
            self.on_suppressions_followed(str(error))
            if self.suppressions is not None:
                self.suppressions.read_over()
        self._loop.wake()

    @vital
    def on_suppressions_followed(self, trouble: str) -> None:
        """Whether further suppressions would be noticed."""
        self._stalls.suppressions = trouble
        self._engine.follow_suppressions(followed=self._unreleased is None and not trouble)
        self._loop.wake()

"""Commits offsets to the group, together with the commit's metadata (`commit_metadata`).

In: positions that the event loop wants committed. Out: commits, only of partitions that are ours; the result of each,
to the loop. Only the Kafka thread calls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.kafka.commit_metadata import write_metadata
from flagpost_consumer.adapters.kafka.group_errors import GroupErrors
from flagpost_consumer.adapters.kafka.group_silence import GroupSilence
from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler
from flagpost_consumer.adapters.kafka.owned_partitions import OwnedPartitions
from flagpost_consumer.adapters.kafka.partition_reading import PartitionReading
from flagpost_consumer.core.books.deliveries import Position

log = structlog.get_logger(__name__)


class OffsetCommits:
    """The commits of one member of the group: one at a time, and the last ones of a hand-over."""

    def __init__(
        self,
        topic: str,
        handler: IntakeHandler,
        loop: asyncio.AbstractEventLoop,
        partitions: OwnedPartitions,
        group: GroupSilence,
        errors: GroupErrors,
    ) -> None:
        self._topic = topic
        self._handler = handler
        self._loop = loop
        self._partitions = partitions
        self._group = group
        self._errors = errors
        self._began_at = 0.0
        self._under_way = False

    def begin(self, consumer: Consumer, positions: Mapping[int, Position]) -> None:
        """Commit positions; `IntakeHandler.on_commit_ended` tells how it ended."""
        self._began_at = clock().monotonic
        offsets = self._offsets_of(positions)
        if not offsets:
            self._tell_ended(None)
            return
        try:
            if self._partitions.handing_over:
                # The member is not polled meanwhile, so it would not hear of the result of an asynchronous commit.
                self.on_commit(None, consumer.commit(offsets=offsets, asynchronous=False))
            else:
                consumer.commit(offsets=offsets, asynchronous=True)
                self._under_way = True
        except KafkaException as error:
            self.on_commit(error.args[0], [])

    def commit_last(self, consumer: Consumer, positions: Mapping[int, Position]) -> None:
        """Commit positions of partitions that are about to leave, and wait for it."""
        try:
            if offsets := self._offsets_of(positions):
                consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            reason = self._errors.reason(error.args[0])
            log.warning("the last commit of partitions handed over has failed", reason=reason)

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """A commit has ended: librdkafka's `on_commit`."""
        error = error or next((partition.error for partition in partitions if partition.error), None)
        if error is None:
            self._group.heard(clock().monotonic)
        else:
            log.warning("commit failed; it is retried", reason=self._errors.reason(error))
        self._tell_ended(None if error is not None else self._began_at)

    def forget_client(self) -> None:
        """The client is gone: it will not report the result of a commit in flight."""
        if self._under_way:
            self._tell_ended(None)

    def _tell_ended(self, began_at: float | None) -> None:
        self._under_way = False
        self._loop.call_soon_threadsafe(self._handler.on_commit_ended, began_at)

    def _offsets_of(self, positions: Mapping[int, Position]) -> list[TopicPartition]:
        """The positions of partitions that are read.

        For a revoked partition, a commit would move another member's position; for one that has begun anew, the
        position belongs to another log.
        """
        readings = self._partitions.readings
        return [
            _commit_of(self._topic, number, position, readings[number])
            for number, position in positions.items()
            if number in readings
        ]


def _commit_of(topic: str, number: int, position: Position, reading: PartitionReading) -> TopicPartition:
    metadata = write_metadata(position, reading.topic_id, reading.ledger_id)
    epoch = reading.epoch_before(position.offset)
    if epoch is None:
        return TopicPartition(topic, number, position.offset, metadata)
    return TopicPartition(topic, number, position.offset, metadata, epoch)

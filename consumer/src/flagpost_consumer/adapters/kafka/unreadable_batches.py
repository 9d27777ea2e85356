"""Passes over batches that Kafka's client cannot read: it would report the same error for ever.

In: the client's errors about a batch, and what it reads at each place that is tried (`batch_end` decides where).
Out: seeks, and the gap once the end of the batch is found. Only the Kafka thread calls it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import structlog
from confluent_kafka import Consumer, KafkaError, TopicPartition

from flagpost_consumer.adapters.kafka.batch_end import BatchEnd
from flagpost_consumer.adapters.kafka.partition_reading import PartitionReading
from flagpost_consumer.core.records import Gap

log = structlog.get_logger(__name__)


class UnreadableBatches:
    """The searches for ends of batches in one topic, at most one for each partition."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.searches: dict[int, BatchEnd] = {}
        """The search in each partition that has one."""
        self.sought: set[int] = set()
        """Partitions that were moved to another offset while messages are handed over: their messages among these
        come from the old offset.
        """

    def unreadable(
        self, client: Consumer, reading: PartitionReading, number: int, base: int, error: KafkaError
    ) -> Gap | None:
        """The client cannot read a batch that begins at `base`: search for its end, or go on searching. Returns the
        gap if the end is found.
        """
        search = self.searches.get(number)
        if search is None:
            log.error("a batch cannot be read", partition=number, offset=base, reason=error.str())
            _, end = client.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            search = self.searches[number] = BatchEnd(base, end)
        else:
            search.unreadable(base)
        return self._go_on(client, reading, number, search)

    def readable(
        self, client: Consumer, reading: PartitionReading, number: int, search: BatchEnd
    ) -> Gap | None:
        """The place that a search tried could be read, or is the log's end. Returns the gap if the end is found."""
        search.readable()
        return self._go_on(client, reading, number, search)

    def _go_on(
        self, client: Consumer, reading: PartitionReading, number: int, search: BatchEnd
    ) -> Gap | None:
        self.sought.add(number)
        if (behind := search.found) is None:
            client.seek(TopicPartition(self._topic, number, search.place))
            return None
        del self.searches[number]
        client.seek(TopicPartition(self._topic, number, behind))
        gap = Gap(max(search.base, reading.next_offset), behind)
        reading.next_offset = behind
        log.error(
            "a batch that cannot be read is skipped",
            partition=number,
            from_offset=gap.from_offset,
            to_offset=gap.to_offset,
        )
        return gap

    def restart(
        self, client: Consumer, numbers: Collection[int], readings: Mapping[int, PartitionReading]
    ) -> None:
        """Give up the searches in some partitions, and read on where each began.

        After a pause the client has forgotten the place that was tried, and another client never knew it.
        """
        for number in self.searches.keys() & numbers:
            del self.searches[number]
            if number in readings:
                self.sought.add(number)
                client.seek(TopicPartition(self._topic, number, readings[number].next_offset))

    def clear(self) -> None:
        """Forget everything."""
        self.searches.clear()
        self.sought.clear()

"""Reads back from the ledger what was settled in partitions that are newly assigned.

In: partitions of the events topic. Out, for each, on the event loop: a `Restoration` and where to read on, or why
it cannot be consumed. Runs in a thread of its own with a consumer of its own, by assign() and up to the end that
the ledger had at the assignment; the partitions' records wait meanwhile. Where Kafka does not answer it is asked
again until the partitions are taken away.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flagpost_consumer.adapters.kafka_config import restore_config
from flagpost_consumer.adapters.ledger_entries import read_part
from flagpost_consumer.adapters.topic_ids import read_topic_id
from flagpost_consumer.core.dedupe import DedupeCounts
from flagpost_consumer.core.policy import DedupeSettings
from flagpost_consumer.core.records import Gap, Partition
from flagpost_consumer.core.restoration import Restoration
from flagpost_consumer.settings import KafkaSettings
from flagpost_schemas import UndecodableRecord, UnknownSchema
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)

CALL_SECONDS = 5.0
RETRY_SECONDS = 1.0
BATCH_MESSAGES = 200
POLL_SECONDS = 0.05
PROGRESS_SECONDS = 2.0
METADATA_VERSION = "v1:"
"""Before the ledger offset, in the metadata of an offset commit (DESIGN, Ledger)."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition that can be consumed."""

    partition: Partition
    restoration: Restoration
    next_offset: int
    """Where records are read on."""
    gap: Gap | None
    """Offsets between the committed one and the log's beginning, if the ledger does not tell of them yet."""
    seconds: float
    """How long the restore took."""


class RestoreHandler(Protocol):
    """What the loop does with what is restored. All of it is called on the loop."""

    def on_restored(self, restored: Restored) -> None:
        """A partition can be consumed."""

    def on_held(self, partition: Partition, reason: str) -> None:
        """A partition cannot be consumed."""

    def on_damaged(self) -> None:
        """A ledger record could not be read, and is passed over."""

    def on_topic_id(self, topic_id: str) -> None:
        """Kafka's id of the events topic, told before anything is restored, where the broker tells it."""


def commit_metadata(ledger_offset: int | None) -> str:
    """The metadata of a commit: the oldest ledger offset that is still needed."""
    return "" if ledger_offset is None else f"{METADATA_VERSION}{ledger_offset}"


def ledger_offset_in(metadata: str | None) -> int:
    """The ledger offset in a commit's metadata; 0, the ledger's beginning, where there is none."""
    number = (metadata or "").removeprefix(METADATA_VERSION)
    return int(number) if number.isascii() and number.isdigit() else 0


@dataclass(slots=True)
class _Reading:
    """One partition while it is read."""

    partition: Partition
    restoration: Restoration
    next_offset: int
    """In the events topic."""
    gap: Gap | None
    began_at: float
    first: int
    """In the ledger."""
    end: int


class LedgerRestore:
    """Restores partitions of one process, those of an assignment together."""

    def __init__(
        self,
        kafka: KafkaSettings,
        dedupe: DedupeSettings,
        handler: RestoreHandler,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._kafka = kafka
        self._dedupe = dedupe
        self._handler = handler
        self._loop = loop
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._left: dict[int, tuple[Partition, float]] = {}
        """Partitions that wait, by number, and since when."""
        self._topic_id: str | None = None
        self._has_asked = False
        self._counts = DedupeCounts()
        self._said_at = 0.0
        self._trouble = ""
        self._settlements = 0

    def start(self, partitions: Iterable[Partition]) -> None:
        """Read these partitions in the background."""
        with self._lock:
            now = time.monotonic()
            self._left.update({partition.number: (partition, now) for partition in partitions})
            if self._thread is None and self._left:
                self._thread = threading.Thread(target=self._run, name="flagpost-restore", daemon=True)
                self._thread.start()

    def give_up(self, numbers: Iterable[int]) -> None:
        """Nobody waits for these partitions any more."""
        with self._lock:
            for number in numbers:
                self._left.pop(number, None)

    def cancel(self) -> None:
        """Nobody waits for any of it any more."""
        self._cancelled.set()

    # The thread

    def _run(self) -> None:
        while self._goes_on():
            try:
                self._restore()
            except KafkaException as error:
                self._say(error.args[0].str())
                self._cancelled.wait(RETRY_SECONDS)
            except Exception as error:  # a partition that is not restored must say so
                log.exception("a restore has failed")
                for partition, _ in self._waiting():
                    self._hold(partition, f"the restore failed ({type(error).__name__}); see the log")

    def _goes_on(self) -> bool:
        with self._lock:
            if self._left and not self._cancelled.is_set():
                return True
            self._thread = None
            return False

    def _waiting(self) -> list[tuple[Partition, float]]:
        with self._lock:
            return list(self._left.values())

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("the ledger cannot be read; it is tried again", reason=trouble)

    def _restore(self) -> None:
        """Restore what is left. Raises KafkaException; it can then be called again."""
        self._counts = DedupeCounts()
        consumer = Consumer(restore_config(self._kafka), logger=kafka_logger())
        try:
            readings = self._begin(consumer)
            self._learn_topic_id()
            self._read(consumer, readings)
        finally:
            consumer.close()

    def _learn_topic_id(self) -> None:
        """Ask once, of a Kafka that answers: a broker that does not tell it takes seconds to say nothing."""
        if not self._has_asked:
            self._has_asked = True
            self._topic_id = read_topic_id(self._kafka.client_properties(), self._kafka.topic)
            if self._topic_id is not None:
                self._tell(self._handler.on_topic_id, self._topic_id)

    def _begin(self, consumer: Consumer) -> dict[int, _Reading]:
        """Learn where each partition and its ledger begin and end."""
        ledger = consumer.list_topics(self._kafka.ledger_topic, timeout=CALL_SECONDS).topics
        found = ledger[self._kafka.ledger_topic]
        if found.error is not None:
            raise KafkaException(found.error)
        waiting = self._waiting()
        for partition, _ in waiting:
            if partition.number not in found.partitions:
                reason = (
                    f"{self._kafka.ledger_topic} has no such partition; docs/topics.md tells how to grow it"
                )
                self._hold(partition, reason)
        asked = [TopicPartition(self._kafka.topic, partition.number) for partition, _ in waiting]
        committed = {each.partition: each for each in consumer.committed(asked, timeout=CALL_SECONDS)}
        return {
            partition.number: self._reading(consumer, partition, since, committed[partition.number])
            for partition, since in waiting
            if partition.number in found.partitions
        }

    def _reading(
        self, consumer: Consumer, partition: Partition, since: float, committed: TopicPartition
    ) -> _Reading:
        low, high = self._watermarks(consumer, self._kafka.topic, partition.number)
        first, end = self._watermarks(consumer, self._kafka.ledger_topic, partition.number)
        position, gap = low, None
        if low <= committed.offset <= high:
            position = committed.offset
        elif 0 <= committed.offset < low:
            position, gap = committed.offset, Gap(committed.offset, low)
        elif committed.offset > high:
            log.warning(
                "the committed offset is beyond the topic's end: a new topic, read from its beginning",
                partition=partition.number,
                committed=committed.offset,
                end=high,
            )
        needed = ledger_offset_in(committed.metadata) if committed.offset >= 0 else first
        # What is not there any more, or not yet (the ledger is a new one), is no place to begin.
        begin = needed if first <= needed <= end else first
        restoration = Restoration(position, self._dedupe, self._counts)
        return _Reading(partition, restoration, max(position, low), gap, since, begin, end)

    def _watermarks(self, consumer: Consumer, topic: str, number: int) -> tuple[int, int]:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=CALL_SECONDS)
        return low, high

    def _read(self, consumer: Consumer, readings: dict[int, _Reading]) -> None:
        """Read each ledger partition to its end; what is done leaves `readings`."""
        for reading in [reading for reading in readings.values() if reading.first >= reading.end]:
            self._finish(readings, reading)
        consumer.assign(
            [
                TopicPartition(self._kafka.ledger_topic, number, reading.first)
                for number, reading in readings.items()
            ]
        )
        while readings and not self._cancelled.is_set():
            for message in consumer.consume(BATCH_MESSAGES, POLL_SECONDS):
                self._take(readings, message)
            wanted = {partition for partition, _ in self._waiting()}
            for reading in list(readings.values()):
                if reading.partition not in wanted:
                    del readings[reading.partition.number]
            self._report_progress(readings)

    def _take(self, readings: dict[int, _Reading], message: Message) -> None:
        at_end = _is_end(message)
        number, offset = message.partition(), message.offset()
        reading = None if number is None else readings.get(number)
        if reading is None or offset is None:
            return
        if not at_end and offset < reading.end and not self._take_record(reading, offset, message.value()):
            del readings[reading.partition.number]
        elif at_end or offset >= reading.end - 1:
            self._finish(readings, reading)

    def _take_record(self, reading: _Reading, offset: int, value: bytes | None) -> bool:
        """Take one record in; False where the partition has to be held."""
        number = reading.partition.number
        try:
            part = read_part(value)
        except UndecodableRecord as error:
            log.warning(
                "a damaged ledger record is passed over", partition=number, offset=offset, reason=str(error)
            )
            self._tell(self._handler.on_damaged)
            return True
        except UnknownSchema as error:
            self._hold(reading.partition, str(error))
            return False
        if part.group != self._kafka.group_id or self._is_other_topic(part.topic_id):
            return True
        self._settlements += reading.restoration.take(offset, part.settled)
        for first, last in part.gaps:
            if reading.gap is not None and first <= reading.gap.from_offset < last:
                known_to = min(last, reading.gap.to_offset)
                reading.gap = (
                    Gap(known_to, reading.gap.to_offset) if known_to < reading.gap.to_offset else None
                )
        return True

    def _is_other_topic(self, topic_id: str | None) -> bool:
        return self._topic_id is not None and topic_id is not None and topic_id != self._topic_id

    def _finish(self, readings: dict[int, _Reading], reading: _Reading) -> None:
        del readings[reading.partition.number]
        self._done_with(reading.partition)
        reading.restoration.finish(reading.end)
        if reading.gap is None:
            reading.restoration.position = reading.next_offset
        seconds = time.monotonic() - reading.began_at
        restored = Restored(reading.partition, reading.restoration, reading.next_offset, reading.gap, seconds)
        self._tell(self._handler.on_restored, restored)

    def _hold(self, partition: Partition, reason: str) -> None:
        self._done_with(partition)
        self._tell(self._handler.on_held, partition, reason)

    def _done_with(self, partition: Partition) -> None:
        with self._lock:
            # The partition may have been assigned anew meanwhile: that waits for its own turn.
            if self._left.get(partition.number, (None, 0.0))[0] is partition:
                del self._left[partition.number]

    def _report_progress(self, readings: Mapping[int, _Reading]) -> None:
        if readings and time.monotonic() - self._said_at > PROGRESS_SECONDS:
            self._said_at = time.monotonic()
            log.info("restoring", partitions_left=len(readings), settlements_read=self._settlements)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if not self._cancelled.is_set():
            self._loop.call_soon_threadsafe(what, *arguments)


def _is_end(message: Message) -> bool:
    """Whether the partition ends here. Raises KafkaException for any other error."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's public name
        raise KafkaException(error)
    return error is not None

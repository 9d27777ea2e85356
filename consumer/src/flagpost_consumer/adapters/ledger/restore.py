"""Reads back from the ledger what was settled in newly assigned partitions.

In: partitions of the events topic. Out, for each, on the event loop: a `Restoration` and where to read on, or why it
cannot be consumed. Runs in its own thread with its own consumer, by assign() and up to the end that the ledger had at
the assignment; the partitions' records wait meanwhile. While Kafka does not answer it is asked again, until the
partitions are taken away; those of which it tells nothing, such as one without a leader, keep no others waiting.

A commit that was made for another topic of the same name says nothing of this one: a topic that was created anew is
read from its beginning, and a log that went back from the offset it went back to.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin._metadata import TopicMetadata

from flagpost_consumer.adapters.kafka.commit_metadata import CommitMetadata, read_metadata
from flagpost_consumer.adapters.kafka.config import restore_config
from flagpost_consumer.adapters.kafka.handed_over import BatchSize, size_of
from flagpost_consumer.adapters.kafka.log_bounds import Bounds, bounds_of
from flagpost_consumer.adapters.kafka.message_headers import UnreadableHeaders, headers_of
from flagpost_consumer.adapters.kafka.partition_reading import Start
from flagpost_consumer.adapters.kafka.topic_ids import TopicIds
from flagpost_consumer.adapters.ledger.entries import read_part
from flagpost_consumer.adapters.ledger.writer import EPOCHS_HEADER
from flagpost_consumer.core.books.dedupe import DedupeCounts
from flagpost_consumer.core.books.deliveries import Partition
from flagpost_consumer.core.books.leader_epochs import read_epochs
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.policy import DedupeSettings
from flagpost_consumer.core.records import Gap
from flagpost_consumer.settings import KafkaSettings, SettingsError
from flagpost_kafka import reach, rights
from flagpost_kafka.rights import Right
from flagpost_schemas import UndecodableRecord, UnknownSchema
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)

CALL_SECONDS = 5.0
RETRY_SECONDS = 1.0
POLL_SECONDS = 0.05
PROGRESS_SECONDS = 2.0
SILENT_SECONDS = 20.0
"""After this long without any of the records that the ledger has, try a new client: this one may have lost its
brokers (`flagpost_kafka.reach`).
"""
NOWHERE: Mapping[int, Start] = MappingProxyType({})

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition that can be consumed."""

    partition: Partition
    restoration: Restoration
    start: Start
    """Where records are read on."""
    gap: Gap | None
    """Offsets between the committed one and the log's beginning, if the ledger does not have them yet."""
    seconds: float
    """How long the restore took."""


class RestoreHandler(Protocol):
    """What the event loop does with restored partitions. All methods are called on the loop."""

    def on_restored(self, restored: Restored) -> None:
        """A partition can be consumed."""

    def on_held(self, partition: Partition, reason: str) -> None:
        """A partition cannot be consumed."""

    def on_damaged(self) -> None:
        """A ledger record could not be read, and is passed over."""

    def on_other_topic(self, topic: str, topic_id: str | None) -> None:
        """A commit belongs to another topic of this name than the one with this id."""

    def on_log_back(self, partition: Partition, offset: int) -> None:
        """The log of a partition has gone back to an offset."""


@dataclass(slots=True)
class _Reading:
    """One partition while it is read."""

    partition: Partition
    restoration: Restoration
    start: Start
    gap: Gap | None
    began_at: float
    first: int
    """In the ledger."""
    end: int
    is_another_topic: bool = False
    """Whether the topic is another one than that of the commit: records of the ledger that name no topic are of the
    commit's, or of an older one.
    """
    has_named: bool = False
    """Whether a record of the ledger has named its topic: those before it are of the same one, or of an older one."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A partition that waits to be restored."""

    partition: Partition
    since: float
    went_back_to: Start | None
    """Where its offsets went back to, and the topic it was read from until then, if that is why it is restored."""


@dataclass(frozen=True, slots=True)
class _Log:
    """What Kafka says of one partition of the events topic."""

    low: int
    high: int
    committed: TopicPartition
    said: CommitMetadata
    """What the commit says besides its offset."""


class _Known:
    """What Kafka tells of some partitions, and what keeps it from telling the same of others."""

    def __init__(self) -> None:
        self.first_error: KafkaError | None = None

    def of(self, topic: str, answers: Mapping[int, Answer | KafkaError]) -> dict[int, Answer]:
        """The answers without the errors, which are noted."""
        told: dict[int, Answer] = {}
        for number, answer in answers.items():
            if isinstance(answer, KafkaError):
                self.lack(topic, number, answer)
            else:
                told[number] = answer
        return told

    def lack(self, topic: str, number: int, why: KafkaError) -> None:
        """Note why a partition cannot be restored now."""
        if self.first_error is None:
            error = rights.named(why, rights.reads(topic))
            self.first_error = KafkaError(error.code(), f"{topic}, partition {number}: {error.str()}")


class LedgerRestore:
    """Restores partitions of one process, those of an assignment together."""

    def __init__(
        self,
        kafka: KafkaSettings,
        dedupe: DedupeSettings,
        handler: RestoreHandler,
        loop: asyncio.AbstractEventLoop,
        ids: TopicIds,
    ) -> None:
        self._kafka = kafka
        self._ids = ids
        self._dedupe = dedupe
        self._handler = handler
        self._loop = loop
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._left: dict[int, _Wanted] = {}
        """Waiting partitions, by number."""
        self._has_asked = False
        self._batch = BatchSize()
        self._counts = DedupeCounts()
        self._said_at = 0.0
        self._trouble = ""
        self._settlements = 0

    def start(self, partitions: Iterable[Partition], went_back: Mapping[int, Start] = NOWHERE) -> None:
        """Read these partitions in the background. `went_back`: the offsets to which some logs went back."""
        with self._lock:
            now = time.monotonic()
            self._left.update(
                {
                    partition.number: _Wanted(partition, now, went_back.get(partition.number))
                    for partition in partitions
                }
            )
            if self._thread is None and self._left:
                self._thread = threading.Thread(target=self._run, name="flagpost-restore", daemon=True)
                self._thread.start()

    def give_up(self, numbers: Iterable[int]) -> None:
        """These partitions are no longer needed."""
        with self._lock:
            for number in numbers:
                self._left.pop(number, None)

    def cancel(self) -> None:
        """Nothing is needed any more."""
        self._cancelled.set()

    # The thread

    def _run(self) -> None:
        while self._goes_on():
            try:
                self._restore()
            except KafkaException as error:
                self._retry(error.args[0].str())
            except SettingsError as error:  # a file of kafka.properties_files may be about to be replaced
                self._retry(str(error))
            except Exception as error:  # a partition that cannot be restored must say so
                log.exception("a restore has failed")
                for wanted in self._waiting():
                    self._hold(wanted.partition, f"the restore failed ({type(error).__name__}); see the log")

    def _goes_on(self) -> bool:
        with self._lock:
            if self._left and not self._cancelled.is_set():
                return True
            self._thread = None
            return False

    def _waiting(self) -> list[_Wanted]:
        with self._lock:
            return list(self._left.values())

    def _retry(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("the ledger cannot be read; it is retried", reason=trouble)
        self._cancelled.wait(RETRY_SECONDS)

    def _restore(self) -> None:
        """Restore what is left. Raises KafkaException or SettingsError; it can then be called again."""
        self._counts = DedupeCounts()
        consumer = Consumer(restore_config(self._kafka), logger=kafka_logger())
        try:
            known = _Known()
            self._read(consumer, self._begin(consumer, known), known)
        finally:
            reach.close(consumer, waits=self._cancelled.is_set())
        if known.first_error is not None:
            raise KafkaException(known.first_error)

    def _learn_ids(self) -> bool:
        """Ask for the topics' ids at each assignment, because any topic may have been created anew.

        A broker that has returned no id yet is asked once here, and then in the background (`TopicWatch`): its answer
        without an id takes seconds. Returns whether the broker, which has told the events topic's id before, does not
        tell it now.
        """
        known = self._ids.get(self._kafka.topic) is not None
        if not known and self._has_asked:
            return False
        self._has_asked = True
        return self._kafka.topic not in self._ids.ask() and known

    def _require_answer(self, committed_of: Iterable[str | None]) -> None:
        """The topic's id was not confirmed. Raises KafkaException where that matters: a log has gone back, or a
        commit is of another topic (`committed_of`: ids) than the one known so far: either may be the older one.
        """
        known = self._ids.get(self._kafka.topic)
        went_back = any(each.went_back_to is not None for each in self._waiting())
        if went_back or any(_is_other(each, known) for each in committed_of):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the broker does not tell the topic's id"))  # noqa: SLF001 - its public name

    def _begin(self, consumer: Consumer, known: _Known) -> dict[int, _Reading]:
        """Find out where each partition and its ledger begin and end, as far as Kafka tells it."""
        ledger = self._look(consumer, self._kafka.ledger_topic)
        is_unconfirmed = self._learn_ids()
        waiting = {wanted.partition.number: wanted for wanted in self._waiting()}
        for number in waiting.keys() - ledger.partitions.keys():
            reason = f"{self._kafka.ledger_topic} has no such partition; docs/topics.md tells how to grow it"
            self._hold(waiting.pop(number).partition, reason)
        if not waiting:
            return {}
        commits = known.of(self._kafka.topic, self._committed(consumer, waiting))
        if is_unconfirmed:
            self._require_answer(read_metadata(each.metadata).topic_id for each in commits.values())
        events = self._look(consumer, self._kafka.topic)
        logs = known.of(self._kafka.topic, bounds_of(consumer, events, commits, CALL_SECONDS))
        ledgers = known.of(self._kafka.ledger_topic, bounds_of(consumer, ledger, logs, CALL_SECONDS))
        return {
            number: self._reading(waiting[number], commits[number], logs[number], bounds)
            for number, bounds in ledgers.items()
        }

    def _reading(
        self, wanted: _Wanted, committed: TopicPartition, events: Bounds, ledger: Bounds
    ) -> _Reading:
        topic_id, ledger_id = self._ids.get(self._kafka.topic), self._ids.get(self._kafka.ledger_topic)
        said = read_metadata(committed.metadata) if committed.offset >= 0 else CommitMetadata()
        log_ = _Log(events.low, events.high, committed, said)
        first, end = ledger
        start, gap, settles_from = self._start(log_, wanted, topic_id, ledger_id, end)
        # An offset that no longer exists, or does not exist yet (the ledger is a new one), is no place to begin.
        needed = first if said.needed is None or _is_other(said.ledger_id, ledger_id) else said.needed
        begin = needed if first <= needed <= end else first
        position = start.offset if gap is None else gap.from_offset
        restoration = Restoration(position, self._dedupe, self._counts, settles_from, log_.high)
        is_another = _is_another_topic(topic_id, log_, wanted)
        return _Reading(wanted.partition, restoration, start, gap, wanted.since, begin, end, is_another)

    def _start(
        self, log_: _Log, wanted: _Wanted, topic_id: str | None, ledger_id: str | None, ledger_end: int
    ) -> tuple[Start, Gap | None, int]:
        """Where reading starts, what is missing before it, and the ledger offset from which records settle
        anything. What nobody tells is taken to be as the commit says; `TopicChanges` compares it later.
        """
        committed, number = log_.committed, wanted.partition.number
        settles_from = 0 if _is_other(log_.said.ledger_id, ledger_id) else log_.said.settles_from
        if _is_another_topic(topic_id, log_, wanted):
            log.warning("the topic is another one: read from the beginning", partition=number)
            self._tell(self._handler.on_other_topic, self._kafka.topic, topic_id)
            return Start(log_.low, None, topic_id, ledger_id), None, settles_from
        if wanted.went_back_to is not None:
            # Without an id it may be a new topic: sending something again is better than losing it. What is not
            # committed yet was handed back, even if it is below the offset to which the log went back.
            back, position = wanted.went_back_to, max(committed.offset, 0)
            begin = 0 if topic_id is None else min(back.offset, position)
            gap = (
                Gap(begin, log_.low)
                if topic_id is not None and committed.offset >= 0 and begin < log_.low
                else None
            )
            # It may go back once more before it is read: Kafka's client finds that out by the epoch.
            epoch = None
            if topic_id is not None and begin >= log_.low:
                epoch = _epoch_of(committed) if begin == position else back.leader_epoch
            begin = max(begin, log_.low)
            self._tell(self._handler.on_log_back, wanted.partition, begin)
            return Start(begin, epoch, topic_id, ledger_id), gap, ledger_end
        if committed.offset > log_.high and (topic_id is None or log_.said.topic_id is None):
            log.warning(
                "the committed offset is beyond the topic's end: a new topic, read from its beginning",
                partition=number,
                committed=committed.offset,
                end=log_.high,
            )
            self._tell(self._handler.on_other_topic, self._kafka.topic, topic_id)
            return Start(log_.low, None, topic_id, ledger_id), None, ledger_end
        topic_id = topic_id or log_.said.topic_id
        if 0 <= committed.offset < log_.low:
            gap = Gap(committed.offset, log_.low)
            return Start(log_.low, None, topic_id, ledger_id), gap, settles_from
        if committed.offset < 0:
            return Start(log_.low, None, topic_id, ledger_id), None, settles_from
        # Also beyond the end: Kafka's client finds out by the epoch where the log went back, and the intake tells us.
        return Start(committed.offset, _epoch_of(committed), topic_id, ledger_id), None, settles_from

    def _look(self, consumer: Consumer, topic: str) -> TopicMetadata:
        with self._needing(rights.reads(topic)):
            found: TopicMetadata = consumer.list_topics(topic, timeout=CALL_SECONDS).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
        return found

    def _committed(
        self, consumer: Consumer, numbers: Iterable[int]
    ) -> dict[int, TopicPartition | KafkaError]:
        """What the group has committed."""
        asked = [TopicPartition(self._kafka.topic, number) for number in numbers]
        with self._needing(rights.joins(self._kafka.group_id), rights.reads(self._kafka.topic)):
            answers = consumer.committed(asked, timeout=CALL_SECONDS)
        return {each.partition: each.error or each for each in answers}

    @staticmethod
    @contextmanager
    def _needing(*needed: Right) -> Iterator[None]:
        """Name the missing right in what Kafka raises here."""
        try:
            yield
        except KafkaException as error:
            raise KafkaException(rights.named(error.args[0], *needed)) from None

    def _read(self, consumer: Consumer, readings: dict[int, _Reading], known: _Known) -> None:
        """Read each ledger partition to its end; finished partitions leave `readings`."""
        for reading in [reading for reading in readings.values() if reading.first >= reading.end]:
            self._finish(readings, reading)
        consumer.assign(
            [
                TopicPartition(self._kafka.ledger_topic, number, reading.first)
                for number, reading in readings.items()
            ]
        )
        heard_at = time.monotonic()
        while readings and not self._cancelled.is_set():
            messages = consumer.consume(self._batch.messages, POLL_SECONDS)
            for message in messages:
                self._take(readings, message, known)
            if messages:
                heard_at = time.monotonic()
                self._batch.adapt(len(messages), size_of(messages))
            elif time.monotonic() - heard_at > SILENT_SECONDS:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no records arrive from the ledger"))  # noqa: SLF001 - its public name
            wanted = {each.partition for each in self._waiting()}
            for reading in list(readings.values()):
                if reading.partition not in wanted:
                    del readings[reading.partition.number]
            self._report_progress(readings)

    def _take(self, readings: dict[int, _Reading], message: Message, known: _Known) -> None:
        error, number, offset = message.error(), message.partition(), message.offset()
        reading = None if number is None else readings.get(number)
        at_end = error is not None and error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's public name
        if error is not None and not at_end:
            if reading is None:
                raise KafkaException(rights.named(error, rights.reads(self._kafka.ledger_topic)))
            known.lack(self._kafka.ledger_topic, reading.partition.number, error)
            del readings[reading.partition.number]
            return
        if reading is None or offset is None:
            return
        if not at_end and offset < reading.end and not self._take_record(reading, offset, message):
            del readings[reading.partition.number]
        elif at_end or offset >= reading.end - 1:
            self._finish(readings, reading)

    def _take_record(self, reading: _Reading, offset: int, message: Message) -> bool:
        """Take one record in; False if the partition has to be held."""
        number = reading.partition.number
        try:
            part = read_part(message.value())
        except UndecodableRecord as error:
            log.warning(
                "a damaged ledger record is skipped", partition=number, offset=offset, reason=str(error)
            )
            self._tell(self._handler.on_damaged)
            return True
        except UnknownSchema as error:
            self._hold(reading.partition, str(error))
            return False
        if part.group != self._kafka.group_id:
            return True
        if reading.start.topic_id is None and part.topic_id is not None:
            # Neither Kafka nor a commit says which topic it is: it is taken to be the ledger's until somebody does.
            reading.start = replace(reading.start, topic_id=part.topic_id)
        is_other = _is_other(part.topic_id, reading.start.topic_id)
        if is_other and not reading.has_named:
            reading.restoration.disown(offset)
        reading.has_named |= part.topic_id is not None
        if is_other or (reading.is_another_topic and part.topic_id is None):
            reading.restoration.take_claims(offset, part.settled)
            return True
        self._settlements += reading.restoration.take(offset, part.settled)
        reading.restoration.take_epochs(offset, _epochs_of(message))
        for first, last in part.gaps:
            if reading.gap is not None and first <= reading.gap.from_offset < last:
                known_to = min(last, reading.gap.to_offset)
                reading.gap = (
                    Gap(known_to, reading.gap.to_offset) if known_to < reading.gap.to_offset else None
                )
        return True

    def _finish(self, readings: dict[int, _Reading], reading: _Reading) -> None:
        del readings[reading.partition.number]
        self._done_with(reading.partition)
        reading.restoration.finish(reading.end)
        if reading.gap is None:
            reading.restoration.position = reading.start.offset
        seconds = time.monotonic() - reading.began_at
        start = replace(reading.start, settled_epochs=reading.restoration.epochs)
        restored = Restored(reading.partition, reading.restoration, start, reading.gap, seconds)
        self._tell(self._handler.on_restored, restored)

    def _hold(self, partition: Partition, reason: str) -> None:
        self._done_with(partition)
        self._tell(self._handler.on_held, partition, reason)

    def _done_with(self, partition: Partition) -> None:
        with self._lock:
            # The partition may have been assigned again meanwhile: that waits for its own turn.
            wanted = self._left.get(partition.number)
            if wanted is not None and wanted.partition is partition:
                del self._left[partition.number]

    def _report_progress(self, readings: Mapping[int, _Reading]) -> None:
        if readings and time.monotonic() - self._said_at > PROGRESS_SECONDS:
            self._said_at = time.monotonic()
            log.info("restoring", partitions_left=len(readings), settlements_read=self._settlements)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        if not self._cancelled.is_set():
            self._loop.call_soon_threadsafe(what, *arguments)


def _is_another_topic(topic_id: str | None, log_: _Log, wanted: _Wanted) -> bool:
    """Whether the topic is another one than that of the commit, or than the one that was read before it went back."""
    was = log_.said.topic_id if wanted.went_back_to is None else wanted.went_back_to.topic_id
    return _is_other(topic_id, was) or _is_other(topic_id, log_.said.topic_id)


def _is_other(topic_id: str | None, ours: str | None) -> bool:
    return ours is not None and topic_id is not None and topic_id != ours


def _epoch_of(committed: TopicPartition) -> int | None:
    epoch: int | None = committed.leader_epoch
    return None if epoch is None or epoch < 0 else epoch


def _epochs_of(message: Message) -> dict[int, int]:
    try:
        headers = headers_of(message)
    except UnreadableHeaders:  # somebody else wrote it
        return {}
    return read_epochs(next((value for name, value in headers if name == EPOCHS_HEADER), None))

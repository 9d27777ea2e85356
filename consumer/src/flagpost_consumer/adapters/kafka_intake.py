"""The one thread that owns the Kafka consumer.

In: assignments and messages from Kafka; from the event loop commits, where to begin with each partition, and
whether to pause. Out: calls on the event loop, in order. A partition is read once the loop releases it.
confluent-kafka serializes all calls on a consumer, so a second thread would wait for the first one's polls; this
thread polls briefly and runs what the loop asks for in between.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.ledger_restore import commit_metadata
from flagpost_consumer.core.records import Gap, Position
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
BATCH_MESSAGES = 250
MAX_BATCHES_HANDED_OVER = 8
"""Batches that the loop has not yet taken in; at this many the thread waits."""
STARVED_SECONDS = 1.0
"""After waiting this long for the loop, partitions are paused, so that polling (and with it membership) goes on."""
LAG_SECONDS = 1.0
TOPIC_WAIT_SECONDS = 1.0
METADATA_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Lag:
    """How far one partition is behind."""

    end: int
    """The offset after the last record in the log."""
    read: int
    """The offset after the last record that was read."""
    position: int
    """The offset that is read next: beyond `read`, what was passed over is no record."""


class IntakeHandler(Protocol):
    """What the loop does with what the thread brings. All of it is called on the loop, in order."""

    def on_assigned(self, partitions: list[int], partition_count: int, assignment: int) -> None:
        """Partitions are ours from now on; each is read once it is released for this `assignment`."""

    async def on_revoked(self, partitions: list[int]) -> dict[int, Position]:
        """Partitions are to be handed over; gives what is to be committed for them."""

    def on_lost(self, partitions: list[int]) -> None:
        """Partitions are another member's already."""

    def on_messages(self, messages: list[Message], done: Callable[[], None]) -> None:
        """Messages came; `done` is called once they are taken in."""

    def on_partition_count(self, count: int) -> None:
        """The topic has this many partitions."""

    def on_lag(self, lag: Mapping[int, Lag]) -> None:
        """How far each partition is behind."""

    def on_gap(self, partition: int, gap: Gap) -> None:
        """Kafka no longer has offsets of a partition that were to be read next."""

    def on_commit_ended(self, began_at: float | None) -> None:
        """A commit has ended; the moment at which it began proves our membership. None: it failed."""


class KafkaIntake:
    """Reads the events topic as a member of the group."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        handler: IntakeHandler,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._config = dict(config)
        self._topic = topic
        self._handler = handler
        self._loop = loop
        self._commands: SimpleQueue[Callable[[Consumer], None]] = SimpleQueue()
        self._stop = threading.Event()
        self._room = threading.Semaphore(MAX_BATCHES_HANDED_OVER)
        self._pause_wanted = False
        self._paused = False
        self._still_wanted: frozenset[int] = frozenset()
        self._still: frozenset[int] = frozenset()
        self._owned: set[int] = set()
        self._held: dict[int, int] = {}
        """Partitions that are not released yet, and the assignment that brought them."""
        self._assignments = 0
        self._commit_began = 0.0
        self._taken_away: set[int] = set()
        self._partition_count = 0
        self._count_due = False
        self._next: dict[int, int] = {}
        """What is read next of each partition, as far as it has been released or read."""
        self._ends: dict[int, int] = {}
        """Where each partition's end was when reading reached it: the marker that ends a transaction is passed
        over without a word, and would look like a record to come for as long as none comes."""
        self._lag_due = 0.0
        self._thread = threading.Thread(target=self._run, name="flagpost-kafka", daemon=True)
        self._failure: BaseException | None = None
        self.finished: Future[None] = Future()
        """Done when the thread has ended; holds what made it fail."""
        self.beat_at = time.monotonic()
        """When the thread last went round."""
        self.joined = False
        """Whether the group has given an assignment, be it an empty one."""

    # From the loop

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def pause(self, paused: bool, partitions: Collection[int] = ()) -> None:
        """Say whether messages are wanted; those of the named partitions are not, whatever `paused` says.

        Each call replaces what the one before said.
        """
        self._pause_wanted = paused
        self._still_wanted = frozenset(partitions)

    def release(self, partition: int, offset: int, assignment: int) -> None:
        """Read a partition, whose next offset is this, if it is still ours by this assignment."""
        self._commands.put(lambda consumer: self._release(consumer, partition, offset, assignment))

    def commit(self, positions: Mapping[int, Position]) -> None:
        """Commit positions, of the partitions that are still ours when it happens; `on_commit_ended` tells.

        One at a time: the next one when this has ended.
        """
        self._commands.put(lambda consumer: self._commit_soon(consumer, positions))

    def stop(self) -> None:
        """Leave the group and end the thread; `finished` tells when. Revocation callbacks still come."""
        self._stop.set()

    # The thread

    def _run(self) -> None:
        try:
            consumer = Consumer({**self._config, "on_commit": self._on_commit}, logger=kafka_logger())
            try:
                if self._await_topic(consumer):
                    consumer.subscribe(
                        [self._topic],
                        on_assign=self._guarded(self._on_assign),
                        on_revoke=self._guarded(self._on_revoke),
                        on_lost=self._guarded(self._on_lost),
                    )
                    self._consume(consumer)
            finally:
                consumer.close()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the thread
            self._failure = self._failure or error
        if self._failure is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(self._failure)

    def _await_topic(self, consumer: Consumer) -> bool:
        """Wait until Kafka answers and the topic is there; False when stopped before."""
        said = ""
        while not self._stop.is_set():
            self.beat_at = time.monotonic()
            missing = self._look_for_topic(consumer)
            if not missing:
                return True
            if missing != said:
                log.warning("waiting for Kafka", reason=missing, topic=self._topic)
                said = missing
            self._stop.wait(TOPIC_WAIT_SECONDS)
        return False

    def _look_for_topic(self, consumer: Consumer) -> str:
        """Learn the number of partitions; gives what is missing."""
        try:
            found = consumer.list_topics(self._topic, timeout=METADATA_SECONDS).topics[self._topic]
        except KafkaException as error:
            return f"Kafka does not answer: {error.args[0].str()}"
        if found.error is not None:
            return f"{found.error.str()} Create it: flagpost topics create"
        self._partition_count = len(found.partitions)
        return ""

    def _consume(self, consumer: Consumer) -> None:
        while not self._stop.is_set():
            self.beat_at = time.monotonic()
            self._run_commands(consumer)
            room = self._room.acquire(timeout=STARVED_SECONDS)
            self._apply_pause(consumer, paused=self._pause_wanted or not room)
            messages = self._read(consumer)
            if messages:
                self._hand_over(consumer, messages, room=room)
            elif room:
                self._room.release()
            self._count_partitions(consumer)
            self._report_lag(consumer)
        self._run_commands(consumer)

    def _count_partitions(self, consumer: Consumer) -> None:
        """Learn the number of partitions after an assignment.

        Not within the callback: there list_topics() takes away the state that the next callback of the same
        poll() needs, and confluent-kafka aborts the process (CallState_get in its confluent_kafka.c).
        """
        if self._count_due:
            self._count_due = False
            if not self._look_for_topic(consumer):
                self._loop.call_soon_threadsafe(self._handler.on_partition_count, self._partition_count)

    def _read(self, consumer: Consumer) -> list[Message]:
        self._taken_away.clear()
        first = consumer.poll(POLL_SECONDS)
        if first is None:
            return []
        messages = [first, *consumer.consume(BATCH_MESSAGES - 1, 0)]
        for message in messages:
            if (error := message.error()) is not None:
                self._hear(message, error)
        return [message for message in messages if message.error() is None and self._is_ours(message)]

    def _hear(self, message: Message, error: KafkaError) -> None:
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 (its public name)
            _report_read_error(error)
        elif (number := message.partition()) in self._owned and (end := message.offset()) is not None:
            self._ends[number] = end

    def _is_ours(self, message: Message) -> bool:
        """Whether a message is of a partition that is still ours.

        The loop has given up by now what was taken away while it was read; what came back within the same read
        begins anew at its committed offset.
        """
        number = message.partition()
        if number in self._taken_away:
            return False
        if number in self._held:  # it was paused before anything was read: to pass over it would be a loss
            raise RuntimeError(f"Kafka's client gave a record of partition {number}, which is paused")
        return True

    def _hand_over(self, consumer: Consumer, messages: list[Message], *, room: bool) -> None:
        begun = 0
        for place, message in enumerate(messages):
            number, offset = message.partition() or 0, message.offset() or 0
            wanted = self._next.get(number, offset)
            self._next[number] = offset + 1
            if wanted < offset and (gap := self._gap(consumer, number, wanted)) is not None:
                self._tell(messages[begun:place], _nothing)
                self._loop.call_soon_threadsafe(self._handler.on_gap, number, gap)
                begun = place
        # A message can come just after the pause that lack of room brought; it is not turned away.
        self._tell(messages[begun:], self._room.release if room else _nothing)

    def _tell(self, messages: list[Message], done: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(self._handler.on_messages, messages, done)

    def _gap(self, consumer: Consumer, number: int, wanted: int) -> Gap | None:
        """Whether what was to be read next is gone; offsets may also have holes, which are no loss."""
        partition = TopicPartition(self._topic, number)
        while not self._stop.is_set():
            try:
                low, _ = consumer.get_watermark_offsets(partition, timeout=METADATA_SECONDS)
            except KafkaException as error:
                log.warning("the log's beginning is not to be had", reason=error.args[0].str())
            else:
                return Gap(wanted, low) if wanted < low else None
        return None

    def _run_commands(self, consumer: Consumer) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                return
            command(consumer)

    def _apply_pause(self, consumer: Consumer, *, paused: bool) -> None:
        still = self._still_wanted
        changed = self._owned if paused != self._paused else self._owned & (still ^ self._still)
        self._paused, self._still = paused, still
        if changed:
            self._set_flow(consumer, changed)

    def _set_flow(self, consumer: Consumer, numbers: set[int]) -> None:
        partitions = {number: TopicPartition(self._topic, number) for number in numbers}
        flowing = [each for number, each in partitions.items() if self._flows(number)]
        still = [each for each in partitions.values() if each not in flowing]
        if still:
            consumer.pause(still)
        if flowing:
            consumer.resume(flowing)

    def _flows(self, number: int) -> bool:
        return not (self._paused or number in self._held or number in self._still)

    def _release(self, consumer: Consumer, number: int, offset: int, assignment: int) -> None:
        if self._held.get(number) != assignment:
            return
        del self._held[number]
        self._next[number] = offset
        self._set_flow(consumer, {number})

    def _commit_soon(self, consumer: Consumer, positions: Mapping[int, Position]) -> None:
        self._commit_began = clock().monotonic
        try:
            if owned := self._owned_of(positions):
                consumer.commit(offsets=owned, asynchronous=True)
            else:
                self._tell_commit_ended(None)
        except KafkaException as error:
            self._on_commit(error.args[0], [])

    def _commit_now(self, consumer: Consumer, positions: Mapping[int, Position]) -> None:
        try:
            if owned := self._owned_of(positions):
                consumer.commit(offsets=owned, asynchronous=False)
        except KafkaException as error:
            log.warning("the last commit of partitions handed over has failed", reason=error.args[0].str())

    def _owned_of(self, positions: Mapping[int, Position]) -> list[TopicPartition]:
        """What is to be committed. For a partition that was revoked it would move another member's position."""
        return [
            TopicPartition(self._topic, number, position.offset, commit_metadata(position.ledger_offset))
            for number, position in positions.items()
            if number in self._owned
        ]

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Hear of a commit that did not wait."""
        error = error or next((partition.error for partition in partitions if partition.error), None)
        if error is not None:
            log.warning("commit failed; it is tried again", reason=error.str())
        self._tell_commit_ended(None if error is not None else self._commit_began)

    def _tell_commit_ended(self, began_at: float | None) -> None:
        self._loop.call_soon_threadsafe(self._handler.on_commit_ended, began_at)

    def _report_lag(self, consumer: Consumer) -> None:
        if time.monotonic() < self._lag_due:
            return
        self._lag_due = time.monotonic() + LAG_SECONDS
        lag = {}
        for number in self._owned & self._next.keys():
            _, end = consumer.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            if end >= 0:
                read = self._next[number]
                lag[number] = Lag(end, read, max(read, self._ends.get(number, 0)))
        self._loop.call_soon_threadsafe(self._handler.on_lag, lag)

    # Rebalance callbacks; they run inside poll() and close()

    def _guarded(
        self, callback: Callable[[Consumer, list[TopicPartition]], None]
    ) -> Callable[[Consumer, list[TopicPartition]], None]:
        """A callback that raises inside poll() loses messages: end the thread instead."""

        def run(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                callback(consumer, partitions)
            except BaseException as error:
                log.exception("rebalance callback failed")
                self._stop.set()
                self._failure = self._failure or error

        return run

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        self._partition_count = max(self._partition_count, *(number + 1 for number in numbers), 0)
        self._count_due = True
        self._assignments += 1
        self._loop.call_soon_threadsafe(
            self._handler.on_assigned, numbers, self._partition_count, self._assignments
        )
        self._owned.update(numbers)
        self._held.update(dict.fromkeys(numbers, self._assignments))
        consumer.incremental_assign(partitions)
        # A pause outlives revocation and assignment, so the state is set both ways.
        self._set_flow(consumer, set(numbers))
        self.joined = True

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        positions = self._call(self._handler.on_revoked(numbers))
        self._commit_now(consumer, positions)
        self._give_up(numbers)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        self._loop.call_soon_threadsafe(self._handler.on_lost, numbers)
        self._give_up(numbers)
        consumer.incremental_unassign(partitions)

    def _give_up(self, numbers: list[int]) -> None:
        self._owned.difference_update(numbers)
        for number in numbers:
            self._held.pop(number, None)
            self._next.pop(number, None)
            self._ends.pop(number, None)
        self._taken_away.update(numbers)

    def _call(self, work: Coroutine[Any, Any, dict[int, Position]]) -> dict[int, Position]:
        """Run something on the loop and wait for it; polling waits meanwhile, heartbeats do not."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _nothing() -> None:
    """There is no room to give back."""


def _report_read_error(error: KafkaError) -> None:
    """Log what librdkafka mends by itself. Raises KafkaException where it cannot."""
    if error.fatal():
        raise KafkaException(error)
    log.warning("Kafka reports an error", code=error.name(), reason=error.str())

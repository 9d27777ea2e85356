"""The one thread that owns the Kafka consumer.

In: assignments and messages from Kafka; from the event loop commits, where to begin with each partition, and
whether to pause. Out: calls on the event loop, in order. A partition is read once the loop releases it.
confluent-kafka serializes all calls on a consumer, so a second thread would wait for the first one's polls; this
thread polls briefly and runs what the loop asks for in between. A client that may know a partition's leader wrongly
is replaced by another, which joins the group anew: librdkafka has no way to forget it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from math import inf
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flagpost_consumer.adapters.batch_end import BatchEnd
from flagpost_consumer.adapters.client_replacement import ClientReplacement
from flagpost_consumer.adapters.clocks import clock
from flagpost_consumer.adapters.commit_metadata import write_metadata
from flagpost_consumer.adapters.group_errors import GroupErrors
from flagpost_consumer.adapters.group_silence import GroupSilence
from flagpost_consumer.adapters.handed_over import (
    BATCH_BYTES,
    MAX_BATCHES,
    MAX_BYTES,
    READ_AT_ONCE,
    BatchSize,
    HandedOver,
    size_of,
)
from flagpost_consumer.adapters.kafka_contact import KafkaContact
from flagpost_consumer.adapters.log_beginnings import LogBeginnings
from flagpost_consumer.adapters.partition_reading import Follows, PartitionReading, Start
from flagpost_consumer.adapters.reading_silence import ReadingSilence
from flagpost_consumer.adapters.receive_limit import ReceiveLimit
from flagpost_consumer.core.records import Gap, Position
from flagpost_kafka import errors, rights
from flagpost_settings.logs import kafka_logger

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
STARVED_SECONDS = 1.0
"""After waiting this long for the loop, partitions are paused, so that polling (and with it membership) goes on."""
LAG_SECONDS = 1.0
SESSION_SECONDS = 45.0
"""`kafka.session_timeout_seconds`, where nothing else is said."""
TOLD_SECONDS = 10.0
"""An end that was told from beside counts for so long; while a partition is paused, until another is told."""
TOPIC_WAIT_SECONDS = 1.0
METADATA_SECONDS = 5.0
UNREADABLE = frozenset({KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG})  # noqa: SLF001 (their public names)
"""What Kafka's client says of a batch that it cannot read: it decompresses to more than it may, or is damaged."""
STAND_IN_SECONDS = 0.3
"""After waiting this long for a hand-over, another consumer reads the partitions that stay."""

_OF_A_PARTITION = frozenset({KafkaError._PARTITION_EOF, *UNREADABLE})  # noqa: SLF001 (its public name)


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

    async def on_began_anew(
        self, partitions: list[int], assignment: int, went_back: Mapping[int, Start]
    ) -> None:
        """What is in these partitions is new: nothing that is known of their offsets holds any longer. Each is
        read on once it is released for this `assignment`. `went_back`: where some went back to, and in which
        topic they were read until then.
        """

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
        stand_in_config: Mapping[str, Any] | None = None,
        session_seconds: float = SESSION_SECONDS,
    ) -> None:
        """`stand_in_config`: of the consumer that reads the partitions that stay during a hand-over; it belongs
        to no group. Without one, these wait. `session_seconds`: after so long without word of a member the group
        gives its partitions to others.
        """
        self._config = dict(config)
        self._receive_limit = ReceiveLimit(config)
        self._stand_in_config = stand_in_config
        self._topic = topic
        self._errors = GroupErrors(topic, str(config["group.id"]))
        self._handler = handler
        self._loop = loop
        self._commands: SimpleQueue[Callable[[Consumer], None]] = SimpleQueue()
        self._stop = threading.Event()
        self._room = HandedOver(MAX_BATCHES, MAX_BYTES)
        self._batch = BatchSize()
        self._pause_wanted = False
        self._paused = False
        self._still_wanted: frozenset[int] = frozenset()
        self._still: frozenset[int] = frozenset()
        self._held: dict[int, int] = {}
        """Partitions that are not released yet, and the assignment that brought them."""
        self._readings: dict[int, PartitionReading] = {}
        """Partitions that are read."""
        self._in_client: set[int] = set()
        """Partitions that Kafka's client has been told to read."""
        self._displaced: set[int] = set()
        """Partitions that a stand-in has read on: the member's own position is behind."""
        self._assignments = 0
        self._commit_began = 0.0
        self._partition_count = 0
        self._count_due = False
        self._lows = LogBeginnings(topic)
        self._searches: dict[int, BatchEnd] = {}
        """Partitions where the end of a batch is looked for that cannot be read."""
        self._sought: set[int] = set()
        """Partitions that were sent elsewhere while a batch is handed over: what is left of them in it is not
        looked at.
        """
        self._ends: dict[int, tuple[int, float]] = {}
        """Where partitions end, as it was told from beside, and when."""
        self._silence = ReadingSilence()
        self._group, self._contact = GroupSilence(session_seconds), KafkaContact(topic)
        self._replacement = ClientReplacement()
        self._leaving = self._commit_under_way = self._handing_over = False
        self._lag_due = 0.0
        self._thread = threading.Thread(target=self._run, name="flagpost-kafka", daemon=True)
        self._failure: BaseException | None = None
        self.finished: Future[None] = Future()
        """Done when the thread has ended; holds what made it fail."""
        self.beat_at = time.monotonic()
        """When the thread last went round."""
        self.joined = False
        """Whether the group has given this client an assignment, be it an empty one."""
        self.ends_wanted: frozenset[int] = frozenset()
        """Partitions that are ours and of which Kafka's client may not know the end: it does not read them just
        now, or brings nothing of them.
        """

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

    def release(self, partition: int, start: Start, assignment: int) -> None:
        """Read a partition from `start`, if it is still ours by this assignment."""
        self._commands.put(lambda consumer: self._release(consumer, partition, start, assignment))

    def begin_anew(self) -> None:
        """The topic is a new one: read nothing more of the old one, and join the group anew with another client.

        This one would take no word of a leader whose epoch is below that of the old topic's.
        """
        self._commands.put(self._leave_old_topic)

    def know_ids(self, topic_id: str | None, ledger_id: str | None) -> None:
        """Topics have told their ids; where one was known already, a new one of the events topic comes through
        `begin_anew`.
        """
        self._commands.put(lambda _: self._know_ids(topic_id, ledger_id))

    def know_ends(self, ends: Mapping[int, int]) -> None:
        """Where some of the partitions in `ends_wanted` end just now, asked for from beside."""
        told_at = time.monotonic()
        self._commands.put(lambda _: self._ends.update({n: (end, told_at) for n, end in ends.items()}))

    def is_fresh(self, message: Message) -> bool:
        """Whether a message was read as it was written: after its partition's end had been reached, and without
        a pause since. Where it is too late to tell, it is not.
        """
        reading = self._readings.get(message.partition() or 0)
        return reading is not None and reading.is_fresh(message.offset() or 0)

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
            self._be_member()
            while not self._stop.is_set():
                self._forget_client()
                self._be_member()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the thread
            self._failure = self._failure or error
        if self._failure is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(self._failure)

    def _be_member(self) -> None:
        """Be a member of the group with one client, until it is to be replaced or we are stopped."""
        callbacks = {"on_commit": self._on_commit, "error_cb": self._hear_error}
        consumer = Consumer({**self._receive_limit.within(self._config), **callbacks}, logger=kafka_logger())
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
            # What is owned is handed over: the callbacks come in here.
            self._leaving = True
            consumer.close()

    def _forget_client(self) -> None:
        """Know nothing more of what the client knew that has just left."""
        if left := sorted(self._owned()):  # it was not even told that they are revoked
            self._loop.call_soon_threadsafe(self._handler.on_lost, left)
        for of_client in (self._held, self._readings, self._searches, self._ends):
            of_client.clear()
        for numbers in (self._in_client, self._displaced, self._sought):
            numbers.clear()
        self.ends_wanted = frozenset()
        self._lows = LogBeginnings(self._topic)
        if self._commit_under_way:  # nobody will say how it ended
            self._tell_commit_ended(None)
        self._leaving = self.joined = False
        self._group.note(clock().monotonic, owns=False)
        self._replacement.happened()

    def _is_to_be_replaced(self) -> bool:
        """Whether another client is to go on."""
        if self._receive_limit.is_too_small:
            log.error(
                "a batch is larger than the consumer takes: it joins the group anew, with more room",
                bytes=self._receive_limit.needed_bytes,
                limit=self._receive_limit.grow(),
            )
            return True
        return self._replacement.is_due()

    def _await_topic(self, consumer: Consumer) -> bool:
        """Wait until Kafka answers and the topic is there; False when stopped before."""
        while not self._stop.is_set():
            self.beat_at = time.monotonic()
            missing = self._look_for_topic(consumer)
            self._contact.found(missing)
            if not missing:
                return True
            self._stop.wait(TOPIC_WAIT_SECONDS)
        return False

    def _look_for_topic(self, consumer: Consumer) -> str:
        """Learn the number of partitions; gives what is missing."""
        try:
            found = consumer.list_topics(self._topic, timeout=METADATA_SECONDS).topics[self._topic]
        except KafkaException as error:
            return f"Kafka does not answer: {error.args[0].str()}"
        if found.error is not None:
            return errors.of_topic(found.error, rights.reads(self._topic))
        self._partition_count = len(found.partitions)
        return ""

    def _consume(self, consumer: Consumer) -> None:
        while not self._stop.is_set() and not self._is_to_be_replaced():
            self._run_commands(consumer)
            self._read_once(consumer)
            self._count_partitions(consumer)
            self._listen_for_group(consumer)
            self._ask_if_away(consumer)
            self._report_lag(consumer)
        self._run_commands(consumer)

    def _read_once(self, reader: Consumer) -> None:
        """Read what there is, with the group's member or its stand-in, and hand it over."""
        self.beat_at = time.monotonic()
        room = self._room.wait(STARVED_SECONDS)
        self._apply_pause(reader, paused=self._pause_wanted or not room)
        self._hand_over(reader, self._read(reader))

    def _count_partitions(self, consumer: Consumer) -> None:
        """Learn the number of partitions after an assignment.

        Not within the callback: there list_topics() takes away the state that the next callback of the same
        poll() needs, and confluent-kafka aborts the process (CallState_get in its confluent_kafka.c).
        """
        if self._count_due:
            self._count_due = False
            if not self._look_for_topic(consumer):
                self._loop.call_soon_threadsafe(self._handler.on_partition_count, self._partition_count)

    def _read(self, reader: Consumer) -> list[Message]:
        first = reader.poll(POLL_SECONDS)
        messages = [] if first is None else self._read_more(reader, first)
        if self._displaced and not self._handing_over:
            # What was in hand, or fetched, when the hand-over began has been read again by the stand-in.
            messages = [message for message in messages if message.partition() not in self._displaced]
            self._find_place(reader)
        return messages

    def _read_more(self, reader: Consumer, first: Message) -> list[Message]:
        """Read what there is behind a message, a few at a time: only what has been read can be weighed."""
        messages, size = [first], size_of([first])
        while size < BATCH_BYTES and (left := self._batch.messages - len(messages)) > 0:
            asked = min(left, READ_AT_ONCE)
            more = reader.consume(asked, 0)
            messages += more
            size += size_of(more)
            if len(more) < asked:
                break
        return messages

    def _find_place(self, consumer: Consumer) -> None:
        """Read on where the stand-in stopped."""
        self._searches.clear()
        for number in sorted(self._displaced & self._readings.keys()):
            try:
                consumer.seek(TopicPartition(self._topic, number, self._readings[number].next_offset))
            except KafkaException as error:
                log.warning("a partition cannot be read yet", partition=number, reason=error.args[0].str())
            else:
                self._displaced.discard(number)
        self._displaced &= self._readings.keys()
        self._set_flow(consumer, self._readings.keys())

    def _hand_over(self, reader: Consumer, messages: list[Message]) -> None:
        """Hand on what is read, in order, with each gap at its place."""
        batch: list[Message] = []
        self._lows.forget_cached()
        self._sought.clear()
        for message in messages:
            number, offset = message.partition() or 0, message.offset() or 0
            reading = self._readings.get(number)
            if (error := message.error()) is not None:
                self._hear(reader, reading, message, error)
                continue
            if reading is None or self._is_read_elsewhere(
                number
            ):  # it was taken away, or seeks another place
                continue
            if self._searches and (search := self._searches.get(number)) is not None:
                search.readable()
                self._search_on(reader, reading, number, search)
                continue
            follows = Follows.NEXT if offset == reading.next_offset else reading.follows(offset)
            if follows is Follows.WENT_BACK:
                log.error("offsets have gone back", partition=number, read=reading.next_offset, found=offset)
                self._tell(batch)
                batch = []
                place = Start(offset, None, reading.topic_id, reading.ledger_id)
                self._begin_anew(reader, {number}, {number: place})
                continue
            if follows is Follows.AFTER_HOLE and (gap := self._gap(reader, reading, number, offset)):
                self._tell(batch)
                batch = []
                self._loop.call_soon_threadsafe(self._handler.on_gap, number, gap)
            reading.next_offset = offset + 1
            if (epoch := message.leader_epoch()) != reading.epoch and epoch is not None:
                reading.epoch_begins(offset, epoch)
            batch.append(message)
        self._tell(batch)

    def _is_read_elsewhere(self, number: int) -> bool:
        """Whether what is in hand of a partition comes from a place at which it is no longer read."""
        return number in self._sought or (self._handing_over and number not in self._displaced)

    def _reads_of(self) -> set[int]:
        """The partitions that are read just now: during a hand-over by the stand-in, only those it was given."""
        return self._readings.keys() & self._displaced if self._handing_over else set(self._readings)

    def _tell(self, messages: list[Message]) -> None:
        """Hand messages to the loop. They may come just after the pause that lack of room brought: they are not
        turned away.
        """
        if messages:
            size = size_of(messages)
            self._batch.adapt(len(messages), size)
            self._room.take(size)
            self._loop.call_soon_threadsafe(
                self._handler.on_messages, messages, lambda: self._room.give_back(size)
            )

    def _gap(self, reader: Consumer, reading: PartitionReading, number: int, offset: int) -> Gap | None:
        """What is gone of that which was to be read next; offsets may also have holes, which are no loss."""
        wanted = reading.next_offset
        # The message in hand is there, whatever has been deleted since it was fetched.
        low = min(self._lows.of(reader, number), offset)
        return Gap(wanted, low) if wanted < low else None

    def _hear(
        self, reader: Consumer, reading: PartitionReading | None, message: Message, error: KafkaError
    ) -> None:
        number, offset = message.partition() or 0, message.offset()
        if reading is None or offset is None or error.code() not in _OF_A_PARTITION:
            self._errors.report(error)
        elif self._is_read_elsewhere(number):
            return
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 (its public name)
            reading.reached_end(offset)
            if (search := self._searches.get(number)) is not None:
                search.readable()
                self._search_on(reader, reading, number, search)
        else:
            self._pass_over(reader, reading, number, offset, error)

    def _pass_over(
        self, reader: Consumer, reading: PartitionReading, number: int, base: int, error: KafkaError
    ) -> None:
        """Look for the end of a batch that the client cannot read: it would give the same error for ever."""
        search = self._searches.get(number)
        if search is None:
            log.error("a batch cannot be read", partition=number, offset=base, reason=error.str())
            _, end = reader.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            search = self._searches[number] = BatchEnd(base, end)
        else:
            search.unreadable(base)
        self._search_on(reader, reading, number, search)

    def _search_on(self, reader: Consumer, reading: PartitionReading, number: int, search: BatchEnd) -> None:
        self._sought.add(number)
        if (behind := search.found) is None:
            reader.seek(TopicPartition(self._topic, number, search.place))
            return
        del self._searches[number]
        reader.seek(TopicPartition(self._topic, number, behind))
        gap = Gap(max(search.base, reading.next_offset), behind)
        reading.next_offset = behind
        log.error(
            "a batch that cannot be read is passed over",
            partition=number,
            from_offset=gap.from_offset,
            to_offset=gap.to_offset,
        )
        self._loop.call_soon_threadsafe(self._handler.on_gap, number, gap)

    def _search_anew(self, reader: Consumer, numbers: Collection[int]) -> None:
        """Give up searches: another consumer reads from now on, or a pause has let the client forget its place."""
        for number in self._searches.keys() & numbers:
            del self._searches[number]
            if number in self._readings:
                self._sought.add(number)
                reader.seek(TopicPartition(self._topic, number, self._readings[number].next_offset))

    def _run_commands(self, consumer: Consumer) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                return
            command(consumer)

    def _owned(self) -> set[int]:
        return self._held.keys() | self._readings.keys()

    def _apply_pause(self, reader: Consumer, *, paused: bool) -> None:
        still = self._still_wanted
        readings = self._reads_of()
        changed = readings if paused != self._paused else readings & (still ^ self._still)
        self._paused, self._still = paused, still
        if changed:
            self._set_flow(reader, changed)

    def _set_flow(self, reader: Consumer, numbers: Collection[int]) -> None:
        flowing = {number for number in numbers if self._flows(number)}
        if still := set(numbers) - flowing:
            for number in still & self._readings.keys():
                self._readings[number].paused()
            reader.pause([TopicPartition(self._topic, number) for number in still])
        self._search_anew(reader, numbers)
        if flowing:
            reader.resume([TopicPartition(self._topic, number) for number in flowing])

    def _flows(self, number: int) -> bool:
        return not (self._paused or number in self._held or number in self._still)

    def _release(self, consumer: Consumer, number: int, start: Start, assignment: int) -> None:
        if self._held.get(number) != assignment:
            return
        place = _place(self._topic, number, start.offset, start.leader_epoch)
        if number in self._in_client:
            try:
                consumer.seek(place)
            except KafkaException as error:
                log.warning("a partition cannot be read yet", partition=number, reason=error.args[0].str())
                self.release(number, start, assignment)
                return
        else:
            consumer.incremental_assign([place])
            self._in_client.add(number)
        del self._held[number]
        self._readings[number] = PartitionReading(start)
        # A pause outlives revocation and assignment, so the state is set both ways.
        self._set_flow(consumer, {number})

    def _begin_anew(self, consumer: Consumer, numbers: set[int], went_back: Mapping[int, Start]) -> None:
        """Hold partitions and begin with them anew: what is known of their offsets holds no longer."""
        self._put_aside(consumer, numbers)
        began_anew = self._handler.on_began_anew(sorted(numbers), self._assignments, went_back)
        asyncio.run_coroutine_threadsafe(began_anew, self._loop)

    def _leave_old_topic(self, consumer: Consumer) -> None:
        """Commit nothing more that was read of the old topic, and hand over what is in work in `close`."""
        self._put_aside(consumer, self._owned())
        self._replacement.ask("the topic was made anew")

    def _put_aside(self, consumer: Consumer, numbers: set[int]) -> None:
        """Hold partitions by another assignment than before.

        They stay with Kafka's client, paused: to take them from it here could pass for the answer to a
        revocation that it has not told of yet.
        """
        self._assignments += 1
        for number in numbers:
            self._readings.pop(number, None)
            self._searches.pop(number, None)
            self._ends.pop(number, None)
        self._held.update(dict.fromkeys(numbers, self._assignments))
        self._displaced -= numbers  # what the stand-in reads of them from now on is of no use
        if paused := numbers & self._in_client:
            consumer.pause([TopicPartition(self._topic, number) for number in paused])

    def _know_ids(self, topic_id: str | None, ledger_id: str | None) -> None:
        for reading in self._readings.values():
            reading.topic_id = reading.topic_id or topic_id
            reading.ledger_id = ledger_id

    def _commit_soon(self, consumer: Consumer, positions: Mapping[int, Position]) -> None:
        self._commit_began = clock().monotonic
        offsets = self._offsets_of(positions)
        if not offsets:
            self._tell_commit_ended(None)
            return
        try:
            if (
                self._handing_over
            ):  # nobody would hear of a commit that does not wait: the member is not polled
                self._on_commit(None, consumer.commit(offsets=offsets, asynchronous=False))
            else:
                consumer.commit(offsets=offsets, asynchronous=True)
                self._commit_under_way = True
        except KafkaException as error:
            self._on_commit(error.args[0], [])

    def _commit_now(self, consumer: Consumer, positions: Mapping[int, Position]) -> None:
        try:
            if offsets := self._offsets_of(positions):
                consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            reason = self._errors.reason(error.args[0])
            log.warning("the last commit of partitions handed over has failed", reason=reason)

    def _offsets_of(self, positions: Mapping[int, Position]) -> list[TopicPartition]:
        """What is to be committed. For a partition that was revoked it would move another member's position, and
        for one that has begun anew it would be a position in another log.
        """
        return [
            _commit_of(self._topic, number, position, self._readings[number])
            for number, position in positions.items()
            if number in self._readings
        ]

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Hear of a commit that did not wait."""
        error = error or next((partition.error for partition in partitions if partition.error), None)
        if error is None:
            self._group.heard(clock().monotonic)
        else:
            log.warning("commit failed; it is tried again", reason=self._errors.reason(error))
        self._tell_commit_ended(None if error is not None else self._commit_began)

    def _tell_commit_ended(self, began_at: float | None) -> None:
        self._commit_under_way = False
        self._loop.call_soon_threadsafe(self._handler.on_commit_ended, began_at)

    def _listen_for_group(self, consumer: Consumer) -> None:
        """Have the client replaced if no commit of its gets through although Kafka answers."""
        now = clock().monotonic
        self._group.note(now, owns=bool(self._readings))
        if self._group.asks(now):
            missing = self._look_for_topic(consumer)
            self._group.asked(now, answered=not missing)
        if self._group.is_silent(now):
            self._replacement.ask("the group takes no commit, although Kafka answers")

    def _ask_if_away(self, consumer: Consumer) -> None:
        """While no broker could be reached: see whether one can."""
        if self._contact.asks():
            self._contact.found(self._look_for_topic(consumer))

    def _hear_error(self, error: KafkaError) -> None:
        """An error of the client's, whoever it is about."""
        self._receive_limit.hear(error)
        self._contact.hear(error)

    def _report_lag(self, consumer: Consumer) -> None:
        now = time.monotonic()
        if now < self._lag_due:
            return
        self._lag_due = now + LAG_SECONDS
        lag, unknown = {}, set()
        for number, reading in self._readings.items():
            _, cached = consumer.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            if cached < 0 or not self._flows(number):  # the client learns of an end as it fetches
                unknown.add(number)
            end = max(cached, self._told_end(number, now))
            if end >= 0:
                lag[number] = Lag(end, reading.next_offset, reading.position)
        self._note_silence(now)
        self.ends_wanted = frozenset(unknown | self._silence.asked(now))
        self._loop.call_soon_threadsafe(self._handler.on_lag, lag)

    def _told_end(self, number: int, now: float) -> int:
        """The end of a partition as it was told from beside; -1 where that is too long ago, or was never told."""
        end, told_at = self._ends.get(number, (-1, -inf))
        return end if now - told_at <= TOLD_SECONDS or not self._flows(number) else -1

    def _note_silence(self, now: float) -> None:
        """Have the client replaced if it brings nothing of what Kafka says that there is."""
        reads = {n: each for n, each in self._readings.items() if self._flows(n) and n not in self._searches}
        ends = {n: end for n in reads if (end := self._told_end(n, now)) >= 0}
        self._silence.note({n: reading.position for n, reading in reads.items()}, ends, now)
        if not self._replacement.reason and (silent := self._silence.silent(now)):
            for n in sorted(silent):
                log.error(
                    "Kafka's client brings nothing", partition=n, position=reads[n].position, end=ends[n]
                )
            self._silence.replaced(now)
            self._replacement.ask("it brings nothing of what is in some partitions")

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
        self._held.update(dict.fromkeys(numbers, self._assignments))
        # Each is given to the client once it is known where to begin.
        consumer.incremental_assign([])
        self.joined = True

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = {partition.partition for partition in partitions}
        handing_over = asyncio.run_coroutine_threadsafe(self._handler.on_revoked(sorted(numbers)), self._loop)
        self._serve_others(consumer, numbers, handing_over)
        self._commit_now(consumer, handing_over.result())
        self._give_up(consumer, numbers)

    def _serve_others(
        self, consumer: Consumer, leaving: set[int], handing_over: Future[dict[int, Position]]
    ) -> None:
        """Read the partitions that stay while those that leave are handed over.

        The client reads none of them before this callback has ended, so that another consumer stands in.
        """
        wait([handing_over], STAND_IN_SECONDS)
        staying = self._readings.keys() - leaving
        if handing_over.done() or self._stop.is_set() or self._leaving or not staying:
            return
        if self._stand_in_config is None:
            return
        log.info("other partitions are read meanwhile", leaving=sorted(leaving), staying=sorted(staying))
        self._searches.clear()
        try:
            self._stand_in(consumer, staying, handing_over)
        except KafkaException as error:
            log.warning("partitions that stay wait for the hand-over", reason=error.args[0].str())

    def _stand_in(
        self, consumer: Consumer, staying: set[int], handing_over: Future[dict[int, Position]]
    ) -> None:
        config = self._receive_limit.within(self._stand_in_config or {})
        stand_in = Consumer({**config, "error_cb": self._receive_limit.hear}, logger=kafka_logger())
        self._handing_over, self._displaced = True, set(staying)
        try:
            stand_in.assign(
                [_place(self._topic, n, self._readings[n].next_offset, None) for n in sorted(staying)]
            )
            self._set_flow(stand_in, staying)
            while not handing_over.done() and not self._stop.is_set():
                self._run_commands(consumer)
                self._read_once(stand_in)
        finally:
            self._handing_over = False
            stand_in.close()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = {partition.partition for partition in partitions}
        self._loop.call_soon_threadsafe(self._handler.on_lost, sorted(numbers))
        self._give_up(consumer, numbers)

    def _give_up(self, consumer: Consumer, numbers: set[int]) -> None:
        for number in numbers:
            self._held.pop(number, None)
            self._readings.pop(number, None)
            self._searches.pop(number, None)
            self._ends.pop(number, None)
        known = numbers & self._in_client
        self._in_client -= numbers
        consumer.incremental_unassign([TopicPartition(self._topic, number) for number in sorted(known)])


def _place(topic: str, number: int, offset: int, leader_epoch: int | None) -> TopicPartition:
    if leader_epoch is None:
        return TopicPartition(topic, number, offset)
    return TopicPartition(topic, number, offset, leader_epoch=leader_epoch)


def _commit_of(topic: str, number: int, position: Position, reading: PartitionReading) -> TopicPartition:
    metadata = write_metadata(position, reading.topic_id, reading.ledger_id)
    epoch = reading.epoch_before(position.offset)
    if epoch is None:
        return TopicPartition(topic, number, position.offset, metadata)
    return TopicPartition(topic, number, position.offset, metadata, epoch)

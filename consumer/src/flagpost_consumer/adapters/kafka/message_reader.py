"""Reads messages from Kafka's client and hands them to the event loop, in order, with each gap at its place.

In: messages and errors of the group's member, or of its stand-in during a hand-over. Out: calls on the event loop.
Batches are bounded in messages and bytes, and so is what the loop has not taken in yet (`handed_over`). Only the
Kafka thread calls it.
"""

from __future__ import annotations

import asyncio

import structlog
from confluent_kafka import Consumer, KafkaError, Message

from flagpost_consumer.adapters.kafka.group_errors import GroupErrors
from flagpost_consumer.adapters.kafka.handed_over import (
    BATCH_BYTES,
    MAX_BATCHES,
    MAX_BYTES,
    READ_AT_ONCE,
    BatchSize,
    HandedOver,
    size_of,
)
from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler
from flagpost_consumer.adapters.kafka.log_beginnings import LogBeginnings
from flagpost_consumer.adapters.kafka.owned_partitions import OwnedPartitions
from flagpost_consumer.adapters.kafka.partition_reading import Follows, PartitionReading, Start
from flagpost_consumer.adapters.kafka.poll_pace import PollPace
from flagpost_consumer.core.records import Gap

log = structlog.get_logger(__name__)

STARVED_SECONDS = 1.0
"""After waiting this long for the loop, pause all partitions, so that polling (and with it membership) goes on."""
UNREADABLE = frozenset({KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG})  # noqa: SLF001 (their public names)
"""Kafka's client reports these for a batch that it cannot read: it decompresses to too much, or is damaged."""

_OF_A_PARTITION = frozenset({KafkaError._PARTITION_EOF, *UNREADABLE})  # noqa: SLF001 (its public name)


class MessageReader:
    """Reads one topic's messages."""

    def __init__(
        self,
        topic: str,
        handler: IntakeHandler,
        loop: asyncio.AbstractEventLoop,
        partitions: OwnedPartitions,
        errors: GroupErrors,
    ) -> None:
        self._topic = topic
        self._handler = handler
        self._loop = loop
        self._partitions = partitions
        self._unreadable = partitions.unreadable
        self._errors = errors
        self._pace = PollPace()
        self._lows = LogBeginnings(topic)
        self._batch = BatchSize()
        self._room = HandedOver(MAX_BATCHES, MAX_BYTES)
        self._untold: list[Message] = []
        """What was read and has not been handed to the loop yet."""

    def read_once(self, client: Consumer) -> None:
        """Read what there is, with the group's member or its stand-in, and hand it over."""
        has_room = self._room.wait(STARVED_SECONDS)
        self._partitions.apply_pause(client, has_room=has_room)
        self._hand_over(client, self._read(client))

    def forget_client(self) -> None:
        """Another client reads from now on."""
        self._lows = LogBeginnings(self._topic)

    # From Kafka's client

    def _read(self, client: Consumer) -> list[Message]:
        partitions = self._partitions
        first = client.poll(self._pace.seconds(busy=bool(partitions.held) or partitions.handing_over))
        self._pace.polled(came=first is not None)
        messages = [] if first is None else self._read_more(client, first)
        if partitions.displaced and not partitions.handing_over:
            # What had been read or fetched when the hand-over began has been read again by the stand-in.
            messages = [message for message in messages if message.partition() not in partitions.displaced]
            partitions.take_back(client)
        return messages

    def _read_more(self, client: Consumer, first: Message) -> list[Message]:
        """Read the messages behind the first, a few at a time: their size can be measured only after reading."""
        messages, size = [first], size_of([first])
        while size < BATCH_BYTES and (left := self._batch.messages - len(messages)) > 0:
            asked = min(left, READ_AT_ONCE)
            more = client.consume(asked, 0)
            messages += more
            size += size_of(more)
            if len(more) < asked:
                break
        return messages

    # To the event loop

    def _hand_over(self, client: Consumer, messages: list[Message]) -> None:
        """Hand on what was read, in order, with each gap at its place."""
        try:
            self._take(client, messages)
        finally:
            self._tell()

    def _take(self, client: Consumer, messages: list[Message]) -> None:
        readings, handing_over = self._partitions.readings, self._partitions.handing_over
        searches, sought = self._unreadable.searches, self._unreadable.sought
        self._lows.forget_cached()
        sought.clear()
        for message in messages:
            number, offset = message.partition() or 0, message.offset() or 0
            reading = readings.get(number)
            if (error := message.error()) is not None:
                self._hear(client, reading, message, error)
                continue
            if reading is None or ((sought or handing_over) and self._is_read_elsewhere(number)):
                continue
            if searches and (search := searches.get(number)) is not None:
                self._tell_gap(number, self._unreadable.readable(client, reading, number, search))
                continue
            follows = Follows.NEXT if offset == reading.next_offset else reading.follows(offset)
            epoch = message.leader_epoch()
            begun = epoch if epoch != reading.epoch else None
            if follows is Follows.WENT_BACK or (
                begun is not None and reading.is_of_another_log(offset, begun)
            ):
                log.error("offsets have gone back", partition=number, read=reading.next_offset, found=offset)
                self._begin_anew(client, number, Start(offset, epoch, reading.topic_id, reading.ledger_id))
                continue
            if follows is Follows.AFTER_HOLE:
                self._tell_gap(number, self._gap(client, reading, number, offset))
            reading.next_offset = offset + 1
            if begun is not None:
                reading.epoch_begins(offset, begun)
                self._loop.call_soon_threadsafe(self._handler.on_epoch, number, offset, begun)
            self._untold.append(message)

    def _is_read_elsewhere(self, number: int) -> bool:
        """Whether a message of this partition comes from a place at which it is no longer read."""
        partitions = self._partitions
        return number in self._unreadable.sought or (
            partitions.handing_over and number not in partitions.displaced
        )

    def _begin_anew(self, client: Consumer, number: int, went_back: Start) -> None:
        """The log of a partition went back: what is known of its offsets is no longer valid."""
        self._tell()
        assignment = self._partitions.set_aside(client, {number})
        began_anew = self._handler.on_began_anew([number], assignment, {number: went_back})
        asyncio.run_coroutine_threadsafe(began_anew, self._loop)

    def _gap(self, client: Consumer, reading: PartitionReading, number: int, offset: int) -> Gap | None:
        """The deleted part of what was to be read next; None: offsets are missing, but nothing is lost."""
        wanted = reading.next_offset
        # The message that was read exists, whatever has been deleted since it was fetched.
        low = min(self._lows.of(client, number), offset)
        return Gap(wanted, low) if wanted < low else None

    def _tell_gap(self, number: int, gap: Gap | None) -> None:
        """Tell of a gap, if there is one, once what was read before it has been handed over."""
        if gap is not None:
            self._tell()
            self._loop.call_soon_threadsafe(self._handler.on_gap, number, gap)

    def _tell(self) -> None:
        """Hand to the loop what was read. After a pause for lack of room a few more messages may come: they are
        handed over, too.
        """
        messages, self._untold = self._untold, []
        if messages:
            size = size_of(messages)
            self._batch.adapt(len(messages), size)
            self._room.take(size)
            self._loop.call_soon_threadsafe(
                self._handler.on_messages, messages, lambda: self._room.give_back(size)
            )

    def _hear(
        self, client: Consumer, reading: PartitionReading | None, message: Message, error: KafkaError
    ) -> None:
        """Handle an error in place of a message: the end of a partition, an unreadable batch, or anything else."""
        number, offset = message.partition() or 0, message.offset()
        if reading is None or offset is None or error.code() not in _OF_A_PARTITION:
            self._errors.report(error)
        elif self._is_read_elsewhere(number):
            return
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 (its public name)
            reading.reached_end(offset)
            if (search := self._unreadable.searches.get(number)) is not None:
                self._tell_gap(number, self._unreadable.readable(client, reading, number, search))
        else:
            self._tell_gap(number, self._unreadable.unreadable(client, reading, number, offset, error))

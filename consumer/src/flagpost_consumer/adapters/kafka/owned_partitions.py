"""The partitions that the group has given to this process: which are read, from where, and which are paused.

In: assignments, releases, and which partitions the event loop wants paused. Out: calls on Kafka's client: read from
here, pause, resume, drop. Only the Kafka thread calls it, but for `want_paused` and `is_fresh`.

A partition is first *held*: assigned, but not read, until the event loop knows where to begin and releases it. From
then on it has a `PartitionReading`. While some partitions are handed over, another client reads those that stay: the
*stand-in*.
"""

from __future__ import annotations

from collections.abc import Collection

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from flagpost_consumer.adapters.kafka.partition_reading import PartitionReading, Start
from flagpost_consumer.adapters.kafka.unreadable_batches import UnreadableBatches

log = structlog.get_logger(__name__)


class OwnedPartitions:
    """The partitions of one topic that are ours, by number."""

    def __init__(self, topic: str, unreadable: UnreadableBatches) -> None:
        self._topic = topic
        self.unreadable = unreadable
        """The searches for ends of batches that cannot be read."""
        self.held: dict[int, int] = {}
        """Partitions that are not released yet, and the assignment that brought them."""
        self.readings: dict[int, PartitionReading] = {}
        """Partitions that are read, or paused."""
        self.told_ends: dict[int, tuple[int, float]] = {}
        """Where partitions end, as another client was told, and when (monotonic seconds)."""
        self.handing_over = False
        """Whether the stand-in reads."""
        self.displaced: set[int] = set()
        """Partitions that the stand-in reads or has read: the member's own position in them is behind."""
        self._in_client: set[int] = set()
        """Partitions that Kafka's client has been told to read."""
        self._assignments = 0
        self._pause_wanted = False
        self._paused = False
        self._still_wanted: frozenset[int] = frozenset()
        self._still: frozenset[int] = frozenset()

    @property
    def all(self) -> set[int]:
        """All that are ours."""
        return self.held.keys() | self.readings.keys()

    @property
    def read_now(self) -> set[int]:
        """Those that are read just now: by the stand-in, only those that it was given."""
        return self.readings.keys() & self.displaced if self.handing_over else set(self.readings)

    def is_fresh(self, message: Message) -> bool:
        """Whether a message was read as it was written; False also if its partition is no longer ours."""
        reading = self.readings.get(message.partition() or 0)
        return reading is not None and reading.is_fresh(message.offset() or 0)

    # Which are read

    def assigned(self, numbers: Collection[int]) -> int:
        """Hold partitions that the group has assigned; returns the number of this assignment."""
        self._assignments += 1
        self.held.update(dict.fromkeys(numbers, self._assignments))
        return self._assignments

    def release(self, client: Consumer, number: int, start: Start, assignment: int) -> bool:
        """Read a partition from `start`, unless another assignment than this one holds it.

        Returns False if the client cannot do so yet, and is to be asked again.
        """
        if self.held.get(number) != assignment:
            return True
        place = self._place(number, start.offset, start.leader_epoch)
        if number not in self._in_client:
            client.incremental_assign([place])
            self._in_client.add(number)
        elif not _seeks(client, place):
            return False
        del self.held[number]
        self.readings[number] = PartitionReading(start)
        # A pause outlives revocation and assignment, so the state is set both ways.
        self.set_flow(client, {number})
        return True

    def set_aside(self, client: Consumer, numbers: Collection[int]) -> int:
        """Stop reading partitions and hold them by a new assignment, whose number is returned.

        They stay with Kafka's client, paused: to take them away here could look like the answer to a revocation
        that the client has not reported yet.
        """
        known = self._in_client & set(numbers)
        self._forget(numbers)
        self.displaced -= set(numbers)  # the stand-in's further messages of them are not used
        assignment = self.assigned(numbers)
        if known:
            client.pause([TopicPartition(self._topic, number) for number in known])
        return assignment

    def give_up(self, client: Consumer, numbers: Collection[int]) -> None:
        """Partitions are no longer ours."""
        self._forget(numbers)
        for number in numbers:
            self.held.pop(number, None)
        known = self._in_client & set(numbers)
        self._in_client -= known
        client.incremental_unassign([TopicPartition(self._topic, number) for number in sorted(known)])

    def forget_client(self) -> None:
        """Nothing is ours: the client has left the group."""
        for by_number in (self.held, self.readings, self.told_ends):
            by_number.clear()
        for numbers in (self._in_client, self.displaced):
            numbers.clear()
        self.unreadable.clear()

    def know_ids(self, topic_id: str | None, ledger_id: str | None) -> None:
        """Note the ids of the topics. A topic id that is known already stays: it is that of what was read."""
        for reading in self.readings.values():
            reading.topic_id = reading.topic_id or topic_id
            reading.ledger_id = ledger_id

    def _forget(self, numbers: Collection[int]) -> None:
        for number in numbers:
            self.readings.pop(number, None)
            self.told_ends.pop(number, None)
            self.unreadable.searches.pop(number, None)

    # Which are paused

    def want_paused(self, paused: bool, numbers: Collection[int]) -> None:
        """Pause all partitions if `paused`, else these; replaces what was wanted before. Any thread may call it."""
        self._pause_wanted = paused
        self._still_wanted = frozenset(numbers)

    def apply_pause(self, client: Consumer, *, has_room: bool) -> None:
        """Pause and resume what is wanted, and pause everything while the event loop has no room."""
        paused, still = self._pause_wanted or not has_room, self._still_wanted
        if paused == self._paused and still == self._still:
            return
        readings = self.read_now
        changed = readings if paused != self._paused else readings & (still ^ self._still)
        self._paused, self._still = paused, still
        if changed:
            self.set_flow(client, changed)

    def set_flow(self, client: Consumer, numbers: Collection[int]) -> None:
        """Pause or resume each of these partitions in the client, as is wanted."""
        flowing = {number for number in numbers if self.flows(number)}
        if still := set(numbers) - flowing:
            for number in still & self.readings.keys():
                self.readings[number].paused()
            client.pause([TopicPartition(self._topic, number) for number in still])
        self.unreadable.restart(client, numbers, self.readings)
        if flowing:
            client.resume([TopicPartition(self._topic, number) for number in flowing])

    def flows(self, number: int) -> bool:
        """Whether a partition is neither paused nor held."""
        return not (self._paused or number in self.held or number in self._still)

    # The stand-in

    def hand_to_stand_in(self, client: Consumer, numbers: Collection[int]) -> None:
        """Let the stand-in read these partitions, where each has been read to."""
        self.handing_over, self.displaced = True, set(numbers)
        client.assign([self._place(n, self.readings[n].next_offset, None) for n in sorted(numbers)])
        self.set_flow(client, numbers)

    def take_back(self, client: Consumer) -> None:
        """Let the group's member read on where the stand-in has stopped."""
        self.unreadable.searches.clear()
        for number in sorted(self.displaced & self.readings.keys()):
            if _seeks(client, self._place(number, self.readings[number].next_offset, None)):
                self.displaced.discard(number)
        self.displaced &= self.readings.keys()
        self.set_flow(client, self.readings.keys())

    def _place(self, number: int, offset: int, leader_epoch: int | None) -> TopicPartition:
        if leader_epoch is None:
            return TopicPartition(self._topic, number, offset)
        return TopicPartition(self._topic, number, offset, leader_epoch=leader_epoch)


def _seeks(client: Consumer, place: TopicPartition) -> bool:
    """Have the client read a partition from another offset; False: it cannot yet."""
    try:
        client.seek(place)
    except KafkaException as error:
        log.warning("a partition cannot be read yet", partition=place.partition, reason=error.args[0].str())
        return False
    return True

"""Pendo's answers that Kafka does not have yet: after a crash these would be sent again
(docs/guarantees.md#sent-twice).

In: track deliveries whose ending Pendo knows, and each acknowledgement. Out: whether all sending must stop, and which
partitions must stop alone: those with an answer that has waited too long. Once Kafka acknowledges something of
another partition, only that one partition waits, and its answers no longer count towards the common limit: so a
ledger partition without a leader, or a dead letter that is not taken, stops no other partition.
"""

from __future__ import annotations

from collections import OrderedDict

from flagpost_consumer.core.books.deliveries import Delivery, Partition
from flagpost_consumer.core.outcomes import Ending, Kind, Outcome

MAX_WAIT_SECONDS = 1.0
"""A partition sends nothing while one of its answers has waited longer than this for its acknowledgement."""


class Unacknowledged:
    """Track deliveries that Pendo may have, in the order in which they ended, the oldest first."""

    def __init__(self) -> None:
        self._ended_at: OrderedDict[Delivery, float] = (
            OrderedDict()
        )  # an OrderedDict finds its first entry at once, unlike a dict
        self._held: dict[Partition, set[Delivery]] = {}
        self._counted: set[Partition] = set()
        """Held partitions whose answers still count: possibly Kafka takes nothing at all."""
        self._was_released = False

    def __len__(self) -> int:
        return len(self._ended_at) + sum(map(len, self._held.values()))

    def add(self, delivery: Delivery, ending: Ending, now: float) -> None:
        """Note an ended delivery; it counts only if a crash could send it again although Pendo has it."""
        if not _may_be_taken(delivery, ending):
            return
        if delivery.partition in self._held:
            self._held[delivery.partition].add(delivery)
        else:
            self._ended_at[delivery] = now

    def acknowledged(self, delivery: Delivery) -> None:
        """Kafka has its settlement."""
        self.takes(delivery.partition)
        self.discard(delivery)

    def takes(self, partition: Partition) -> None:
        """Kafka has accepted something of a partition."""
        if self._counted and not partition.held:
            self._counted.clear()

    def discard(self, delivery: Delivery) -> None:
        """Forget a delivery that was handed back."""
        if self._ended_at.pop(delivery, None) is None:
            self._discard_held(delivery)

    def must_stop(self, limit: int, now: float) -> bool:
        """Hold the partitions whose answers have waited too long; returns whether all must stop: more than `limit`
        wait.
        """
        while self._ended_at:
            oldest = next(iter(self._ended_at))
            if now - self._ended_at[oldest] <= MAX_WAIT_SECONDS:
                break
            self._hold(oldest.partition)
        return len(self._ended_at) + sum(len(self._held[partition]) for partition in self._counted) > limit

    @property
    def held(self) -> frozenset[Partition]:
        """The partitions of which nothing may be sent."""
        return frozenset(self._held)

    def take_released(self) -> bool:
        """Whether partitions have been released since the last call."""
        was_released, self._was_released = self._was_released, False
        return was_released

    def _hold(self, partition: Partition) -> None:
        partition.held = True
        deliveries = {delivery for delivery in self._ended_at if delivery.partition is partition}
        self._held[partition] = deliveries
        self._counted.add(partition)
        for delivery in deliveries:
            del self._ended_at[delivery]

    def _discard_held(self, delivery: Delivery) -> None:
        deliveries = self._held.get(delivery.partition)
        if deliveries is None:
            return
        deliveries.discard(delivery)
        if not deliveries:
            del self._held[delivery.partition]
            self._counted.discard(delivery.partition)
            delivery.partition.held = False
            self._was_released = True


def _may_be_taken(delivery: Delivery, ending: Ending) -> bool:
    """Whether Pendo may have the event. Metadata does not count: sending a value again changes nothing."""
    if delivery.kind is not Kind.TRACK:
        return False
    return delivery.unseen > 0 or ending.outcome is Outcome.DELIVERED

"""The one place through which every ending passes.

In: deliveries as they begin, start, end or are handed back; Kafka's acknowledgements. Out: settlements to write, and
at every moment the state of each delivery. A settlement counts once Kafka has acknowledged it: until then its
delivery is pending and its offset cannot be committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from flagpost_consumer.core.books.accounts import Accounts
from flagpost_consumer.core.books.deliveries import (
    REPEATED,
    UNCHANGED,
    Delivery,
    Duplicates,
    Partition,
    Settlement,
    Stage,
)
from flagpost_consumer.core.books.unacknowledged import Unacknowledged
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.outcomes import Ending, Kind, Outcome, Reason
from flagpost_consumer.core.records import Gap, HeldRecord

_UNDELIVERED = frozenset({Outcome.DEAD_LETTERED, Outcome.DROPPED})
"""After these outcomes the claim of a delivery is free for later records."""


class Settling:
    """The deliveries of one process."""

    def __init__(self, max_unwritten: int) -> None:
        """`max_unwritten`: a partition with more unacknowledged endings than this is in `piled_up`."""
        self._max_unwritten = max_unwritten
        self.accounts = Accounts()
        self.pending_records = 0
        """Records held in memory."""
        self.pending_bytes = 0
        """Their keys, values and headers."""
        self.waiting = 0
        """Deliveries that are neither in flight nor ended."""
        self.unacknowledged = Unacknowledged()
        self.piled_up: set[Partition] = set()
        self._settlements: list[Settlement] = []
        self._duplicates: list[Duplicates] = []

    def take(self, record: HeldRecord, partition: Partition, deliveries: list[Delivery]) -> None:
        """Note a record with its deliveries."""
        partition.offsets.take(record.offset, deliveries)
        self.pending_records += 1
        self.pending_bytes += record.size_bytes
        self.waiting += len(deliveries)
        self.accounts.records += 1
        for delivery in deliveries:
            self.accounts.plan(delivery.kind)

    def take_duplicates(self, duplicates: Duplicates) -> None:
        """Note duplicates, which have already ended, at their place among the offsets."""
        count = len(duplicates.records)
        self.pending_records += count
        self.pending_bytes += duplicates.size_bytes
        self.accounts.records += count
        self.accounts.plan(Kind.TRACK, count)
        self.accounts.plan(Kind.VISITOR_METADATA, len(duplicates.unchanged))
        self._unwritten(duplicates.partition, len(duplicates.entries))
        self._duplicates.append(duplicates)

    def start(self, delivery: Delivery) -> None:
        """Note that a request for a waiting delivery starts."""
        delivery.stage = Stage.IN_FLIGHT
        delivery.partition.in_flight += 1
        self.waiting -= 1

    def pass_over(self, offset: int, partition: Partition) -> None:
        """Note a record that was read again and that the ledger settles."""
        partition.offsets.pass_over(offset)
        self.accounts.records += 1
        self.accounts.redeliveries += 1

    def lose(self, partition: Partition, gap: Gap) -> None:
        """Note lost offsets; they stop the partition's position until the ledger has them."""
        partition.offsets.lose(gap.from_offset, gap.to_offset, [])
        self._unwritten(partition, 1)
        self.pending_records += 1
        self.accounts.offsets_lost += gap.to_offset - gap.from_offset

    def gap_written(self, partition: Partition, gap: Gap) -> None:
        """The ledger has the lost offsets."""
        self._written(partition, 1)
        if gap.from_offset in partition.offsets:
            partition.offsets.settle(gap.from_offset)
            self.pending_records -= 1

    def put_back(self, delivery: Delivery) -> None:
        """A delivery's request has failed, and it waits again."""
        if delivery.stage is Stage.IN_FLIGHT:
            delivery.stage = Stage.WAITING
            delivery.partition.in_flight -= 1
            self.waiting += 1

    def settle(self, delivery: Delivery, ending: Ending, now: Instant) -> None:
        """A delivery has ended; does nothing if it was handed back before."""
        if delivery.stage is Stage.RETURNED:
            return
        if delivery.stage is Stage.WAITING:
            self.waiting -= 1
        else:
            delivery.partition.in_flight -= 1
        delivery.stage = Stage.SETTLED
        self._unwritten(delivery.partition, 1)
        if ending.outcome in _UNDELIVERED:
            _release_claim(delivery)
        self.unacknowledged.add(delivery, ending, now.monotonic)
        self._settlements.append(Settlement(delivery, ending, now.wall_ms))

    def _unwritten(self, partition: Partition, count: int) -> None:
        partition.unwritten += count
        if partition.unwritten > self._max_unwritten:
            self.piled_up.add(partition)

    def _written(self, partition: Partition, count: int) -> None:
        partition.unwritten -= count
        if self.piled_up and partition.unwritten <= self._max_unwritten:
            self.piled_up.discard(partition)

    def hand_back(self, delivery: Delivery) -> None:
        """Hand back a delivery unsettled: the partition's next member begins it again."""
        self.waiting -= delivery.stage is Stage.WAITING
        delivery.stage = Stage.RETURNED
        self.unacknowledged.discard(delivery)
        self.accounts.hand_back(delivery.kind)

    def forget(self, partition: Partition) -> None:
        """Forget a partition that is another member's: its records are no longer held."""
        self.piled_up.discard(partition)
        for taken in partition.offsets.unsettled():
            if isinstance(taken, Duplicates):
                self._hand_back_duplicates(taken)
            else:
                self.pending_records -= 1
                self.pending_bytes -= _size_bytes(taken)
        partition.offsets.clear()

    def _hand_back_duplicates(self, duplicates: Duplicates) -> None:
        duplicates.stage = Stage.RETURNED
        self.pending_records -= len(duplicates.records)
        self.pending_bytes -= duplicates.size_bytes
        self.accounts.hand_back(Kind.TRACK, len(duplicates.records))
        self.accounts.hand_back(Kind.VISITOR_METADATA, len(duplicates.unchanged))

    def collect(self) -> list[Settlement]:
        """The settlements since the last call, to be written."""
        settlements, self._settlements = self._settlements, []
        return [settlement for settlement in settlements if settlement.delivery.stage is Stage.SETTLED]

    def collect_duplicates(self) -> list[Duplicates]:
        """The same for duplicates for which no deliveries were made."""
        duplicates, self._duplicates = self._duplicates, []
        return [each for each in duplicates if each.stage is Stage.SETTLED]

    def acknowledged(self, settlements: Sequence[Settlement], ledger_offset: int) -> None:
        """Kafka has these settlements of one partition, at this offset of the ledger: close the books on them."""
        _remember(settlements, ledger_offset)
        for settlement in settlements:
            delivery = settlement.delivery
            if delivery.stage is Stage.SETTLED:
                self._close(delivery, settlement.ending)

    def acknowledged_duplicates(self, duplicates: Duplicates, ledger_offset: int) -> None:
        """Kafka has the ledger record of these duplicates."""
        partition, count = duplicates.partition, len(duplicates.entries)
        partition.window.note(ledger_offset, count, -1, duplicates.records[-1].offset)
        if duplicates.stage is not Stage.SETTLED:
            return
        duplicates.stage = Stage.ACKNOWLEDGED
        self._written(partition, count)
        self.unacknowledged.takes(partition)
        self.accounts.settle(Kind.TRACK, REPEATED, len(duplicates.records))
        if duplicates.unchanged:
            self.accounts.settle(Kind.VISITOR_METADATA, UNCHANGED, len(duplicates.unchanged))
        partition.offsets.settle(duplicates.records[0].offset)
        self.pending_records -= len(duplicates.records)
        self.pending_bytes -= duplicates.size_bytes

    def _close(self, delivery: Delivery, ending: Ending) -> None:
        delivery.stage = Stage.ACKNOWLEDGED
        partition, offset = delivery.partition, delivery.record.offset
        self._written(partition, 1)
        self.unacknowledged.acknowledged(delivery)
        self.accounts.settle(delivery.kind, ending)
        siblings = cast("list[Delivery]", partition.offsets.entry(offset))
        if len(siblings) == 1 or all(sibling.stage is Stage.ACKNOWLEDGED for sibling in siblings):
            partition.offsets.settle(offset)
            self.pending_records -= 1
            self.pending_bytes -= delivery.size_bytes


def _remember(settlements: Sequence[Settlement], ledger_offset: int) -> None:
    """Note what a ledger record is needed for."""
    newest_claim_ms = highest_offset = -1
    for delivery, ending, _ in settlements:
        record = delivery.record
        highest_offset = max(highest_offset, record.offset)
        is_sent = ending.reason is Reason.OK and delivery.planned.dedupe_key is not None
        if is_sent and record.occurred_at is not None:
            newest_claim_ms = max(newest_claim_ms, record.occurred_at)
    window = settlements[0].delivery.partition.window
    window.note(ledger_offset, len(settlements), newest_claim_ms, highest_offset)


def _size_bytes(deliveries: Sequence[Delivery]) -> int:
    """Bytes of the record of these deliveries; 0 for a gap."""
    return deliveries[0].size_bytes if deliveries else 0


def _release_claim(delivery: Delivery) -> None:
    key, occurred_at = delivery.planned.dedupe_key, delivery.record.occurred_at
    if key is not None and occurred_at is not None:
        delivery.partition.dedupe.release(key, occurred_at, delivery.record.offset)

"""The one place through which every ending passes, and the books on it.

In: deliveries as they begin, start, end or are handed back; Kafka's acknowledgements. Out: settlements to be
written, and at every moment where each delivery is. A settlement counts once Kafka has acknowledged it: until
then its delivery is pending and its offset cannot be committed.
"""

from __future__ import annotations

from collections.abc import Sequence

from flagpost_consumer.core.accounts import Accounts
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.outcomes import Ending, Outcome, Reason
from flagpost_consumer.core.records import Delivery, Gap, HeldRecord, Partition, Settlement, Stage
from flagpost_consumer.core.unacknowledged import Unacknowledged

_UNDELIVERED = frozenset({Outcome.DEAD_LETTERED, Outcome.DROPPED})
"""After these the claim of a delivery is free for later records."""


class Settling:
    """Where the deliveries of one process are."""

    def __init__(self, max_unwritten: int) -> None:
        """`max_unwritten`: a partition with more endings that Kafka has not acknowledged is in `piled_up`."""
        self._max_unwritten = max_unwritten
        self.accounts = Accounts()
        self.pending_records = 0
        """Records held in memory."""
        self.pending_bytes = 0
        """Their keys, values and headers."""
        self.waiting = 0
        """Deliveries that are not in flight and not ended."""
        self.unacknowledged = Unacknowledged()
        self.piled_up: set[Partition] = set()
        self._settlements: list[Settlement] = []

    def take(self, record: HeldRecord, partition: Partition, deliveries: list[Delivery]) -> None:
        """A record begins."""
        partition.offsets.take(record.offset, deliveries)
        self.pending_records += 1
        self.pending_bytes += record.size_bytes
        self.waiting += len(deliveries)
        self.accounts.records += 1
        for delivery in deliveries:
            self.accounts.plan(delivery.kind)

    def start(self, delivery: Delivery) -> None:
        """A request for a delivery starts."""
        if delivery.stage is Stage.WAITING:
            delivery.stage = Stage.IN_FLIGHT
            delivery.partition.busy += 1
            self.waiting -= 1

    def pass_over(self, offset: int, partition: Partition) -> None:
        """A record comes again that the ledger settles."""
        partition.offsets.pass_over(offset)
        self.accounts.records += 1
        self.accounts.redeliveries += 1

    def lose(self, partition: Partition, gap: Gap) -> None:
        """Offsets are gone; they hold the partition's position until the ledger says so."""
        partition.offsets.lose(gap.from_offset, gap.to_offset, [])
        partition.busy += 1
        self.pending_records += 1
        self.accounts.offsets_lost += gap.to_offset - gap.from_offset

    def gap_written(self, partition: Partition, gap: Gap) -> None:
        """The ledger says that offsets are gone."""
        partition.busy -= 1
        if gap.from_offset in partition.offsets:
            partition.offsets.settle(gap.from_offset)
            self.pending_records -= 1

    def put_back(self, delivery: Delivery) -> None:
        """A delivery's request has failed, and the delivery waits again."""
        if delivery.stage is Stage.IN_FLIGHT:
            delivery.stage = Stage.WAITING
            delivery.partition.busy -= 1
            self.waiting += 1

    def settle(self, delivery: Delivery, ending: Ending, now: Instant) -> None:
        """A delivery has ended; nothing happens if it was handed back before."""
        if delivery.stage is Stage.RETURNED:
            return
        if delivery.stage is Stage.WAITING:
            delivery.partition.busy += 1
            self.waiting -= 1
        delivery.stage = Stage.SETTLED
        delivery.partition.unwritten += 1
        if delivery.partition.unwritten > self._max_unwritten:
            self.piled_up.add(delivery.partition)
        if ending.outcome in _UNDELIVERED:
            _release_claim(delivery)
        self.unacknowledged.add(delivery, ending, now.monotonic)
        self._settlements.append(Settlement(delivery, ending, now.wall_ms))

    def hand_back(self, delivery: Delivery) -> None:
        """A delivery is given up unsettled: whoever has its partition next begins with it anew."""
        self.waiting -= delivery.stage is Stage.WAITING
        delivery.partition.unwritten -= delivery.stage is Stage.SETTLED
        delivery.stage = Stage.RETURNED
        self.unacknowledged.discard(delivery)
        self.accounts.hand_back(delivery.kind)

    def forget(self, partition: Partition) -> None:
        """A partition is another member's: its records are no longer held."""
        self.piled_up.discard(partition)
        self.pending_records -= len(partition.offsets)
        self.pending_bytes -= sum(map(_size_bytes, partition.offsets.unsettled()))
        partition.offsets.clear()

    def collect(self) -> list[Settlement]:
        """The settlements since the last call, to be written."""
        settlements, self._settlements = self._settlements, []
        return [settlement for settlement in settlements if settlement.delivery.stage is Stage.SETTLED]

    def acknowledged(self, settlements: Sequence[Settlement], ledger_offset: int) -> None:
        """Kafka has the settlements, which are of one partition, at an offset of the ledger: close the books."""
        _remember(settlements, ledger_offset)
        for settlement in settlements:
            delivery = settlement.delivery
            if delivery.stage is Stage.SETTLED:
                self._close(delivery, settlement.ending)

    def _close(self, delivery: Delivery, ending: Ending) -> None:
        delivery.stage = Stage.ACKNOWLEDGED
        partition, offset = delivery.partition, delivery.record.offset
        partition.busy -= 1
        partition.unwritten -= 1
        if self.piled_up and partition.unwritten <= self._max_unwritten:
            self.piled_up.discard(partition)
        self.unacknowledged.acknowledged(delivery)
        self.accounts.settle(delivery.kind, ending)
        siblings = partition.offsets.entry(offset)
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
    """What the record of these deliveries holds; a gap has none."""
    return deliveries[0].size_bytes if deliveries else 0


def _release_claim(delivery: Delivery) -> None:
    key, occurred_at = delivery.planned.dedupe_key, delivery.record.occurred_at
    if key is not None and occurred_at is not None:
        delivery.partition.dedupe.release(key, occurred_at, delivery.record.offset)

"""Writes settlements to the ledger topic.

In: settlements, one by one, and gaps. Out: records with a batch of each partition's, on the same partition of the
ledger, and word of each batch that Kafka has acknowledged. A batch is written after a few milliseconds, or at
once when as many answers wait as are in flight at Pendo: sending stops when too many are unacknowledged. A partition
of the ledger that takes nothing holds up no other. What waits is bounded by what the engine may hold pending.
"""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import KafkaError

from flagpost_consumer.adapters.kafka_producer import KafkaProducer
from flagpost_consumer.adapters.write_line import WriteLine
from flagpost_consumer.core import records
from flagpost_consumer.core.ledger_ids import PLAIN, LedgerIds, cut
from flagpost_consumer.core.records import Partition, Settlement, Stage
from flagpost_schemas import (
    Gap,
    LedgerEntry,
    Settlements,
    encode_settlements,
)
from flagpost_settings.logs import Lately

log = structlog.get_logger(__name__)

LINGER_SECONDS = 0.02
MAX_BATCH_SETTLEMENTS = 1000
"""So many of one partition are put into one record, however long it has taken nothing."""
ENTRY_BYTES = 300
"""About what a settlement takes in the ledger."""
MAX_RECORD_BYTES = 512 * 1024
"""Half of what a topic takes by default; a batch beyond it is halved."""

OnWritten = Callable[[Sequence[Settlement], int], None]
"""Takes the settlements of one partition and the ledger offset under which they are."""


@dataclass(slots=True, eq=False)
class _Batch:
    """What one record of the ledger is to say."""

    partition: Partition
    line: WriteLine[_Batch]
    settlements: list[Settlement]
    gap: Gap | None = None
    on_gap_written: Callable[[], None] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether anything of it is still this process's to write."""
        return self.gap is not None or any(_is_settled(each) for each in self.settlements)

    def takes(self, partition: Partition, count: int) -> bool:
        """Whether so many settlements of a partition fit in; a later assignment of it has another ledger record."""
        return self.partition is partition and len(self.settlements) + count <= MAX_BATCH_SETTLEMENTS

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        return ENTRY_BYTES * (1 + len(self.settlements))


class LedgerWriter:
    """The ledger, as far as one process writes it. Use it on the event loop only."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        group: str,
        on_written: OnWritten,
        *,
        write_at: int,
        ids: LedgerIds = PLAIN,
    ) -> None:
        """`write_at`: with so many answers of Pendo, settlements are written without waiting for more.

        `ids`: what is written of visitor and account ids.
        """
        self._ids = ids
        # A record is tried until Kafka has it: with a producer that never doubles, none is there twice.
        self._producer = KafkaProducer(
            {**config, "message.timeout.ms": 0, "linger.ms": 0}, topic, "the ledger"
        )
        self._group = group
        self._member = f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        self._on_written = on_written
        self._write_at = write_at
        self._lately = Lately()
        self._lines: dict[int, WriteLine[_Batch]] = {}
        self._waiting: dict[Partition, list[Settlement]] = {}
        self._answers = 0
        """How many of these tell what Pendo answered; the others, such as duplicates, hold up no sending."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def stalled(self) -> dict[int, str]:
        """Partitions of which the ledger has taken nothing for a while though there is something, and why."""
        return {
            number: reason for number, line in self._lines.items() if (reason := line.stalled) is not None
        }

    def serve(self) -> None:
        """Take in what the client has to say."""
        self._producer.serve()

    def made_anew(self) -> None:
        """The topic is another one than before."""
        self._producer.renew()

    def forget(self, partitions: Collection[int]) -> None:
        """Partitions are another member's: nothing of them that was not sent yet is written any more."""
        for number in partitions:
            if (line := self._lines.pop(number, None)) is not None:
                line.prune()

    def write(self, settlement: Settlement) -> None:
        """Write a settlement soon; `on_written` is called on the loop once Kafka has it."""
        delivery = settlement.delivery
        waiting = self._waiting.setdefault(delivery.partition, [])
        waiting.append(settlement)
        self._answers += delivery.attempts > 0
        if self._answers >= self._write_at or len(waiting) >= MAX_BATCH_SETTLEMENTS:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._flush)

    def write_gap(self, partition: Partition, gap: records.Gap, on_written: Callable[[], None]) -> None:
        """Write that offsets were lost."""
        lost = Gap(from_offset=gap.from_offset, to_offset=gap.to_offset)
        line = self._line(partition.number)
        line.offer(_Batch(partition, line, [], lost, on_written))

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting, self._answers = self._waiting, {}, 0
        for partition, settlements in waiting.items():
            line = self._line(partition.number)
            newest = line.newest
            if newest is not None and newest.takes(partition, len(settlements)):
                newest.settlements.extend(settlements)
            else:
                line.offer(_Batch(partition, line, settlements))

    def _line(self, number: int) -> WriteLine[_Batch]:
        line = self._lines.get(number)
        if line is None:
            line = self._lines[number] = WriteLine(
                self._write, lambda batch: batch.is_wanted, lambda batch: batch.size_bytes
            )
        return line

    def _write(self, batch: _Batch) -> None:
        # What was handed back meanwhile is for whoever has the partition next.
        batch.settlements = [each for each in batch.settlements if _is_settled(each)]
        value = self._encode(batch)
        while len(value) > MAX_RECORD_BYTES and len(batch.settlements) > 1:
            half = len(batch.settlements) // 2
            batch.line.put_first(_Batch(batch.partition, batch.line, batch.settlements[half:]))
            batch.settlements = batch.settlements[:half]
            value = self._encode(batch)
        self._producer.produce(
            value,
            lambda error, offset: self._reported(batch, error, offset),
            partition=batch.partition.number,
        )

    def _reported(self, batch: _Batch, error: KafkaError | None, offset: int) -> None:
        if error is None:
            if batch.on_gap_written is not None:
                batch.on_gap_written()
            if batch.settlements:
                self._on_written(batch.settlements, offset)
            batch.line.taken(batch)
            return
        if self._lately.is_news((error.str(), batch.partition.number)):
            log.warning(
                "the ledger does not take a record; it is tried again",
                reason=error.str(),
                partition=batch.partition.number,
            )
        batch.line.refused(batch, error.str())

    def _encode(self, batch: _Batch) -> bytes:
        settlements = Settlements(
            group=self._group,
            topic_id=batch.partition.topic_id,
            member=self._member,
            settled_at=time.time_ns() // 1_000_000,
            entries=[entry_of(settlement, self._ids) for settlement in batch.settlements],
            gaps=[] if batch.gap is None else [batch.gap],
        )
        return encode_settlements(settlements)


def _is_settled(settlement: Settlement) -> bool:
    return settlement.delivery.stage is Stage.SETTLED


def entry_of(settlement: Settlement, ids: LedgerIds = PLAIN) -> LedgerEntry:
    """A settlement as the ledger has it (CONTRACT section 10)."""
    delivery, ending = settlement.delivery, settlement.ending
    planned, record = delivery.planned, delivery.record
    track, facts = planned.track, record.facts
    return LedgerEntry(
        offset=record.offset,
        kind=planned.kind,
        outcome=ending.outcome,
        reason=ending.reason,
        event_id=cut(facts.event_id),
        visitor_id=ids.of(facts.visitor_id if track is None else track.visitor_id or None),
        account_id=ids.of(facts.account_id),
        event=None if track is None else cut(track.event),
        flag_key=cut(facts.flag_key),
        variation_key=cut(facts.variation_key),
        dedupe_key=planned.dedupe_key,
        duplicate_of=ending.duplicate_of,
        occurred_at=record.occurred_at,
        attempts=delivery.attempts,
        unseen=delivery.unseen,
        status=delivery.status,
    )

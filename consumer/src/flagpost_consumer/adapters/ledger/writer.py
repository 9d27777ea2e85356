"""Writes settlements to the ledger topic.

In: settlements, one by one, and gaps. Out: records with a batch of each partition's, on the same partition of the
ledger, and each batch that Kafka has acknowledged. A batch is written after a few milliseconds, or at once when as
many answers wait as are in flight at Pendo: sending stops when too many are unacknowledged. A ledger partition that
takes nothing delays no other. What waits is bounded by the engine's limit of pending deliveries.
"""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import structlog
from confluent_kafka import KafkaError

from flagpost_consumer.adapters.kafka.producer import KafkaProducer
from flagpost_consumer.adapters.kafka.write_line import WriteLine
from flagpost_consumer.core import records
from flagpost_consumer.core.books.deliveries import Duplicates, Partition, Settlement, Stage
from flagpost_consumer.core.books.leader_epochs import write_epochs
from flagpost_consumer.core.planning.ledger_ids import PLAIN, LedgerIds, cut
from flagpost_kafka.batches import batch_bytes
from flagpost_schemas import (
    Gap,
    LedgerEntry,
    Settlements,
    encode_settlements,
)
from flagpost_settings.logs import Lately

log = structlog.get_logger(__name__)

EPOCHS_HEADER = "flagpost-epochs"
"""Of a ledger record: the last offset that it settles of each leader epoch (docs/contract.md#ledger-records)."""
LINGER_SECONDS = 0.02
MAX_BATCH_SETTLEMENTS = 1000
"""The most settlements of one partition in one record, even if its ledger partition has taken nothing for long."""
ENTRY_BYTES = 300
"""The approximate size of a settlement in the ledger."""
MAX_RECORD_BYTES = 512 * 1024
"""Half of what a topic takes by default; a larger batch is halved."""

Ended: TypeAlias = Settlement | Duplicates
OnWritten = Callable[[Sequence[Ended], int], None]
"""Called with what has ended of one partition and the offset of its ledger record."""


@dataclass(slots=True, eq=False)
class _Batch:
    """The contents of one ledger record."""

    partition: Partition
    line: WriteLine[_Batch]
    ended: list[Ended]
    gap: Gap | None = None
    on_gap_written: Callable[[], None] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether any of it still belongs to this process."""
        return self.gap is not None or any(_is_settled(each) for each in self.ended)

    def takes(self, partition: Partition, count: int) -> bool:
        """Whether this many settlements of a partition fit in; a later assignment of it has another ledger record."""
        return self.partition is partition and _entries(self.ended) + count <= MAX_BATCH_SETTLEMENTS

    @property
    def size_bytes(self) -> int:
        """Its approximate size."""
        return ENTRY_BYTES * (1 + _entries(self.ended))


class LedgerWriter:
    """Writes one process's ledger records. Use it on the event loop only."""

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
        """`write_at`: with this many of Pendo's answers, settlements are written without waiting for more.

        `ids`: how visitor and account ids are written.
        """
        self._ids = ids
        # A record is retried until Kafka has it; with an idempotent producer none is written twice.
        own = {"message.timeout.ms": 0, "linger.ms": 0}
        self._producer = KafkaProducer(
            {"batch.size": batch_bytes(MAX_RECORD_BYTES), **config, **own}, topic, "the ledger"
        )
        self._group = group
        self._member = f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        self._on_written = on_written
        self._write_at = write_at
        self._lately = Lately()
        self._lines: dict[int, WriteLine[_Batch]] = {}
        self._waiting: dict[Partition, list[Ended]] = {}
        self._answers = 0
        """How many of these are Pendo's answers; the others, such as duplicates, delay no sending."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def stalled(self) -> dict[int, str]:
        """Partitions of which the ledger has taken nothing for a while although something waits, and why."""
        return {
            number: reason for number, line in self._lines.items() if (reason := line.stalled) is not None
        }

    def serve(self) -> None:
        """Handle delivery reports."""
        self._producer.serve()

    def made_anew(self) -> None:
        """The topic was created anew."""
        self._producer.renew()

    def forget(self, partitions: Collection[int]) -> None:
        """Partitions belong to another member: nothing of them that was not sent yet is written."""
        for number in partitions:
            if (line := self._lines.pop(number, None)) is not None:
                line.prune()

    def write(self, settlement: Settlement) -> None:
        """Write a settlement soon; `on_written` is called on the loop once Kafka has it."""
        self._answers += settlement.delivery.attempts > 0
        self._wait(settlement, settlement.delivery.partition)

    def write_duplicates(self, duplicates: Duplicates) -> None:
        """The same for duplicates for which no deliveries were made."""
        self._wait(duplicates, duplicates.partition)

    def _wait(self, ended: Ended, partition: Partition) -> None:
        waiting = self._waiting.setdefault(partition, [])
        waiting.append(ended)
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
        for partition, ended in waiting.items():
            line = self._line(partition.number)
            newest = line.newest
            if newest is not None and newest.takes(partition, _entries(ended)):
                newest.ended.extend(ended)
            else:
                line.offer(_Batch(partition, line, ended))

    def _line(self, number: int) -> WriteLine[_Batch]:
        line = self._lines.get(number)
        if line is None:
            line = self._lines[number] = WriteLine(
                self._write, lambda batch: batch.is_wanted, lambda batch: batch.size_bytes
            )
        return line

    def _write(self, batch: _Batch) -> None:
        # What was handed back meanwhile is left to the partition's next member.
        batch.ended = [each for each in batch.ended if _is_settled(each)]
        value = self._encode(batch)
        while len(value) > MAX_RECORD_BYTES and len(batch.ended) > 1:
            half = len(batch.ended) // 2
            batch.line.put_first(_Batch(batch.partition, batch.line, batch.ended[half:]))
            batch.ended = batch.ended[:half]
            value = self._encode(batch)
        self._producer.produce(
            value,
            lambda error, offset: self._reported(batch, error, offset),
            partition=batch.partition.number,
            headers=_headers_of(batch),
        )

    def _reported(self, batch: _Batch, error: KafkaError | None, offset: int) -> None:
        if error is None:
            if batch.on_gap_written is not None:
                batch.on_gap_written()
            if batch.ended:
                self._on_written(batch.ended, offset)
            batch.line.taken(batch)
            return
        if self._lately.is_news((error.str(), batch.partition.number)):
            log.warning(
                "the ledger does not take a record; it is retried",
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
            entries=[entry_of(each, self._ids) for each in batch.ended if not isinstance(each, Duplicates)],
            gaps=[] if batch.gap is None else [batch.gap],
        )
        encoded = [entry for each in batch.ended if isinstance(each, Duplicates) for entry in each.entries]
        return encode_settlements(settlements, encoded)


def _headers_of(batch: _Batch) -> list[tuple[str, bytes]]:
    last_of_each = batch.partition.epochs.last_of_each(chain.from_iterable(map(_offsets_of, batch.ended)))
    return [(EPOCHS_HEADER, write_epochs(last_of_each))] if last_of_each else []


def _offsets_of(ended: Ended) -> list[int]:
    if isinstance(ended, Duplicates):
        return [record.offset for record in ended.records]
    return [ended.delivery.record.offset]


def _is_settled(ended: Ended) -> bool:
    stage = ended.stage if isinstance(ended, Duplicates) else ended.delivery.stage
    return stage is Stage.SETTLED


def _entries(ended: Sequence[Ended]) -> int:
    """The number of entries that they become."""
    return sum([len(each.entries) if isinstance(each, Duplicates) else 1 for each in ended])


def entry_of(settlement: Settlement, ids: LedgerIds = PLAIN) -> LedgerEntry:
    """A settlement's ledger entry (docs/contract.md#ledger-records)."""
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

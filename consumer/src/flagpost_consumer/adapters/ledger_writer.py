"""Writes settlements to the ledger topic.

In: settlements, one by one, and gaps. Out: records with a batch of each partition's, on the same partition of the
ledger, and word of each batch that Kafka has acknowledged. A batch is written after a few milliseconds, or at
once when as many answers wait as are in flight at Pendo: sending stops when too many are unacknowledged.
"""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError

from flagpost_consumer.adapters.kafka_producer import KafkaProducer
from flagpost_consumer.core import records
from flagpost_consumer.core.records import Partition, Settlement, Stage
from flagpost_schemas import (
    Gap,
    LedgerEntry,
    Settlements,
    encode_settlements,
)

log = structlog.get_logger(__name__)

LINGER_SECONDS = 0.02
RETRY_SECONDS = 1.0
MAX_RECORD_BYTES = 512 * 1024
"""Half of what a topic takes by default; a batch beyond it is halved."""
MAX_TEXT_CHARACTERS = 1000
"""Longer ids and names are cut in the ledger: one entry must fit in a record whatever an event holds."""

OnWritten = Callable[[Sequence[Settlement], int], None]
"""Takes the settlements of one partition and the ledger offset under which they are."""


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
    ) -> None:
        """`write_at`: as many settlements are written without waiting for more."""
        # A record is tried until Kafka has it: with a producer that never doubles, none is there twice.
        self._producer = KafkaProducer({**config, "message.timeout.ms": 0, "linger.ms": 0})
        self._topic = topic
        self._group = group
        self._member = f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
        self._on_written = on_written
        self._write_at = write_at
        self._waiting: dict[Partition, list[Settlement]] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def serve(self) -> None:
        """Take in what the client has to say."""
        self._producer.serve()

    def write(self, settlement: Settlement) -> None:
        """Write a settlement soon; `on_written` is called on the loop once Kafka has it."""
        self._waiting.setdefault(settlement.delivery.partition, []).append(settlement)
        self._count += 1
        if self._count >= self._write_at:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._flush)

    def write_gap(self, partition: Partition, gap: records.Gap, on_written: Callable[[], None]) -> None:
        """Write that offsets were lost."""
        lost = Gap(from_offset=gap.from_offset, to_offset=gap.to_offset)
        self._produce(partition.number, self._encode(partition, [], [lost]), lambda _: on_written())

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting, self._count = self._waiting, {}, 0
        for partition, settlements in waiting.items():
            # What was handed back meanwhile is for whoever has the partition next.
            settled = [each for each in settlements if each.delivery.stage is Stage.SETTLED]
            if settled:
                self._write_batch(partition, settled)

    def _write_batch(self, partition: Partition, settlements: Sequence[Settlement]) -> None:
        value = self._encode(partition, [entry_of(settlement) for settlement in settlements], [])
        if len(value) > MAX_RECORD_BYTES and len(settlements) > 1:
            half = len(settlements) // 2
            self._write_batch(partition, settlements[:half])
            self._write_batch(partition, settlements[half:])
        else:
            self._produce(partition.number, value, lambda offset: self._on_written(settlements, offset))

    def _encode(self, partition: Partition, entries: list[LedgerEntry], gaps: list[Gap]) -> bytes:
        settlements = Settlements(
            group=self._group,
            topic_id=partition.topic_id,
            member=self._member,
            settled_at=time.time_ns() // 1_000_000,
            entries=entries,
            gaps=gaps,
        )
        return encode_settlements(settlements)

    def _produce(self, partition: int, value: bytes, on_offset: Callable[[int], None]) -> None:
        def report(error: KafkaError | None, offset: int) -> None:
            if error is None:
                on_offset(offset)
                return
            log.warning(
                "the ledger does not take a record; it is tried again",
                reason=error.str(),
                partition=partition,
            )
            asyncio.get_running_loop().call_later(
                RETRY_SECONDS, lambda: self._produce(partition, value, on_offset)
            )

        self._producer.produce(self._topic, value, report, partition=partition)


def entry_of(settlement: Settlement) -> LedgerEntry:
    """A settlement as the ledger has it (CONTRACT section 10)."""
    delivery, ending = settlement.delivery, settlement.ending
    planned, record = delivery.planned, delivery.record
    track, facts = planned.track, record.facts
    return LedgerEntry(
        offset=record.offset,
        kind=planned.kind.value,
        outcome=ending.outcome.value,
        reason=ending.reason.value,
        event_id=_cut(facts.event_id),
        visitor_id=_cut(facts.visitor_id if track is None else track.visitor_id or None),
        account_id=_cut(facts.account_id),
        event=None if track is None else _cut(track.event),
        flag_key=_cut(facts.flag_key),
        variation_key=_cut(facts.variation_key),
        dedupe_key=planned.dedupe_key,
        duplicate_of=ending.duplicate_of,
        occurred_at=record.occurred_at,
        attempts=delivery.attempts,
        unseen=delivery.unseen,
        status=delivery.status,
    )


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_TEXT_CHARACTERS else text[:MAX_TEXT_CHARACTERS]

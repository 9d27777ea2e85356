"""Settlements on their way to Kafka, and Kafka's acknowledgements on their way back.

In: the engine's settlements, gaps. Out: ledger records and dead letters; to the engine, what Kafka has acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import structlog

from flagpost_consumer.adapters.kafka.config import producer_config
from flagpost_consumer.adapters.kafka.dead_letter_writer import DeadLetterWriter
from flagpost_consumer.adapters.ledger.writer import LedgerWriter
from flagpost_consumer.adapters.metrics import Metrics
from flagpost_consumer.core.books.deliveries import (
    Duplicates,
    Partition,
    Settled,
    Settlement,
    each_settled,
)
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Outcome
from flagpost_consumer.core.records import Gap
from flagpost_consumer.service.defects import Defects, vital
from flagpost_consumer.settings import Settings, ledger_ids

log = structlog.get_logger(__name__)


class Writing:
    """Writes the settlements of one engine to Kafka."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        metrics: Metrics,
        defects: Defects,
        wake: Callable[[], None],
        on_settled: Callable[[Settled], None] | None,
    ) -> None:
        """`wake` lets the engine act soon; `on_settled` is called with every delivery whose ending counts."""
        kafka = settings.kafka
        self.defects = defects
        self._engine = engine
        self._metrics = metrics
        self._wake = wake
        self._on_settled = on_settled
        self.dead_letters = DeadLetterWriter(
            producer_config(kafka), kafka.dead_letter_topic, kafka.topic, self._dead_letter_written
        )
        self.ledger = LedgerWriter(
            producer_config(kafka),
            kafka.ledger_topic,
            kafka.group_id,
            self.acknowledged,
            write_at=settings.pendo.max_connections,
            ids=ledger_ids(settings),
        )

    def write(self, settlements: Iterable[Settlement]) -> None:
        """Write settlements to the ledger; dead letters go to their own topic first."""
        for settlement in settlements:
            if settlement.ending.outcome is Outcome.DEAD_LETTERED:
                self.dead_letters.write(settlement)
            else:
                self.ledger.write(settlement)

    @vital
    def _dead_letter_written(self, settlement: Settlement) -> None:
        self.ledger.write(settlement)

    def write_duplicates(self, duplicates: Iterable[Duplicates]) -> None:
        """Write the ledger records of duplicates."""
        for each in duplicates:
            self.ledger.write_duplicates(each)

    @vital
    def acknowledged(self, written: Sequence[Settlement | Duplicates], ledger_offset: int) -> None:
        """Kafka has these, at an offset of the ledger."""
        self._engine.acknowledged(written, ledger_offset)
        for each in written:
            if isinstance(each, Settlement):
                self._metrics.settled(each)
        if self._on_settled is not None:
            for settled in chain.from_iterable(map(each_settled, written)):
                self._on_settled(settled)
        self._wake()

    @vital
    def lose(self, partition: Partition, gap: Gap) -> None:
        """Offsets of a partition are gone: the ledger must have them before the position passes them."""
        if self._engine.is_current(partition):
            log.error(
                "offsets are lost: Kafka has deleted them, or they cannot be read",
                partition=partition.number,
                from_offset=gap.from_offset,
                to_offset=gap.to_offset,
            )
            self._engine.lose(partition, gap)
            self.ledger.write_gap(partition, gap, lambda: self._gap_written(partition, gap))

    @vital
    def _gap_written(self, partition: Partition, gap: Gap) -> None:
        self._engine.gap_written(partition, gap)
        self._wake()

    def forget(self, partitions: Sequence[int]) -> None:
        """Partitions belong to another member: nothing more of them is written."""
        self.dead_letters.forget(partitions)
        self.ledger.forget(partitions)

"""The ledger on the embedded Kafka: settlements are written to it, and nothing that was handed back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from engine_steps import TRACKS_ONLY, answer_all, damaged, engine_with, instant
from engine_world import OK, decision, record
from flagpost_consumer.adapters.ledger.writer import EPOCHS_HEADER, MAX_BATCH_SETTLEMENTS, LedgerWriter
from flagpost_consumer.core.books.deliveries import Duplicates, Settlement
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_schemas import decode_settlements
from kafka_reading import read_topic
from running import eventually

TOPIC = "ledger"
SECONDS = 30.0
"""How long a test waits for a condition that must become true."""


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({TOPIC: 2}) as embedded:
        yield embedded


class Written:
    """A ledger writer, and the settlements that it has reported as written, each list with its ledger offset."""

    def __init__(self, kafka: EmbeddedKafka, write_at: int = 1_000) -> None:
        self.told: list[tuple[list[Settlement | Duplicates], int]] = []
        config = {"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True}
        self.ledger = LedgerWriter(config, TOPIC, "group", self._on_written, write_at=write_at)

    def _on_written(self, written: Sequence[Settlement | Duplicates], offset: int) -> None:
        self.told.append((list(written), offset))

    def write(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            self.ledger.write(settlement)

    async def has_told_of(self, count: int) -> None:
        await eventually(lambda: sum(len(settlements) for settlements, _ in self.told) >= count, SECONDS)


def settled(engine: Engine, partition: int, *offsets: int) -> list[Settlement]:
    """Settlements of damaged records, which end without an answer of Pendo."""
    engine.receive([damaged(offset, partition) for offset in offsets], instant(0.0))
    return engine.poll(instant(0.0)).settlements


def answered(engine: Engine, *offsets: int) -> list[Settlement]:
    """Settlements of decisions that Pendo has accepted."""
    engine.receive([record(decision(f"v{offset}"), offset) for offset in offsets], instant(0.0))
    assert answer_all(engine, 2.0, OK) == len(offsets)
    return engine.poll(instant(2.0)).settlements


def in_kafka(kafka: EmbeddedKafka) -> list[tuple[int, list[int]]]:
    """The partition and the offsets of each record of the ledger."""
    return [
        (read.partition, [entry.offset for entry in decode_settlements(read.value or b"").entries])
        for read in read_topic(kafka.bootstrap_servers, TOPIC)
    ]


async def test_settlements_of_a_partition_are_one_record_on_the_same_partition(kafka: EmbeddedKafka) -> None:
    engine, written = engine_with(TRACKS_ONLY, partitions=[0, 1]), Written(kafka)
    first, second = settled(engine, 0, 3, 4), settled(engine, 1, 7)
    written.write([*first, *second])
    await written.has_told_of(3)
    assert sorted(written.told, key=lambda told: len(told[0])) == [(second, 0), (first, 0)]
    assert await asyncio.to_thread(in_kafka, kafka) == [(0, [3, 4]), (1, [7])]


async def test_a_ledger_record_names_the_leaders_that_wrote_the_settled_records(
    kafka: EmbeddedKafka,
) -> None:
    engine, written = engine_with(TRACKS_ONLY), Written(kafka)
    partition = engine.current(0)
    assert partition is not None
    written.write(settled(engine, 0, 3))
    await written.has_told_of(1)
    partition.epochs.begins(4, 6)
    partition.epochs.begins(6, 7)
    written.write(settled(engine, 0, 4, 5, 6))
    await written.has_told_of(4)
    read = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, TOPIC)
    assert [list(each.headers) for each in read] == [[], [(EPOCHS_HEADER, b"6:5,7:6")]]


async def test_settlements_handed_back_before_they_were_written_are_not_written(kafka: EmbeddedKafka) -> None:
    """docs/contract.md#accounting: returned is never in the ledger. The next member starts the delivery again."""
    engine, written = engine_with(TRACKS_ONLY, partitions=[0, 1]), Written(kafka)
    gone, kept = settled(engine, 0, 3), settled(engine, 1, 7)
    written.write([*gone, *kept])
    engine.forget([0], instant(0.0))
    await written.has_told_of(1)
    assert written.told == [(kept, 0)]
    assert await asyncio.to_thread(in_kafka, kafka) == [(1, [7])]


async def test_when_everything_was_handed_back_nothing_is_written_and_writing_goes_on(
    kafka: EmbeddedKafka,
) -> None:
    engine, written = engine_with(TRACKS_ONLY, partitions=[0, 1]), Written(kafka, write_at=2)
    gone = settled(engine, 0, 3, 4)
    engine.forget([0], instant(0.0))
    written.write(gone)
    kept = settled(engine, 1, 7)
    written.write(kept)
    await written.has_told_of(1)
    assert await asyncio.to_thread(in_kafka, kafka) == [(1, [7])]


async def test_enough_answers_are_written_without_waiting_for_more(kafka: EmbeddedKafka) -> None:
    """Sending waits for them (docs/guarantees.md#sent-twice): later settlements go into another record."""
    engine, written = engine_with(TRACKS_ONLY), Written(kafka, write_at=3)
    written.write(answered(engine, 1, 2, 3, 4, 5))
    await written.has_told_of(5)
    assert await asyncio.to_thread(in_kafka, kafka) == [(0, [1, 2, 3]), (0, [4, 5])]
    assert [offset for _, offset in written.told] == [0, 1]


async def test_settlements_without_an_answer_wait_for_a_larger_batch(kafka: EmbeddedKafka) -> None:
    """No sending waits for them, and a record for every few of them costs more than the settlements in it."""
    engine, written = engine_with(TRACKS_ONLY), Written(kafka, write_at=3)
    written.write(settled(engine, 0, 1, 2, 3, 4, 5))
    await written.has_told_of(5)
    assert await asyncio.to_thread(in_kafka, kafka) == [(0, [1, 2, 3, 4, 5])]


async def test_no_record_has_more_settlements_than_allowed(kafka: EmbeddedKafka) -> None:
    engine, written = engine_with(TRACKS_ONLY), Written(kafka)
    written.write(settled(engine, 0, *range(2 * MAX_BATCH_SETTLEMENTS + 1)))
    await written.has_told_of(2 * MAX_BATCH_SETTLEMENTS + 1)
    records = await asyncio.to_thread(in_kafka, kafka)
    assert [len(offsets) for _, offsets in records] == [MAX_BATCH_SETTLEMENTS, MAX_BATCH_SETTLEMENTS, 1]

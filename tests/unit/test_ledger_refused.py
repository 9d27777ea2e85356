"""The ledger when Kafka does not accept its records: each partition waits by itself, until Kafka accepts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import pytest
from confluent_kafka import KafkaError

from flagpost_consumer.adapters.kafka import write_line
from flagpost_consumer.adapters.ledger.writer import MAX_BATCH_SETTLEMENTS, LedgerWriter
from flagpost_consumer.core.books.deliveries import Duplicates, Settlement, each_settled
from flagpost_consumer.core.records import Gap
from flagpost_schemas import decode_settlements
from mock_kafka import FATAL, INIT_PRODUCER_ID, PRODUCE, MockKafka
from running import eventually
from settlements import DeadEngine

SECONDS = 60.0
TOPIC = "ledger"


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka({TOPIC: 3}) as kafka:
        yield kafka


class Written:
    """The offsets whose settlements the ledger reports as written, by partition."""

    def __init__(self) -> None:
        self.offsets: dict[int, list[int]] = {}

    def __call__(self, written: Sequence[Settlement | Duplicates], _: int) -> None:
        for settled in chain.from_iterable(map(each_settled, written)):
            self.offsets.setdefault(settled.record.partition, []).append(settled.record.offset)


def writer_on(kafka: MockKafka, written: Written) -> LedgerWriter:
    config = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "enable.idempotence": True,
        "reconnect.backoff.max.ms": 100,
        "retry.backoff.ms": 10,
    }
    return LedgerWriter(config, TOPIC, "flagpost", written, write_at=4)


def offsets_in(kafka: MockKafka, partition: int) -> list[list[int]]:
    """The offsets that each record of a partition of the ledger settles."""
    return [
        [entry.offset for entry in decode_settlements(message.value() or b"").entries]
        for message in kafka.read(TOPIC)
        if message.partition() == partition
    ]


async def test_a_fatal_error_costs_no_settlement(kafka: MockKafka) -> None:
    """Before the fix, nothing was acknowledged any more: sending stopped for good, while every probe passed."""
    written = Written()
    writer = writer_on(kafka, written)
    engine = DeadEngine(3)
    kafka.answer(PRODUCE, 0, FATAL)
    for _ in range(25):
        for partition in range(3):
            for settlement in engine.settlements(4, partition):
                writer.write(settlement)
    await eventually(lambda: sum(map(len, written.offsets.values())) == 300, SECONDS)
    for partition in range(3):
        assert sorted(written.offsets[partition]) == list(range(100)), "each once"
        found = [offset for offsets in offsets_in(kafka, partition) for offset in offsets]
        assert sorted(set(found)) == list(range(100))


async def test_a_consumer_without_any_right_writes_once_it_has_one(kafka: MockKafka) -> None:
    kafka.answer(INIT_PRODUCER_ID, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    written = Written()
    writer = writer_on(kafka, written)
    for settlement in DeadEngine(1).settlements(4):
        writer.write(settlement)
    await eventually(lambda: written.offsets == {0: [0, 1, 2, 3]}, SECONDS)


async def test_a_partition_that_cannot_be_written_holds_up_no_other(
    kafka: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_line, "MAX_SENT_BYTES", 3000)
    monkeypatch.setattr(write_line, "STALLED_SECONDS", 0.5)
    written = Written()
    writer = writer_on(kafka, written)
    engine = DeadEngine(3)
    kafka.set_leader(TOPIC, 1, there=False)
    for _ in range(500):
        for settlement in engine.settlements(4, 1):
            writer.write(settlement)
    for partition in (0, 2):
        for settlement in engine.settlements(4, partition):
            writer.write(settlement)
    await eventually(lambda: len(written.offsets.get(0, [])) == len(written.offsets.get(2, [])) == 4, SECONDS)
    assert 1 not in written.offsets
    await eventually(lambda: writer.stalled, SECONDS)
    assert set(writer.stalled) == {1}
    # Only a little of it is in librdkafka; the rest is combined into large records.
    assert len(writer._producer._producer) <= 10
    kafka.set_leader(TOPIC, 1, there=True)
    await eventually(lambda: len(written.offsets.get(1, [])) == 2000, SECONDS)
    sizes = [len(offsets) for offsets in offsets_in(kafka, 1)]
    assert sum(sizes) == 2000
    assert max(sizes) > 100
    assert max(sizes) <= MAX_BATCH_SETTLEMENTS
    assert writer.stalled == {}


async def test_settlements_that_were_handed_over_and_not_sent_are_not_written(
    kafka: MockKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the fix, settlements that were handed back were written when the partition had a leader again."""
    monkeypatch.setattr(write_line, "MAX_SENT_BYTES", 1)
    written = Written()
    writer = writer_on(kafka, written)
    engine = DeadEngine(2)
    kafka.set_leader(TOPIC, 0, there=False)
    for settlement in engine.settlements(4, 0) + engine.settlements(40, 0):
        writer.write(settlement)
    engine.hand_over(0)
    writer.forget([0])
    kafka.set_leader(TOPIC, 0, there=True)
    for settlement in engine.settlements(4, 1):
        writer.write(settlement)
    await eventually(lambda: len(written.offsets.get(1, [])) == 4 and not writer._producer._expected, SECONDS)
    assert sum(map(len, offsets_in(kafka, 0))) <= 4


async def test_a_gap_is_written_and_reported_once(kafka: MockKafka) -> None:
    told: list[str] = []
    writer = writer_on(kafka, Written())
    partition = DeadEngine(1).engine.current(0)
    assert partition is not None
    writer.write_gap(partition, Gap(3, 9), lambda: told.append("written"))
    await eventually(lambda: told, SECONDS)
    (message,) = kafka.read(TOPIC)
    assert [(g.from_offset, g.to_offset) for g in decode_settlements(message.value() or b"").gaps] == [(3, 9)]
    assert told == ["written"]

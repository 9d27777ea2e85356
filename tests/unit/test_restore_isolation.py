"""Restoring where Kafka does not answer for some partitions: the others are restored, and those once it does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from flagpost_consumer.adapters.kafka.partition_reading import Start
from flagpost_consumer.adapters.kafka.topic_ids import TopicIds
from flagpost_consumer.adapters.ledger import restore
from flagpost_consumer.adapters.ledger.restore import LedgerRestore, Restored, _Known, _Reading
from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.books.deliveries import Partition
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.policy import DedupeSettings, Policy
from flagpost_consumer.settings import KafkaSettings
from mock_kafka import MockKafka
from running import eventually

EVENTS, LEDGER = "flagpost.events", "flagpost.ledger"
NO_FILES: Mapping[str, str] = MappingProxyType({})


class Restores:
    """A restore, and the partitions that it has told so far."""

    def __init__(self, bootstrap_servers: str, properties_files: Mapping[str, str] = NO_FILES) -> None:
        self.restored: dict[int, Restored] = {}
        handler = SimpleNamespace(on_restored=self._take)
        ids = SimpleNamespace(get=lambda _: None, ask=frozenset)
        kafka = KafkaSettings(
            bootstrap_servers=bootstrap_servers,
            properties={"log_level": "0"},
            properties_files=dict(properties_files),
        )
        self.restore = LedgerRestore(
            kafka, DedupeSettings(), cast("Any", handler), asyncio.get_running_loop(), cast("TopicIds", ids)
        )

    def start(self, numbers: Iterable[int]) -> None:
        self.restore.start([Partition(number, 0.0, Dedupe(1.0, 1, DedupeCounts())) for number in numbers])

    def _take(self, restored: Restored) -> None:
        self.restored[restored.partition.number] = restored


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "CALL_SECONDS", 1.0)
    monkeypatch.setattr(restore, "RETRY_SECONDS", 0.1)


async def test_partitions_whose_leader_nobody_reaches_keep_no_others_waiting() -> None:
    """Before, one such partition, of the events topic or of the ledger, kept all of the same consumer from being
    restored for as long as its leader was away.
    """
    with MockKafka({EVENTS: 5, LEDGER: 5}) as kafka:
        kafka.set_group_coordinator("flagpost", there=True)
        kafka.set_leader(LEDGER, 1, there=False)
        kafka.set_leader(EVENTS, 2, there=False)
        restores = Restores(kafka.bootstrap_servers)
        restores.start([0, 1, 2, 3])
        await eventually(lambda: restores.restored.keys() >= {0, 3})
        restores.start([4])
        await eventually(lambda: restores.restored.keys() >= {0, 3, 4})
        assert restores.restored.keys() == {0, 3, 4}
        kafka.set_leader(LEDGER, 1, there=True)
        await eventually(lambda: restores.restored.keys() >= {0, 1, 3, 4})
        assert restores.restored.keys() == {0, 1, 3, 4}
        kafka.set_leader(EVENTS, 2, there=True)
        await eventually(lambda: len(restores.restored) == 5)


async def test_a_file_of_properties_that_is_empty_for_a_moment_holds_no_partition(tmp_path: Path) -> None:
    """Before, the partitions of that assignment were held until they were assigned again."""
    file = tmp_path / "rack"
    file.write_text("")
    with MockKafka({EVENTS: 1, LEDGER: 1}) as kafka:
        kafka.set_group_coordinator("flagpost", there=True)
        restores = Restores(kafka.bootstrap_servers, {"client.rack": str(file)})
        restores.start([0])
        await asyncio.sleep(0.3)
        assert not restores.restored
        file.write_text("rack-1")
        await eventually(lambda: restores.restored.keys() == {0})


async def test_a_ledger_that_cannot_be_read_keeps_no_other_partition_waiting() -> None:
    """Before, an error of one partition of the ledger, such as a damaged batch, began the restore of all again."""
    restores = Restores("127.0.0.1:1")
    taking = restores.restore
    restores.start([])
    readings = {
        number: _Reading(
            Partition(number, 0.0, Dedupe(1.0, 1, DedupeCounts())),
            Restoration(0, Policy().dedupe),
            Start(0, None, "now"),
            None,
            0.0,
            0,
            1,
        )
        for number in range(2)
    }
    known = _Known()
    damaged, end = KafkaError(KafkaError._BAD_MSG), KafkaError(KafkaError._PARTITION_EOF)
    for number, error in ((1, damaged), (0, end)):
        message = SimpleNamespace(
            error=lambda error=error: error, partition=lambda number=number: number, offset=lambda: 0
        )
        taking._take(readings, cast("Any", message), known)
    await eventually(lambda: restores.restored.keys() == {0})
    assert not readings
    assert known.first_error is not None
    assert known.first_error.str().startswith(f"{LEDGER}, partition 1: ")
    lost = SimpleNamespace(
        error=lambda: KafkaError(KafkaError._TRANSPORT), partition=lambda: -1, offset=lambda: -1
    )
    with pytest.raises(KafkaException):
        taking._take(readings, cast("Any", lost), known)

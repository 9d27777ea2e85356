"""A consumer's memory at the default settings in long floods, each of which once killed a consumer: `make chaos`.

The short forms are in tests/integration/test_consumer_memory.py.
"""

from __future__ import annotations

import asyncio
import csv
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from chaos.storm import LONG
from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from memory_floods import (
    CHART_BYTES,
    Flood,
    check_memory,
    decisions,
    large_tracks,
    produce_all,
    tiny_fields,
    unknown_ids,
    wide_letters,
    write_claims,
)
from real_kafka.broker import KafkaBroker
from running import FLAGPOST, RunningConsumer, environment, eventually, total
from scenes import Scene

pytestmark = [
    pytest.mark.usefixtures("cold_starts"),
    pytest.mark.thorough,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not LONG, reason="minutes each: make chaos"),
]

SECONDS = 900.0
PARTITIONS = 24
VISITORS = 1_000_000
MAX_ENTRIES = 2_000_000


@pytest.fixture
async def wide_scene(kafka: KafkaBroker, fresh_name: Callable[[str], str]) -> AsyncIterator[Scene]:
    """A scene with the default number of partitions and the default linger."""
    async with PendoStandIn() as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        scene = Scene(kafka, pendo, fresh_name("memory"), partitions=PARTITIONS)
        del scene.settings["metadata.linger_seconds"]
        yield scene


async def settled(consumer: RunningConsumer, count: int, **labels: str) -> None:
    await eventually(
        lambda: total(consumer.scrape(), "flagpost_deliveries_total", **labels) >= count,
        SECONDS,
        what=f"{count} deliveries of {labels}",
    )


async def paused(consumer: RunningConsumer, seconds: float = 20.0) -> None:
    """Wait until intake has paused, and then for some seconds, in which memory must not grow."""
    await eventually(lambda: any("intake paused" in line for line in consumer.lines), SECONDS)
    await asyncio.sleep(seconds)


def take_nothing(scene: Scene, operation: AlterConfigOpType) -> None:
    """SET makes the dead-letter topic refuse each write, DELETE makes it accept them again."""
    entry = ConfigEntry("max.message.bytes", "1", incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, scene.dead_letters, incremental_configs=[entry])
    admin = scene.kafka.admin()
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(stretched(20))


def begin_import(scene: Scene, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(FLAGPOST), "import", str(path), "--type", "visitor", "--json"],
        env=environment(scene.settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def test_an_import_of_a_million_visitors(wide_scene: Scene, tmp_path: Path) -> None:
    """A million visitors with five columns; before the fix the consumer needed 579 MB for them."""
    path = tmp_path / "visitors.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["visitor_id", "plan", "age:integer", "active:boolean", "city", "zip"])
        table.writerows(
            (f"visitor-{n:09}", ("free", "silver", "gold")[n % 3], n % 90, "true", "Bern", f"0{n % 9999:04}")
            for n in range(VISITORS)
        )
    with wide_scene.consume() as consumer:
        importing = begin_import(wide_scene, path)
        await settled(consumer, VISITORS, kind="visitor_metadata")
        assert await asyncio.to_thread(importing.wait, stretched(SECONDS)) == 0
        check_memory(consumer)


async def test_decisions_and_claims_up_to_max_entries(wide_scene: Scene) -> None:
    """Two million claims from a ledger, and then decisions that push out the oldest claims."""
    await asyncio.to_thread(write_claims, wide_scene, MAX_ENTRIES)
    await asyncio.to_thread(produce_all, wide_scene, decisions(50_000))
    with wide_scene.consume() as consumer:
        await eventually(lambda: consumer.value("flagpost_dedupe_entries") == MAX_ENTRIES, SECONDS)
        await settled(consumer, 50_000, kind="track")
        assert consumer.value("flagpost_dedupe_entries") == MAX_ENTRIES
        check_memory(consumer, CHART_BYTES)


async def test_20_000_events_of_60_kb_while_pendo_is_down(wide_scene: Scene) -> None:
    wide_scene.pendo.faults.outage(503, Endpoint.TRACK, Endpoint.METADATA)
    await asyncio.to_thread(produce_all, wide_scene, large_tracks(20_000, 60_000))
    with wide_scene.consume() as consumer:
        await paused(consumer)
        check_memory(consumer)


async def test_20_000_records_with_20_000_tiny_fields(wide_scene: Scene) -> None:
    """Each record is invalid, and takes no more memory than its bytes."""
    await asyncio.to_thread(produce_all, wide_scene, tiny_fields(20_000, 10_000))
    with wide_scene.consume() as consumer:
        await settled(consumer, 20_000, reason="invalid")
        check_memory(consumer)


@pytest.mark.parametrize(
    "make",
    [lambda: tiny_fields(40_000, 1_000), lambda: wide_letters(20_000)],
    ids=["tiny fields", "wide letters"],
)
async def test_metadata_that_becomes_large_while_pendo_is_down(
    wide_scene: Scene, make: Callable[[], Iterable[Flood]]
) -> None:
    wide_scene.pendo.faults.outage(503, Endpoint.TRACK, Endpoint.METADATA)
    await asyncio.to_thread(produce_all, wide_scene, make())
    with wide_scene.consume() as consumer:
        await paused(consumer)
        wide_scene.pendo.faults.restore(Endpoint.TRACK, Endpoint.METADATA)
        await settled(consumer, 2_000, kind="visitor_metadata")
        check_memory(consumer)


async def test_unknown_ids_whose_dead_letters_are_not_taken(wide_scene: Scene) -> None:
    """The records wait in the consumer, and their copies wait in Kafka's client."""
    take_nothing(wide_scene, AlterConfigOpType.SET)
    await asyncio.to_thread(produce_all, wide_scene, unknown_ids(20_000, 60_000))
    with wide_scene.consume() as consumer:
        await paused(consumer)
        check_memory(consumer)
        take_nothing(wide_scene, AlterConfigOpType.DELETE)
        await settled(consumer, 5_000, reason="unknown_schema")
        # Now a gigabyte runs through the consumer, from a client that reads ahead to one that batches its writes.
        check_memory(consumer, CHART_BYTES)

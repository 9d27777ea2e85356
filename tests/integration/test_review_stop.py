"""A stop while Kafka is absent, and dead letters of which Kafka refuses a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from confluent_kafka import admin

from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from flagpost_schemas import TrackEvent
from real_kafka.broker import KafkaBroker, OwnBroker
from scenes import Scene


def event(number: int, visitor: str, size: int = 0) -> TrackEvent:
    return TrackEvent(
        event_id=f"event-{number}",
        occurred_at=time.time_ns() // 1_000_000,
        visitor_id=visitor,
        event="Step",
        properties={
            "text": "".join(chr(0x4E00 + (number * 7919 + n * n) % 20_000) for n in range(size // 3))
        },
    )


async def test_a_stop_while_kafka_is_away_takes_no_longer_than_the_drain(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        scene = Scene(kafka_broker, pendo, fresh_name("away"), partitions=2)
        with scene.consume(delivery__drain_seconds=3) as consumer:
            scene.publish([event(n, f"v{n}") for n in range(20)])
            await pendo.received.until(lambda: len(pendo.received.of(Endpoint.TRACK)) >= 20, 60)
            await asyncio.to_thread(kafka_broker.kill)
            assert await consumer.stop(seconds=30) in {0, 1}


async def test_a_dead_letter_loses_its_value_only_for_its_own_size(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str]
) -> None:
    """docs/contract.md#dead-letters: one refused for its own size loses its value; others of its batch do not."""
    async with PendoStandIn() as pendo:
        scene = Scene(kafka_broker, pendo, fresh_name("batch"), partitions=1)
        limit_records(kafka_broker, scene.dead_letters, 200_000)
        scene.publish([event(n, f"{'v' * 200}{n}", size=30_000) for n in range(40)])
        with scene.consume(mapping__properties_policy="reject") as consumer:
            await consumer.caught_up(scene.partitions)
            letters = await asyncio.to_thread(scene.read_dead_letters, 40)
            assert await consumer.stop() == 0
        assert len(letters) == 40
        assert [letter["headers"].get("flagpost-truncated") for letter in letters] == [None] * 40


def limit_records(kafka: KafkaBroker, topic: str, max_bytes: int) -> None:
    client = admin.AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    entry = admin.ConfigEntry(  # type: ignore[attr-defined]
        "max.message.bytes",
        str(max_bytes),
        incremental_operation=admin.AlterConfigOpType.SET,  # type: ignore[attr-defined]
    )
    resource = admin.ConfigResource(  # type: ignore[attr-defined]
        admin.ResourceType.TOPIC,  # type: ignore[attr-defined]
        topic,
        incremental_configs=[entry],
    )
    for future in client.incremental_alter_configs([resource]).values():
        future.result(stretched(20))

"""Batches in the log that take more memory than a consumer may use."""

from __future__ import annotations

import asyncio
import time

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from deadlines import stretched
from flagpost_schemas import Gap, TrackEvent, decode_settlements
from kafka_reading import read_topic
from running import eventually
from scenes import Scene
from traffic import tracks

pytestmark = pytest.mark.usefixtures("cold_starts")

MOST_BYTES = 400 * 1024 * 1024
RECORDS = 800_000


def publish_as_one_batch(scene: Scene, count: int, value: bytes, compression: str) -> None:
    """Produce equal records to partition 0 as one compressed batch, or as few batches as possible."""
    producer = Producer(
        {
            "bootstrap.servers": scene.kafka.bootstrap_servers,
            "compression.type": compression,
            "linger.ms": 20_000,
            "batch.num.messages": 1_000_000,
            "batch.size": 2_000_000_000,
            "message.max.bytes": 1_000_000_000,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
        }
    )
    failed: list[object] = []

    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    for _ in range(count):
        producer.produce(scene.topic, value, b"k", partition=0, on_delivery=report)
    assert producer.flush(stretched(120)) == 0
    assert not failed, failed[0]


def flowing(name: str, count: int) -> list[TrackEvent]:
    """`count` events, each of its own visitor."""
    now_ms = time.time_ns() // 1_000_000
    return [
        TrackEvent(
            event_id=f"{name}-{number}",
            occurred_at=now_ms,
            visitor_id=f"{name}-{number}",
            event="Step",
            properties={"n": number},
        )
        for number in range(count)
    ]


@pytest.mark.timeout(300)
async def test_a_batch_that_becomes_too_large_is_passed_over_as_a_gap(scene: Scene) -> None:
    """Before, 31 KB of zstd became 1.7 GB in the consumer: every few bytes a message, all of them held at once."""
    scene.settings["decisions.visitor_metadata"] = False
    await asyncio.to_thread(scene.publish, flowing("before", 40))
    await asyncio.to_thread(publish_as_one_batch, scene, RECORDS, b"0123456789", "zstd")
    await asyncio.to_thread(scene.publish, flowing("behind", 40))
    with scene.consume() as consumer:
        await eventually(lambda: len(tracks(scene.pendo.received)) == 80, 120)
        await consumer.caught_up(scene.partitions)
        assert consumer.peak_bytes < MOST_BYTES, f"{consumer.peak_bytes / 1e6:.0f} MB"
        lost = consumer.value("flagpost_offsets_lost_total")
        assert await consumer.stop() == 0
    read = await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.ledger)
    gaps = [gap for each in read for gap in decode_settlements(each.value).gaps]
    assert lost == RECORDS
    assert sum(gap.to_offset - gap.from_offset for gap in gaps) == RECORDS
    assert all(isinstance(gap, Gap) for gap in gaps)


def allow_batches_of(scene: Scene, size_bytes: int) -> None:
    """Let the events topic accept batches of this size."""
    entry = ConfigEntry("max.message.bytes", str(size_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, scene.topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": scene.kafka.bootstrap_servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(stretched(20))


def publish_large(scene: Scene, size_bytes: int) -> None:
    """Produce one large record; retries until the broker applies the new limit."""
    deadline = time.monotonic() + stretched(30)
    while True:
        try:
            publish_as_one_batch(scene, 1, b"x" * size_bytes, "none")
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        else:
            return


@pytest.mark.timeout(200)
async def test_what_came_before_an_unreadable_batch_of_one_record_is_delivered(scene: Scene) -> None:
    """Before, 11 of the 40 events were lost: the batch is the log's end, so its own is known at once, and its gap was
    told before what had been read with it.
    """
    scene.settings["decisions.visitor_metadata"] = False
    await asyncio.to_thread(scene.publish, flowing("before", 40))
    await asyncio.to_thread(publish_as_one_batch, scene, 1, bytes(20_000_000), "zstd")
    with scene.consume() as consumer:
        await eventually(lambda: consumer.value("flagpost_offsets_lost_total") >= 1, 60)
        await consumer.caught_up(scene.partitions)
        await eventually(lambda: len(tracks(scene.pendo.received)) == 40)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.timeout(300)
async def test_a_batch_larger_than_the_consumers_limit_stops_no_partition(
    scene: Scene, protocol: str
) -> None:
    """Before, 0 of 560 events in any partition were read after a batch of 6 MB in one of them, with green probes: the
    Kafka client refused the broker's answer, and requested the same again.
    """
    scene.settings |= {"decisions.visitor_metadata": False, "kafka.group_protocol": protocol}
    await asyncio.to_thread(allow_batches_of, scene, 20_000_000)
    await asyncio.to_thread(publish_large, scene, 6_000_000)
    with scene.consume() as consumer:
        await asyncio.to_thread(scene.publish, flowing("behind", 40))
        await eventually(lambda: len(tracks(scene.pendo.received)) == 40, 120)
        # A later batch that is even larger.
        await asyncio.to_thread(publish_large, scene, 12_000_000)
        await asyncio.to_thread(scene.publish, flowing("later", 40))
        await eventually(lambda: len(tracks(scene.pendo.received)) == 80, 120)
        await consumer.caught_up(scene.partitions)
        assert consumer.value("flagpost_offsets_lost_total") == 0
        labels = {"kind": "unknown", "outcome": "dead_lettered", "reason": "invalid"}
        assert consumer.value("flagpost_deliveries_total", **labels) == 2
        assert consumer.peak_bytes < MOST_BYTES, f"{consumer.peak_bytes / 1e6:.0f} MB"
        assert await consumer.stop() == 0

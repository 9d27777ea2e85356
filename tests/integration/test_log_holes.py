"""Offsets that are missing in the log: holes, which are no loss and cost no time, and gaps, which are reported."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from deadlines import stretched
from flagpost_schemas import Gap, TrackEvent, decode_settlements, encode_single_object
from kafka_reading import read_topic
from running import eventually, total
from scenes import Scene
from traffic import tracks

RECORDS = 300


def event(number: int) -> TrackEvent:
    """One event, of a visitor of its own."""
    now_ms = time.time_ns() // 1_000_000
    return TrackEvent(
        event_id=f"e-{number}",
        occurred_at=now_ms,
        visitor_id=f"visitor-{number}",
        event="Step",
        properties={"n": number},
    )


def publish_in_transactions(scene: Scene, count: int) -> None:
    """Publish each record in a transaction of its own: the marker after each record takes an offset."""
    producer = Producer(
        {
            "bootstrap.servers": scene.kafka.bootstrap_servers,
            "transactional.id": scene.topic,
            "linger.ms": 0,
        }
    )
    producer.init_transactions(20)
    for number in range(count):
        producer.begin_transaction()
        producer.produce(scene.topic, encode_single_object(event(number)), str(number).encode(), partition=0)
        producer.commit_transaction(20)


def delete_before(scene: Scene, partition: int, offset: int) -> None:
    """Delete a partition's records before an offset, as retention does."""
    admin = AdminClient({"bootstrap.servers": scene.kafka.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(scene.topic, partition, offset)]).values():
        future.result(stretched(20))


def gaps_told(scene: Scene) -> list[Gap]:
    """The gaps in the ledger."""
    read = read_topic(scene.kafka.bootstrap_servers, scene.ledger)
    return [gap for each in read for gap in decode_settlements(each.value).gaps]


async def test_transactions_of_one_record_each_are_read_as_fast_as_any(scene: Scene) -> None:
    """Before, each hole cost half a second to ask where the log begins: 300 records took 150 s, and the liveness
    probe failed after 61 s.
    """
    scene.settings["decisions.visitor_metadata"] = False
    await asyncio.to_thread(publish_in_transactions, scene, RECORDS)
    with scene.consume() as consumer:
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() == RECORDS, 30)
        await consumer.caught_up(scene.partitions)
        assert consumer.value("flagpost_offsets_lost_total") == 0
        assert consumer.get("/livez")[0] == 200
        assert await consumer.stop() == 0
    assert len(tracks(scene.pendo.received)) == RECORDS
    assert gaps_told(scene) == []


async def test_records_that_are_deleted_after_they_were_fetched_are_not_lost(scene: Scene) -> None:
    """Records that retention deletes now may already have been fetched. Before, 200 of 250 fetched records were
    reported as lost, because a hole among them made the consumer ask where the log begins now.
    """
    scene.settings |= {"decisions.visitor_metadata": False, "delivery.max_pending": 20}
    await asyncio.to_thread(publish_in_transactions, scene, 200)
    scene.pendo.faults.latency_seconds = 0.05
    with scene.consume(pendo__max_connections=1) as consumer:
        await eventually(lambda: scene.pendo.received.recorded() >= 1)
        await asyncio.to_thread(delete_before, scene, 0, 390)
        await consumer.caught_up(scene.partitions)
        lost = int(consumer.value("flagpost_offsets_lost_total"))
        assert await consumer.stop() == 0
    parsed: list[Any] = [request.parsed for request in tracks(scene.pendo.received)]
    sent = {each["properties"]["n"] for each in parsed}
    told = gaps_told(scene)
    assert sum(gap.to_offset - gap.from_offset for gap in told) == lost
    # The offset of each record is twice its number.
    missing = {number for number in range(200) if number not in sent}
    within = {n for n in range(200) for gap in told if gap.from_offset <= 2 * n < gap.to_offset}
    assert missing == within


async def test_the_lag_grows_while_intake_is_paused(scene: Scene) -> None:
    """Before, it froze: the client learns the end of a partition as it fetches, and it fetches nothing from paused
    partitions. In every outage, 200 unread events showed as 2.
    """
    scene.settings |= {"decisions.visitor_metadata": False, "delivery.max_pending": 10}
    scene.pendo.faults.outage(503)
    with scene.consume() as consumer:
        await asyncio.to_thread(scene.publish, [event(number) for number in range(12)])
        await eventually(lambda: consumer.status()["intake_paused"])
        await asyncio.to_thread(scene.publish, [event(number) for number in range(12, 212)])
        await eventually(lambda: total(consumer.scrape(), "flagpost_consumer_lag") == 212, 20)
        scene.pendo.faults.restore()
        await consumer.caught_up(scene.partitions, 120)
        assert await consumer.stop() == 0

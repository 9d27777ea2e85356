"""The ledger on a real Kafka: what a consumer reads from it, what makes it hold a partition, and deleted offsets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from deadlines import stretched
from engine_world import decision
from flagpost_schemas import (
    DecisionEvent,
    Gap,
    LedgerEntry,
    Settlements,
    decode_settlements,
    encode_settlements,
)
from kafka_reading import read_topic
from running import RunningConsumer, eventually
from scenes import Scene
from traffic import Published, tracks

STALLED = "flagpost_stalled"


def decisions(count: int, flag: str = "checkout") -> list[DecisionEvent]:
    """Decisions made now, one by each of `count` visitors."""
    now_ms = time.time_ns() // 1_000_000
    return [decision(f"visitor-{number}", flag, occurred_at=now_ms) for number in range(count)]


def write_ledger(scene: Scene, partition: int, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": scene.kafka.bootstrap_servers})
    for value in values:
        producer.produce(scene.ledger, value, partition=partition)
    assert producer.flush(stretched(20)) == 0


def settled(published: Published, scene: Scene, **changes: Any) -> bytes:
    """A ledger record that settles an event's track delivery as delivered, by default."""
    event = published.event
    assert isinstance(event, DecisionEvent)
    entry = LedgerEntry(
        offset=published.offset, kind="track", outcome="delivered", reason="ok", occurred_at=event.occurred_at
    )
    values: dict[str, Any] = {"group": scene.settings["kafka.group_id"], "member": "before", "settled_at": 0}
    return encode_settlements(Settlements(**{**values, "entries": [entry], "gaps": [], **changes}))


def commit(scene: Scene, offsets: dict[int, int], metadata: str = "") -> None:
    group = str(scene.settings["kafka.group_id"])
    consumer = Consumer({"bootstrap.servers": scene.kafka.bootstrap_servers, "group.id": group})
    consumer.commit(
        offsets=[TopicPartition(scene.topic, number, offset, metadata) for number, offset in offsets.items()],
        asynchronous=False,
    )
    consumer.close()


def delete_before(scene: Scene, offsets: dict[int, int]) -> None:
    """Delete the events topic's records before these offsets, as retention does."""
    admin = AdminClient({"bootstrap.servers": scene.kafka.bootstrap_servers})
    wanted = [TopicPartition(scene.topic, number, offset) for number, offset in offsets.items()]
    for future in admin.delete_records(wanted).values():
        future.result(stretched(20))


def gaps(scene: Scene) -> Iterator[tuple[int, Gap]]:
    for read in read_topic(scene.kafka.bootstrap_servers, scene.ledger):
        for gap in decode_settlements(read.value).gaps:
            yield read.partition, gap


def is_settled(consumer: RunningConsumer, records: int) -> bool:
    taken = consumer.value("flagpost_records_consumed_total")
    pending = [consumer.value("flagpost_deliveries_pending", kind=k) for k in ("track", "visitor_metadata")]
    return taken >= records and not any(pending)


@pytest.mark.kafka_core
async def test_what_the_ledger_settles_is_not_sent_again(scene: Scene) -> None:
    scene.settings["decisions.visitor_metadata"] = False
    published = scene.publish(decisions(12))
    ours, others, another_topics = published[:4], published[4:8], published[8:10]
    for each in another_topics:
        write_ledger(scene, each.partition, settled(each, scene, topic_id="an-earlier-topics"))
    for each in ours:
        write_ledger(scene, each.partition, settled(each, scene))
    for each in others:
        write_ledger(scene, each.partition, settled(each, scene, group="somebody-elses"))
    with scene.consume() as consumer:
        await eventually(lambda: is_settled(consumer, 12))
        assert consumer.value("flagpost_redeliveries_total") == 4
        assert await consumer.stop() == 0
    sent = {request.visitor_id for request in tracks(scene.pendo.received)}
    assert sent == {f"visitor-{number}" for number in range(4, 12)}


async def test_if_a_commit_names_a_missing_ledger_offset_the_ledger_is_read_from_its_beginning(
    scene: Scene,
) -> None:
    """The ledger was deleted and recreated: the settlements written to it since then are still read."""
    published = scene.publish(decisions(8))
    first = published[0]
    commit(scene, dict.fromkeys(range(scene.partitions), 0), "v1:5000")
    write_ledger(scene, first.partition, settled(first, scene))
    with scene.consume(decisions__visitor_metadata=False) as consumer:
        await eventually(lambda: is_settled(consumer, 8))
        assert consumer.value("flagpost_redeliveries_total") == 1
        assert await consumer.stop() == 0
    assert len(tracks(scene.pendo.received)) == 7


async def test_a_damaged_ledger_record_is_skipped_and_counted(scene: Scene) -> None:
    published = scene.publish(decisions(8))
    record = settled(published[0], scene)
    write_ledger(scene, published[0].partition, b"junk", record[:30], record)
    with scene.consume() as consumer:
        await eventually(lambda: is_settled(consumer, 8))
        assert consumer.value("flagpost_ledger_damaged_total") == 2
        assert consumer.value(STALLED, reason="held") == 0
        assert await consumer.stop() == 0
    assert len(tracks(scene.pendo.received)) == 7


async def test_a_ledger_record_of_a_later_release_holds_its_partition_and_no_other(scene: Scene) -> None:
    published = scene.publish(decisions(40))
    held = published[0].partition
    write_ledger(scene, held, b"\xc3\x01" + bytes(8) + b"later")
    expected = {p.event.visitor_id for p in published if p.partition != held}  # type: ignore[union-attr]
    with scene.consume() as consumer:
        await eventually(lambda: is_settled(consumer, len(expected)))
        assert consumer.value(STALLED, reason="held") == 1
        (status,) = [each for each in consumer.status()["assignment"] if each["partition"] == held]
        assert not status["restored"]
        assert "upgrade Flagpost" in status["stalled"]["detail"]
        assert await consumer.stop() == 0
    assert {request.visitor_id for request in tracks(scene.pendo.received)} == expected


async def test_a_partition_without_a_ledger_partition_is_not_consumed(scene: Scene) -> None:
    scene.ledger = f"{scene.topic}.short"
    scene.settings["kafka.ledger_topic"] = scene.ledger
    scene.kafka.create_topics(scene.ledger, partitions=3)
    published = scene.publish(decisions(40))
    expected = {p.event.visitor_id for p in published if p.partition < 3}  # type: ignore[union-attr]
    with scene.consume() as consumer:
        await eventually(lambda: is_settled(consumer, len(expected)))
        assert consumer.value(STALLED, reason="held") == 1
        assert any('"a partition is not consumed"' in line for line in consumer.lines)
        assert consumer.get("/readyz")[0] == 200
        assert await consumer.stop() == 0
    assert {request.visitor_id for request in tracks(scene.pendo.received)} == expected


async def test_offsets_that_were_deleted_before_a_start_become_a_gap(scene: Scene) -> None:
    published = scene.publish(decisions(40))
    place = published[0].partition
    count = sum(each.partition == place for each in published)
    commit(scene, {place: 1})
    delete_before(scene, {place: count - 2})
    for _ in range(2):  # at the second start the gap is already in the ledger, and it is not counted again
        with scene.consume() as consumer:
            await consumer.caught_up(scene.partitions)
            assert await consumer.stop() == 0
    assert list(gaps(scene)) == [(place, Gap(from_offset=1, to_offset=count - 2))]
    code, document = scene.reconcile()
    assert code == 1
    assert document["lost_offsets"] == count - 3


async def test_offsets_that_are_deleted_while_intake_waits_become_a_gap(scene: Scene) -> None:
    scene.settings |= {"delivery.max_pending": 4, "decisions.visitor_metadata": False}
    shown = decisions(400)
    # In many batches: on a busy machine several of them are read ahead before intake waits.
    published = [each for begin in range(0, 400, 20) for each in scene.publish(shown[begin : begin + 20])]
    place = published[0].partition
    count = sum(each.partition == place for each in published)
    scene.pendo.faults.outage(503)
    with scene.consume(
        kafka__properties={
            "queued.min.messages": 1,
            "fetch.message.max.bytes": 1000,
            "fetch.queue.backoff.ms": 10,
        }
    ) as consumer:
        await eventually(lambda: consumer.status()["intake_paused"])
        delete_before(scene, {place: count - 5})
        scene.pendo.faults.restore()
        await eventually(lambda: consumer.value("flagpost_offsets_lost_total") > 0, 60)
        await consumer.caught_up(scene.partitions, 120)
        lost = consumer.value("flagpost_offsets_lost_total")
        assert await consumer.stop() == 0
    (found,) = list(gaps(scene))
    assert found[0] == place
    assert found[1].to_offset == count - 5
    assert lost == found[1].to_offset - found[1].from_offset
    code, document = scene.reconcile()
    assert code == 1
    assert document["lost_offsets"] == lost
    assert document["unexplained"] == 0

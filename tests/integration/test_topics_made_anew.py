"""A topic that is deleted and recreated under its old name while consumers run."""

from __future__ import annotations

import asyncio
import signal
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from engine_world import decision
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from flagpost_schemas import DecisionEvent, TrackEvent
from real_kafka.broker import OwnBroker
from running import RunningConsumer, eventually, total
from scenes import Scene
from traffic import tracks

SECONDS = 60.0


def events_of(count: int, name: str) -> list[TrackEvent]:
    """`count` events, each of its own visitor."""
    now_ms = time.time_ns() // 1_000_000
    return [
        TrackEvent(
            event_id=f"{name}-{number}",
            occurred_at=now_ms,
            visitor_id=f"visitor-{number}",
            event=name,
            properties={"n": number},
        )
        for number in range(count)
    ]


def has_nothing_pending(consumers: list[RunningConsumer]) -> bool:
    return all(total(each.scrape(), "flagpost_deliveries_pending") == 0 for each in consumers)


def replaced(consumers: list[RunningConsumer], topic: str) -> float:
    return sum(each.value("flagpost_topic_replaced_total", topic=topic) for each in consumers)


def sent(scene: Scene, name: str) -> set[int]:
    """The numbers of the events with this name that Pendo received."""
    requests = tracks(scene.pendo.received)
    parsed: list[Any] = [request.parsed for request in requests]
    return {each["properties"]["n"] for each in parsed if each["event"] == name}


@pytest.fixture
def started(scene: Scene) -> Callable[[str], RunningConsumer]:
    scene.settings |= {
        "decisions.visitor_metadata": False,
        "kafka.session_timeout_seconds": 20,
        "pendo.request_timeout_seconds": 2,
        "delivery.visitor_interval_seconds": 0.05,
        # The Kafka client notices soon that a topic was deleted.
        "kafka.properties": {"topic.metadata.refresh.interval.ms": 2000},
    }
    return lambda protocol: scene.consume(kafka__group_protocol=protocol)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize(("before", "after"), [(200, 150), (100, 400)], ids=["shorter", "longer"])
async def test_what_a_new_topic_of_the_old_name_holds_is_delivered(
    scene: Scene, started: Callable[[str], RunningConsumer], protocol: str, before: int, after: int
) -> None:
    """Before, none of a shorter new topic's events were delivered, because their offsets were below the position; of
    a longer one, those below the old position were skipped. The lag was 0, and no counter showed it.
    """
    with started(protocol) as first, started(protocol) as second:
        both = [first, second]
        for consumer in both:
            await eventually(partial(consumer.value, "flagpost_partitions_assigned"), SECONDS)
        await asyncio.to_thread(scene.publish, events_of(before, "before"))
        await eventually(lambda: len(sent(scene, "before")) == before, SECONDS)
        await eventually(partial(has_nothing_pending, both), SECONDS)
        if after > before:  # so that no consumer sees the new topic while it is shorter
            for consumer in both:
                consumer.signal(signal.SIGSTOP)
        await asyncio.to_thread(scene.kafka.make_anew, scene.topic, scene.partitions)
        await asyncio.to_thread(scene.publish, events_of(after, "after"))
        for consumer in both:
            consumer.signal(signal.SIGCONT)
        try:
            await eventually(lambda: len(sent(scene, "after")) == after, SECONDS)
        except AssertionError:
            raise AssertionError(f"{len(sent(scene, 'after'))} of {after} delivered") from None
        await eventually(partial(has_nothing_pending, both), SECONDS)
        for consumer in both:
            assert replaced([consumer], scene.topic) == 1
        for consumer in both:
            assert await consumer.stop() == 0
    code, document = scene.reconcile()
    assert document["unexplained"] == 0
    assert code == 0


async def test_a_topic_made_anew_under_traffic_loses_nothing_of_what_it_holds(
    scene: Scene, started: Callable[[str], RunningConsumer]
) -> None:
    with started("classic") as first, started("classic") as second:
        both = [first, second]
        for consumer in both:
            await eventually(partial(consumer.value, "flagpost_partitions_assigned"), SECONDS)
        await asyncio.to_thread(scene.publish, events_of(400, "before"))
        scene.pendo.faults.latency_seconds = 0.2
        await eventually(lambda: len(sent(scene, "before")) >= 20, SECONDS)
        await asyncio.to_thread(scene.kafka.make_anew, scene.topic, scene.partitions)
        for part in range(4):
            await asyncio.to_thread(scene.publish, events_of(400, "after")[part * 100 : part * 100 + 100])
        scene.pendo.faults.latency_seconds = 0.0
        try:
            await eventually(lambda: len(sent(scene, "after")) == 400, SECONDS)
        except AssertionError:
            raise AssertionError(
                f"{len(sent(scene, 'after'))} of 400 delivered: {[c.status() for c in both]}"
            ) from None
        await eventually(partial(has_nothing_pending, both), SECONDS)
        # Wait until the group is stable: a member that leaves during a rebalance waits for its end.
        for consumer in both:
            await eventually(partial(consumer.value, "flagpost_partitions_assigned"), SECONDS)
        for consumer in both:
            assert await consumer.stop() == 0


async def test_claims_outlive_the_topic(scene: Scene, started: Callable[[str], RunningConsumer]) -> None:
    """A decision that was sent is a duplicate in the new topic too: claims consist of keys and times, not offsets."""
    now_ms = time.time_ns() // 1_000_000
    shown: list[DecisionEvent] = [decision(f"visitor-{n}", occurred_at=now_ms) for n in range(40)]
    scene.pendo.faults.outage(503, Endpoint.SCHEMA)
    with started("classic") as consumer:
        await asyncio.to_thread(scene.publish, shown)
        await eventually(lambda: len(tracks(scene.pendo.received)) == 40, SECONDS)
        await eventually(partial(has_nothing_pending, [consumer]), SECONDS)
        await asyncio.to_thread(scene.kafka.make_anew, scene.topic, scene.partitions)
        await asyncio.to_thread(scene.publish, shown[:30])
        duplicates = partial(
            consumer.value,
            "flagpost_deliveries_total",
            kind="track",
            outcome="duplicate",
            reason="dedupe",
        )
        await eventually(lambda: duplicates() == 30, SECONDS)
        assert len(tracks(scene.pendo.received)) == 40
        assert await consumer.stop() == 0


async def test_a_ledger_made_anew_is_counted_and_read_from_its_beginning(
    scene: Scene, started: Callable[[str], RunningConsumer]
) -> None:
    """Before, commits still named offsets of the deleted ledger: the new one has other records at these offsets, and
    its records before them were never read.
    """
    now_ms = time.time_ns() // 1_000_000
    shown = [decision(f"visitor-{n}", occurred_at=now_ms) for n in range(80)]
    with started("classic") as consumer:
        await asyncio.to_thread(scene.publish, shown[:40])
        await eventually(lambda: len(tracks(scene.pendo.received)) == 40, SECONDS)
        await eventually(partial(has_nothing_pending, [consumer]), SECONDS)
        await asyncio.to_thread(scene.kafka.make_anew, scene.ledger, scene.partitions)
        await eventually(lambda: replaced([consumer], scene.ledger) == 1, SECONDS)
        await asyncio.to_thread(scene.publish, shown[40:])
        await eventually(lambda: len(tracks(scene.pendo.received)) == 80, SECONDS)
        await eventually(partial(has_nothing_pending, [consumer]), SECONDS)
        assert await consumer.stop() == 0
    with started("classic") as consumer:
        await asyncio.to_thread(scene.publish, shown[40:])
        duplicates = partial(
            consumer.value,
            "flagpost_deliveries_total",
            kind="track",
            outcome="duplicate",
            reason="dedupe",
        )
        await eventually(lambda: duplicates() == 40, SECONDS)
        assert await consumer.stop() == 0
    assert len(tracks(scene.pendo.received)) == 80


def cut_log(kafka: OwnBroker, topic: str, batches: int) -> int:
    """Cut a partition's log after some batches, as a power failure does, or a replica that was behind when it became
    the leader; returns the offset at which the log ends now.
    """
    (directory,) = kafka.data_directories(f"{topic}-0")
    segment = directory / "00000000000000000000.log"
    data, at, end = segment.read_bytes(), 0, 0
    for _ in range(batches):
        base, size = struct.unpack_from(">qi", data, at)
        (last_delta,) = struct.unpack_from(">i", data, at + 23)
        at, end = at + 12 + size, base + last_delta + 1
    segment.write_bytes(data[:at])
    for derived in (
        *directory.glob("*.index"),
        *directory.glob("*.timeindex"),
        *directory.glob("*.snapshot"),
    ):
        derived.unlink()
    return end


@pytest.mark.parametrize("is_running", [True, False], ids=["while it runs", "while it is stopped"])
async def test_a_log_that_went_back_is_read_from_there(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str], is_running: bool
) -> None:
    """Before, records written after the log went back had offsets below the position and were dropped silently. The
    ledger's settlements of these offsets are about records that no longer exist.
    """
    async with PendoStandIn() as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        scene = Scene(kafka_broker, pendo, fresh_name("back"), partitions=1)
        scene.settings |= {"decisions.visitor_metadata": False, "delivery.visitor_interval_seconds": 0.05}
        for part in range(5):
            await asyncio.to_thread(scene.publish, events_of(100, "before")[part * 20 : part * 20 + 20])
        with scene.consume() as consumer:
            await eventually(lambda: len(sent(scene, "before")) == 100, SECONDS)
            await consumer.caught_up(1)
            if not is_running:
                assert await consumer.stop() == 0
            await asyncio.to_thread(kafka_broker.kill)
            assert cut_log(kafka_broker, scene.topic, 2) == 40
            await asyncio.to_thread(kafka_broker.restart)
            await asyncio.to_thread(scene.publish, events_of(30, "after"))
            if is_running:
                await settled_after(scene, consumer)
        if not is_running:
            with scene.consume() as consumer:
                await settled_after(scene, consumer)
        # A restart reads the ledger, in which the offsets from 40 on are settled twice, and sends nothing again.
        with scene.consume() as again:
            await asyncio.to_thread(scene.publish, events_of(10, "later"))
            await eventually(lambda: len(sent(scene, "later")) == 10, SECONDS)
            assert await again.stop() == 0
        assert len(tracks(scene.pendo.received)) == 140


async def settled_after(scene: Scene, consumer: RunningConsumer) -> None:
    """Check that the events after the log went back are sent, and nothing is sent twice; stops the consumer."""
    await eventually(lambda: len(sent(scene, "after")) == 30, SECONDS)
    await eventually(partial(has_nothing_pending, [consumer]), SECONDS)
    assert replaced([consumer], scene.topic) == 1
    assert len(tracks(scene.pendo.received)) == 130
    assert await consumer.stop() == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_new_topic_whose_leaders_have_lower_epochs_is_read(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str], protocol: str
) -> None:
    """Each restart of a broker raises the epochs of its leaders, and those of a new topic begin at 0. The Kafka
    client ignores a leader whose epoch is below the one that it knows for a topic of this name. Before, nothing of
    the new topic was read until its epochs had passed the old ones; the consumer was live and ready, without a lag.
    """
    async with PendoStandIn() as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        scene = Scene(kafka_broker, pendo, fresh_name("epochs"))
        scene.settings |= {"decisions.visitor_metadata": False, "delivery.visitor_interval_seconds": 0.05}
        for _ in range(2):
            await asyncio.to_thread(kafka_broker.restart)
        consume = partial(scene.consume, kafka__group_protocol=protocol)
        with consume() as first, consume() as second:
            both = [first, second]
            for consumer in both:
                await eventually(partial(consumer.value, "flagpost_partitions_assigned"), SECONDS)
            await asyncio.to_thread(scene.publish, events_of(100, "before"))
            await eventually(lambda: len(sent(scene, "before")) == 100, SECONDS)
            await eventually(partial(has_nothing_pending, both), SECONDS)
            await asyncio.to_thread(kafka_broker.make_anew, scene.topic, scene.partitions)
            await asyncio.to_thread(scene.publish, events_of(150, "after"))
            try:
                await eventually(lambda: len(sent(scene, "after")) == 150, SECONDS)
            except AssertionError:
                raise AssertionError(f"{len(sent(scene, 'after'))} of 150 delivered") from None
            await eventually(partial(has_nothing_pending, both), SECONDS)
            for consumer in both:
                assert replaced([consumer], scene.topic) == 1
                assert await consumer.stop() == 0
        code, document = scene.reconcile()
        assert document["unexplained"] == 0
        assert code == 0
        assert len(tracks(pendo.received)) == 250

"""Programs whose user may not write yet, on a real broker: they wait, and continue without a restart."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from flagpost_publisher import KafkaTrouble, Publisher, PublisherError
from kafka_reading import read_topic
from real_kafka.broker import KafkaBroker, OwnBroker
from running import eventually
from scenes import Scene
from traffic import produce, tracks

pytestmark = [pytest.mark.kafka]

SECONDS = 90.0
EVENTS = 20


def as_user(scene: Scene) -> dict[str, object]:
    """Settings that connect a consumer as the user whose rights are checked."""
    return {
        "kafka.bootstrap_servers": scene.kafka.users_bootstrap_servers,
        "kafka.properties": scene.kafka.user_properties,
    }


def let_read(scene: Scene) -> None:
    """Allow all that a consumer needs, except writing."""
    for topic in (scene.topic, scene.ledger, scene.suppressions):
        scene.kafka.allow("topic", topic, "describe", "read")
    scene.kafka.allow("topic", scene.dead_letters, "describe")
    scene.kafka.allow("group", str(scene.settings["kafka.group_id"]), "read")


def produce_undecodable(scene: Scene) -> None:
    for number in range(5):
        produce(scene.kafka.bootstrap_servers, scene.topic, b"k%d" % number, b"no event")


@pytest.fixture
async def scene(kafka_broker: OwnBroker) -> AsyncIterator[Scene]:
    """A scene on its own broker, because only a user who may write to no topic at all gets the fatal error."""
    async with PendoStandIn() as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        yield Scene(kafka_broker, pendo, "rights")


async def test_a_consumer_that_may_not_write_goes_on_once_it_may(scene: Scene) -> None:
    """Without any right to write, librdkafka's error is fatal. Before, the dead producers stayed while every probe
    was green, and after a restart everything was delivered again.
    """
    let_read(scene)
    now = time.time_ns() // 1_000_000
    scene.publish(decision(f"v{number}", occurred_at=now) for number in range(EVENTS))
    produce_undecodable(scene)
    scene.settings.update(as_user(scene))
    with scene.consume() as consumer:
        await eventually(lambda: tracks(scene.pendo.received), SECONDS)
        await eventually(lambda: any("is replaced" in line for line in consumer.lines), SECONDS)
        assert consumer.get("/livez")[0] == 200
        for topic in (scene.ledger, scene.dead_letters):
            scene.kafka.allow("topic", topic, "write")
        await consumer.caught_up(scene.partitions, SECONDS)
        sent = Counter(track.visitor_id for track in tracks(scene.pendo.received))
        assert sent == Counter({f"v{number}": 1 for number in range(EVENTS)})
        # Rights that are removed and granted again while it runs.
        for topic in (scene.ledger, scene.dead_letters):
            scene.kafka.disallow("topic", topic, "write")
        scene.publish(decision(f"w{number}", occurred_at=now) for number in range(EVENTS))
        produce_undecodable(scene)
        await eventually(lambda: any("does not take" in line for line in consumer.lines), SECONDS)
        for topic in (scene.ledger, scene.dead_letters):
            scene.kafka.allow("topic", topic, "write")
        await consumer.caught_up(scene.partitions, SECONDS)
        assert await consumer.stop() == 0
    letters = await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.dead_letters)
    assert len(letters) == 10, "one a delivery"
    sent = Counter(track.visitor_id for track in tracks(scene.pendo.received))
    assert set(sent.values()) == {1}
    assert len(sent) == 2 * EVENTS


async def test_a_publisher_that_may_not_write_publishes_once_it_may(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    """Before, the thread ended silently, and every event was refused even after the right was granted."""
    topic = fresh_name("events")
    kafka.create_topics(topic, partitions=1)
    told: list[Exception] = []
    with Publisher(
        bootstrap_servers=kafka.users_bootstrap_servers,
        topic=topic,
        properties=kafka.user_properties,
        on_error=told.append,
    ) as publisher:
        assert publisher.track("v", "before")
        await eventually(lambda: any(isinstance(error, KafkaTrouble) for error in told), SECONDS)
        kafka.allow("topic", topic, "describe", "write")
        assert publisher.track("v", "after")
        assert await asyncio.to_thread(publisher.flush, stretched(SECONDS)) == 0
        assert publisher.stats().delivered == 2
    found = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, topic)
    assert len(found) == 2
    assert all(isinstance(error, PublisherError) for error in told)


@pytest.mark.parametrize(
    ("protocol", "told"), [("consumer", "it can do nothing more"), ("classic", "Group authorization failed")]
)
async def test_a_consumer_whose_right_to_its_group_comes_back_goes_on(
    scene: Scene, protocol: str, told: str
) -> None:
    """Before, with the protocol of KIP-848, its Kafka client ended fatally, and was replaced only once records waited
    for a minute or the group had been silent for several sessions.
    """
    let_read(scene)
    for topic in (scene.ledger, scene.dead_letters):
        scene.kafka.allow("topic", topic, "write")
    scene.settings.update(as_user(scene))
    scene.settings["kafka.group_protocol"] = protocol
    group = str(scene.settings["kafka.group_id"])
    scene.publish([decision("before", occurred_at=time.time_ns() // 1_000_000)])
    with scene.consume() as consumer:
        await eventually(lambda: len(tracks(scene.pendo.received)) == 1, SECONDS)
        scene.kafka.disallow("group", group, "read")
        await eventually(lambda: any(told in line for line in consumer.lines), SECONDS)
        scene.kafka.allow("group", group, "read")
        scene.publish([decision("after", occurred_at=time.time_ns() // 1_000_000)])
        await eventually(lambda: len(tracks(scene.pendo.received)) == 2, SECONDS)

"""`flagpost suppress` against a real Kafka: new events, waiting deliveries, restarts and earlier dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.commands.cli import flagpost as flagpost_command
from flagpost_consumer.commands.privacy import suppressed
from flagpost_consumer.core.planning.suppressions import Suppressions
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from flagpost_schemas import Event, VisitorMetadata
from real_kafka.broker import KafkaBroker, OwnBroker
from running import RunningConsumer, environment, eventually, total
from scenes import Scene
from traffic import tracks

pytestmark = [pytest.mark.thorough, pytest.mark.kafka]

SECONDS = 120.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def suppress(scene: Scene, *arguments: str) -> str:
    done = await asyncio.to_thread(scene.flagpost, "suppress", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def create_topic(scene: Scene) -> None:
    scene.kafka.create_topics(scene.suppressions, partitions=1, config={"cleanup.policy": "compact"})


@pytest.fixture
def suppressible(scene: Scene) -> Scene:
    create_topic(scene)
    # On a busy machine a member may leave the group silently: with a short session this is noticed soon.
    scene.settings |= {"kafka.session_timeout_seconds": 15, "pendo.request_timeout_seconds": 5}
    return scene


def events_of(visitor: str, count: int = 1, name: str = "checkout") -> list[Event]:
    shown = [decision(visitor, f"{name}-{n}", event_id=f"{visitor}-{name}-{n}") for n in range(count)]
    return [event.__class__(**{**_fields(event), "occurred_at": now_ms()}) for event in shown]


def _fields(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__dataclass_fields__}


def told_of(scene: Scene) -> set[str]:
    """The visitors that any track or metadata request named."""
    named = {each.visitor_id for each in tracks(scene.pendo.received)}
    for request in scene.pendo.received.of(Endpoint.METADATA):
        named |= {each["visitorId"] for each in orjson.loads(request.body)}
    return {each for each in named if each is not None}


def dropped(consumer: RunningConsumer, kind: str) -> float:
    return consumer.value("flagpost_deliveries_total", kind=kind, outcome="dropped", reason="suppressed")


async def settled(consumer: RunningConsumer, count: int) -> None:
    """Wait until `count` track deliveries are settled and nothing is pending."""

    def done() -> bool:
        series = consumer.scrape()
        ended = sum(
            value
            for (name, labels), value in series.items()
            if name == "flagpost_deliveries_total" and ("kind", "track") in labels
        )
        return ended >= count and total(series, "flagpost_deliveries_pending") == 0

    await eventually(done, SECONDS, what=f"{count} settled")


async def test_what_comes_after_a_suppression_is_dropped_and_after_its_undo_is_sent(
    suppressible: Scene,
) -> None:
    scene = suppressible
    assert "is suppressed" in await suppress(scene, "gone")
    with scene.consume() as consumer:
        await asyncio.to_thread(scene.publish, [*events_of("gone", 3), *events_of("stays", 3)])
        await settled(consumer, 6)
        assert told_of(scene) == {"stays"}
        assert (dropped(consumer, "track"), dropped(consumer, "visitor_metadata")) == (3, 3)
        assert "no longer suppressed" in await suppress(scene, "gone", "--undo")
        # Consumers read it within a second; what is published until then may still be dropped.
        number = 0
        while "gone" not in told_of(scene):
            number += 1
            await asyncio.to_thread(scene.publish, events_of("gone", 1, f"again-{number}"))
            await settled(consumer, 6 + number)
            assert number < 100
        assert await consumer.stop() == 0
    code, document = await asyncio.to_thread(scene.reconcile)
    assert (code, document["unexplained"]) == (0, 0)
    (row,) = [row for row in document["rows"] if row["flag_key"] == "checkout-0"]
    assert (row["delivered"], row["dropped"]) == (1, 1)


async def test_what_waits_when_the_suppression_comes_is_not_sent_after_a_restart_either(
    suppressible: Scene,
) -> None:
    """Pendo is down, so lanes, batches and retries are full when the visitor is suppressed."""
    scene = suppressible
    scene.pendo.faults.outage(503, Endpoint.TRACK, Endpoint.METADATA)
    metadata = VisitorMetadata(event_id="m", occurred_at=now_ms(), visitor_id="gone", values={"plan": "pro"})
    with scene.consume() as consumer:
        await asyncio.to_thread(scene.publish, [*events_of("gone", 5), metadata, *events_of("stays", 5)])
        await eventually(lambda: total(consumer.scrape(), "flagpost_deliveries_pending") == 21, SECONDS)
        await suppress(scene, "gone")
        await consumer.stop()
    scene.pendo.received.forget()
    scene.pendo.faults.restore(Endpoint.TRACK, Endpoint.METADATA)
    with scene.consume() as consumer:
        await eventually(
            lambda: (
                consumer.value("flagpost_deliveries_total", kind="track", outcome="delivered", reason="ok")
                == 5
            ),
            SECONDS,
        )
        await settled(consumer, 0)
        assert told_of(scene) == {"stays"}
        assert await consumer.stop() == 0
    # The first consumer may have read the suppression before it stopped, and dropped some of them itself.
    done = await asyncio.to_thread(
        scene.flagpost, "tail", "--json", "--no-follow", "--reason", "suppressed", "--kind", "track"
    )
    assert len(done.stdout.splitlines()) == 5


async def test_a_running_consumer_reads_a_suppression_and_drops_what_waits(suppressible: Scene) -> None:
    scene = suppressible
    scene.pendo.faults.outage(503, Endpoint.TRACK, Endpoint.METADATA)
    with scene.consume() as consumer:
        await asyncio.to_thread(scene.publish, [*events_of("gone", 5), *events_of("stays", 5)])
        await eventually(lambda: total(consumer.scrape(), "flagpost_deliveries_pending") == 20, SECONDS)
        await suppress(scene, "gone")
        await eventually(lambda: dropped(consumer, "track") == 5, SECONDS)
        scene.pendo.received.forget()
        scene.pendo.faults.restore(Endpoint.TRACK, Endpoint.METADATA)
        await settled(consumer, 10)
        assert told_of(scene) == {"stays"}
        assert await consumer.stop() == 0


async def test_dead_letters_of_a_suppressed_visitor_are_skipped_and_named(suppressible: Scene) -> None:
    scene = suppressible
    for visitor in ("gone", "stays"):
        scene.pendo.faults.visitor(visitor, 400)
    with scene.consume(decisions__visitor_metadata=False) as consumer:
        await asyncio.to_thread(scene.publish, [*events_of("gone"), *events_of("stays")])
        await settled(consumer, 2)
        assert await consumer.stop() == 0
    await suppress(scene, "gone")
    told = await asyncio.to_thread(scene.flagpost, "dead-letters", "replay")
    assert told.returncode == 0, told.stderr
    assert "1 of 2 dead letters were replayed" in told.stdout
    assert "skipped 1: its visitor is suppressed (flagpost suppress)" in told.stdout
    await suppress(scene, "gone", "--undo")
    told = await asyncio.to_thread(scene.flagpost, "dead-letters", "replay", "--json")
    assert orjson.loads(told.stdout) == {"matched": 1, "replayed": 1, "skipped": 0, "dry_run": False}


async def test_without_the_topic_a_consumer_works_and_suppress_says_what_to_do(scene: Scene) -> None:
    """An installation without the topic suppresses nobody; a topic that is created later is followed at once."""
    done = await asyncio.to_thread(scene.flagpost, "suppress", "gone")
    assert done.returncode == 1
    assert "flagpost topics create" in done.stderr
    with scene.consume() as consumer:
        await asyncio.to_thread(scene.publish, events_of("before"))
        await settled(consumer, 1)
        assert told_of(scene) == {"before"}
        await asyncio.to_thread(create_topic, scene)
        await suppress(scene, "gone")
        number = 0
        while not dropped(consumer, "track"):
            number += 1
            await asyncio.to_thread(scene.publish, events_of("gone", 1, f"later-{number}"))
            await settled(consumer, 1 + number)
            assert number < 200
        assert await consumer.stop() == 0


async def test_a_consumer_that_may_not_read_the_topic_sends_nothing_and_says_why(
    kafka_broker: OwnBroker,
) -> None:
    """A missing right is not a missing topic: the consumer cannot know who is suppressed."""
    async with PendoStandIn() as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        scene = Scene(kafka_broker, pendo, "unreadable")
        create_topic(scene)
        await suppress(scene, "gone")
        for topic in (scene.topic, scene.ledger, scene.dead_letters):
            kafka_broker.allow("topic", topic, "describe", "read", "write")
        kafka_broker.allow("group", str(scene.settings["kafka.group_id"]), "read")
        await asyncio.to_thread(scene.publish, [*events_of("gone"), *events_of("stays")])
        as_user: dict[str, object] = {
            "kafka.bootstrap_servers": kafka_broker.users_bootstrap_servers,
            "kafka.properties": kafka_broker.user_properties,
        }
        with RunningConsumer({**scene.settings, **as_user}) as consumer:
            stalled = partial(consumer.value, "flagpost_stalled", reason="suppressions")
            await eventually(lambda: stalled() == scene.partitions, SECONDS)
            told = f"Read on Topic {scene.suppressions}"
            await eventually(lambda: any(told in line for line in list(consumer.lines)), SECONDS, what=told)
            assert told_of(scene) == set()
            assert consumer.get("/livez")[0] == 200
            kafka_broker.allow("topic", scene.suppressions, "describe", "read")
            await settled(consumer, 2)
            assert told_of(scene) == {"stays"}
            assert stalled() == 0
            assert await consumer.stop() == 0


async def test_damaged_records_stop_nothing_and_suppress_whom_they_name(suppressible: Scene) -> None:
    scene = suppressible
    producer = Producer({"bootstrap.servers": scene.kafka.bootstrap_servers})
    for key, value in (
        (b"gone", b"{"),
        (b"\xff", b"{}"),
        (b"", b'{"at":1}'),
        (b"back", b"x"),
        (b"back", None),
    ):
        producer.produce(scene.suppressions, value, key)
    assert producer.flush(stretched(20)) == 0
    with scene.consume() as consumer:
        await asyncio.to_thread(scene.publish, [*events_of("gone"), *events_of("back")])
        await settled(consumer, 2)
        assert told_of(scene) == {"back"}
        assert await consumer.stop() == 0


async def test_a_recreated_topic_undoes_no_suppression_while_consumers_run(suppressible: Scene) -> None:
    scene = suppressible
    await suppress(scene, "gone")
    with scene.consume() as consumer:
        await asyncio.to_thread(scene.publish, events_of("gone"))
        await settled(consumer, 1)
        await asyncio.to_thread(scene.kafka.make_anew, scene.suppressions, 1)
        replaced = partial(consumer.value, "flagpost_topic_replaced_total", topic=scene.suppressions)
        await eventually(lambda: replaced() == 1, SECONDS)
        await suppress(scene, "other")
        await eventually(lambda: any('"visitors"' in line for line in consumer.lines), SECONDS)
        await asyncio.to_thread(scene.publish, events_of("gone", 1, "later"))
        await settled(consumer, 2)
        assert told_of(scene) == set()
        assert await consumer.stop() == 0


def test_suppress_refuses_more_than_consumers_remember(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more would stop every consumer. Visitors who are suppressed already may be suppressed again, or undone."""
    monkeypatch.setattr(suppressed, "Suppressions", partial(Suppressions, max_bytes=1000))
    topic = fresh_name("suppressions")
    kafka.create_topics(topic, partitions=1, config={"cleanup.policy": "compact"})
    environ = environment(
        {"kafka.bootstrap_servers": kafka.bootstrap_servers, "kafka.suppressions_topic": topic}
    )

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(flagpost_command, ["suppress", *arguments], env=environ)

    codes = [run(f"visitor-{number}").exit_code for number in range(12)]
    fitted = codes.count(0)
    assert codes == [0] * fitted + [1] * (12 - fitted)
    assert 2 < fitted < 12
    refused = run("one-more")
    assert refused.exit_code == 1, refused.output
    assert "--undo" in refused.output
    assert run("visitor-0").exit_code == 0
    assert run("visitor-0", "--undo").exit_code == 0
    assert run("one-more").exit_code == 0


def test_an_undo_says_that_the_visitor_is_still_suppressed_under_its_other_name(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    topic = fresh_name("suppressions")
    kafka.create_topics(topic, partitions=1, config={"cleanup.policy": "compact"})
    environ = environment(
        {"kafka.bootstrap_servers": kafka.bootstrap_servers, "kafka.suppressions_topic": topic}
    )

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(flagpost_command, ["suppress", *arguments], env=environ)

    assert run("_PENDO_T_a1").exit_code == 0
    undone = run("a1", "--undo")
    assert (undone.exit_code, "suppressed as _PENDO_T_a1" in undone.output) == (1, True)
    undone = run("_PENDO_T_a1", "--undo")
    assert (undone.exit_code, "no longer suppressed" in undone.output) == (0, True)


@pytest.mark.parametrize("visitor", ["", "\udcff"])
def test_an_id_that_no_record_can_have_is_a_usage_error(visitor: str) -> None:
    environ = environment({"kafka.bootstrap_servers": "127.0.0.1:1"})
    done = CliRunner().invoke(flagpost_command, ["suppress", visitor], env=environ)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output

"""Confluent's wire format, with a real schema registry between the real publisher and the real consumer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from deadlines import stretched
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_publisher import Publisher
from flagpost_schemas import TrackEvent, encode_confluent, schema_of
from real_kafka.registry import SchemaRegistry
from running import eventually, total
from scenes import Scene
from served import served
from traffic import produce, publish, tracks


@pytest.mark.kafka_core
async def test_events_with_schema_ids_are_delivered_and_an_unknown_id_is_a_dead_letter(
    scene: Scene, schema_registry: SchemaRegistry
) -> None:
    publisher = Publisher(
        bootstrap_servers=scene.kafka.bootstrap_servers,
        topic=scene.topic,
        schema_registry_url=schema_registry.url,
    )
    with publisher:
        assert publisher.track("v1", "Clicked", {"n": 1})
        assert publisher.visitor("v1", {"plan": "pro"})
        assert publisher.flush(stretched(20)) == 0
    stray = TrackEvent(event_id="s", occurred_at=1, visitor_id="v2", event="Clicked")
    produce(scene.kafka.bootstrap_servers, scene.topic, b"v2", encode_confluent(stray, 424_242))
    with scene.consume(
        kafka__schema_registry__url=schema_registry.url, kafka__schema_registry__unknown_seconds=1
    ) as consumer:
        received = scene.pendo.received
        await received.until(lambda: received.recorded() == 1 and received.metadata_records == 1, 30)
        await eventually(
            lambda: total(consumer.scrape(), "flagpost_deliveries_total", reason="unknown_schema") == 1
        )
        assert await consumer.stop() == 0
    assert b'"properties":{"n":1}' in tracks(received)[0].body


async def test_the_consumer_waits_for_a_registry_that_is_down(scene: Scene) -> None:
    stray = TrackEvent(event_id="s", occurred_at=1, visitor_id="v", event="Clicked")
    produce(scene.kafka.bootstrap_servers, scene.topic, b"v", encode_confluent(stray, 1))
    with scene.consume(kafka__schema_registry__url="http://127.0.0.1:1") as consumer:
        await eventually(lambda: any("waiting for the schema registry" in line for line in consumer.lines))
        series = consumer.scrape()
        assert total(series, "flagpost_deliveries_total") == 0
        assert consumer.get("/livez")[0] == 200
        assert await consumer.stop() == 0


@asynccontextmanager
async def lying_registry(answer: Callable[[int], web.Response]) -> AsyncIterator[str]:
    """A registry that answers for each id as a test wants; yields its URL."""

    async def handle(request: web.Request) -> web.Response:
        return answer(int(request.match_info["id"]))

    app = web.Application()
    app.router.add_get("/schemas/ids/{id}", handle)
    async with served(app) as url:
        yield url


def visitor_on(partition: int, partitions: int) -> str:
    names = (f"v{number}" for number in range(1_000))
    return next(name for name in names if partition_of(name.encode(), partitions) == partition)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def track(visitor: str) -> TrackEvent:
    return TrackEvent(event_id=f"e-{visitor}", occurred_at=now_ms(), visitor_id=visitor, event="Clicked")


NOT_FOUND = {"error_code": 40403, "message": "Schema not found"}


async def test_only_the_partition_of_the_record_waits_and_a_registry_that_is_behind_costs_no_record(
    scene: Scene,
) -> None:
    """Before, a 404 from a replica that was a second behind made dead letters, and a 403 stopped all partitions."""
    present = False

    def answer(_schema_id: int) -> web.Response:
        if not present:
            return web.json_response(NOT_FOUND, status=404)
        return web.json_response({"schema": schema_of(TrackEvent).text})

    waits, passes = visitor_on(0, scene.partitions), visitor_on(1, scene.partitions)
    servers, received = scene.kafka.bootstrap_servers, scene.pendo.received
    produce(servers, scene.topic, waits.encode(), encode_confluent(track(waits), 41), partition=0)
    produce(servers, scene.topic, waits.encode(), b"\x00\xff\xff\xff\xff", partition=2)
    publish(servers, scene.topic, [track(passes)])
    async with lying_registry(answer) as url:
        with scene.consume(kafka__schema_registry__url=url) as consumer:
            await received.until(lambda: received.recorded() == 1, 30)
            await eventually(lambda: consumer.value("flagpost_registry_waiting") == 1)
            await eventually(
                lambda: total(consumer.scrape(), "flagpost_deliveries_total", reason="unknown_schema") == 1
            )
            [wait] = consumer.status()["registry_waits"]
            assert (wait["partition"], wait["schema_id"]) == (0, 41)
            assert consumer.get("/livez")[0] == 200
            present = True
            await received.until(lambda: received.recorded() == 2, 30)
            await eventually(lambda: consumer.value("flagpost_registry_waiting") == 0)
            assert await consumer.stop() == 0
    assert waits.encode() in tracks(received)[1].body


async def test_what_the_registry_refuses_for_long_enough_is_a_dead_letter_and_asked_for_again_later(
    scene: Scene,
) -> None:
    allowed = False

    def answer(_schema_id: int) -> web.Response:
        if not allowed:
            return web.json_response({"error_code": 40301}, status=403)
        return web.json_response({"schema": schema_of(TrackEvent).text})

    servers, received = scene.kafka.bootstrap_servers, scene.pendo.received
    produce(servers, scene.topic, b"v", encode_confluent(track("v"), 42))
    async with lying_registry(answer) as url:
        with scene.consume(
            kafka__schema_registry__url=url, kafka__schema_registry__unknown_seconds=0.3
        ) as consumer:
            await eventually(
                lambda: total(consumer.scrape(), "flagpost_deliveries_total", reason="unknown_schema") == 1
            )
            allowed = True

            def goes_through() -> bool:
                produce(servers, scene.topic, b"v", encode_confluent(track("v"), 42))
                return received.recorded() > 0

            await eventually(goes_through)
            assert await consumer.stop() == 0
    letter = scene.read_dead_letters(1)[0]
    assert letter["headers"]["flagpost-reason"] == "unknown_schema"
    assert "403 of the registry: a missing right" in letter["headers"]["flagpost-detail"]


async def test_an_event_that_is_too_large_is_a_dead_letter_without_its_value(scene: Scene) -> None:
    servers, received = scene.kafka.bootstrap_servers, scene.pendo.received
    produce(servers, scene.topic, b"v", b"\xc3\x01" + bytes(100_000))
    publish(servers, scene.topic, [track("w")])
    with scene.consume() as consumer:
        await received.until(lambda: received.recorded() == 1, 30)
        await eventually(lambda: total(consumer.scrape(), "flagpost_deliveries_total", reason="invalid") == 1)
        assert await consumer.stop() == 0
    letter = scene.read_dead_letters(1)[0]
    assert (letter["key"], letter["value"]) == (b"v", None)
    headers = letter["headers"]
    assert headers["flagpost-truncated"] == "true"
    assert headers["flagpost-kind"] == "unknown"
    assert "the event has 100003 bytes" in headers["flagpost-detail"]
    assert headers["flagpost-source"].startswith(f"{scene.topic}/")

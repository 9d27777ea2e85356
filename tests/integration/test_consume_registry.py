"""Confluent's wire format, with a real schema registry between the real publisher and the real consumer."""

from __future__ import annotations

from flagpost_publisher import Publisher
from flagpost_schemas import TrackEvent, encode_confluent
from real_kafka.registry import SchemaRegistry
from running import eventually, total
from scenes import Scene
from traffic import produce, tracks


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
        assert publisher.flush(20) == 0
    stray = TrackEvent(event_id="s", occurred_at=1, visitor_id="v2", event="Clicked")
    produce(scene.kafka.bootstrap_servers, scene.topic, b"v2", encode_confluent(stray, 424_242))
    with scene.consume(kafka__schema_registry__url=schema_registry.url) as consumer:
        received = scene.pendo.received
        await received.until(lambda: received.recorded() == 1 and received.metadata_records == 1, 30)
        await eventually(
            lambda: total(consumer.scrape(), "flagpost_deliveries_total", reason="unknown_schema") == 1
        )
        assert await consumer.stop() == 0
    assert b'"properties":{"n":1}' in tracks(received)[0].body


async def test_a_registry_that_is_down_is_waited_for(scene: Scene) -> None:
    stray = TrackEvent(event_id="s", occurred_at=1, visitor_id="v", event="Clicked")
    produce(scene.kafka.bootstrap_servers, scene.topic, b"v", encode_confluent(stray, 1))
    with scene.consume(kafka__schema_registry__url="http://127.0.0.1:1") as consumer:
        await eventually(lambda: any("waiting for the schema registry" in line for line in consumer.lines))
        series = consumer.scrape()
        assert total(series, "flagpost_deliveries_total") == 0
        assert consumer.get("/livez")[0] == 200
        assert await consumer.stop() == 0

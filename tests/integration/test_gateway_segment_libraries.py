"""Segment's server libraries, as published in their registries, through the gateway to Pendo.

Only their host is changed. A relay before the gateway refuses some requests and loses the answers to others, so that
the libraries send again what is already in Kafka.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from flagpost_consumer.demo.pendo_stand_in import Endpoint, ReceivedLog
from flagpost_schemas import Decoder, TrackEvent
from gateway_running import WRITE_KEY, RunningGateway
from kafka_reading import read_topic
from lossy_relay import LossyRelay
from running import eventually, total
from scenes import Scene
from segment_libraries import (
    Call,
    Library,
    go_library,
    java_library,
    node_library,
    python_library,
    send_by_kotlin,
)
from traffic import tracks

CALLS = 1_000
KINDS = ("track", "identify", "group", "page", "screen")
CLOCK_TOLERANCE_MS = 60_000
"""The time between a batch's sentAt and its receipt may shift its timestamps by as much on a busy machine."""


def calls(began: float) -> Iterator[Call]:
    """A thousand calls of all kinds in turn, each with its own visitor or account, a second apart; the first
    was an hour ago. All of them fit in `dedupe.ttl_seconds`, because some come twice.
    """
    for number in range(CALLS):
        kind = KINDS[number % len(KINDS)]
        arguments = {"userId": f"u{number}", **_BODIES[kind](number)}
        yield Call(kind, {**arguments, "timestamp": occurred(began, number).isoformat()})


def occurred(began: float, number: int) -> datetime:
    return datetime.fromtimestamp(round(began) - 3_600 + number, UTC)


def _track(number: int) -> dict[str, Any]:
    properties = {"order_id": f"o{number}", "total": 9.5, "products": [{"sku": "a"}, {"sku": "b"}]}
    context = {"ip": "192.0.2.1", "userAgent": "Firefox", "groupId": "acme"}
    return {"event": "Order Completed", "properties": properties, "context": context}


def _page(number: int) -> dict[str, Any]:
    context = {
        "page": {"url": f"https://shop.example/{number}", "title": "Shop", "referrer": "https://a.example"}
    }
    return {"name": "Shop", "properties": {"depth": number}, "context": context}


_BODIES: dict[str, Callable[[int], dict[str, Any]]] = {
    "track": _track,
    "identify": lambda number: {"traits": {"plan": "pro", "tags": ["a", "b"], "company": {"size": number}}},
    "group": lambda number: {"groupId": f"g{number}", "traits": {"employees": number}},
    "page": _page,
    "screen": lambda number: {"name": "Settings", "properties": {"where": {"tab": number}}},
}


def expected_track(number: int) -> dict[str, Any]:
    """The body that Pendo must receive for a track, page or screen call, without its timestamp."""
    own: dict[str, dict[str, Any]] = {
        "track": {
            "event": "purchase",
            "accountId": "acme",
            "properties": {
                "revenue": 9.5, "order_id": f"o{number}", "items": 2, "total": 9.5, "products_count": 2
            },
            "context": {"ip": "192.0.2.1", "userAgent": "Firefox"},
        },
        "page": {
            "event": "page_view",
            "properties": {
                "url": f"https://shop.example/{number}", "title": "Shop", "referrer": "https://a.example",
                "name": "Shop", "depth": number,
            },
            "context": {"url": f"https://shop.example/{number}", "title": "Shop"},
        },
        "screen": {
            "event": "screen",
            "properties": {"name": "Settings", "where_tab": number},
            "context": {},
        },
    }  # fmt: skip
    return {"type": "track", "visitorId": f"u{number}", **own[KINDS[number % len(KINDS)]]}


def of_kinds(*kinds: str) -> list[int]:
    return [number for number in range(CALLS) if KINDS[number % len(KINDS)] in kinds]


def check_tracks(received: ReceivedLog, began: float) -> None:
    """Check that each track, page and screen call was sent to Pendo once, mapped, with its own time."""
    sent = [orjson.loads(request.body) for request in tracks(received)]
    times = {event["visitorId"]: event.pop("timestamp") for event in sent}
    numbers = of_kinds("track", "page", "screen")
    assert sorted(sent, key=lambda event: event["visitorId"]) == sorted(
        map(expected_track, numbers), key=lambda event: event["visitorId"]
    )
    for number in numbers:
        claimed_ms = occurred(began, number).timestamp() * 1000
        assert abs(times[f"u{number}"] - claimed_ms) < CLOCK_TOLERANCE_MS


def check_metadata(received: ReceivedLog) -> None:
    """Check that each identify and group call was sent to Pendo once, mapped."""
    records = [record for request in received.of(Endpoint.METADATA) for record in orjson.loads(request.body)]
    by_visitor = [
        {"visitorId": f"u{number}", "values": {"plan": "pro", "tags": ["a", "b"], "company_size": number}}
        for number in of_kinds("identify")
    ]
    by_account = [
        {"accountId": f"g{number}", "values": {"employees": number}} for number in of_kinds("group")
    ]
    assert sorted(records, key=repr) == sorted(by_visitor + by_account, key=repr)


@pytest.mark.parametrize("library", [python_library, node_library, go_library], ids=["python", "node", "go"])
async def test_a_thousand_calls_arrive_once_and_mapped(scene: Scene, library: Callable[[], Library]) -> None:
    sender = await asyncio.to_thread(library)
    began = time.time()
    async with gateway_of(scene) as gateway:
        async with LossyRelay(gateway.url) as relay:
            await sender.send(calls(began), relay.url, WRITE_KEY)
        assert relay.refused > 0
        assert relay.answers_lost > 0
        taken = total(await gateway.scrape(), "flagpost_gateway_events_total", outcome="accepted")
        assert taken > CALLS
        assert await gateway.stop() == 0
    await check_delivered(scene, taken, began)


async def test_a_thousand_calls_of_javas_library_arrive_mapped(scene: Scene) -> None:
    """Not through the relay, because this library waits for a minute before it retries."""
    sender = await asyncio.to_thread(java_library)
    began = time.time()
    async with gateway_of(scene) as gateway:
        await sender.send(calls(began), gateway.url, WRITE_KEY)
        taken = total(await gateway.scrape(), "flagpost_gateway_events_total", outcome="accepted")
        assert taken == CALLS
        assert await gateway.stop() == 0
    await check_delivered(scene, taken, began)


@asynccontextmanager
async def gateway_of(scene: Scene) -> AsyncIterator[RunningGateway]:
    settings = {"kafka.bootstrap_servers": scene.kafka.bootstrap_servers, "kafka.topic": scene.topic}
    async with RunningGateway(settings) as gateway:
        await gateway.ready()
        yield gateway


async def check_delivered(scene: Scene, taken: float, began: float) -> None:
    """Consume the accepted events; checks that each call was sent to Pendo once, and the others were duplicates."""
    with scene.consume(delivery__visitor_interval_seconds=0) as consumer:
        await eventually(
            lambda: total(consumer.scrape(), "flagpost_deliveries_total") == taken, 60, what="all are settled"
        )
        books = consumer.scrape()
        assert total(books, "flagpost_deliveries_total", outcome="delivered") == CALLS
        assert total(books, "flagpost_deliveries_total", outcome="duplicate") == taken - CALLS
        assert await consumer.stop() == 0
    check_tracks(scene.pendo.received, began)
    check_metadata(scene.pendo.received)
    assert scene.pendo.received.violations == []


async def test_the_kotlin_library_sends_its_batches_with_the_key_in_the_body(scene: Scene) -> None:
    """The library sends gzip to /v1/b, as text/plain, twenty events a batch."""
    key = f"kotlin-{uuid.uuid4()}"  # the library stores its events by key
    settings = {
        "kafka.bootstrap_servers": scene.kafka.bootstrap_servers,
        "kafka.topic": scene.topic,
        "gateway.write_keys": [key],
    }
    async with RunningGateway(settings) as gateway:
        await gateway.ready()
        await send_by_kotlin(gateway.url.removeprefix("http://"), key, "k-1", 50)
        series = await gateway.scrape()
        assert total(series, "flagpost_gateway_events_total", outcome="accepted", type="track") >= 51
        assert total(series, "flagpost_gateway_events_total", outcome="accepted", type="visitor") == 1
        assert total(series, "flagpost_gateway_events_total", outcome="accepted", type="account") == 1
        assert total(series, "flagpost_gateway_set_aside_total", reason="malformed") == 0
    records = await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.topic)
    events = [Decoder().decode(record.value or b"") for record in records]
    chosen = [event for event in events if isinstance(event, TrackEvent) and event.event == "Plan Chosen"]
    assert {event.properties["number"] for event in chosen} == set(range(50))
    assert {event.visitor_id for event in chosen} == {"k-1"}

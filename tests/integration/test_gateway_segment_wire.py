"""Requests in the form of Segment's libraries that cannot run here (.NET, PHP, Ruby), sent to the gateway."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_schemas import Decoder, Event, TrackEvent, VisitorMetadata
from gateway_running import AUTHORIZED, WRITE_KEY, RunningGateway
from kafka_reading import read_topic

pytestmark = pytest.mark.thorough

CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({"flagpost.events": 1}) as running:
        yield running


@pytest.fixture
async def gateway(kafka: EmbeddedKafka) -> AsyncIterator[RunningGateway]:
    async with RunningGateway({"kafka.bootstrap_servers": kafka.bootstrap_servers}) as running:
        await running.ready()
        yield running


async def raw(gateway: RunningGateway, request: bytes) -> bytes:
    """Send the bytes of one request on a new connection; returns the answer."""
    host, port = gateway.url.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        async with asyncio.timeout(stretched(30)):
            return await reader.readuntil(b'{"success":true}')
    finally:
        writer.close()


async def events_of(kafka: EmbeddedKafka) -> list[Event]:
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, "flagpost.events")
    return [Decoder().decode(record.value or b"") for record in records]


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("media_type", [None, "text/plain", "text/plain; charset=utf-8"])
async def test_dotnets_batch_has_no_media_type_or_another_and_the_key_in_its_body(
    gateway: RunningGateway, kafka: EmbeddedKafka, coding: str, media_type: str | None
) -> None:
    head, _, body = (CASES / "segment-dotnet-b.http").read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")
    body = body.rstrip(b"\n").replace(b'"KEY"', f'"{WRITE_KEY}"'.encode())
    if coding == "gzip":
        body = gzip.compress(body)
    lines = [line for line in head.split(b"\n") if not line.lower().startswith(b"content-length")]
    lines += [f"content-length: {len(body)}".encode(), f"content-encoding: {coding}".encode()]
    if media_type is not None:
        lines.append(f"content-type: {media_type}".encode())
    answer = await raw(gateway, b"\r\n".join([*lines, b"", body]))
    assert answer.startswith(b"HTTP/1.1 200 ")
    (event,) = await events_of(kafka)
    assert isinstance(event, TrackEvent)
    assert (event.event_id, event.visitor_id, event.event) == ("m-1", "u-1", "Plan Chosen")


async def test_phps_empty_maps_are_lists_and_all_its_messages_are_taken(
    gateway: RunningGateway, kafka: EmbeddedKafka
) -> None:
    body = (CASES / "segment-php-empty-map.json").read_bytes()
    headers = {"content-type": "application/json", **AUTHORIZED}
    assert (await gateway.post("/v1/batch", data=body, headers=headers))[0] == 200
    first, second = await events_of(kafka)
    assert [(event.event_id, type(event)) for event in (first, second)] == [
        ("m-1", TrackEvent),
        ("m-3", TrackEvent),
    ]
    assert await gateway.value("flagpost_gateway_set_aside_total", reason="no_traits") == 1
    assert await gateway.value("flagpost_gateway_set_aside_total", reason="malformed") == 0


async def test_rubys_times_numbers_and_nulls_are_read(gateway: RunningGateway, kafka: EmbeddedKafka) -> None:
    """analytics-ruby: a time with a zone's name, a number as user id, `"integrations": null`, a trailing newline."""
    message = {
        "type": "identify", "userId": 7, "messageId": "r-1", "anonymousId": None, "integrations": None,
        "traits": {"plan": "gold", "since": "2025-11-20T10:00:00.000+00:00"},
        "timestamp": "2025-11-20 10:00:00 UTC",
        "context": {"library": {"name": "analytics-ruby", "version": "2.5.0"}},
    }  # fmt: skip
    body = json.dumps({"sentAt": "2025-11-20T10:00:05.000+00:00", "batch": [message]}).encode() + b"\n"
    headers = {"content-type": "application/json", "accept": "application/json", **AUTHORIZED}
    assert (await gateway.post("/v1/batch", data=body, headers=headers))[0] == 200
    (event,) = await events_of(kafka)
    assert isinstance(event, VisitorMetadata)
    assert (event.visitor_id, event.values["plan"]) == ("7", "gold")
    assert event.occurred_at == 1_763_632_800_000


async def test_one_bad_message_costs_only_itself_and_is_counted(
    gateway: RunningGateway, kafka: EmbeddedKafka
) -> None:
    good = {"type": "track", "userId": "u", "event": "e"}
    bad: list[Any] = [
        {"userId": "u", "event": "e"},
        {**good, "event": 7},
        {**good, "properties": "many"},
        None,
    ]
    body = b"\xef\xbb\xbf" + json.dumps({"batch": [good, *bad, good]}).encode()
    headers = {"content-type": "application/json", **AUTHORIZED}
    assert (await gateway.post("/v1/batch", data=body, headers=headers))[0] == 200
    assert len(await events_of(kafka)) == 2
    assert await gateway.value("flagpost_gateway_set_aside_total", reason="malformed") == len(bad)


async def test_native_events_stay_all_or_nothing(gateway: RunningGateway, kafka: EmbeddedKafka) -> None:
    good = {"type": "track", "visitor_id": "v", "event": "e"}
    status, answer, _ = await gateway.post("/v1/events", [good, {**good, "event": 7}])
    assert (status, answer["index"], answer["field"]) == (400, 1, "event")
    status, answer, _ = await gateway.post("/v1/events", [{**good, "properties": []}])
    assert (status, answer["field"]) == (400, "properties")
    assert await events_of(kafka) == []


async def test_the_path_that_javas_library_uses_exists(gateway: RunningGateway) -> None:
    batch = {"batch": [{"type": "track", "userId": "u", "event": "e"}]}
    assert (await gateway.post("/v1/import/", batch))[0] == 200


async def test_a_text_or_number_that_cannot_be_read_costs_no_other_message(
    gateway: RunningGateway, kafka: EmbeddedKafka
) -> None:
    good = b'{"type":"track","userId":"u","event":"e"}'
    odd = [
        b'{"type":"track","userId":"u","event":"e","properties":{"n":%s}}' % (b"9" * 5_000),
        b'{"type":"track","userId":"u","event":"e","properties":{"name":"caf\xe9"}}',
        b'{"type":"track","userId":"u","event":"e","properties":{"note":"two\nlines"}}',
    ]
    body = b'{"batch":[' + b",".join([good, *odd, good]) + b"]}"
    headers = {"content-type": "application/json", **AUTHORIZED}
    assert (await gateway.post("/v1/batch", data=body, headers=headers))[0] == 200
    first, number, name, note, last = await events_of(kafka)
    assert isinstance(first, TrackEvent)
    assert isinstance(last, TrackEvent)
    properties = [event.properties for event in (number, name, note) if isinstance(event, TrackEvent)]
    assert properties == [{"n": "9" * 5_000}, {"name": "caf\ufffd"}, {"note": "two\nlines"}]

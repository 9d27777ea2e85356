"""The gateway as its clients see it: who may publish, what is refused, and with which error.

One gateway and one embedded broker serve the whole module.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_schemas import Decoder, TrackEvent
from gateway_running import AUTHORIZED, WRITE_KEY, RunningGateway
from kafka_reading import read_topic

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {**AUTHORIZED, "content-type": "application/json"}
EVENT = {"type": "track", "visitor_id": "v-secret", "event": "Clicked"}
BODY = json.dumps(EVENT).encode()
LIMIT = 100_000
DOCS = Path(__file__).parents[2] / "docs"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[RunningGateway]:
    with EmbeddedKafka({"flagpost.events": 4}) as kafka:
        settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "gateway.max_body_bytes": LIMIT}
        async with RunningGateway(settings) as running:
            await running.ready()
            yield running
            assert await running.stop() == 0
            said = "\n".join(running.lines)
            assert WRITE_KEY not in said
            assert "v-secret" not in said


def basic(user: str, password: str = "") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def refusal(gateway: RunningGateway, body: bytes, **headers: str) -> tuple[int, Any]:
    status, answer, _ = await gateway.post("/v1/events", data=body, headers={**JSON, **headers})
    assert {"error", "index", "field"} <= answer.keys()
    return status, answer


# Who may publish


@pytest.mark.parametrize(
    "headers",
    [AUTHORIZED, {"authorization": f"bearer {WRITE_KEY}"}, basic(WRITE_KEY), basic(WRITE_KEY, "anything")],
)
async def test_a_client_with_a_write_key_may_publish(
    gateway: RunningGateway, headers: Mapping[str, str]
) -> None:
    assert (await gateway.post("/v1/events", EVENT, headers=headers))[:2] == (202, {"accepted": 1})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": WRITE_KEY},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {WRITE_KEY}x"},
        {"authorization": f"Bearer {WRITE_KEY[:-1]}"},
        {"authorization": f"Digest {WRITE_KEY}"},
        {"authorization": "Basic %%%"},
        {"authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
        basic(""),
        basic("anybody", WRITE_KEY),
    ],
)
async def test_a_client_without_a_write_key_gets_401(
    gateway: RunningGateway, headers: Mapping[str, str]
) -> None:
    status, answer, told = await gateway.post("/v1/events", EVENT, headers=headers)
    assert status == 401
    assert told["www-authenticate"].startswith("Bearer")
    assert "gateway.write_keys" in answer["fix"]


async def test_a_body_without_a_key_is_not_read(gateway: RunningGateway) -> None:
    status, _, _ = await gateway.post("/v1/events", data=b"x" * 10 * LIMIT, headers={})
    assert status == 401


# Paths and methods


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods_are_405_and_have_no_cors_headers(gateway: RunningGateway, method: str) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST", **AUTHORIZED}
    async with gateway.session.request(method, gateway.url + "/v1/events", headers=asked) as answer:
        assert answer.status == 405
        assert answer.headers["allow"] == "POST"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert (await answer.json())["fix"] == "use POST"


@pytest.mark.parametrize(
    "path", ["/x", "/v1", "/v1/events/", "/v1/event", "/v2/events", "/metrics", "/v1/%00"]
)
async def test_other_paths_are_404(gateway: RunningGateway, path: str) -> None:
    status, answer, _ = await gateway.post(path, EVENT)
    assert status == 404
    assert "docs/gateway.md" in answer["fix"]


# Media types and content codings


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""]
)
async def test_other_media_types_are_415(gateway: RunningGateway, media_type: str) -> None:
    status, answer = await refusal(gateway, BODY, **{"content-type": media_type})
    assert status == 415
    assert "application/json" in answer["fix"]


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
async def test_other_codings_are_415(gateway: RunningGateway, coding: str) -> None:
    status, answer = await refusal(gateway, BODY, **{"content-encoding": coding})
    assert status == 415
    assert "gzip" in answer["fix"]


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
        ("GZIP", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
    ],
    ids=["gzip", "two members", "capitals", "deflate", "identity"],
)
async def test_encoded_bodies_are_decoded(gateway: RunningGateway, coding: str, body: bytes) -> None:
    headers = {**JSON, "content-type": "application/json; charset=utf-8", "content-encoding": coding}
    assert (await gateway.post("/v1/events", data=body, headers=headers))[0] == 202


@pytest.mark.parametrize(
    "body",
    [b"", BODY, gzip.compress(BODY)[:-1], gzip.compress(BODY) + b"x", b"\x1f\x8b" + b"\x00" * 50],
    ids=["empty", "plain", "cut off", "something after it", "a head alone"],
)
async def test_a_body_that_is_not_gzip_is_400(gateway: RunningGateway, body: bytes) -> None:
    status, answer = await refusal(gateway, body, **{"content-encoding": "gzip"})
    assert status == 400
    assert "content-encoding" in answer["error"]


# Sizes


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


@pytest.mark.parametrize("coding", COMPRESS)
async def test_a_body_as_large_as_allowed_is_read_and_one_byte_more_is_413(
    gateway: RunningGateway, coding: str
) -> None:
    compress = COMPRESS[coding]
    fits = BODY + b" " * (LIMIT - len(BODY))
    headers = {**JSON, "content-encoding": coding}
    assert (await gateway.post("/v1/events", data=compress(fits), headers=headers))[0] == 202
    status, answer = await refusal(gateway, compress(fits + b" "), **{"content-encoding": coding})
    assert status == 413
    assert "gateway.max_body_bytes" in answer["fix"]


async def test_a_body_of_unknown_length_has_the_same_limit(gateway: RunningGateway) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LIMIT // 1000 + 1):
            yield b" " * 1000

    async with gateway.session.post(gateway.url + "/v1/events", data=pieces(), headers=JSON) as answer:
        assert answer.status == 413


async def test_a_compression_bomb_takes_no_memory(gateway: RunningGateway) -> None:
    deflated = zlib.compressobj(9, wbits=31)
    bomb = b"".join([*(deflated.compress(b" " * 1_000_000) for _ in range(60)), deflated.flush()])
    process = psutil.Process(gateway.process_id)
    await refusal(gateway, bomb, **{"content-encoding": "gzip"})
    before = process.memory_info().rss
    for status, _ in await asyncio.gather(
        *(refusal(gateway, bomb, **{"content-encoding": "gzip"}) for _ in range(20))
    ):
        assert status == 413
    assert process.memory_info().rss - before < 20_000_000


# Documents


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1,]", "line 1, column"),
        (b'{"type":"track"} x', "is not JSON"),
        (b"\xff{}", "not UTF-8"),
        (BODY.decode().encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b"[" * 50_000, "nested too deep"),
        (b'{"type":"track","type":"track"}', "given twice"),
        (b'{"type":NaN}', "NaN"),
        (b'{"type":-Infinity}', "Infinity"),
        (b'{"type":1e999}', "too large for a double"),
        (b'{"type":' + b"1" * 5000 + b"}", "thousands of digits"),
        (b"[]", "empty array"),
    ],
)
async def test_a_body_that_is_not_a_document_is_400(gateway: RunningGateway, body: bytes, says: str) -> None:
    status, answer = await refusal(gateway, body)
    assert (status, answer["index"], answer["field"]) == (400, None, "body")
    assert says in answer["error"]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (7, "event"),
        (None, "event"),
        ([], "event"),
        ({}, "type"),
        ({"type": "tracks"}, "type"),
        ({"type": "track"}, "event"),
        ({**EVENT, "visitor": "v"}, "visitor"),
        ({**EVENT, "event": 5}, "event"),
        ({**EVENT, "event_id": ""}, "event_id"),
        ({**EVENT, "event_id": "x" * 129}, "event_id"),
        ({**EVENT, "occurred_at": "yesterday"}, "occurred_at"),
        ({**EVENT, "occurred_at": "2026-11-21T10:00:00"}, "occurred_at"),
        ({**EVENT, "occurred_at": 2**63}, "occurred_at"),
        ({**EVENT, "properties": {"n": 10**30}}, "properties.n"),
        ({**EVENT, "properties": []}, "properties"),
        ({**EVENT, "context": {"ip": 1}}, "context.ip"),
        ({**EVENT, "consent": {"analytics": "yes"}}, "consent.analytics"),
        ({**EVENT, "properties": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "properties"),
        ({**EVENT, "visitor_id": "\ud800"}, "visitor_id"),
        ({**EVENT, "context": {"\ud800": "x"}}, "context"),
        ({**EVENT, "source": {"\ud800": "x"}}, "source"),
    ],
)
async def test_the_failing_item_is_named_and_nothing_is_produced(
    gateway: RunningGateway, item: object, field: str
) -> None:
    before = await gateway.value("flagpost_gateway_kafka_acknowledged_total")
    status, answer, _ = await gateway.post("/v1/events", [EVENT, EVENT, item])
    assert (status, answer["index"], answer["field"]) == (400, 2, field)
    assert "v-secret" not in json.dumps(answer)
    assert await gateway.value("flagpost_gateway_kafka_acknowledged_total") == before


async def test_missing_ids_and_times_are_added(gateway: RunningGateway) -> None:
    marked = {"type": "track", "anonymous_id": "made", "event": "Clicked"}
    assert (await gateway.post("/v1/events", [marked, marked]))[0] == 202
    servers = gateway.settings["kafka.bootstrap_servers"]
    found = await asyncio.to_thread(read_topic, str(servers), "flagpost.events")
    events = [Decoder().decode(read.value or b"") for read in found if read.key == b"made"]
    assert len({event.event_id for event in events}) == 2
    assert all(isinstance(event, TrackEvent) and event.occurred_at > 1_700_000_000_000 for event in events)


# Metrics


async def test_series_exist_from_the_start_and_count_what_happens(gateway: RunningGateway) -> None:
    before = await gateway.scrape()
    await gateway.post("/v1/events", [EVENT, {"type": "account", "account_id": "a", "values": {}}])
    await gateway.post("/nowhere", EVENT)
    after = await gateway.scrape()

    def grown(name: str, **labels: str) -> float:
        series = (name, tuple(sorted(labels.items())))
        return after[series] - before[series]

    assert grown("flagpost_gateway_requests_total", route="/v1/events", status="202") == 1
    assert grown("flagpost_gateway_requests_total", route="other", status="404") == 1
    assert grown("flagpost_gateway_events_total", type="track", outcome="accepted") == 1
    assert grown("flagpost_gateway_events_total", type="account", outcome="accepted") == 1
    assert grown("flagpost_gateway_events_total", type="decision", outcome="refused") == 0
    assert grown("flagpost_gateway_request_seconds_count", route="/v1/events") == 1
    assert grown("flagpost_gateway_kafka_acknowledged_total") == 2
    assert grown("flagpost_gateway_body_bytes_total") > 50
    assert after["flagpost_gateway_kafka_up", ()] == 1
    assert after["flagpost_gateway_kafka_queued", ()] == 0
    assert after["flagpost_gateway_requests_in_flight", ()] == 0
    assert [name for name, _ in after if name == "flagpost_gateway_build_info"]
    assert not [labels for _, labels in after if "v-secret" in str(labels) or WRITE_KEY in str(labels)]


# The commands of the pages


def commands_in(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return [block for block in blocks if block.startswith("curl")]


@pytest.mark.parametrize("page", ["gateway.md", "gateway-segment.md"])
async def test_the_commands_of_the_pages_work(gateway: RunningGateway, page: str) -> None:
    if shutil.which("curl") is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("no curl")
    commands = commands_in(page)
    assert commands
    for command in commands:
        ours = command.replace("http://127.0.0.1:8081", gateway.url).replace("WRITE_KEY", WRITE_KEY)
        done = await asyncio.to_thread(
            subprocess.run, ["sh", "-c", ours.replace("curl", "curl -sS -w ' %{http_code}'", 1)],
            capture_output=True, text=True, timeout=stretched(60), check=True,
        )  # fmt: skip
        assert done.stdout.split()[-1] in {"200", "202"}, f"{command}\n{done.stdout}"

"""Strangers (clients that have not shown a key) take little of a gateway: a process within the chart's memory limit.

Before the fix, 92 connections with endless headers filled a pod's memory, 1,000 slow bodies locked out all clients
(also on the path of webhooks, with webhooks off), and 1,500 malformed requests wrote 61 MB of log, keys included.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import sys
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from deadlines import stretched
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.pendo_stand_in.server import PendoStandIn
from flagpost_publisher.gateway import admission, routes
from flagpost_publisher.gateway.server import LIMITS
from gateway_running import AUTHORIZED, WRITE_KEY, RunningGateway
from hostile_clients import answer_to, head, holding
from running import RunningConsumer, eventually
from strangers import SENDING, with_strangers

pytestmark = [pytest.mark.thorough, pytest.mark.asyncio(loop_scope="module")]

EVENT = {"type": "track", "visitor_id": "v-secret", "event": "E"}
MESSAGE = {"userId": "v-secret", "event": "E"}
MAY_TAKE_BYTES = 256 * 1024 * 1024
JSON_TYPE = {"content_type": "application/json"}
ENDLESS = b"POST /v1/track HTTP/1.1\r\nhost: x\r\n" + b"".join(
    b"x-%d: %s\r\n" % (n, b"y" * 200) for n in range(125)
)
ENDLESS_WIDE = b"POST /v1/track HTTP/1.1\r\nhost: x\r\n" + b"".join(
    b"x-%d: %s\r\n" % (n, b"\xe9" * 7_000) for n in range(4)
)
SLOW_BODY = head("POST", "/v1/track", content_length="32000", **JSON_TYPE) + b" " * 30_000
TRAILERS = head("POST", "/v1/track", transfer_encoding="chunked", **JSON_TYPE) + b"1\r\n \r\n0\r\n"
TRAILERS += b"".join(b"x-%d: %s\r\n" % (n, b"y" * 8_000) for n in range(100))
SLOW_WEBHOOK = head("POST", "/v1/webhooks/pendo", content_length="500000", **JSON_TYPE) + b" " * 300_000
UNREAD = head("GET", "/") * 3_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(cold_starts: None) -> AsyncIterator[RunningGateway]:  # noqa: ARG001 - its memory is measured
    with EmbeddedKafka({"flagpost.events": 4}) as kafka:
        async with RunningGateway({"kafka.bootstrap_servers": kafka.bootstrap_servers}) as running:
            await running.ready()
            yield running
            assert await running.stop() == 0
            said = "\n".join(running.lines)
            assert WRITE_KEY not in said
            assert "v-secret" not in said
            assert "Traceback" not in said


# Malformed requests


@pytest.mark.parametrize("port", ["gateway", "admin"])
async def test_malformed_requests_are_counted_and_not_logged(gateway: RunningGateway, port: str) -> None:
    url = gateway.url if port == "gateway" else gateway.admin_url
    sent = head("POST", "/v1/events", authorization=f"Bearer {WRITE_KEY}\0", x=json.dumps(MESSAGE) * 100)
    labels = {"port": port, "reason": "malformed"}
    before = await gateway.value("flagpost_gateway_connections_dropped_total", **labels)
    began, lines = time.monotonic(), len(gateway.lines)

    answers = [await answer_to(url, sent) for _ in range(300)]

    assert await gateway.value("flagpost_gateway_connections_dropped_total", **labels) == before + 300
    assert {answer.partition(b"\r\n")[0].split()[1] for answer in answers} == {b"400"}
    assert len({answer.partition(b"\r\n\r\n")[2] for answer in answers}) == 1
    assert b"aiohttp" not in answers[0]
    assert b"server: flagpost-gateway" in answers[0].lower()
    assert len(gateway.lines) - lines <= time.monotonic() - began + 2


async def test_malformed_requests_to_the_consumers_admin_port_are_counted_too() -> None:
    settings = {
        "kafka.bootstrap_servers": "127.0.0.1:1",
        "pendo.track_secret": "s",
        "decisions.visitor_metadata": False,
    }
    with RunningConsumer(settings) as consumer:
        answer = await answer_to(consumer.admin_url, head("GET", "/status", x="v-secret\0"))
        labels = (("reason", "malformed"),)
        assert consumer.scrape()["flagpost_admin_connections_dropped_total", labels] == 1
        assert (await answer_to(consumer.admin_url, head("GET", "/x"))).startswith(b"HTTP/1.1 404 ")
    assert answer.partition(b"\r\n\r\n")[0].lower().startswith(b"http/1.0 400 ")
    assert b"aiohttp" not in answer
    said = "\n".join(consumer.lines)
    assert "connections were dropped" in said
    assert "v-secret" not in said


# The key is checked before the body is read


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/events", {}, b"401"),
        ("/v1/events", {"authorization": "Bearer wrong"}, b"401"),
        ("/v1/batch", {"authorization": "Bearer wrong"}, b"401"),
        ("/v1/webhooks/pendo", {}, b"404"),
        ("/v1/nowhere", {}, b"404"),
    ],
)
async def test_a_request_refused_by_its_headers_is_answered_before_the_body_comes(
    gateway: RunningGateway, path: str, headers: dict[str, str], status: bytes
) -> None:
    sent = head("POST", path, content_length="500000", **JSON_TYPE, **headers)
    answer = await asyncio.wait_for(answer_to(gateway.url, sent), stretched(30))
    assert answer.split()[1] == status


async def test_a_client_that_expects_100_continue_gets_it_only_with_a_valid_key(
    gateway: RunningGateway,
) -> None:
    body = json.dumps(EVENT).encode()
    asking = {"expect": "100-continue", "content_length": str(len(body)), **JSON_TYPE}
    wrong = await answer_to(gateway.url, head("POST", "/v1/events", authorization="Bearer wrong", **asking))
    assert wrong.startswith(b"HTTP/1.1 401 ")
    right = head("POST", "/v1/events", authorization=f"Bearer {WRITE_KEY}", **asking)
    async with holding(gateway.url, right, 1) as (reader,):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_with_the_key_in_the_body_32_kilobytes_are_accepted(gateway: RunningGateway) -> None:
    most = routes.MAX_STRANGERS_BYTES
    fits = json.dumps({**MESSAGE, "writeKey": WRITE_KEY}).encode()
    for body, status in ((fits.ljust(most), 200), (fits.ljust(most + 1), 413)):
        for coding, sent in (("identity", body), ("gzip", gzip.compress(body))):
            headers = {"content-type": "application/json", "content-encoding": coding}
            assert (await gateway.post("/v1/track", data=sent, headers=headers))[0] == status
    large = json.dumps({"batch": [{"type": "track", **MESSAGE}] * 2_000}).encode()
    headers = {"content-type": "application/json", **AUTHORIZED}
    assert (await gateway.post("/v1/batch", data=large, headers=headers))[0] == 200


async def test_too_many_strangers_at_once_lock_out_only_strangers(gateway: RunningGateway) -> None:
    in_flight = "flagpost_gateway_requests_in_flight"
    async with holding(gateway.url, SLOW_BODY, admission.MAX_STRANGERS // 2):
        async with asyncio.timeout(stretched(30)):
            while await gateway.value(in_flight) < admission.MAX_STRANGERS // 2:  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.02)
        with_key_in_body = {**MESSAGE, "writeKey": WRITE_KEY}
        status, _, told = await gateway.post("/v1/track", with_key_in_body, headers={})
        assert (status, told["retry-after"]) == (503, "1")
        assert (await gateway.post("/v1/track", MESSAGE))[0] == 200
    async with asyncio.timeout(stretched(30)):
        while await gateway.value(in_flight) > 0:  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.02)
    assert (await gateway.post("/v1/track", with_key_in_body, headers={}))[0] == 200


# Health


@pytest.mark.parametrize("path", ["/", "/healthz"])
async def test_a_load_balancer_can_check_the_gateways_health_on_its_own_port(
    gateway: RunningGateway, path: str
) -> None:
    for method in ("GET", "HEAD"):
        assert (await answer_to(gateway.url, head(method, path))).startswith(b"HTTP/1.1 200 ")
    status, _, told = await gateway.post(path, EVENT)
    assert (status, told["allow"]) == (405, "GET, HEAD")
    assert await gateway.value("flagpost_gateway_requests_total", route="health", status="200") > 0


# A thousand at once


async def go_on(gateway: RunningGateway) -> None:
    """Check that events are accepted and probes answered; benchmarks/strangers.py measures how fast."""
    for _ in range(20):
        async with asyncio.timeout(stretched(60)):  # before the fix, it stood still for minutes
            assert (await gateway.post("/v1/events", EVENT))[0] == 202
            assert await gateway.probe("/livez") == 200


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(
    "sent",
    [ENDLESS, ENDLESS_WIDE, TRAILERS, SLOW_BODY, SLOW_WEBHOOK, UNREAD, b"", b"G"],
    ids=[
        "headers",
        "headers with wide letters",
        "trailers",
        "bodies",
        "webhooks",
        "unread answers",
        "nothing",
        "a byte",
    ],
)
async def test_a_thousand_strangers_take_little_and_shut_nobody_out(
    gateway: RunningGateway, sent: bytes
) -> None:
    async with holding(gateway.url, sent, 1_000):
        await go_on(gateway)
        assert await gateway.value("flagpost_gateway_connections") <= LIMITS.strangers_at_once + 20
    assert gateway.peak_bytes < MAY_TAKE_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("kind", SENDING)
async def test_a_thousand_strangers_that_send_as_fast_as_they_are_answered_shut_nobody_out(
    gateway: RunningGateway, kind: str
) -> None:
    """Before the fix, the event loop did nothing but parse 32 KB of brackets again and again."""
    async with with_strangers(gateway.url, kind, 1_000):
        await go_on(gateway)
    assert gateway.peak_bytes < MAY_TAKE_BYTES


async def test_stopping_does_not_wait_for_strangers() -> None:
    with EmbeddedKafka({"flagpost.events": 1}) as kafka:
        async with RunningGateway({"kafka.bootstrap_servers": kafka.bootstrap_servers}) as gateway:
            await gateway.ready()
            async with (
                holding(gateway.url, ENDLESS, 200),
                holding(gateway.url, SLOW_BODY, 20),
                holding(gateway.admin_url, b"GET / HT", 60),
            ):
                assert (await gateway.post("/v1/events", EVENT))[0] == 202
                assert await gateway.stop(25) == 0


# IPv6


async def test_ipv6_addresses_are_shown_in_brackets() -> None:
    settings = {"kafka.bootstrap_servers": "127.0.0.1:1", "gateway.host": "::1"}
    async with RunningGateway(settings) as gateway:
        assert gateway.url.startswith("http://[::1]:")
        assert gateway.admin_url.startswith("http://[::1]:")
        assert await gateway.probe("/livez") == 200
    consumer_settings = {
        "kafka.bootstrap_servers": "127.0.0.1:1",
        "pendo.track_secret": "s",
        "decisions.visitor_metadata": False,
        "admin.host": "::1",
    }
    with RunningConsumer(consumer_settings) as consumer:
        assert consumer.admin_url.startswith("http://[::1]:")
        await eventually(lambda: consumer.get("/livez")[0] == 200)
    async with PendoStandIn(host="::1") as stand_in:
        assert stand_in.url.startswith("http://[::1]:")


async def test_basic_authentication_is_checked_before_the_body_too(gateway: RunningGateway) -> None:
    wrong = base64.b64encode(b"wrong:").decode()
    sent = head("POST", "/v1/batch", content_length="500000", authorization=f"Basic {wrong}", **JSON_TYPE)
    assert (await answer_to(gateway.url, sent)).startswith(b"HTTP/1.1 401 ")


async def test_a_service_with_very_many_connections_shuts_nobody_out() -> None:
    """All its connections show the same key; they do not cause a connection with another key to be dropped."""
    other = "wk-0815-0815"
    event = json.dumps(EVENT).encode()
    length = str(len(event))
    mine, others = (
        head("POST", "/v1/events", authorization=f"Bearer {key}", content_length=length, **JSON_TYPE) + event
        for key in (WRITE_KEY, other)
    )
    with EmbeddedKafka({"flagpost.events": 1}) as kafka:
        settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers}
        async with RunningGateway({**settings, "gateway.keys": {"other": {"key": other}}}) as running:
            await running.ready()
            async with holding(running.url, mine, LIMITS.connections + 50):
                for _ in range(3):
                    assert (await answer_to(running.url, others)).startswith(b"HTTP/1.1 202 ")

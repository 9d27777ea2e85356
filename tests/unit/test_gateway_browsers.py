"""Which web pages may send events and read the answers, as browsers learn it from CORS headers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

import pytest

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from gateway_running import WRITE_KEY, RunningGateway

OURS, OTHER = "https://www.example.com", "https://www.example.org"
PUBLIC_KEY = "a-public-write-key"
TRACK = {"userId": "u", "event": "Clicked", "writeKey": PUBLIC_KEY}
ASKING = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    keys = {"web": {"key": PUBLIC_KEY, "origins": [OURS]}}
    with EmbeddedKafka({"flagpost.events": 1}) as kafka:
        settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "gateway.keys": keys}
        async with RunningGateway(settings) as running:
            await running.ready()
            yield running


async def asked(gateway: RunningGateway, origin: str) -> tuple[int, Mapping[str, str]]:
    """Send a browser's preflight request; returns the answer's status and headers."""
    async with gateway.session.options(f"{gateway.url}/v1/t", headers={"origin": origin, **ASKING}) as answer:
        return answer.status, answer.headers


async def sent(gateway: RunningGateway, document: object, **headers: str) -> tuple[int, Mapping[str, str]]:
    """Send a page's request as the library and sendBeacon write it; returns the answer's status and headers."""
    body = json.dumps(document).encode()
    status, _, answered = await gateway.post(
        "/v1/t", data=body, headers={"content-type": "text/plain;charset=UTF-8", **headers}
    )
    return status, answered


async def test_a_page_of_the_keys_origin_may_send_and_read_the_answer(gateway: RunningGateway) -> None:
    status, headers = await asked(gateway, OURS)
    assert status == 200
    assert headers["access-control-allow-origin"] == OURS
    assert headers["access-control-allow-methods"] == "POST"
    assert "authorization" in headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in headers
    status, headers = await sent(gateway, TRACK, origin=OURS)
    assert (status, headers["access-control-allow-origin"], headers["vary"]) == (200, OURS, "origin")
    status, headers = await sent(gateway, {}, origin=OURS)
    assert (status, headers["access-control-allow-origin"]) == (401, OURS)


async def test_a_page_of_another_origin_may_not(gateway: RunningGateway) -> None:
    for origin in (OTHER, "null", "http://www.example.com", f"{OURS}.evil.example", f"{OURS}:444"):
        status, headers = await asked(gateway, origin)
        assert status == 405, origin
        assert not [name for name in headers if name.lower().startswith("access-control")], origin
        status, headers = await sent(gateway, TRACK, origin=origin)
        assert status == 403, origin
        assert not [name for name in headers if name.lower().startswith("access-control")], origin
    assert await gateway.value("flagpost_gateway_key_events_total", key="web", outcome="accepted") == 0


async def test_a_public_key_is_limited_by_address_and_a_page_can_read_retry_after(
    gateway: RunningGateway,
) -> None:
    batch = {"batch": [{**TRACK, "type": "track"}] * 60, "writeKey": PUBLIC_KEY}
    status, _, _ = await gateway.post("/v1/b", batch, headers={})
    assert status == 200
    status, headers = await sent(gateway, TRACK, origin=OURS)
    assert (status, headers["access-control-expose-headers"]) == (429, "retry-after")
    assert int(headers["retry-after"]) >= 1
    assert await gateway.value("flagpost_gateway_key_limited_total", key="web") == 1
    status, _, _ = await gateway.post("/v1/t", {**TRACK, "writeKey": WRITE_KEY}, headers={})
    assert status == 200


async def test_a_public_key_sends_track_and_page_only(gateway: RunningGateway) -> None:
    kinds = ("track", "page", "screen", "identify", "group", "alias")
    batch = [
        {"type": kind, "userId": "u", "groupId": "g", "event": "e", "traits": {"a": 1}} for kind in kinds
    ]
    status, _, _ = await gateway.post("/v1/b", {"batch": batch, "writeKey": PUBLIC_KEY}, headers={})
    assert status == 200
    assert await gateway.value("flagpost_gateway_key_events_total", key="web", outcome="accepted") == 2
    assert await gateway.value("flagpost_gateway_set_aside_total", reason="not_allowed") == 4
    event = {"type": "visitor", "visitor_id": "v", "values": {"plan": "gold"}}
    bearer = {"authorization": f"Bearer {PUBLIC_KEY}"}
    status, answer, _ = await gateway.post("/v1/events", event, headers=bearer)
    assert (status, answer["field"]) == (403, "type")


async def test_without_a_public_key_browsers_get_no_cors_headers() -> None:
    async with RunningGateway({"kafka.bootstrap_servers": "127.0.0.1:1"}) as gateway:
        status, headers = await asked(gateway, OURS)
        assert (status, "vary" in headers) == (405, False)


async def test_behind_a_trusted_proxy_it_is_the_clients_address_that_counts() -> None:
    keys = {"web": {"key": PUBLIC_KEY, "origins": [OURS]}}
    with EmbeddedKafka({"flagpost.events": 1}) as kafka:
        settings = {
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "gateway.keys": keys,
            "gateway.trusted_proxies": ["127.0.0.1"],
        }
        async with RunningGateway(settings) as gateway:
            await gateway.ready()
            batch = {"batch": [{**TRACK, "type": "track"}] * 60, "writeKey": PUBLIC_KEY}
            found = []
            for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"):
                headers = {"x-forwarded-for": f"198.51.100.9, {client}"}
                found.append((await gateway.post("/v1/b", batch, headers=headers))[0])
    assert found == [200, 429, 200, 200, 429]

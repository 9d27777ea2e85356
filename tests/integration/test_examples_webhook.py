"""examples/payment-webhook: a payment provider's notifications become an account's metadata at Pendo."""

from __future__ import annotations

import hmac
import importlib.util
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from examples_running import EXAMPLES
from flagpost_consumer.demo.pendo_stand_in import Endpoint
from gateway_running import WRITE_KEY, RunningGateway
from running import eventually, total
from scenes import Scene

pytestmark = pytest.mark.thorough

SECRET = "whsec-test"
NOBODY = "http://127.0.0.1:1"
Client = TestClient[web.Request, web.Application]


def load_webhook() -> Any:
    spec = importlib.util.spec_from_file_location("webhook", EXAMPLES / "payment-webhook" / "webhook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


webhook = load_webhook()


@asynccontextmanager
async def receiving(gateway_url: str) -> AsyncIterator[Client]:
    settings = webhook.Settings(gateway_url, WRITE_KEY, SECRET)
    async with TestClient(TestServer(webhook.application(settings))) as client:
        yield client


def notification(identity: str, created: int, plan: str, **changes: object) -> bytes:
    """A notification as the provider sends it, without the fields that the webhook ignores."""
    subscription = {
        "id": "sub_1",
        "status": "active",
        "cancel_at_period_end": False,
        "metadata": {"account_id": "acme-größe"},
        "items": {"data": [{"price": {"lookup_key": plan}, "quantity": 12}]},
        **changes,
    }
    document = {
        "id": identity,
        "created": created,
        "type": "customer.subscription.updated",
        "data": {"object": subscription},
    }
    return json.dumps(document).encode()


def now() -> int:
    return int(time.time())


def signature(body: bytes, moment: int, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), f"{moment}.".encode() + body, "sha256").hexdigest()


async def tell(client: Client, body: bytes, header: str | None = None) -> tuple[int, str]:
    signed = header if header is not None else f"t={now()},v1={signature(body, now())}"
    answer = await client.post("/payments", data=body, headers={"stripe-signature": signed})
    return answer.status, await answer.text()


@pytest.mark.kafka
async def test_subscriptions_become_account_metadata_once_and_the_newest_wins(scene: Scene) -> None:
    early, late = now() - 60, now() - 30
    async with RunningGateway(scene.settings) as gateway, receiving(gateway.url) as client:
        await gateway.ready()
        with scene.consume() as consumer:
            upgraded = notification("evt_2", late, "business")
            assert await tell(client, upgraded) == (200, "accepted")
            await eventually(lambda: total(consumer.scrape(), "flagpost_deliveries_total") == 1)
            assert await tell(client, upgraded) == (200, "accepted")
            assert await tell(client, notification("evt_1", early, "starter")) == (200, "accepted")
            await eventually(lambda: total(consumer.scrape(), "flagpost_deliveries_total") == 3)
            settled = consumer.scrape()
            assert await consumer.stop() == 0
    assert total(settled, "flagpost_deliveries_total", reason="unchanged") == 1
    assert total(settled, "flagpost_deliveries_total", reason="superseded") == 1
    (request,) = scene.pendo.received.of(Endpoint.METADATA)
    assert request.path == "/api/v1/metadata/account/custom/value?create=true"
    values = {"plan": "business", "plan_status": "active", "seats": 12, "cancels_at_period_end": False}
    assert request.parsed == [{"accountId": "acme-größe", "values": values}]


BODY = notification("evt_1", 1_800_000_000, "starter")


BAD: dict[str, Callable[[int], str]] = {
    "none": lambda _: "",
    "no time": lambda at: f"v1={signature(BODY, at)}",
    "no signature": lambda at: f"t={at}",
    "another secret": lambda at: f"t={at},v1={signature(BODY, at, 'another secret')}",
    "another scheme": lambda at: f"t={at},v0={signature(BODY, at)}",
    "another time": lambda at: f"t={at},v1={signature(BODY, at - 1)}",
    "ten minutes old": lambda at: f"t={at - 600},v1={signature(BODY, at - 600)}",
    "ten minutes ahead": lambda at: f"t={at + 600},v1={signature(BODY, at + 600)}",
    "no number": lambda _: "t=²,v1=é",
    "a number without end": lambda at: f"t={'9' * 5000},v1={signature(BODY, at)}",
}


@pytest.mark.parametrize("what", BAD)
async def test_a_notification_without_a_valid_and_fresh_signature_is_refused(what: str) -> None:
    async with receiving(NOBODY) as client:
        status, why = await tell(client, BODY, BAD[what](now()))
    assert status == 400
    assert "signature" in why


async def test_a_secret_may_be_changed_while_notifications_come() -> None:
    both = f"t={now()},v1={signature(BODY, now(), 'the old secret')},v1={signature(BODY, now())}"
    async with receiving(NOBODY) as client:
        status, _ = await tell(client, BODY, both)
    assert status == 503  # the signature was accepted, and there is no gateway


@pytest.mark.kafka
async def test_the_provider_is_asked_to_retry_while_the_gateway_takes_nothing(scene: Scene) -> None:
    nobody = {"kafka.bootstrap_servers": "127.0.0.1:1", "kafka.topic": scene.topic}
    async with RunningGateway(nobody) as gateway, receiving(gateway.url) as client:
        status, why = await tell(client, BODY)
    assert (status, why) == (503, "not accepted; send it again later")


async def test_a_subscription_without_an_account_is_refused_with_the_reason() -> None:
    async with receiving(NOBODY) as client:
        status, why = await tell(client, notification("evt_1", now(), "starter", metadata={}))
    assert status == 422
    assert "account_id" in why


async def test_notifications_of_other_types_are_ignored() -> None:
    body = BODY.replace(b"customer.subscription.updated", b"invoice.paid")
    async with receiving(NOBODY) as client:
        assert await tell(client, body) == (200, "nothing to do")

"""Pendo's webhooks, through the gateway, to their topic on a real Kafka."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, TopicPartition

from deadlines import stretched
from gateway_running import RunningGateway
from kafka_reading import read_topic
from real_kafka.broker import KafkaBroker

PATH = "/v1/webhooks/pendo"


class WebhookScene:
    """A gateway with a secret in a file, and the topic that it publishes webhooks to."""

    def __init__(self, kafka: KafkaBroker, fresh_name: Callable[[str], str], secret_file: Path) -> None:
        self.kafka = kafka
        self.topic = fresh_name("webhooks")
        self.secret_file = secret_file
        events = fresh_name("events")
        kafka.create_topics(events, self.topic)
        secret_file.write_text("the-first-secret\n")
        self.gateway = RunningGateway(
            {
                "kafka.bootstrap_servers": kafka.bootstrap_servers,
                "kafka.topic": events,
                "gateway.webhook_topic": self.topic,
                "gateway.webhook_secret_file": str(secret_file),
            }
        )

    async def receive(self, body: bytes, *, secret: str = "the-first-secret") -> tuple[int, Any]:
        """Send a body signed as Pendo signs it; returns the answer's status and document."""
        signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-pendo-signature": signature, "content-type": "application/json"}
        status, document, _ = await self.gateway.post(PATH, headers=headers, data=body)
        return status, document

    def values(self) -> list[tuple[bytes | None, bytes | None]]:
        """Key and value of every record."""
        return [(read.key, read.value) for read in read_topic(self.kafka.bootstrap_servers, self.topic)]

    def headers(self) -> dict[str, bytes]:
        """The headers of the only record."""
        (read,) = read_topic(self.kafka.bootstrap_servers, self.topic)
        reader = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": "headers"})
        reader.assign([TopicPartition(self.topic, read.partition, read.offset)])
        message = reader.poll(stretched(20))
        reader.close()
        assert message is not None
        return dict(cast("list[tuple[str, bytes]]", message.headers() or []))


@pytest.fixture
async def scene(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[WebhookScene]:
    scene = WebhookScene(kafka, fresh_name, tmp_path / "webhook-secret")
    async with scene.gateway:
        await scene.gateway.ready()
        yield scene


def webhook(age_seconds: float = 0, **members: object) -> bytes:
    timestamp = int((time.time() - age_seconds) * 1000)
    return json.dumps({"event_type": "poll.response", "timestamp": timestamp, **members}, indent=1).encode()


@pytest.mark.kafka_core
async def test_a_valid_webhook_is_on_the_topic_once_byte_for_byte(scene: WebhookScene) -> None:
    body = webhook(data={"visitorId": "v-é", "answer": 9})
    assert await scene.receive(body) == (200, {"published": True})
    assert await scene.receive(body) == (200, {"published": False})
    assert scene.values() == [("v-é".encode(), body)]
    assert scene.headers() == {
        "flagpost-webhook-digest": hashlib.sha256(body).hexdigest().encode(),
        "flagpost-webhook-event": b"poll.response",
    }
    counted = [
        await scene.gateway.value(
            "flagpost_gateway_webhooks_total", event_type="poll.response", outcome=outcome
        )
        for outcome in ("published", "repeated")
    ]
    assert counted == [1, 1]


async def test_a_wrongly_signed_or_stale_webhook_is_not_published(scene: WebhookScene) -> None:
    status, document = await scene.receive(webhook(), secret="the-other-secret")
    assert (status, document["fix"].split(",")[0]) == (
        401,
        "send sha256= and the body's HMAC-SHA256 in lower-case hexadecimal",
    )
    status, document = await scene.receive(webhook(age_seconds=86_401))
    assert (status, document["field"]) == (400, "timestamp")
    status, document = await scene.receive(webhook(age_seconds=-600))
    assert (status, document["field"]) == (400, "timestamp")
    assert scene.values() == []


async def test_a_new_secret_is_taken_up_without_a_restart(scene: WebhookScene) -> None:
    scene.secret_file.write_text("the-first-secret\nthe-second-secret\n")
    body = webhook()
    deadline = time.monotonic() + stretched(30)
    while (await scene.receive(body, secret="the-second-secret"))[0] != 200:
        assert time.monotonic() < deadline, "the new secret is not taken up"
    assert (await scene.receive(body, secret="the-first-secret"))[
        0
    ] == 200  # both are valid until Pendo uses the new one
    scene.secret_file.write_text("the-second-secret\n")
    while (await scene.receive(body, secret="the-first-secret"))[0] != 401:
        assert time.monotonic() < deadline, "the old secret is not forgotten"
    assert scene.values() == [(None, body)]


async def test_without_the_secret_file_no_webhook_is_accepted(scene: WebhookScene) -> None:
    body = webhook()
    assert (await scene.receive(body))[0] == 200
    scene.secret_file.unlink()
    deadline = time.monotonic() + stretched(30)
    while (await scene.receive(body))[0] != 401:
        assert time.monotonic() < deadline, "the secret is not forgotten"

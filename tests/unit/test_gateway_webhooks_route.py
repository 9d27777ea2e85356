"""Pendo's webhooks are published to their topic once for each body, and again if Kafka did not accept the body."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Sequence

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client import CollectorRegistry

from flagpost_publisher.gateway.exchange import Arrival
from flagpost_publisher.gateway.kafka_writer import KafkaRecord
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.secret_lines import SecretLines
from flagpost_publisher.gateway.settings import WEBHOOK_SECRET, GatewaySettings
from flagpost_publisher.gateway.webhooks_route import Once, PendoWebhooks
from flagpost_settings.secrets import Secret, list_source_of

NOW = 1_800_000_000_000
SECRET = "a-shared-secret"


class Topic:
    """A topic that accepts publications as soon as it is open."""

    def __init__(self) -> None:
        self.records: list[KafkaRecord] = []
        self.published = 0
        self.open = asyncio.Event()

    async def write(self, records: Sequence[KafkaRecord]) -> None:
        await self.publish()
        self.records.extend(records)

    async def publish(self) -> None:
        await self.open.wait()
        self.published += 1


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
def open_topic(topic: Topic) -> Topic:
    topic.open.set()
    return topic


class Gateway:
    """The route, its metrics, and requests to it."""

    def __init__(self, topic: Topic, secret: str | None = SECRET) -> None:
        self.registry = CollectorRegistry()
        source = list_source_of(
            "gateway.webhook_secret", None if secret is None else Secret(secret), None, WEBHOOK_SECRET
        )
        settings = GatewaySettings(webhook_topic="webhooks")
        self.route = PendoWebhooks(
            settings, None if source is None else SecretLines(source), topic.write, self.registry
        )

    async def receive(self, body: bytes, *signatures: str) -> object:
        headers = CIMultiDict(("X-Pendo-Signature", each) for each in signatures or (signature(body),))
        answer = await self.route(Arrival(body, CIMultiDictProxy(headers), NOW, "", None))
        assert answer.status == 200
        return answer.document["published"]

    def count(self, event_type: str, outcome: str) -> float | None:
        labels = {"event_type": event_type, "outcome": outcome}
        return self.registry.get_sample_value("flagpost_gateway_webhooks_total", labels)


def signature(body: bytes) -> str:
    return "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


def webhook(**members: object) -> bytes:
    return json.dumps({"event_type": "nps.response", "timestamp": NOW, **members}).encode()


async def test_a_webhook_is_on_its_topic_byte_for_byte_and_once(open_topic: Topic) -> None:
    gateway = Gateway(open_topic)
    body = webhook(data={"visitorId": "v1"}) + b"  "
    assert [await gateway.receive(body) for _ in range(3)] == [True, False, False]
    digest = hashlib.sha256(body).hexdigest().encode()
    headers = (("flagpost-webhook-digest", digest), ("flagpost-webhook-event", b"nps.response"))
    assert open_topic.records == [KafkaRecord("webhooks", "v1", body, headers)]
    assert (gateway.count("nps.response", "published"), gateway.count("nps.response", "repeated")) == (1, 2)


async def test_every_kind_has_its_series_from_the_start(topic: Topic) -> None:
    gateway = Gateway(topic)
    kinds = ("guide", "poll.response", "nps.response", "track.event", "other")
    assert {gateway.count(kind, outcome) for kind in kinds for outcome in ("published", "repeated")} == {0}


async def test_a_name_that_pendo_invents_is_published_and_counted_as_other(open_topic: Topic) -> None:
    gateway = Gateway(open_topic)
    assert await gateway.receive(webhook(event_type="moon.landing"))
    assert open_topic.records[0].headers[1] == ("flagpost-webhook-event", b"moon.landing")
    assert gateway.count("other", "published") == 1


@pytest.mark.parametrize("signatures", [("sha256=00",), (signature(b"other"),), (signature(webhook()),) * 2])
async def test_a_wrongly_signed_body_is_neither_published_nor_remembered(
    open_topic: Topic, signatures: tuple[str, ...]
) -> None:
    gateway = Gateway(open_topic)
    with pytest.raises(Refusal) as refused:
        await gateway.receive(webhook(), *signatures)
    assert refused.value.status == 401
    assert open_topic.records == []
    assert await gateway.receive(webhook())


async def test_without_a_secret_the_route_is_off_and_says_what_to_set(topic: Topic) -> None:
    with pytest.raises(Refusal) as refused:
        await Gateway(topic, secret=None).receive(webhook())
    assert refused.value.status == 404
    assert "gateway.webhook_secret" in str(refused.value.document["fix"])


async def test_a_body_too_large_for_a_record_is_refused(topic: Topic) -> None:
    body = webhook(visitorId="v" * 600_000)
    with pytest.raises(Refusal) as refused:
        await Gateway(topic).receive(body)
    assert refused.value.status == 413


async def test_a_body_that_comes_again_while_it_is_published_is_published_once(topic: Topic) -> None:
    once = Once(60)
    both = [asyncio.create_task(once.publish("digest", topic.publish)) for _ in range(2)]
    await asyncio.sleep(0)
    topic.open.set()
    assert sorted(await asyncio.gather(*both)) == [False, True]
    assert not await once.publish("digest", topic.publish)
    assert await once.publish("other", topic.publish)
    assert topic.published == 2


async def test_a_body_that_kafka_did_not_accept_is_published_by_the_next_request(open_topic: Topic) -> None:
    once = Once(60)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise TimeoutError

    first = asyncio.create_task(once.publish("digest", fail))
    await asyncio.sleep(0)
    second = asyncio.create_task(once.publish("digest", open_topic.publish))
    with pytest.raises(TimeoutError):
        await first
    assert await second
    assert open_topic.published == 1


async def test_digests_are_forgotten_beyond_a_number_and_after_a_time(open_topic: Topic) -> None:
    now = [0.0]
    once = Once(60, max_entries=2, timer=lambda: now[0])
    published = [await once.publish(digest, open_topic.publish) for digest in ("a", "b", "c", "c")]
    assert published == [True, True, True, False]
    assert await once.publish("a", open_topic.publish)
    now[0] = 61
    assert await once.publish("c", open_topic.publish)

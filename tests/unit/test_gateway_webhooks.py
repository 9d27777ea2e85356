"""Pendo's webhooks: signatures, ages, and one publication for each body."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json

import pytest

from flagpost_publisher.gateway.webhooks import (
    Once,
    Webhook,
    WebhookKind,
    WebhookRefused,
    is_signed,
    read_webhook,
)

NOW = 1_800_000_000_000
SECRET = "shh"
BODY = json.dumps({"event_type": "guide.seen", "timestamp": NOW, "data": {"visitorId": "v1"}}).encode()


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def read(body: bytes, now_ms: int = NOW) -> Webhook:
    return read_webhook(body, [signature(body)], SECRET, now_ms=now_ms, max_age_seconds=3600)


def read_document(**members: object) -> Webhook:
    return read(json.dumps({"timestamp": NOW, **members}).encode())


def test_a_signed_body_is_read_and_kept_byte_for_byte() -> None:
    spaced = b' {"event_type" : "nps.response","timestamp":1800000000 ,"data":{"visitor_id":"v\xc3\xa9"}}\n'
    assert read(spaced) == Webhook(spaced, hashlib.sha256(spaced).hexdigest(), "nps.response", "vé")


@pytest.mark.parametrize(
    "signatures",
    [
        [],
        [""],
        ["sha256="],
        [signature(BODY).removeprefix("sha256=")],
        [signature(BODY).upper()],
        ["SHA256=" + signature(BODY).removeprefix("sha256=")],
        ["sha256=" + signature(BODY).removeprefix("sha256=").upper()],
        [signature(BODY) + " "],
        [signature(BODY)[:-1]],
        ["sha256=" + "z" * 64],
        ["sha256=" + "é" * 64],
        ["sha256=\udcff"],
        [signature(BODY), signature(BODY)],
        [signature(BODY, "other")],
        [signature(BODY + b" ")],
    ],
)
def test_every_other_signature_is_refused(signatures: list[str]) -> None:
    assert not is_signed(BODY, signatures, SECRET)
    with pytest.raises(WebhookRefused) as refused:
        read_webhook(BODY, signatures, SECRET, now_ms=NOW, max_age_seconds=3600)
    assert refused.value.status == 401
    assert SECRET not in refused.value.problem


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRefused, match="JSON object") as refused:
        read(body)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("timestamp", "problem"),
    [
        (None, "timestamp is missing"),
        ("soon", "timestamp is missing or cannot be read"),
        (NOW - 3_600_001, "webhook_max_age_seconds"),
        (NOW // 1000 - 3601, "webhook_max_age_seconds"),
        (NOW + 300_001, "ahead of our clock"),
        ("2027-01-15T09:00:00Z", "ahead of our clock"),
    ],
)
def test_stale_future_and_undated_bodies_are_refused(timestamp: object, problem: str) -> None:
    with pytest.raises(WebhookRefused, match=problem) as refused:
        read_document(timestamp=timestamp)
    assert refused.value.status == 400


@pytest.mark.parametrize("timestamp", [NOW - 3_600_000, NOW + 300_000, NOW // 1000, "2027-01-15T08:00:00Z"])
def test_bodies_within_the_limits_pass(timestamp: object) -> None:
    assert read_document(timestamp=timestamp).visitor_id is None


@pytest.mark.parametrize(
    ("members", "visitor_id"),
    [
        ({"data": {"visitorId": "v"}}, "v"),
        ({"data": {"visitor_id": "v"}, "visitorId": "top"}, "v"),
        ({"data": [], "visitorId": "top"}, "top"),
        ({"data": {"visitorId": ""}}, None),
        ({"data": {"visitorId": 7}}, None),
        ({"data": {"visitorId": "v\ud800"}}, "v\ufffd"),
    ],
)
def test_the_visitor_is_found_where_pendo_puts_it(members: dict[str, object], visitor_id: str | None) -> None:
    assert read_document(**members).visitor_id == visitor_id


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"event_type": "guide.seen"}, WebhookKind.GUIDE),
        ({"event": "guideDisplayed"}, WebhookKind.GUIDE),
        ({"event_type": "poll.response"}, WebhookKind.POLL_RESPONSE),
        ({"event": "pollSubmitted"}, WebhookKind.POLL_RESPONSE),
        ({"event_type": "nps.response"}, WebhookKind.NPS_RESPONSE),
        ({"event": "npsSubmitted"}, WebhookKind.NPS_RESPONSE),
        ({"event_type": "track.event"}, WebhookKind.TRACK_EVENT),
        ({"event_type": "guides"}, WebhookKind.OTHER),
        ({"event_type": "visitorCreated"}, WebhookKind.OTHER),
        ({"event_type": 7}, WebhookKind.OTHER),
        ({}, WebhookKind.OTHER),
    ],
)
def test_kinds_are_few_whatever_pendo_sends(members: dict[str, object], kind: WebhookKind) -> None:
    assert read_document(**members).kind is kind


class Topic:
    """Takes publications, each when it is let."""

    def __init__(self) -> None:
        self.published = 0
        self.open = asyncio.Event()

    async def publish(self) -> None:
        await self.open.wait()
        self.published += 1


async def test_a_body_that_comes_again_meanwhile_is_published_once() -> None:
    once, topic = Once(60), Topic()
    both = [asyncio.create_task(once.publish("digest", topic.publish)) for _ in range(2)]
    await asyncio.sleep(0)
    topic.open.set()
    assert sorted(await asyncio.gather(*both)) == [False, True]
    assert not await once.publish("digest", topic.publish)
    assert await once.publish("other", topic.publish)
    assert topic.published == 2


async def test_what_kafka_did_not_take_is_published_by_the_next_one() -> None:
    once, topic = Once(60), Topic()
    topic.open.set()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise TimeoutError

    first = asyncio.create_task(once.publish("digest", fail))
    await asyncio.sleep(0)
    second = asyncio.create_task(once.publish("digest", topic.publish))
    with pytest.raises(TimeoutError):
        await first
    assert await second
    assert topic.published == 1


async def test_digests_are_forgotten_after_their_time_and_beyond_their_number() -> None:
    now = [0.0]
    once, topic = Once(60, max_entries=2, timer=lambda: now[0]), Topic()
    topic.open.set()
    assert [await once.publish(digest, topic.publish) for digest in ("a", "b", "c", "c")] == [True] * 3 + [
        False
    ]
    assert await once.publish("a", topic.publish)
    now[0] = 61
    assert await once.publish("c", topic.publish)

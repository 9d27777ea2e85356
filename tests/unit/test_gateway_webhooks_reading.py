"""Reading Pendo's webhooks: signature, age, visitor and kind."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.webhooks import Webhook, WebhookKind, is_signed, read_webhook

NOW = 1_800_000_000_000
SECRET = "shh"
BODY = json.dumps({"event_type": "guide.seen", "timestamp": NOW, "data": {"visitorId": "v1"}}).encode()


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def read(body: bytes, now_ms: int = NOW) -> Webhook:
    return read_webhook(body, [signature(body)], [SECRET], now_ms=now_ms, max_age_seconds=3600)


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
    assert not is_signed(BODY, signatures, [SECRET])
    with pytest.raises(Refusal) as refused:
        read_webhook(BODY, signatures, [SECRET], now_ms=NOW, max_age_seconds=3600)
    assert refused.value.status == 401
    assert SECRET not in str(refused.value.document)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_a_body_that_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal, match="body: ") as refused:
        read(body)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("timestamp", "problem"),
    [
        (None, "timestamp: is missing"),
        ("soon", "timestamp: is missing or cannot be read"),
        (NOW - 3_600_001, "timestamp: is 3600 s ago"),
        (NOW // 1000 - 3601, "timestamp: is 3601 s ago"),
        (NOW + 300_001, "ahead of our clock"),
        ("2027-01-15T09:00:00Z", "ahead of our clock"),
    ],
)
def test_stale_future_and_undated_bodies_are_refused(timestamp: object, problem: str) -> None:
    with pytest.raises(Refusal, match=problem) as refused:
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


def test_while_a_secret_is_changed_signatures_of_the_old_and_the_new_are_accepted() -> None:
    for secret in ("old", "new"):
        assert is_signed(BODY, [signature(BODY, secret)], ["old", "new"])
    assert not is_signed(BODY, [signature(BODY, "other")], ["old", "new"])
    assert not is_signed(BODY, [signature(BODY, "old")], [])

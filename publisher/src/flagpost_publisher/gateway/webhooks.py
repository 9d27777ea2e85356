"""Checks Pendo's webhooks: whether a body is Pendo's and fresh, and what it is about.

In: a raw body, its signature headers, the secret, the time. Out: a `Webhook` to publish, or a Refusal.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flagpost_publisher.gateway.fronts import DocumentError
from flagpost_publisher.gateway.json_documents import tolerant
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.repairs import repaired_text
from flagpost_schemas.times import read_time_ms

SIGNATURE_HEADER = "x-pendo-signature"
MAX_AHEAD_SECONDS = 300.0
"""How far Pendo's clock may be ahead of ours."""


class WebhookKind(StrEnum):
    """What a webhook is about, as metrics count it: an enumeration, because Pendo may send any name."""

    GUIDE = "guide"
    """guide.*: seen, dismissed and so on."""
    POLL_RESPONSE = "poll.response"
    NPS_RESPONSE = "nps.response"
    TRACK_EVENT = "track.event"
    OTHER = "other"


_PENDO_NAMES = {
    "guideDisplayed": WebhookKind.GUIDE,
    "guideSeen": WebhookKind.GUIDE,
    "pollSubmitted": WebhookKind.POLL_RESPONSE,
    "npsSubmitted": WebhookKind.NPS_RESPONSE,
    "NPSSubmitted": WebhookKind.NPS_RESPONSE,
    "trackEventReceived": WebhookKind.TRACK_EVENT,
}
"""Names in Pendo's own examples (https://support.pendo.io/hc/en-us/articles/360032285012-Webhooks)."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A body that Pendo signed and that is fresh enough."""

    body: bytes
    """As received, byte for byte."""
    digest: str
    """SHA-256 of the body, lower-case hexadecimal: the same body has the same digest in every process."""
    event_type: str
    """Pendo's name for it; empty if the body has none."""
    visitor_id: str | None

    @property
    def kind(self) -> WebhookKind:
        """Its kind for the metrics."""
        if self.event_type.startswith("guide."):
            return WebhookKind.GUIDE
        if self.event_type in set(WebhookKind):
            return WebhookKind(self.event_type)
        return _PENDO_NAMES.get(self.event_type, WebhookKind.OTHER)


def read_webhook(
    body: bytes, signatures: Sequence[str], secrets: Sequence[str], *, now_ms: int, max_age_seconds: float
) -> Webhook:
    """Check a request and read what it is about.

    Args:
        body: the raw body.
        signatures: the values of every x-pendo-signature header; there must be exactly one.
        secrets: Pendo's signing secret; while it is changed, the old one and the new.
        now_ms: epoch milliseconds.
        max_age_seconds: how old the body's `timestamp` may be.

    Raises:
        Refusal: 401 for a wrong signature, 400 for a body that cannot be read, is stale, or is from the future.
    """
    if not is_signed(body, signatures, secrets):
        raise Refusal(
            401,
            f"{SIGNATURE_HEADER} is not the signature of the body",
            fix="send sha256= and the body's HMAC-SHA256 in lower-case hexadecimal, with gateway.webhook_secret",
        )
    document = _document(body)
    _check_age(document.get("timestamp"), now_ms, max_age_seconds)
    return Webhook(body, hashlib.sha256(body).hexdigest(), _event_type(document), _visitor_id(document))


def is_signed(body: bytes, signatures: Sequence[str], secrets: Sequence[str]) -> bool:
    """Whether there is one signature and it is the body's with one of `secrets`; compared in constant time."""
    if len(signatures) != 1:
        return False
    signature = signatures[0].encode(errors="surrogateescape")
    expected = ["sha256=" + hmac.new(each.encode(), body, hashlib.sha256).hexdigest() for each in secrets]
    return sum(hmac.compare_digest(signature, each.encode()) for each in expected) > 0


def _document(body: bytes) -> Mapping[str, Any]:
    """Pendo's JSON is published unchanged, so it is read tolerantly."""
    try:
        document = tolerant(body)
    except DocumentError as error:
        raise Refusal(400, str(error), field=error.field) from None
    if not isinstance(document, dict):
        raise Refusal(400, "body: must be a JSON object with event_type, timestamp and data", field="body")
    return document


def _check_age(timestamp: object, now_ms: int, max_age_seconds: float) -> None:
    moment = read_time_ms(timestamp)
    if moment is None:
        raise _wrong_timestamp(
            "is missing or cannot be read", "send RFC 3339, or seconds or milliseconds since 1970"
        )
    age_seconds = (now_ms - moment) / 1000
    if age_seconds > max_age_seconds:
        raise _wrong_timestamp(
            f"is {age_seconds:.0f} s ago; at most {max_age_seconds:g} s are accepted",
            "see gateway.webhook_max_age_seconds",
        )
    if -age_seconds > MAX_AHEAD_SECONDS:
        raise _wrong_timestamp(
            f"is {-age_seconds:.0f} s ahead of our clock; at most {MAX_AHEAD_SECONDS:g} s are accepted",
            "check the clocks of the sender and the gateway",
        )


def _wrong_timestamp(problem: str, fix: str) -> Refusal:
    return Refusal(400, f"timestamp: {problem}", field="timestamp", fix=fix)


def _event_type(document: Mapping[str, Any]) -> str:
    for name in ("event_type", "event"):
        if isinstance(found := document.get(name), str):
            return repaired_text(found)
    return ""


def _visitor_id(document: Mapping[str, Any]) -> str | None:
    """`data` is where we are told it is; the top level is where Pendo's own examples have it."""
    for outer in (document.get("data"), document):
        if isinstance(outer, dict):
            for name in ("visitorId", "visitor_id"):
                if isinstance(found := outer.get(name), str) and found:
                    return repaired_text(found)
    return None

"""Pendo's webhooks: whether a body is Pendo's, is new, and what it is about.

In: a raw body, its signature headers, the secret, the time. Out: a `Webhook` to publish, or a `WebhookRefused`;
and `Once`, which lets one body through one time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from weakref import WeakValueDictionary

from cachetools import TTLCache

from flagpost_publisher.gateway.mending import mend_text
from flagpost_publisher.gateway.moments import moment_ms

SIGNATURE_HEADER = "x-pendo-signature"
MAX_AHEAD_SECONDS = 300.0
"""How far Pendo's clock may be ahead of ours."""

MAX_REMEMBERED = 50_000
"""Bodies remembered per process, 32 bytes of digest each; beyond it the oldest are forgotten."""


class WebhookKind(StrEnum):
    """What a webhook tells of, as metrics count it: an enumeration, as Pendo may send any name."""

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


class WebhookRefused(Exception):  # noqa: N818 - says what becomes of it
    """A request that is not published; `status` is the answer's, the text says what is wrong and what to do."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Webhook:
    """A body that Pendo signed, fresh enough to be taken."""

    body: bytes
    """As received, byte for byte."""
    digest: str
    """SHA-256 of the body, lower-case hexadecimal: the same body has the same digest in every process."""
    event_type: str
    """As Pendo names it; empty when the body does not say."""
    visitor_id: str | None

    @property
    def kind(self) -> WebhookKind:
        """The kind that metrics count."""
        if self.event_type.startswith("guide."):
            return WebhookKind.GUIDE
        if self.event_type in set(WebhookKind):
            return WebhookKind(self.event_type)
        return _PENDO_NAMES.get(self.event_type, WebhookKind.OTHER)


def read_webhook(
    body: bytes, signatures: Sequence[str], secret: str, *, now_ms: int, max_age_seconds: float
) -> Webhook:
    """Check a request and read what it is about.

    Args:
        body: the raw body.
        signatures: the values of every x-pendo-signature header; exactly one is right.
        secret: Pendo's signing secret.
        now_ms: epoch milliseconds.
        max_age_seconds: how old the body's `timestamp` may be.

    Raises:
        WebhookRefused: 401 for a wrong signature, 400 for a body that cannot be read, is stale, or is of the future.
    """
    if not is_signed(body, signatures, secret):
        raise WebhookRefused(
            401,
            f"{SIGNATURE_HEADER} must be sha256= and the HMAC-SHA256 of the raw body with the webhook secret, in "
            "lower-case hexadecimal; compare gateway.webhook_secret with Pendo's",
        )
    document = _document(body)
    _check_age(document.get("timestamp"), now_ms, max_age_seconds)
    return Webhook(body, hashlib.sha256(body).hexdigest(), _event_type(document), _visitor_id(document))


def is_signed(body: bytes, signatures: Sequence[str], secret: str) -> bool:
    """Whether there is one signature and it is the body's; compared in constant time."""
    if len(signatures) != 1:
        return False
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signatures[0].encode(errors="surrogateescape"), expected.encode())


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, not Unicode, an endless number, or nested without end
        document = None
    if not isinstance(document, dict):
        raise WebhookRefused(400, "the body must be a JSON object with event_type, timestamp and data")
    return document


def _check_age(timestamp: object, now_ms: int, max_age_seconds: float) -> None:
    moment = moment_ms(timestamp)
    if moment is None:
        raise WebhookRefused(
            400,
            "timestamp is missing or cannot be read; it must be RFC 3339, or seconds or milliseconds since 1970",
        )
    age_seconds = (now_ms - moment) / 1000
    if age_seconds > max_age_seconds:
        raise WebhookRefused(
            400,
            f"timestamp is {age_seconds:.0f} s ago, and gateway.webhook_max_age_seconds allows {max_age_seconds:g}",
        )
    if -age_seconds > MAX_AHEAD_SECONDS:
        raise WebhookRefused(
            400,
            f"timestamp is {-age_seconds:.0f} s ahead of our clock, and at most {MAX_AHEAD_SECONDS:g} are accepted; "
            "look at the clock of this machine",
        )


def _event_type(document: Mapping[str, Any]) -> str:
    for name in ("event_type", "event"):
        if isinstance(found := document.get(name), str):
            return mend_text(found)
    return ""


def _visitor_id(document: Mapping[str, Any]) -> str | None:
    """`data` is where we are told it is, the top is where Pendo's own examples have it."""
    for outer in (document.get("data"), document):
        if isinstance(outer, dict):
            for name in ("visitorId", "visitor_id"):
                if isinstance(found := outer.get(name), str) and found:
                    return mend_text(found)
    return None


class Once:
    """Lets each body be published once by this process, also when the same one comes again meanwhile.

    In: a digest and what publishes it. Out: whether this call did. A digest is remembered once that has succeeded;
    when it fails, the next of those that waited tries. Best effort: another process does not know, nor does this one
    after a restart, so readers compare the digest in the record's header.
    """

    def __init__(
        self,
        ttl_seconds: float,
        *,
        max_entries: int = MAX_REMEMBERED,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember `max_entries` digests at most, each for `ttl_seconds`; what is older is stale anyhow."""
        self._seen: TTLCache[str, bool] = TTLCache(max_entries, ttl_seconds, timer)
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def publish(self, digest: str, publish: Callable[[], Awaitable[None]]) -> bool:
        """Call `publish` unless it has succeeded for `digest` before. Raises what it raises."""
        lock = self._under_way.setdefault(digest, asyncio.Lock())
        async with lock:
            if digest in self._seen:
                return False
            await publish()
            self._seen[digest] = True
            return True

"""`POST /v1/webhooks/pendo`: writes Pendo's webhooks to their topic, each body once.

In: an `Arrival` and the present webhook secret. Out: a record, byte for byte what Pendo signed, and an answer once
Kafka has it; or a Refusal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from weakref import WeakValueDictionary

from cachetools import TTLCache
from prometheus_client import CollectorRegistry, Counter

from flagpost_publisher.gateway.exchange import Answer, Arrival
from flagpost_publisher.gateway.kafka_writer import MAX_RECORD_BYTES, KafkaRecord
from flagpost_publisher.gateway.refusals import Refusal
from flagpost_publisher.gateway.secret_lines import SecretLines
from flagpost_publisher.gateway.settings import GatewaySettings
from flagpost_publisher.gateway.webhooks import (
    MAX_AHEAD_SECONDS,
    SIGNATURE_HEADER,
    Webhook,
    WebhookKind,
    read_webhook,
)

PATH: Final = "/v1/webhooks/pendo"
DIGEST_HEADER: Final = "flagpost-webhook-digest"
EVENT_HEADER: Final = "flagpost-webhook-event"
MAX_REMEMBERED: Final = 50_000
"""Bodies that a process remembers, a digest each; beyond it the oldest are forgotten."""


class Once:
    """Lets this process publish each body once, also if the same one arrives again meanwhile.

    In: a digest and a function that publishes it. Out: whether this call published it. A digest is remembered once
    that has succeeded; if it fails, the next of those that waited tries. Best effort: other processes do not know it,
    nor does this one after a restart, so readers compare the digest in the record's header.
    """

    def __init__(
        self,
        ttl_seconds: float,
        *,
        max_entries: int = MAX_REMEMBERED,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember at most `max_entries` digests, each for `ttl_seconds`."""
        self._seen: TTLCache[str, bool] = TTLCache(max_entries, ttl_seconds, timer)
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def publish(self, digest: str, publish: Callable[[], Awaitable[None]]) -> bool:
        """Call `publish` unless it has already succeeded for `digest`. Raises what it raises."""
        lock = self._under_way.setdefault(digest, asyncio.Lock())
        async with lock:
            if digest in self._seen:
                return False
            await publish()
            self._seen[digest] = True
            return True


class PendoWebhooks:
    """The route's handler. There is no write key: the signature admits a request."""

    def __init__(
        self,
        settings: GatewaySettings,
        secret: SecretLines | None,
        write: Callable[[Sequence[KafkaRecord]], Awaitable[None]],
        registry: CollectorRegistry,
    ) -> None:
        """`write` returns once Kafka has the records; without a `secret` there are no webhooks."""
        self._topic = settings.webhook_topic
        self._max_age_seconds = settings.webhook_max_age_seconds
        self._secret = secret
        self._write = write
        # A body is refused as stale once it would be forgotten.
        self._once = Once(settings.webhook_max_age_seconds + MAX_AHEAD_SECONDS)
        counter = Counter(
            "flagpost_gateway_webhooks",
            "Webhooks that Pendo signed, by what they are about: published, or repeated (a duplicate).",
            ["event_type", "outcome"],
            registry=registry,
        )
        self._published = {kind: counter.labels(kind, "published") for kind in WebhookKind}
        self._repeated = {kind: counter.labels(kind, "repeated") for kind in WebhookKind}

    def guard(self, headers: Mapping[str, str], address: str) -> None:
        """Allow a request's body to be read, if webhooks are on. Raises Refusal."""
        del headers, address
        self._require_secrets()

    async def __call__(self, arrival: Arrival) -> Answer:
        """Publish a webhook, unless it was published before."""
        webhook = read_webhook(
            arrival.body,
            arrival.headers.getall(SIGNATURE_HEADER, []),
            self._require_secrets(),
            now_ms=arrival.received_at,
            max_age_seconds=self._max_age_seconds,
        )
        record = self._record(webhook)
        published = await self._once.publish(webhook.digest, lambda: self._write([record]))
        (self._published if published else self._repeated)[webhook.kind].inc()
        return Answer(200, {"published": published})

    def _require_secrets(self) -> list[str]:
        if self._secret is None:
            raise Refusal(
                404,
                "webhooks are off: there is no secret to verify them with",
                fix="set gateway.webhook_secret, or gateway.webhook_secret_file, to the one that Pendo signs with",
            )
        return self._secret.secrets

    def _record(self, webhook: Webhook) -> KafkaRecord:
        headers = ((DIGEST_HEADER, webhook.digest.encode()), (EVENT_HEADER, webhook.event_type.encode()))
        record = KafkaRecord(self._topic, webhook.visitor_id, webhook.body, headers)
        if record.size_bytes > MAX_RECORD_BYTES:
            raise Refusal(
                413, f"the webhook has {record.size_bytes} bytes in Kafka; at most {MAX_RECORD_BYTES}"
            )
        return record

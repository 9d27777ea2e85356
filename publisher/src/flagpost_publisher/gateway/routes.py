"""The table of routes: each path with its guard and its handler.

In: the parts that handlers need. Out: routes for `server`. Every route takes only POST.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from flagpost_publisher.gateway import json_documents, native, segment, webhooks_route
from flagpost_publisher.gateway.bodies import JSON, JSON_OR_TEXT
from flagpost_publisher.gateway.documents import Documents
from flagpost_publisher.gateway.event_writer import EventWriter
from flagpost_publisher.gateway.exchange import Answer, Arrival
from flagpost_publisher.gateway.fronts import Front
from flagpost_publisher.gateway.kafka_writer import KafkaWriter
from flagpost_publisher.gateway.key import Key, is_stranger
from flagpost_publisher.gateway.metrics import GatewayMetrics
from flagpost_publisher.gateway.secret_lines import SecretLines
from flagpost_publisher.gateway.settings import MAX_BODY_BYTES, GatewaySettings
from flagpost_publisher.gateway.slices import Slices
from flagpost_publisher.gateway.write_keys import WriteKeys

Guard: TypeAlias = Callable[[Mapping[str, str], str], Key | None]
"""Checks a request's headers and address before its body is read; returns the sender's key, if they contain it.
Raises Refusal: 401, 429, or 404 for something that is switched off.
"""

Handler: TypeAlias = Callable[[Arrival], Awaitable[Answer]]
"""Handles a request; raises Refusal if it cannot."""

MAX_STRANGERS_BYTES: Final = 32_768
"""Enough for one message of Segment's that contains the key."""
MAX_WEBHOOK_BYTES: Final = 262_144

SET_ASIDE_REASONS: Final[tuple[str, ...]] = tuple(segment.SetAside)
"""All reasons for which a front sets something aside: each has its series from the start."""

NOT_BELIEVED_REASONS: Final[tuple[str, ...]] = tuple(segment.NotBelieved)
"""The same for times."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that handlers need."""

    settings: GatewaySettings
    keys: WriteKeys
    webhook_secret: SecretLines | None
    kafka: KafkaWriter
    events: EventWriter
    slices: Slices
    metrics: GatewayMetrics


@dataclass(frozen=True, slots=True)
class Route:
    """One path."""

    path: str
    """Also its label in metrics."""
    guard: Guard = field(repr=False)
    handle: Handler = field(repr=False)
    media_types: frozenset[str] = JSON
    max_body_bytes: int = MAX_BODY_BYTES
    """After decompression; `gateway.max_body_bytes` may be less."""
    max_strangers_bytes: int = MAX_STRANGERS_BYTES
    """The same for requests without a key in their headers."""

    def most_bytes(self, key: Key | None) -> int:
        """The limit of a body after decompression; lower for a client without a key, which may be in the body."""
        return self.max_strangers_bytes if is_stranger(key) else self.max_body_bytes


def table(parts: Parts) -> list[Route]:
    """Every route."""
    webhooks = webhooks_route.PendoWebhooks(
        parts.settings, parts.webhook_secret, parts.kafka.write, parts.metrics.registry
    )
    return [
        Route(
            native.PATH,
            parts.keys.require,
            Documents(
                json_documents.strict,
                native.read_events,
                native.answer,
                parts.events,
                parts.slices,
                parts.keys,
            ),
        ),
        *(_segment_route(path, front, parts) for path, front in segment.FRONTS.items()),
        Route(webhooks_route.PATH, webhooks.guard, webhooks, max_strangers_bytes=MAX_WEBHOOK_BYTES),
    ]


def _segment_route(path: str, front: Front, parts: Parts) -> Route:
    """Segment's libraries drop what is refused, and some have the write key in the body."""
    handler = Documents(
        json_documents.tolerant,
        front,
        segment.answer,
        parts.events,
        parts.slices,
        parts.keys,
    )
    return Route(path, parts.keys.require_if_given, handler, JSON_OR_TEXT, segment.MAX_BATCH_BYTES)

"""From a message of the events topic to what is counted of it: planned as the consumer plans it.

In: messages, the settings, the schema registry where one is set. Out: `Published`. A record that cannot be decoded
gives one delivery of kind unknown; a registry that does not answer ends the reading, for guessing would make
good records unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from confluent_kafka import Message

from flagpost_consumer.adapters.schema_registry import SchemaDoesNotExist, SchemaRegistry
from flagpost_consumer.core.engine import REPLAY_KIND_HEADER
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.core.plan import Planner
from flagpost_consumer.operator.reconciliation.counting import Published
from flagpost_consumer.settings import Settings, engine_policy
from flagpost_schemas import DecisionEvent, DecodeError, Decoder, Event, SchemaNeeded, variation_as_sent

UNKNOWN = (Kind.UNKNOWN,)


class Planning:
    """Plans records one after the other."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is asked of the registry before a record needs it."""
        self._decoder = Decoder()
        self._planner = Planner(engine_policy(settings))
        registry = settings.kafka.schema_registry
        self._registry = None if registry.url is None else SchemaRegistry(registry.url, registry)
        # Kinds do not depend on the time: what is expired is still a delivery of its kind.
        self._now_ms = time.time_ns() // 1_000_000

    def published(self, message: Message) -> Published:
        """What is counted of a record. Raises RegistryNotAnswering."""
        offset = message.offset() or 0
        try:
            event = self._decode(message.value())
        except DecodeError:
            return Published(offset, UNKNOWN)
        kinds = tuple(plan.kind for plan in self._planner.plan(event, self._now_ms))
        kinds = _replayed_only(kinds, message)
        if isinstance(event, DecisionEvent):
            return Published(offset, kinds, (event.flag_key, variation_as_sent(event)), event.visitor_id)
        return Published(offset, kinds)

    def _decode(self, value: bytes | None) -> Event:
        try:
            return self._decoder.decode(value)
        except SchemaNeeded as needed:
            self._learn(needed.schema_id)
            return self._decoder.decode(value)

    def _learn(self, schema_id: int) -> None:
        if self._registry is None:
            self._decoder.refuse_schema(schema_id, "kafka.schema_registry.url is not set")
            return
        try:
            self._decoder.add_schema(schema_id, asyncio.run(self._registry.fetch(schema_id)))
        except SchemaDoesNotExist as error:
            self._decoder.refuse_schema(schema_id, str(error))


def _replayed_only(kinds: tuple[Kind, ...], message: Message) -> tuple[Kind, ...]:
    """Of a replayed record only the kind that it names is planned (CONTRACT section 8), as in the engine."""
    only = header(message, REPLAY_KIND_HEADER)
    return kinds if only is None else tuple(kind for kind in kinds if kind == only) or kinds


def header(message: Message, name: str) -> str | None:
    """The text of a header; None where it is missing or empty."""
    headers: Sequence[tuple[str, object]] = message.headers() or ()  # type: ignore[assignment]
    value = next((value for key, value in headers if key == name and value), None)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else None

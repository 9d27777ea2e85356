"""From a message of the events topic to what is counted of it: planned as the consumer plans it.

In: messages, the settings, the schema registry where one is set. Out: `Published`. A record that cannot be decoded
gives one delivery of kind unknown; a registry that does not answer ends the reading, for guessing would make
good records unknown.
"""

from __future__ import annotations

import time
from typing import cast

from confluent_kafka import Message

from flagpost_consumer.adapters.message_headers import UnreadableHeaders, headers_of
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.core.plan import Planner, replayed_only
from flagpost_consumer.core.records import Headers
from flagpost_consumer.operator.dead_letters.records import REPLAY_OF_HEADER
from flagpost_consumer.operator.event_values import Values
from flagpost_consumer.operator.reconciliation.counting import Published
from flagpost_consumer.operator.reconciliation.impressions import ImpressionBooks
from flagpost_consumer.operator.reconciliation.parts import By, part_of
from flagpost_consumer.settings import Settings, engine_policy
from flagpost_schemas import DecisionEvent, DecodeError, Event, variation_as_sent

UNKNOWN = (Kind.UNKNOWN,)
MAX_LIKE = 10_000
"""Of so many flags and variations it is remembered which deliveries they give."""


class Planning:
    """Plans records one after the other."""

    def __init__(
        self, settings: Settings, by: By | None = None, impressions: ImpressionBooks | None = None
    ) -> None:
        """Nothing is asked of the registry before a record needs it. `impressions` are told of each decision."""
        self._values = Values(settings.kafka.schema_registry)
        self._planner = Planner(engine_policy(settings))
        self._part_of = part_of(by)
        self._impressions = impressions
        # Kinds do not depend on the time: what is expired is still a delivery of its kind.
        self._now_ms = time.time_ns() // 1_000_000
        self._kinds: dict[object, tuple[Kind, ...]] = {}

    def published(self, message: Message) -> Published:
        """What is counted of a record. Raises RegistryNotAnswering."""
        partition, offset = cast("int", message.partition()), cast("int", message.offset())
        try:
            event = self._values.decode(message.value())
        except DecodeError:
            return Published(partition, offset, UNKNOWN)
        headers = _headers(message)
        kinds = self._kinds_of(event) if not headers else self._kinds_of_one(event, headers)
        if not isinstance(event, DecisionEvent):
            return Published(partition, offset, kinds)
        if self._impressions is not None and not _is_replay(headers):
            self._impressions.publish(event)
        row = event.flag_key, variation_as_sent(event)
        part = None if self._part_of is None else self._part_of(event)
        return Published(partition, offset, kinds, row, part, event)

    def _kinds_of(self, event: Event) -> tuple[Kind, ...]:
        """The deliveries of an event: those of one flag and variation have the same ones, and of one type."""
        like: object = type(event)
        if isinstance(event, DecisionEvent):
            like = event.flag_key, event.variation_key, event.enabled
        kinds = self._kinds.get(like)
        if kinds is None:
            if len(self._kinds) >= MAX_LIKE:
                self._kinds.clear()
            kinds = self._kinds[like] = self._kinds_of_one(event, ())
        return kinds

    def _kinds_of_one(self, event: Event, headers: Headers) -> tuple[Kind, ...]:
        return tuple(plan.kind for plan in replayed_only(self._planner.plan(event, self._now_ms), headers))


def _is_replay(headers: Headers) -> bool:
    return any(name == REPLAY_OF_HEADER for name, _ in headers)


def _headers(message: Message) -> Headers:
    try:
        return headers_of(message)
    except UnreadableHeaders:
        return ()

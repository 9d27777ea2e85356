"""Plans messages of the events topic like the consumer, to count them.

In: messages, the settings, the schema registry if configured. Out: `Published`. A record that cannot be decoded has
one delivery of kind unknown; if the registry does not answer, reading ends, because otherwise good records would
count as unknown.
"""

from __future__ import annotations

import time
from typing import NamedTuple, cast

from confluent_kafka import Message

from flagpost_consumer.adapters.kafka.message_headers import UnreadableHeaders, headers_of
from flagpost_consumer.commands.dead_letters.records import REPLAY_OF_HEADER
from flagpost_consumer.commands.reconcile.counting import Published, Row
from flagpost_consumer.commands.reconcile.impressions import ImpressionBooks
from flagpost_consumer.commands.reconcile.parts import By, part_of
from flagpost_consumer.commands.sources.event_values import Values
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.core.planning.plan import Planner, replayed_only
from flagpost_consumer.core.records import Headers
from flagpost_consumer.settings import Settings, engine_policy
from flagpost_schemas import DecisionEvent, DecodeError, Event, variation_as_sent

UNKNOWN = (Kind.UNKNOWN,)
MAX_LIKE = 10_000
"""The number of flags and variations whose deliveries are remembered."""
MAX_LIKE_CHARACTERS = 100
"""Longer names are not remembered: publishers decide what they are called."""


class _Like(NamedTuple):
    """What events have in common."""

    kinds: tuple[Kind, ...]
    """The deliveries that each has."""
    row: Row | None
    """None: it is not a decision."""


class Planning:
    """Plans records one after the other."""

    def __init__(
        self, settings: Settings, by: By | None = None, impressions: ImpressionBooks | None = None
    ) -> None:
        """The registry is not asked before a record needs it. `impressions` gets each decision."""
        self._values = Values(settings.kafka.schema_registry)
        self._planner = Planner(engine_policy(settings))
        self._part_of = part_of(by)
        self._impressions = impressions
        # Kinds do not depend on the time: an expired delivery is still one of its kind.
        self._now_ms = time.time_ns() // 1_000_000
        self._like: dict[object, _Like] = {}

    def published(self, message: Message) -> Published:
        """What to count of a record. Raises RegistryNotAnswering."""
        partition, offset = cast("int", message.partition()), cast("int", message.offset())
        try:
            event = self._values.decode(message.value())
        except DecodeError:
            return Published(partition, offset, UNKNOWN)
        headers = _headers(message)
        like = self._like_it(event) if not headers else self._planned(event, headers)
        if not isinstance(event, DecisionEvent):
            return Published(partition, offset, like.kinds)
        if self._impressions is not None and not _is_replay(headers):
            self._impressions.publish(event)
        part = None if self._part_of is None else self._part_of(event)
        return Published(partition, offset, like.kinds, like.row, part, event)

    def _like_it(self, event: Event) -> _Like:
        """What is known of an event: the same for all decisions of a flag and variation, and for all events of
        another type.
        """
        key: object = type(event)
        if isinstance(event, DecisionEvent):
            key = event.flag_key, event.variation_key, event.enabled
        like = self._like.get(key)
        if like is None:
            like = self._planned(event, ())
            self._remember(key, like, event)
        return like

    def _remember(self, key: object, like: _Like, event: Event) -> None:
        if isinstance(event, DecisionEvent):
            names = event.flag_key, event.variation_key or ""
            if sum(map(len, names)) > MAX_LIKE_CHARACTERS:
                return
        if len(self._like) >= MAX_LIKE:
            self._like.clear()
        self._like[key] = like

    def _planned(self, event: Event, headers: Headers) -> _Like:
        plans = replayed_only(self._planner.plan(event, self._now_ms), headers)
        row = (event.flag_key, variation_as_sent(event)) if isinstance(event, DecisionEvent) else None
        return _Like(tuple(plan.kind for plan in plans), row)


def _is_replay(headers: Headers) -> bool:
    return any(name == REPLAY_OF_HEADER for name, _ in headers)


def _headers(message: Message) -> Headers:
    try:
        return headers_of(message)
    except UnreadableHeaders:
        return ()

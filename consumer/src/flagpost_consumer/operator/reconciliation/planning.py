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
from flagpost_consumer.operator.event_values import Values
from flagpost_consumer.operator.reconciliation.counting import Published
from flagpost_consumer.operator.reconciliation.sample_ratio import assignment_of
from flagpost_consumer.settings import Settings, engine_policy
from flagpost_schemas import DecisionEvent, DecodeError, variation_as_sent

UNKNOWN = (Kind.UNKNOWN,)


class Planning:
    """Plans records one after the other."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is asked of the registry before a record needs it."""
        self._values = Values(settings.kafka.schema_registry)
        self._planner = Planner(engine_policy(settings))
        # Kinds do not depend on the time: what is expired is still a delivery of its kind.
        self._now_ms = time.time_ns() // 1_000_000

    def published(self, message: Message) -> Published:
        """What is counted of a record. Raises RegistryNotAnswering."""
        place = cast("int", message.partition()), cast("int", message.offset())
        try:
            event = self._values.decode(message.value())
        except DecodeError:
            return Published(*place, UNKNOWN)
        planned = replayed_only(self._planner.plan(event, self._now_ms), _headers(message))
        kinds = tuple(plan.kind for plan in planned)
        if isinstance(event, DecisionEvent):
            row = event.flag_key, variation_as_sent(event)
            return Published(*place, kinds, row, event.visitor_id, assignment_of(event))
        return Published(*place, kinds)


def _headers(message: Message) -> Headers:
    try:
        return headers_of(message)
    except UnreadableHeaders:
        return ()

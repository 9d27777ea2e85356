"""Encodes events to bytes.

In: an event. Out: its Avro body, or the body behind one of the two headers. Raises only EncodeError, if a value does
not fit the schema.
"""

from __future__ import annotations

from flagpost_schemas.avro import schema_of
from flagpost_schemas.body import compile_body, compile_fields
from flagpost_schemas.errors import EncodeError
from flagpost_schemas.events import EVENT_TYPES, DecisionEvent, Event
from flagpost_schemas.wire import confluent_header, single_object_header

_RECURRING = frozenset(
    {
        "source",
        "flag_key",
        "enabled",
        "variation_key",
        "rule_key",
        "decision_event_dispatched",
        "rule_type",
        "experiment_id",
        "variation_id",
    }
)
"""A service has one Source for all its events, and few flags, rules and variations."""

_BODIES = {event_type: compile_body(schema_of(event_type).parsed, _RECURRING) for event_type in EVENT_TYPES}
_HEADERS = {event_type: single_object_header(schema_of(event_type).fingerprint) for event_type in EVENT_TYPES}

encode_decision = compile_fields(schema_of(DecisionEvent).parsed, _RECURRING)
"""The body of a DecisionEvent with these values for all fields: the same bytes as `encode_body`.

For decide(): making the event would take longer than making its bytes.
"""


def encode_body(event: Event) -> bytes:
    """The Avro body of `event`, without a wire format's header."""
    try:
        write = _BODIES[type(event)]
    except KeyError:
        raise _not_an_event(event) from None
    return write(event)


def encode_single_object(event: Event) -> bytes:
    """`event` in Avro's single-object encoding; needs no registry."""
    body = encode_body(event)
    return _HEADERS[type(event)] + body


def encode_confluent(event: Event, schema_id: int) -> bytes:
    """`event` in Confluent's format; `schema_id` is the registry's id of `schema_of(type(event))`.

    Raises also ValueError for an id that does not fit in 4 bytes.
    """
    return confluent_header(schema_id) + encode_body(event)


def _not_an_event(value: object) -> EncodeError:
    names = ", ".join(each.__name__ for each in EVENT_TYPES)
    return EncodeError(type(value).__name__, "", f"not an event; give one of {names}")

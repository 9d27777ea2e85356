"""An event's Avro body, for both ways to Kafka: the library and the gateway.

In: an event. Out: its body, or EncodeError if Flagpost cannot carry the event.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from flagpost_schemas import DecisionEvent, EncodeError, Event, encode_body, encode_decision
from flagpost_schemas.edge_rules import (
    HOLDS_NUL,
    IDENTIFIERS_OF,
    MAX_EVENT_ID_CHARACTERS,
    identifier_with_nul,
)

_OF_A_DECISION: Final = [
    (place, field.name)
    for place, field in enumerate(fields(DecisionEvent))
    if field.name in IDENTIFIERS_OF[DecisionEvent] and field.name != "event_id"
]
"""The positions of its identifiers among its fields; the event id is one of ours."""


def event_body(event: Event) -> bytes:
    """The Avro body of `event`, without a wire format's header. Raises EncodeError."""
    body = encode_body(event)
    length = len(event.event_id)
    if length == 0:
        raise EncodeError(type(event).__name__, "event_id", "is empty; give an id that only this event has")
    if length > MAX_EVENT_ID_CHARACTERS:
        raise EncodeError(
            type(event).__name__,
            "event_id",
            f"has {length} characters; the most is {MAX_EVENT_ID_CHARACTERS}",
        )
    wrong = identifier_with_nul(event)
    if wrong is not None:
        raise EncodeError(type(event).__name__, wrong, HOLDS_NUL)
    return body


def decision_body(*values: Any) -> bytes:  # noqa: ANN401 - a DecisionEvent's
    """The Avro body of a DecisionEvent with these values: all fields, in order; its id is one of ours.

    Raises EncodeError.
    """
    body = encode_decision(*values)
    for place, name in _OF_A_DECISION:  # decide() waits for this, so no dict of names is made
        text = values[place]
        if text is not None and "\0" in text:
            raise EncodeError(DecisionEvent.__name__, name, HOLDS_NUL)
    return body

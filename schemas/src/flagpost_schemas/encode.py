"""Events to bytes.

In: an event. Out: its Avro body, or the body behind one of the two headers. Raises EncodeError when a value
is not what the schema wants; nothing else.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from flagpost_schemas.avro import schema_of
from flagpost_schemas.body import Write, compile_body
from flagpost_schemas.errors import EncodeError
from flagpost_schemas.events import EVENT_TYPES, Event
from flagpost_schemas.wire import confluent_header, single_object_header

if TYPE_CHECKING:
    from collections.abc import Callable


def encode_body(event: Event) -> bytes:
    """The Avro body of `event`, as both wire formats carry it behind their header."""
    return _body_of(type(event))(event)


def encode_single_object(event: Event) -> bytes:
    """`event` in Avro's single-object encoding; needs no registry."""
    header, body = _single_object_of(type(event))
    return header + body(event)


def encode_confluent(event: Event, schema_id: int) -> bytes:
    """`event` in Confluent's format; `schema_id` is the registry's id of `schema_of(type(event))`.

    Raises also ValueError for an id that does not fit in 4 bytes.
    """
    return confluent_header(schema_id) + encode_body(event)


@cache
def _body_of(event_type: type[Event]) -> Write:
    if event_type not in EVENT_TYPES:
        names = ", ".join(each.__name__ for each in EVENT_TYPES)
        raise EncodeError(event_type.__name__, "", f"not an event; give one of {names}")
    return compile_body(schema_of(event_type).parsed)


@cache
def _single_object_of(event_type: type[Event]) -> tuple[bytes, Callable[[Event], bytes]]:
    body = _body_of(event_type)
    return single_object_header(schema_of(event_type).fingerprint), body

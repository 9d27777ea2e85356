"""Recognises the decision in a record of the events topic by its bytes, without making an event.

In: a value. Out: the few parts that differ from one decision to the next, as Avro bytes, and everything after them as
one piece: flag, variation and rule are equal for thousands of visitors. None for anything unusual: another schema or
record, a context, consent, texts that are long or not ASCII. This takes half the time of reading. It does not check
the last piece: whoever has read an equal piece once knows that it is valid.
"""

from __future__ import annotations

from typing import NamedTuple

from flagpost_schemas.avro import schema_of
from flagpost_schemas.events import DecisionEvent
from flagpost_schemas.wire import SINGLE_OBJECT_HEADER_BYTES, single_object_header
from flagpost_schemas.zigzag import Unusual, read_long

DECISION_HEADER = single_object_header(schema_of(DecisionEvent).fingerprint)
"""The beginning of a decision in our own schema."""
_SOURCE_FIELDS = 4
_LONG = 129
"""The bits of a length that are set if it is not a plain byte: 64 bytes or more, or negative."""


class Glance(NamedTuple):
    """The parts of a decision; texts begin with their length."""

    event_id: bytes
    occurred_at: int
    occurred_at_bytes: bytes
    account_id: bytes
    """Including the byte before it that says whether there is one."""
    visitor_id: bytes
    rest: bytes
    """Everything after the visitor id."""


def glance(value: bytes) -> Glance | None:
    """The decision in a value, or None: then it has to be read."""
    if not value.startswith(DECISION_HEADER):
        return None
    try:
        at = _text_end(value, SINGLE_OBJECT_HEADER_BYTES)
        event_id = value[SINGLE_OBJECT_HEADER_BYTES:at]
        occurred_at, account_at = read_long(value, at)
        source_at = _nullable_text_end(value, account_at) + 2
        if value[source_at - 2] or value[source_at - 1]:  # context, consent
            return None
        visitor_at = source_at + 1 if not value[source_at] else _source_end(value, source_at)
        end = _text_end(value, visitor_at)
    except (IndexError, Unusual):
        return None
    if not (event_id.isascii() and value[account_at:end].isascii()):
        return None
    return Glance(
        event_id,
        occurred_at,
        value[at:account_at],
        value[account_at : source_at - 2],
        value[visitor_at:end],
        value[end:],
    )


def _text_end(value: bytes, at: int) -> int:
    size = value[at]
    if size & _LONG:
        raise Unusual
    return at + 1 + (size >> 1)


def _nullable_text_end(value: bytes, at: int) -> int:
    there = value[at]
    if not there:
        return at + 1
    if there != 2:
        raise Unusual
    return _text_end(value, at + 1)


def _source_end(value: bytes, at: int) -> int:
    if value[at] != 2:
        raise Unusual
    at += 1
    for _ in range(_SOURCE_FIELDS):
        at = _nullable_text_end(value, at)
    return at

"""The rules for accepting an event: the same for the publisher, the gateway and the import.

In: an event, or its texts; the size of its record. Out: what is wrong, or nothing. The consumer has its own rules for
events of other producers.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from flagpost_schemas.events import EVENT_TYPES, Event

MAX_EVENT_ID_CHARACTERS: Final = 128
"""The longest event id."""

DEFAULT_MAX_EVENT_BYTES: Final = 65_536
"""Limit of an event, key and value together: `kafka.max_event_bytes`."""

IDENTIFIERS: Final = frozenset(
    {
        "event_id",
        "visitor_id",
        "anonymous_id",
        "account_id",
        "flag_key",
        "variation_key",
        "rule_key",
        "experiment_id",
        "variation_id",
        "event",
    }
)
"""The fields that identify things, here and at Pendo, and by which people search."""

HOLDS_NUL: Final = "holds a NUL character, which no id has; take it out"

IDENTIFIERS_OF: Final = {
    event_type: tuple(field.name for field in fields(event_type) if field.name in IDENTIFIERS)
    for event_type in EVENT_TYPES
}
"""The identifiers of each record."""


def identifier_with_nul(event: Event) -> str | None:
    """The event's first identifier with a NUL character; None: there is none.

    Programs written in C, databases and terminals take a text to end there: two visitors would become one.
    """
    for name in IDENTIFIERS_OF[type(event)]:
        text = getattr(event, name)
        if text is not None and "\0" in text:
            return name
    return None


def too_large(key: bytes | None, value_bytes: int, max_event_bytes: int) -> str | None:
    """What is wrong with the size of a record, in words that follow "the event"; None: nothing."""
    size = len(key or b"") + value_bytes
    if size <= max_event_bytes:
        return None
    return f"has {size:,} bytes in Kafka (key and value), and the most is {max_event_bytes:,}"

"""An event's Avro body, for both ways to Kafka: the library and the gateway.

In: an event. Out: its body, or EncodeError where the event is none that Flagpost can carry.
"""

from __future__ import annotations

from typing import Final

from flagpost_schemas import EncodeError, Event, encode_body

MAX_EVENT_ID_CHARACTERS: Final = 128
"""The longest event id (CONTRACT section 3)."""


def event_body(event: Event) -> bytes:
    """The Avro body of `event`, to stand behind a wire format's header. Raises EncodeError."""
    body = encode_body(event)
    length = len(event.event_id)
    if length > MAX_EVENT_ID_CHARACTERS:
        raise EncodeError(
            type(event).__name__,
            "event_id",
            f"has {length} characters; the most is {MAX_EVENT_ID_CHARACTERS}",
        )
    return body

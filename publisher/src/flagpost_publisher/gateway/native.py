"""`POST /v1/events`: Flagpost's own events as JSON.

In: one event, or an array of them, in the form of `flagpost_schemas.json_form`. Out: all of them, or the first error,
with index and field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flagpost_publisher.gateway.exchange import Answer
from flagpost_publisher.gateway.fronts import DocumentError, Reading, TypeNotAllowed
from flagpost_publisher.gateway.key import SentType
from flagpost_schemas import Event, new_event_id
from flagpost_schemas.json_form import TYPES, EventFormError, event_from_json

PATH: Final = "/v1/events"

TYPES_OF: Final = {event_type: SentType(name) for name, event_type in TYPES.items()}


def read_events(document: object, reading: Reading) -> Iterator[None]:
    """A front: see `fronts`."""
    items = document if isinstance(document, list) else [document]
    if not items:
        raise DocumentError(None, "body", "is an empty array; send at least one event")
    for index, item in enumerate(items):
        reading.add(index, _event(index, item, reading))
        yield


def answer(reading: Reading) -> Answer:
    """The answer once Kafka has acknowledged every event."""
    return Answer(202, {"accepted": len(reading.events)})


def _event(index: int, item: object, reading: Reading) -> Event:
    try:
        event = event_from_json(item, now_ms=reading.received_at, new_event_id=new_event_id)
    except EventFormError as error:
        raise DocumentError(index, error.field, error.problem) from None
    if TYPES_OF[type(event)] not in reading.key.types:
        raise TypeNotAllowed(index, reading.key)
    if not event.event_id:
        raise DocumentError(
            index, "event_id", "is empty; leave it out, or give an id that only this event has"
        )
    return event

"""Fronts: from a request's document to events, one message after another.

In: parsed JSON, and an empty `Reading` that says when the request came and what an event may weigh. Out: the same
`Reading`, filled; or a `DocumentError`. A front yields after each message, so that a long document may be read in
slices: what it does between two yields costs no more than the message, or what is shared, is long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from flagpost_publisher.event_bodies import event_body
from flagpost_publisher.gateway.key import Key
from flagpost_schemas import EncodeError, Event, partition_key
from flagpost_schemas.edge_rules import DEFAULT_MAX_EVENT_BYTES, too_large
from flagpost_settings.clocks import MAX_FUTURE_SECONDS

MAX_READING_BYTES: Final = 3_000_000
"""What one document may become, three times the longest body (each small event gets an id of 36 bytes). Names that
are repeated, and members that a batch shares, let a few bytes of JSON become many: the sender chooses how long they
are, and for how many events."""


class DocumentError(ValueError):
    """A document that is refused as a whole: nothing of it is published."""

    status = 400
    """That of HTTP's answer."""

    def __init__(self, index: int | None, field: str, problem: str) -> None:
        """Args:
        index: which event of the document, from 0; None where it is about the document itself.
        field: where, such as `properties.total`.
        problem: what is wrong there and what is wanted; no value, it may be personal.
        """
        super().__init__(f"{field}: {problem}")
        self.index = index
        self.field = field
        self.problem = problem


class DocumentTooLarge(DocumentError):  # noqa: N818 - says what the document is
    """A document, or an event of it, that is or becomes too large."""

    status = 413


class TypeNotAllowed(DocumentError):  # noqa: N818 - says what the type is
    """An event of a type that may not be sent with the request's key."""

    status = 403

    def __init__(self, index: int, key: Key) -> None:
        """`index` is the event's."""
        allowed = ", ".join(sorted(key.types))
        super().__init__(index, "type", f"may not be sent with this key, but {allowed}; see gateway.keys")


class EventTooLarge(DocumentTooLarge):
    """One event that is larger than Kafka is to take."""


@dataclass(slots=True)
class Reading:
    """What a document gave so far."""

    received_at: int
    """When the request came, epoch milliseconds."""
    key: Key
    """Whose it is."""
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    """Of an event in Kafka, key and value."""
    header_bytes: int = 10
    """Of which so many are the wire format's."""
    max_future_ms: float = MAX_FUTURE_SECONDS * 1000
    """How far ahead of the receipt an event may be."""
    events: list[Event] = field(default_factory=list)
    """In the document's order."""
    bodies: list[bytes] = field(default_factory=list)
    """Their Avro bodies."""
    set_aside: Counter[StrEnum] = field(default_factory=Counter)
    """How many were accepted and not published, by reason; each reason must be one that metrics know."""
    not_believed: Counter[StrEnum] = field(default_factory=Counter)
    """How many of its times were not believed, by reason; each reason must be one that metrics know."""
    size_bytes: int = 0
    """Of all bodies, those of events that were too large included: they were made as well."""

    def add(self, index: int | None, result: Event | StrEnum) -> None:
        """Take an event, or count the reason why there is none. Raises DocumentError.

        Each event is encoded at once, so that a document that becomes too much is told before it has.
        """
        if isinstance(result, StrEnum):
            self.set_aside[result] += 1
            return
        try:
            body = event_body(result)
        except EncodeError as error:
            raise DocumentError(index, error.field, error.problem) from None
        self.size_bytes += len(body)
        if self.size_bytes > MAX_READING_BYTES:
            raise becomes_too_much(index)
        wrong = too_large(partition_key(result), self.header_bytes + len(body), self.max_event_bytes)
        if wrong is not None:
            raise EventTooLarge(
                index, "event", f"{wrong}; send less with one event, see kafka.max_event_bytes"
            )
        self.events.append(result)
        self.bodies.append(body)


def becomes_too_much(index: int | None) -> DocumentTooLarge:
    """The error of a document that would become more than `MAX_READING_BYTES`."""
    return DocumentTooLarge(
        index, "body", f"becomes more than {MAX_READING_BYTES:,} bytes of events; send fewer in one request"
    )


Front: TypeAlias = Callable[[object, Reading], Iterator[None]]
"""`(document, reading)`: fills the reading, and yields after each message; raises DocumentError."""

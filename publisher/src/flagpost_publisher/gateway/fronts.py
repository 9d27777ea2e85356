"""Fronts: they turn a request's document into events, one message after another.

In: parsed JSON, and an empty `Reading` with the time of receipt and the size limit of an event. Out: the same
`Reading`, filled; or a `DocumentError`. A front yields after each message, so that a long document can be read in
slices: the work between two yields grows only with the message, or with what is shared.
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
"""Limit of the events of one document: three times the longest body (each small event gets an id of 36 bytes).
Repeated names, and members that a batch shares, let a few bytes of JSON become many: the sender chooses how long they
are, and for how many events.
"""


class DocumentError(ValueError):
    """A document that is refused as a whole: nothing of it is published."""

    status = 400
    """The status of the HTTP answer."""

    def __init__(self, index: int | None, field: str, problem: str) -> None:
        """Args:
        index: which event of the document, from 0; None if it is about the document itself.
        field: where, such as `properties.total`.
        problem: what is wrong there and what is expected; no value, because it may be personal.
        """
        super().__init__(f"{field}: {problem}")
        self.index = index
        self.field = field
        self.problem = problem


class DocumentTooLarge(DocumentError):  # noqa: N818 - says what the document is
    """A document, or one of its events, is or becomes too large."""

    status = 413


class TypeNotAllowed(DocumentError):  # noqa: N818 - says what the type is
    """An event of a type that may not be sent with the request's key."""

    status = 403

    def __init__(self, index: int, key: Key) -> None:
        """`index` is the event's."""
        allowed = ", ".join(sorted(key.types))
        super().__init__(
            index, "type", f"may not be sent with this key, which allows {allowed}; see gateway.keys"
        )


class EventTooLarge(DocumentTooLarge):
    """One event is larger than Kafka may take."""


@dataclass(slots=True)
class Reading:
    """What was read of a document so far."""

    received_at: int
    """When the request arrived, epoch milliseconds."""
    key: Key
    """The request's key."""
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    """Limit of an event in Kafka: key and value."""
    header_bytes: int = 10
    """How many of these bytes are the wire format's header."""
    max_future_ms: float = MAX_FUTURE_SECONDS * 1000
    """How far an event's time may be after the receipt."""
    events: list[Event] = field(default_factory=list)
    """In the order of the document."""
    bodies: list[bytes] = field(default_factory=list)
    """Their Avro bodies."""
    set_aside: Counter[StrEnum] = field(default_factory=Counter)
    """How many messages were accepted and not published, by reason; metrics must know each reason."""
    not_believed: Counter[StrEnum] = field(default_factory=Counter)
    """How many times were not believed, by reason; metrics must know each reason."""
    size_bytes: int = 0
    """The size of all bodies, including those of events that were too large: they were made as well."""

    def add(self, index: int | None, result: Event | StrEnum) -> None:
        """Add an event, or count the reason why there is none. Raises DocumentError.

        Each event is encoded at once, so that a document is refused before it takes too much memory.
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
            raise EventTooLarge(index, "event", f"{wrong}; send a smaller event, see kafka.max_event_bytes")
        self.events.append(result)
        self.bodies.append(body)


def becomes_too_much(index: int | None) -> DocumentTooLarge:
    """The error of a document that would become more than `MAX_READING_BYTES`."""
    return DocumentTooLarge(
        index, "body", f"becomes more than {MAX_READING_BYTES:,} bytes of events; send fewer in one request"
    )


Front: TypeAlias = Callable[[object, Reading], Iterator[None]]
"""`(document, reading)`: fills the reading, and yields after each message; raises DocumentError."""

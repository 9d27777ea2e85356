"""Fronts: pure functions from a request's document to events.

In: parsed JSON, and the time at which it came (epoch milliseconds). Out: a `Reading`, or a `DocumentError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from flagpost_publisher.event_bodies import event_body
from flagpost_schemas import EncodeError, Event

MAX_READING_BYTES: Final = 8_000_000
"""What one document may become, twice the longest body. Names that are repeated, and members that a batch shares,
let a few bytes of JSON become many: the sender chooses how long they are, and for how many events."""


class DocumentError(ValueError):
    """A document that is refused as a whole: nothing of it is published."""

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
    """A document that becomes more than `MAX_READING_BYTES`."""


@dataclass(slots=True)
class Reading:
    """What a document gave."""

    events: list[Event] = field(default_factory=list)
    """In the document's order."""
    bodies: list[bytes] = field(default_factory=list)
    """Their Avro bodies."""
    set_aside: Counter[StrEnum] = field(default_factory=Counter)
    """How many were accepted and not published, by reason; each reason must be one that metrics know."""
    size_bytes: int = 0
    """Of all bodies."""

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
            raise DocumentTooLarge(
                index,
                "body",
                f"becomes more than {MAX_READING_BYTES:,} bytes of events; send fewer in one request",
            )
        self.events.append(result)
        self.bodies.append(body)


Front: TypeAlias = Callable[[object, int], Reading]
"""`(document, received_at)`; raises DocumentError."""

"""Fronts: pure functions from a request's document to events.

In: parsed JSON, and the time at which it came (epoch milliseconds). Out: a `Reading`, or a `DocumentError`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from flagpost_schemas import Event


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


@dataclass(slots=True)
class Reading:
    """What a document gave."""

    events: list[Event] = field(default_factory=list)
    """In the document's order."""
    set_aside: Counter[StrEnum] = field(default_factory=Counter)
    """How many were accepted and not published, by reason; each reason must be one that metrics know."""


Front: TypeAlias = Callable[[object, int], Reading]
"""`(document, received_at)`; raises DocumentError."""

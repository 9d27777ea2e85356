"""The state of a metadata delivery, field by field.

In: the fields that a delivery sets, and how each of them ended. Out: how the delivery ends as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flagpost_consumer.core.outcomes import DELIVERED, Ending, Reason
from flagpost_consumer.core.planning.mapping import Metadata

_PRECEDENCE = (
    Reason.REJECTED,
    Reason.ATTEMPTS_EXHAUSTED,
    Reason.SUPPRESSED,
    Reason.FIELD_MISSING,
    Reason.SUPERSEDED,
    Reason.UNCHANGED,
)
"""The reason of a delivery of which no field was accepted: the first of these that one of its fields has."""


Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Item(Generic[Owner]):
    """One metadata delivery."""

    owner: Owner
    """Whose delivery it is; not used here."""
    metadata: Metadata
    partition: int
    offset: int
    occurred_at: int
    missing: bool
    """Whether some of its fields do not exist in Pendo."""
    open_fields: int = 0
    flying: int = 0
    """How many of its fields are in flight."""
    accepted: bool = False
    endings: list[Ending] = field(default_factory=list)
    removed: bool = False
    """Handed back unsettled; the answers to its fields in flight are ignored."""
    given_up: bool = False
    """Dead-lettered before its turn, because it held too much; later deliveries still wait for it."""
    written: bool = False
    """Kafka has the dead letter of a delivery that was given up."""
    blockers: int = 0
    """How many of its fields are also set by an earlier delivery that is not settled yet."""
    followers: list[Item[Owner]] = field(default_factory=list)
    """The deliveries that wait for this one to be settled, once for each field."""
    follows_returned: bool = False
    """An earlier delivery that sets one of its fields was handed back: so this one is handed back, too."""

    def ending(self) -> Ending:
        """How the delivery ends once no field is open."""
        if self.accepted:
            return DELIVERED
        found = {ending.reason: ending for ending in self.endings}
        if self.missing:
            found.setdefault(Reason.FIELD_MISSING, Ending(Reason.FIELD_MISSING))
        return next(found[reason] for reason in _PRECEDENCE if reason in found)

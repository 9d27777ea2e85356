"""The result of a rehearsal: deliveries that end like in the ledger, those that would not, and those left out.

In: one delivery after the other, with both endings. Out: counts and examples by kind and both endings.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from flagpost_consumer.core.outcomes import Kind, Reason

MAX_EXAMPLES = 5
"""Of each difference."""


class LeftOut(StrEnum):
    """Why a delivery is not compared."""

    PENDING = "pending"
    """It has not ended yet."""
    UNEXPLAINED = "unexplained"
    """The group has committed beyond it, and the ledger does not say how it ended; see `flagpost reconcile`."""
    LOST = "lost"
    """The group could not read it, and the ledger says so."""
    NOT_COVERED = "not_covered"
    """It depends on a delivery that was not read."""
    UNCLEAR = "unclear"
    """It depends on which metadata request was in flight when it came, and the ledger does not say which."""


class Change(NamedTuple):
    """One kind of difference. None instead of a reason: the delivery was not planned then, or would not be planned
    now.
    """

    kind: Kind
    ledger: Reason | None
    rehearsed: Reason | None


@dataclass(frozen=True, slots=True)
class Example:
    """Where to look."""

    partition: int
    offset: int
    event_id: str | None


@dataclass(slots=True)
class Row:
    """All deliveries with one kind of difference."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class Differences:
    """The differences found so far."""

    same: int = 0
    rows: dict[Change, Row] = field(default_factory=dict)
    left_out: Counter[LeftOut] = field(default_factory=Counter)

    @property
    def different(self) -> int:
        """Deliveries that would end differently."""
        return sum(row.count for row in self.rows.values())

    @property
    def compared(self) -> int:
        """Deliveries whose two endings are known."""
        return self.same + self.different

    def compare(self, change: Change, example: Example) -> None:
        """Take in one delivery."""
        if change.ledger is change.rehearsed:
            self.same += 1
            return
        row = self.rows.setdefault(change, Row())
        row.count += 1
        if len(row.examples) < MAX_EXAMPLES:
            row.examples.append(example)

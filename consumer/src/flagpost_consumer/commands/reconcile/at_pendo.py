"""Pendo's count for a flag and a variation, compared with the expectation.

In: our counts, Pendo's. Out: the least and the greatest expected number of events.
"""

from __future__ import annotations

from dataclasses import dataclass

from flagpost_consumer.commands.reconcile.counting import Counts


@dataclass(frozen=True, slots=True)
class AtPendo:
    """Pendo's numbers for a flag and a variation."""

    events: int = 0
    visitors: int | None = 0
    """Distinct visitors; None: Pendo does not tell."""


@dataclass(frozen=True, slots=True)
class PendoCheck:
    """Pendo's count for a row, and the expectation."""

    counted: int
    expected_min: int
    expected_max: int
    visitors: int | None = None
    """Distinct visitors; None: Pendo does not tell."""

    def as_json(self) -> dict[str, int]:
        """The expectation about events."""
        return {
            "counted": self.counted,
            "expected_min": self.expected_min,
            "expected_max": self.expected_max,
        }

    @property
    def difference(self) -> int:
        """How far the count is outside the expectation; negative: Pendo counts too few."""
        return max(0, self.counted - self.expected_max) + min(0, self.counted - self.expected_min)


def compare(counts: Counts, at_pendo: AtPendo) -> PendoCheck:
    """Compare Pendo's count with ours: requests without an answer, and repeated ones, may or may not have been
    counted.
    """
    most = counts.delivered + counts.unseen + counts.sent_again
    return PendoCheck(at_pendo.events, counts.delivered, most, at_pendo.visitors)

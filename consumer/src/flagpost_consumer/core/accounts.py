"""The books of one process: every delivery that was planned is in one place.

In: word of each delivery that is planned, settled or handed back. Out: counts, for which at every moment
planned = delivered + duplicate + dropped + dead_lettered + returned + pending.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from flagpost_consumer.core.outcomes import Ending, Kind, Outcome, Reason
from flagpost_consumer.core.pendo_rules import Rule


@dataclass(slots=True)
class Accounts:
    """Counts since the process started; `pending` is what is so now."""

    records: int = 0
    offsets_lost: int = 0
    redeliveries: int = 0
    mispartitioned: int = 0
    quarantined: int = 0
    """Records that made our own code raise twice, and were dead-lettered for it."""
    planned: Counter[Kind] = field(default_factory=Counter)
    settled: Counter[tuple[Kind, Outcome, Reason]] = field(default_factory=Counter)
    returned: Counter[Kind] = field(default_factory=Counter)
    pending: Counter[Kind] = field(default_factory=Counter)
    repairs: Counter[Rule] = field(default_factory=Counter)

    def plan(self, kind: Kind) -> None:
        """A delivery begins."""
        self.planned[kind] += 1
        self.pending[kind] += 1

    def settle(self, kind: Kind, ending: Ending) -> None:
        """Kafka has acknowledged how a delivery ended."""
        self.pending[kind] -= 1
        self.settled[kind, ending.outcome, ending.reason] += 1

    def hand_back(self, kind: Kind) -> None:
        """A delivery is handed back unsettled."""
        self.pending[kind] -= 1
        self.returned[kind] += 1

    def total(self, kind: Kind, outcome: Outcome) -> int:
        """How many deliveries of a kind ended so."""
        return sum(count for (of, ended, _), count in self.settled.items() if (of, ended) == (kind, outcome))

    def difference(self, kind: Kind) -> int:
        """What the books lack for a kind; anything but 0 is a defect."""
        ended = sum(self.total(kind, outcome) for outcome in Outcome)
        return self.planned[kind] - ended - self.returned[kind] - self.pending[kind]

"""The counts of one process: every planned delivery is in exactly one place.

In: each delivery that is planned, settled or handed back. Out: counts, for which at every moment planned = delivered
+ duplicate + dropped + dead_lettered + returned + pending.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from flagpost_consumer.core.outcomes import Ending, Kind, Outcome, Reason
from flagpost_consumer.core.planning.pendo_rules import Rule


@dataclass(slots=True)
class Accounts:
    """Counts since the process started; `pending` is the present number."""

    records: int = 0
    offsets_lost: int = 0
    redeliveries: int = 0
    mispartitioned: int = 0
    quarantined: int = 0
    """Records for which our own code failed twice, and which were dead-lettered for it."""
    planned: Counter[Kind] = field(default_factory=Counter)
    settled: Counter[tuple[Kind, Outcome, Reason]] = field(default_factory=Counter)
    returned: Counter[Kind] = field(default_factory=Counter)
    pending: Counter[Kind] = field(default_factory=Counter)
    repairs: Counter[Rule] = field(default_factory=Counter)

    def plan(self, kind: Kind, count: int = 1) -> None:
        """Deliveries begin."""
        self.planned[kind] += count
        self.pending[kind] += count

    def settle(self, kind: Kind, ending: Ending, count: int = 1) -> None:
        """Kafka has acknowledged how deliveries ended."""
        self.pending[kind] -= count
        self.settled[kind, ending.outcome, ending.reason] += count

    def hand_back(self, kind: Kind, count: int = 1) -> None:
        """Deliveries are handed back unsettled."""
        self.pending[kind] -= count
        self.returned[kind] += count

    def total(self, kind: Kind, outcome: Outcome) -> int:
        """How many deliveries of a kind ended with an outcome."""
        return sum(count for (of, ended, _), count in self.settled.items() if (of, ended) == (kind, outcome))

    def difference(self, kind: Kind) -> int:
        """Planned deliveries of a kind minus all places where they are; anything but 0 is a defect."""
        ended = sum(count for (of, _, _), count in self.settled.items() if of is kind)
        return self.planned[kind] - ended - self.returned[kind] - self.pending[kind]

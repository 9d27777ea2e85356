"""The end of the demo: what was decided, published, settled and received, side by side.

In: four independent counts: what the application decided, what is on the events topic, how the consumer settled it,
what Pendo recorded. Out: a table by flag and variation, and whether it adds up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from flagpost_consumer.core.outcomes import DELIVERED, PENDING, STANDINGS, UNEXPLAINED, Ending, Kind, Outcome
from flagpost_schemas import DecisionEvent, Event, variation_as_sent

Row = tuple[str, str | None]
"""A flag, and the variation as sent."""
Place = tuple[int, int]
"""(partition, offset)"""


@dataclass(frozen=True, slots=True)
class Published:
    """One record of the events topic."""

    place: Place
    event: Event


@dataclass(slots=True)
class Counts:
    """How the deliveries of some records ended."""

    published: int = 0
    delivered: int = 0
    duplicate: int = 0
    dropped: int = 0
    dead_lettered: int = 0
    replayed: int = 0
    sent_again: int = 0
    pending: int = 0
    unexplained: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Why they ended, if they were not delivered."""

    def add(self, ending: Ending | None, *, is_below_commit: bool) -> str:
        """Count one delivery: its outcome, or whether it is explained that it has none
        (docs/contract.md#accounting). Returns how far it came, a word of `STANDINGS`.
        """
        self.published += 1
        if ending is None:
            word = UNEXPLAINED if is_below_commit else PENDING
            setattr(self, word, getattr(self, word) + 1)
            return word
        setattr(self, ending.outcome.value, getattr(self, ending.outcome.value) + 1)
        if ending.outcome is not Outcome.DELIVERED:
            self.reasons[ending.reason.value] += 1
        return ending.reason.value

    def add_up(self, other: Counts) -> None:
        """Add another's counts."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def as_json(self) -> dict[str, Any]:
        """Each count, and the reasons."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(slots=True)
class Reconciliation:
    """The table."""

    rows: dict[Row, Counts] = field(default_factory=dict)
    other: Counts = field(default_factory=Counts)
    """Track events that are not decisions."""
    metadata: Counts = field(default_factory=Counts)
    visitors: dict[Row, dict[str, str]] = field(default_factory=dict)
    """How near to delivery each visitor's decisions came, by visitor id: a word of `STANDINGS`."""
    decided: Counter[Row] = field(default_factory=Counter)
    """The application's own count."""
    removed_at_source: int = 0
    """Duplicates that the publisher did not publish, and what it could not publish, by its own count."""
    at_pendo: Counter[Row] = field(default_factory=Counter)
    """Track events that Pendo recorded."""
    since_ms: int = 0
    until_ms: int = 0

    @property
    def totals(self) -> Counts:
        """All track deliveries."""
        total = Counts()
        for counts in [*self.rows.values(), self.other]:
            total.add_up(counts)
        return total

    @property
    def unexplained(self) -> int:
        """Deliveries without a settlement and without an explanation."""
        return self.totals.unexplained + self.metadata.unexplained

    def disagreements(self) -> list[str]:
        """What does not add up, in words; empty if everything does."""
        found = []
        if self.unexplained:
            found.append(f"{self.unexplained} deliveries are unexplained")
        decided, published = self.decided.total(), sum(counts.published for counts in self.rows.values())
        if decided != published + self.removed_at_source:
            found.append(
                f"the application made {decided} decisions; {published} were published and "
                f"{self.removed_at_source} removed by the publisher"
            )
        for row in sorted({*self.rows, *self.at_pendo}, key=str):
            delivered = self.rows.get(row, Counts()).delivered
            if delivered != self.at_pendo[row]:
                found.append(f"{row}: {delivered} delivered, Pendo recorded {self.at_pendo[row]}")
        return found

    def as_json(self) -> dict[str, Any]:
        """The document of docs/contract.md#json-output, with more fields that only the demo has."""
        return {
            "window": {"since": self.since_ms, "until": self.until_ms},
            "rows": [
                {
                    "flag_key": row[0],
                    "variation_key": row[1],
                    "decided": self.decided[row],
                    **self.rows[row].as_json(),
                    "visitors": self._visitors_json(row),
                    "pendo": self._pendo_json(row),
                }
                for row in self.ordered_rows()
            ],
            "other": self.other.as_json(),
            "totals": self.totals.as_json(),
            "metadata": self.metadata.as_json(),
            "decided": self.decided.total(),
            "removed_at_source": self.removed_at_source,
            "lost_offsets": 0,
            "unexplained": self.unexplained,
            "disagreements": self.disagreements(),
        }

    def _visitors_json(self, row: Row) -> dict[str, Any]:
        """A visitor who was not delivered has one reason: how far the nearest of the decisions came."""
        standings = Counter(self.visitors.get(row, {}).values())
        decided, delivered = standings.total(), standings.pop(DELIVERED.reason.value, 0)
        return {
            "decided": decided,
            "delivered": delivered,
            "lost": decided - delivered,
            "by_reason": dict(standings),
        }

    def _pendo_json(self, row: Row) -> dict[str, int]:
        """The stand-in answers everything, so it counts exactly what was delivered."""
        delivered = self.rows[row].delivered
        return {"counted": self.at_pendo[row], "expected_min": delivered, "expected_max": delivered}

    def ordered_rows(self) -> list[Row]:
        """The rows by flag, then variation."""
        return sorted(self.rows, key=lambda row: (row[0], row[1] or ""))


def reconcile(
    published: Iterable[Published],
    settled: Mapping[tuple[Place, Kind], Ending],
    committed: Mapping[int, int],
) -> Reconciliation:
    """Compare the events topic with the settlements. `committed`: the group's position by partition."""
    table = Reconciliation()
    for record in published:
        partition, offset = record.place
        is_below = offset < committed.get(partition, 0)
        decision, ending = record.event, settled.get((record.place, Kind.TRACK))
        if not isinstance(decision, DecisionEvent):
            table.other.add(ending, is_below_commit=is_below)
            continue
        row = decision.flag_key, variation_as_sent(decision)
        standing = table.rows.setdefault(row, Counts()).add(ending, is_below_commit=is_below)
        if decision.visitor_id:
            known = table.visitors.setdefault(row, {})
            before = known.get(decision.visitor_id, standing)
            known[decision.visitor_id] = max(standing, before, key=STANDINGS.index)
        if row[1] is not None:
            ending = settled.get((record.place, Kind.VISITOR_METADATA))
            table.metadata.add(ending, is_below_commit=is_below)
    return table

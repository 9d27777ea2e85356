"""The counting of `flagpost reconcile`: published records held against what the ledger says of them.

In: the records of some partitions of the events topic, how the ledger says that their deliveries ended, the
group's committed offset, which dead letters were put back. Out: counts by flag and variation. No I/O.

Every delivery is in exactly one of six columns, so that in each row
published = delivered + duplicate + dropped + dead_lettered + pending + unexplained.
`replayed` (of the dead-lettered) and `sent_again` (of the delivered) are counted besides. A dead letter that is
replayed is a new record on the events topic, and so a published delivery of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import TypeGuard

from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.operator.reconciliation.sample_ratio import Assignment
from flagpost_consumer.operator.reconciliation.settled import Delivered, Settled

MAX_EXAMPLES = 10
"""Unexplained deliveries that are named."""

OFF = "off"

Interval = tuple[int, int]
"""Offsets: the first, and the one after the last."""
Row = tuple[str, str | None]
"""A flag, and the variation as sent; None where a flag is enabled without one."""


@dataclass(slots=True)
class Counts:
    """How the deliveries of some records ended."""

    published: int = 0
    delivered: int = 0
    duplicate: int = 0
    dropped: int = 0
    dead_lettered: int = 0
    replayed: int = 0
    """Of the dead-lettered: those that were put back on the events topic."""
    sent_again: int = 0
    """How often Pendo took a delivery after the first time."""
    pending: int = 0
    unexplained: int = 0
    unseen: int = 0
    """Track requests whose answer was never seen; not of CONTRACT section 10, but of its `expected_max`."""

    def end(self, outcome: Outcome, step: int = 1) -> None:
        """Count how a delivery ended; `step` -1: count it no more."""
        setattr(self, outcome.value, getattr(self, outcome.value) + step)

    def add(self, other: Counts) -> None:
        """Count what another counted."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, slots=True)
class Published:
    """One record of the events topic."""

    partition: int
    offset: int
    kinds: tuple[Kind, ...]
    """What its planning gives."""
    row: Row | None = None
    """For a decision."""
    visitor_id: str | None = None
    assignment: Assignment | None = None
    """For a decision of an experiment."""


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """What is known of a partition besides its records."""

    settled: Settled
    committed: int = 0
    """The group's position: everything below it must be settled."""
    replayed: Collection[Delivered] = ()
    """The deliveries whose dead letter was put back."""
    gaps: Sequence[Interval] = ()
    """What the group could not read, and wrote so: disjoint, in order."""

    def is_lost(self, offset: int) -> bool:
        """Whether the group could not read the record at an offset, although we can (a batch too large for it)."""
        place = bisect_right(self.gaps, offset, key=_first) - 1
        return place >= 0 and offset < self.gaps[place][1] and not self.settled.kinds(offset)


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A delivery below the committed offset that the ledger does not settle."""

    partition: int
    offset: int
    kind: Kind

    def __str__(self) -> str:
        """`partition/offset/kind`."""
        return f"{self.partition}/{self.offset}/{self.kind.value}"


@dataclass(slots=True)
class Books:
    """What all partitions together give."""

    rows: dict[Row, Counts] = field(default_factory=dict)
    other: Counts = field(default_factory=Counts)
    """Track deliveries without a flag, and records that nobody could decode."""
    metadata: Counts = field(default_factory=Counts)
    examples: list[Unexplained] = field(default_factory=list)
    """The first of the unexplained deliveries."""
    visitors: dict[Row, int] = field(default_factory=dict)
    """Distinct visitors whose decision was delivered, by flag and variation other than `off`."""

    @property
    def totals(self) -> Counts:
        """All track deliveries."""
        total = Counts()
        for counts in (*self.rows.values(), self.other):
            total.add(counts)
        return total

    @property
    def unexplained(self) -> int:
        """Deliveries of any kind that nobody can explain."""
        return self.totals.unexplained + self.metadata.unexplained

    def count(self, facts: Mapping[int, PartitionFacts], records: Iterable[Published]) -> None:
        """Count all records of these partitions; each partition once, for a visitor's records are all in one."""
        visitors: dict[Row, set[int]] = {}
        for record in records:
            known = facts[record.partition]
            if known.is_lost(record.offset):  # counted as such, and so not unexplained
                continue
            for kind in kinds_given(record.kinds, known.settled.kinds(record.offset)):
                outcome = self._count(known, record, kind)
                if outcome is Outcome.DELIVERED and kind is Kind.TRACK and _is_exposure(record.row):
                    visitors.setdefault(record.row, set()).add(hash(record.visitor_id))
        for row, seen in visitors.items():
            self.visitors[row] = self.visitors.get(row, 0) + len(seen)

    def _count(self, facts: PartitionFacts, record: Published, kind: Kind) -> Outcome | None:
        counts = self._counts(record.row, kind)
        counts.published += 1
        settled, offset = facts.settled, record.offset
        outcome = settled.outcome(offset, kind)
        if kind is Kind.TRACK:
            counts.unseen += settled.unseen(offset)
        if outcome is not None:
            counts.end(outcome)
            counts.sent_again += settled.sent_again(offset, kind)
            counts.replayed += outcome is Outcome.DEAD_LETTERED and (offset, kind) in facts.replayed
        elif offset >= facts.committed:
            counts.pending += 1
        else:
            counts.unexplained += 1
            self._name(Unexplained(record.partition, offset, kind))
        return outcome

    def _counts(self, row: Row | None, kind: Kind) -> Counts:
        if kind in (Kind.VISITOR_METADATA, Kind.ACCOUNT_METADATA):
            return self.metadata
        return self.other if row is None else self.rows.setdefault(row, Counts())

    def _name(self, place: Unexplained) -> None:
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(place)


def _is_exposure(row: Row | None) -> TypeGuard[Row]:
    """Whether a decision shows a variation, and not that there is none."""
    return row is not None and row[1] not in (None, OFF)


def kinds_given(planned: Iterable[Kind], settled: list[Kind]) -> Iterable[Kind]:
    """The deliveries that a record gave.

    The consumer may have planned it with another release or other settings than we do, so what it settled counts
    as well. A record that it could not decode gave one delivery of kind unknown, whatever we can read in it.
    """
    if not settled:
        return planned
    known = [kind for kind in settled if kind is not Kind.UNKNOWN]
    return {*planned, *known} - {Kind.UNKNOWN} if known else settled


def size_of_union(intervals: Iterable[Interval]) -> int:
    """How many offsets lie in at least one of the intervals: several members may have written of one gap."""
    return sum(end - first for first, end in merged(intervals))


def _first(interval: Interval) -> int:
    return interval[0]


def merged(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """The intervals without overlaps, in order; what touches may stay apart."""
    edges = sorted(
        (place, step) for first, end in intervals if end > first for place, step in ((first, 1), (end, -1))
    )
    depth = 0
    for (place, step), (following, _) in pairwise(edges):
        depth += step
        if depth:
            yield place, following

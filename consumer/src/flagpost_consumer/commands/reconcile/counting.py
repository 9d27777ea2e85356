"""The counting of `flagpost reconcile`: published records compared with what the ledger says of them.

In: the records of some partitions of the events topic, how their deliveries ended according to the ledger, the
group's committed offset, which dead letters were replayed. Out: counts by flag and variation, and by parts of these
if requested (days, services). Visitors are counted in `visitors`. No I/O.

Every delivery is in exactly one of six columns, so that in each row published = delivered + duplicate + dropped +
dead_lettered + pending + unexplained. `replayed` (of the dead-lettered) and `sent_again` (of the delivered) are
counted in addition. A dead letter that is replayed is a new record on the events topic, and so a published delivery
of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from flagpost_consumer.commands.reconcile.settled import Delivered, Ended, Endings, Settled, ended, kinds_of
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_schemas import DecisionEvent, Source

MAX_EXAMPLES = 10
"""How many unexplained deliveries are named."""

Interval = tuple[int, int]
"""Offsets: the first, and the one after the last."""
Row = tuple[str, str | None]
"""A flag, and the variation as sent; None if a flag is enabled without one."""
Part: TypeAlias = str | Source
"""A day, or who published."""


@dataclass(slots=True)
class Counts:
    """How the deliveries of some records ended."""

    published: int = 0
    delivered: int = 0
    duplicate: int = 0
    dropped: int = 0
    dead_lettered: int = 0
    replayed: int = 0
    """Of the dead-lettered: those that were replayed."""
    sent_again: int = 0
    """How often Pendo received a delivery after the first time."""
    pending: int = 0
    unexplained: int = 0
    unseen: int = 0
    """Track requests whose answer was never seen; not in docs/contract.md#json-output, but part of its
    `expected_max`.
    """
    reasons: Counter[str] = field(default_factory=Counter)
    """Why they ended, if they were not delivered."""

    def end(self, how: Ended, times: int) -> None:
        """Count how this many deliveries ended."""
        name = how.outcome.value
        setattr(self, name, getattr(self, name) + times)
        if how.outcome is not Outcome.DELIVERED:
            self.reasons[str(how.reason)] += times

    def add(self, other: Counts) -> None:
        """Add another's counts."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def sum_of(parts: Iterable[Counts]) -> Counts:
    """The sum of some counts, as a new one."""
    total = Counts()
    for counts in parts:
        total.add(counts)
    return total


class Published(NamedTuple):
    """One record of the events topic."""

    partition: int
    offset: int
    kinds: tuple[Kind, ...]
    """The kinds of its planned deliveries."""
    row: Row | None = None
    """Its row, if it is a decision."""
    part: Part | None = None
    """The part of its row, if rows are split."""
    decision: DecisionEvent | None = None


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """What is known of a partition besides its records."""

    settled: Settled
    committed: int = 0
    """The group's position: everything below it must be settled."""
    replayed: Collection[Delivered] = ()
    """The deliveries whose dead letter was replayed."""
    gaps: Sequence[Interval] = ()
    """What the group could not read, according to the ledger: disjoint, in order."""

    def is_lost(self, offset: int) -> bool:
        """Whether the group could not read the record at an offset, although we can (a batch too large for it)."""
        place = bisect_right(self.gaps, offset, key=_first) - 1
        return place >= 0 and offset < self.gaps[place][1] and not self.settled.endings(offset)


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A delivery below the committed offset that the ledger does not settle."""

    partition: int
    offset: int
    kind: Kind

    def __str__(self) -> str:
        """`partition/offset/kind`."""
        return f"{self.partition}/{self.offset}/{self.kind.value}"


_Alike: TypeAlias = tuple[Row | None, Part | None, tuple[Kind, ...], Endings, bool]
"""What records that are counted together have in common: row, part, kinds, how they ended, whether they are
committed.
"""


@dataclass(slots=True)
class _Times:
    """How many records are counted together."""

    missing: list[Kind]
    """The deliveries of each that the ledger does not settle."""
    count: int = 0


def _missing(planned: Iterable[Kind], endings: Endings) -> list[Kind]:
    return [kind for kind in kinds_given(planned, endings) if ended(endings, kind) is None]


@dataclass(slots=True)
class Books:
    """The sums over all partitions."""

    rows: dict[Row, Counts] = field(default_factory=dict)
    other: Counts = field(default_factory=Counts)
    """Track deliveries without a flag, and undecodable records."""
    metadata: Counts = field(default_factory=Counts)
    parts: dict[tuple[Row, Part], Counts] = field(default_factory=dict)
    """The rows, split."""
    examples: list[Unexplained] = field(default_factory=list)
    """The first of the unexplained deliveries."""

    @property
    def totals(self) -> Counts:
        """All track deliveries."""
        return sum_of((*self.rows.values(), self.other))

    @property
    def unexplained(self) -> int:
        """Deliveries of any kind without an explanation."""
        return self.totals.unexplained + self.metadata.unexplained

    def count(self, facts: Mapping[int, PartitionFacts], records: Iterable[Published]) -> None:
        """Count all records of these partitions."""
        alike: dict[_Alike, _Times] = {}
        remarked = {
            number: known.settled.remarked | {offset for offset, _ in known.replayed}
            for number, known in facts.items()
        }
        for record in records:
            partition, offset, kinds, row, part, _ = record
            known = facts[partition]
            if known.gaps and known.is_lost(offset):  # counted as lost, and so not unexplained
                continue
            endings = known.settled.endings(offset)
            is_committed = offset < known.committed
            key = row, part, kinds, endings, is_committed
            times = alike.get(key)
            if times is None:
                times = alike[key] = _Times(_missing(kinds, endings))
            times.count += 1
            if times.missing and is_committed:
                self._name(record, times.missing)
            if offset in remarked[partition]:
                self._remark(known, record, endings)
        for key, times in alike.items():
            self._count(key, times.count)

    def _count(self, alike: _Alike, times: int) -> None:
        row, part, kinds, endings, is_committed = alike
        for kind in kinds_given(kinds, endings):
            how = ended(endings, kind)
            for counts in self._counts(row, part, kind):
                counts.published += times
                if how is not None:
                    counts.end(how, times)
                elif is_committed:
                    counts.unexplained += times
                else:
                    counts.pending += times

    def _remark(self, facts: PartitionFacts, record: Published, endings: Endings) -> None:
        """Count rare cases: replays, and what Pendo may have received more than once."""
        for kind in kinds_given(record.kinds, endings):
            how = ended(endings, kind)
            for counts in self._counts(record.row, record.part, kind):
                counts.sent_again += facts.settled.sent_again(record.offset, kind)
                if kind is Kind.TRACK:
                    counts.unseen += facts.settled.unseen(record.offset)
                if how is not None and how.outcome is Outcome.DEAD_LETTERED:
                    counts.replayed += (record.offset, kind) in facts.replayed

    def _counts(self, row: Row | None, part: Part | None, kind: Kind) -> Iterator[Counts]:
        if kind in (Kind.VISITOR_METADATA, Kind.ACCOUNT_METADATA):
            yield self.metadata
        elif row is None:
            yield self.other
        else:
            yield self.rows.setdefault(row, Counts())
            if part is not None:
                yield self.parts.setdefault((row, part), Counts())

    def _name(self, record: Published, kinds: list[Kind]) -> None:
        for kind in kinds[: MAX_EXAMPLES - len(self.examples)]:
            self.examples.append(Unexplained(record.partition, record.offset, kind))


def kinds_given(planned: Iterable[Kind], endings: Endings) -> Iterable[Kind]:
    """The deliveries of a record.

    The consumer may have planned it with another release or other settings than we do, so what it settled counts as
    well. A record that it could not decode had one delivery of kind unknown, whatever we can read in it.
    """
    settled = kinds_of(endings)
    if not settled:
        return planned
    known = [kind for kind in settled if kind is not Kind.UNKNOWN]
    return {*planned, *known} - {Kind.UNKNOWN} if known else settled


def size_of_union(intervals: Iterable[Interval]) -> int:
    """How many offsets are in at least one of the intervals: several members may have written the same gap."""
    return sum(end - first for first, end in merged(intervals))


def _first(interval: Interval) -> int:
    return interval[0]


def merged(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """The intervals without overlaps, in order; adjacent ones may stay separate."""
    edges = sorted(
        (place, step) for first, end in intervals if end > first for place, step in ((first, 1), (end, -1))
    )
    depth = 0
    for (place, step), (following, _) in pairwise(edges):
        depth += step
        if depth:
            yield place, following

"""Everything that the page counts, for one reading of the topics.

In: the records; the topics may be read in any order. Out, at any time: `View`. No I/O. Visitors are counted by the
same module as for `flagpost reconcile`, once by flag and variation and once by time step; deliveries by `deliveries`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flagpost_consumer.commands.dead_letters.records import DeadLetter, Marker
from flagpost_consumer.commands.reconcile.counting import (
    Counts,
    Interval,
    Published,
    Row,
    size_of_union,
    sum_of,
)
from flagpost_consumer.commands.reconcile.sample_ratio import (
    Assignment,
    SampleRatio,
    Samples,
    assignment_of,
    check_ratios,
)
from flagpost_consumer.commands.reconcile.visitors import VisitorCounts, Visitors
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.planning.selection import not_selected
from flagpost_consumer.core.splits.experiments import Splits, splits_of
from flagpost_consumer.settings import Settings
from flagpost_consumer.web.awaited import Awaited
from flagpost_consumer.web.deliveries import Deliveries
from flagpost_consumer.web.letters import LetterCount, Letters
from flagpost_schemas import LedgerEntry, Settlements

STEPS: Final = 48
"""Into how many steps the window is divided for charts."""
RECENT: Final = 20
"""Settlements that the live part shows."""
STEP_BYTES: Final = 900
"""Bytes of one time step of a flag and variation, in two views."""


@dataclass(frozen=True, slots=True)
class Recent:
    """One recent settlement."""

    settled_at: int
    partition: int
    entry: LedgerEntry


@dataclass(frozen=True, slots=True)
class View:
    """What is shown: an immutable state."""

    since_ms: int
    """Where the window begins."""
    as_of_ms: int
    """Everything that was in the topics by this time is counted."""
    step_ms: int
    visitors: Mapping[Row, VisitorCounts]
    over_time: Mapping[Row, Mapping[int, VisitorCounts]]
    """By flag and variation, and the number of the step."""
    ratios: tuple[SampleRatio, ...]
    rows: Mapping[Row, Counts]
    other: Counts
    totals: Counts
    metadata: Counts
    lost_offsets: int
    letters: tuple[LetterCount, ...]
    newest_letters: tuple[DeadLetter, ...]
    settled: Mapping[str, int]
    """Settlements by outcome since the reading began, for rates."""
    recent: tuple[Recent, ...]

    @property
    def flags(self) -> list[str]:
        """The flags, sorted."""
        return sorted({flag for flag, _ in self.rows})

    @property
    def unexplained(self) -> int:
        """Deliveries without an explanation."""
        return self.totals.unexplained + self.metadata.unexplained


class Aggregates:
    """The counts since a moment."""

    def __init__(self, since_ms: int, until_ms: int, settings: Settings) -> None:
        """`until_ms`: the present; it determines the charts' steps."""
        self._select = settings.select
        self._given = settings.metrics.splits
        self.since_ms = since_ms
        self.step_ms = max(60_000, (until_ms - since_ms) // STEPS)
        self._visitors: Visitors[Row] = Visitors()
        self._by_step: Visitors[tuple[Row, int]] = Visitors()
        self._deliveries = Deliveries()
        self._letters = Letters(settings.kafka.topic)
        self._samples = Samples()
        self._splits = Splits()
        self._awaited = Awaited()
        """Decisions of experiments that have not been delivered yet."""
        self._gaps: dict[int, list[Interval]] = {}
        self._lost_before: dict[int, Interval] = {}
        self._settled = dict.fromkeys((outcome.value for outcome in Outcome), 0)
        self._recent: deque[Recent] = deque(maxlen=RECENT)
        self._rows: dict[Row, Row] = {}
        """Each flag and variation as it was first read, so that its names are stored once."""

    @property
    def bytes_held(self) -> int:
        """Bytes in memory, at most; `tests/unit/test_web_memory.py` compares it with measurements."""
        parts = (
            self._visitors,
            self._by_step,
            self._deliveries,
            self._letters,
            self._samples,
            self._splits,
            self._awaited,
        )
        return sum(part.bytes_held for part in parts) + STEP_BYTES * self._by_step.group_count

    def publish(self, record: Published, at_ms: int) -> None:
        """Count a record of the events topic, which was produced at `at_ms`. Call it once for each offset."""
        decision, row = record.decision, record.row
        if decision is None or row is None:
            self._deliveries.publish(record)
            return
        row = self._rows.setdefault(row, row)
        self._deliveries.publish(record)
        assignment = assignment_of(decision)
        if assignment is not None and not_selected(decision, self._select) is None:
            self._sample(record, assignment, at_ms)
        if Kind.TRACK not in record.kinds:  # a replay may be of its metadata only
            return
        place = record.partition, record.offset
        self._visitors.publish(*place, row, decision.visitor_id)
        group = row, max(0, at_ms - self.since_ms) // self.step_ms
        self._by_step.publish(*place, group, decision.visitor_id)

    def _sample(self, record: Published, assignment: Assignment, at_ms: int) -> None:
        place = record.partition, record.offset
        outcome = self._deliveries.outcome(*place)
        if self._samples.take(assignment, at_ms, delivered=outcome is Outcome.DELIVERED):
            self._awaited.add(*place, assignment.visitor)

    def settle(self, partition: int, settlements: Settlements) -> None:
        """Count a record of the ledger. Raises LaterRelease."""
        for gap in settlements.gaps:
            self._lose(partition, gap.from_offset, gap.to_offset)
            if settlements.settled_at >= self.since_ms:
                self._gaps.setdefault(partition, []).append((gap.from_offset, gap.to_offset))
        self._visitors.settle(partition, settlements.entries)
        self._by_step.settle(partition, settlements.entries)
        for entry in settlements.entries:
            self._deliveries.settle(partition, entry)
            if entry.kind == Kind.TRACK and entry.outcome == Outcome.DELIVERED:
                self._sample_again(partition, entry.offset)
            if settlements.settled_at >= self.since_ms:
                self._settled[entry.outcome] += 1
                self._recent.append(Recent(settlements.settled_at, partition, entry))

    def _sample_again(self, partition: int, offset: int) -> None:
        visitor = self._awaited.of(partition, offset)
        if visitor is not None:
            self._samples.deliver(visitor)

    def commit(self, partition: int, offset: int, first_kept: int) -> None:
        """Note the group's position in a partition, and the first offset that Kafka still has."""
        self._deliveries.commit(partition, offset)
        self._visitors.commit(partition, offset)
        self._by_step.commit(partition, offset)
        self._lost_before[partition] = offset, first_kept

    def report(self, value: bytes | None) -> None:
        """Note the traffic allocations of a publisher's report of impressions."""
        told_ms, splits = splits_of(value)
        for experiment, shares in splits:
            self._splits.tell(experiment, shares, told_ms)

    def letter(self, found: DeadLetter | Marker | None, value: bytes | None) -> None:
        """Count a record of the dead-letter topic."""
        source = self._letters.add(found, value)
        if source is not None:
            self._deliveries.replay(*source)

    def view(self, as_of_ms: int) -> View:
        """The present counts."""
        deliveries = self._deliveries
        over_time: dict[Row, dict[int, VisitorCounts]] = {}
        for (row, step), counts in self._by_step.counts().items():
            over_time.setdefault(row, {})[step] = counts
        return View(
            since_ms=self.since_ms,
            as_of_ms=as_of_ms,
            step_ms=self.step_ms,
            visitors=self._visitors.counts(),
            over_time=over_time,
            ratios=tuple(check_ratios(self._samples, self._splits, self._given)),
            rows={row: sum_of([counts]) for row, counts in deliveries.rows.items()},
            other=sum_of([deliveries.other]),
            totals=deliveries.totals,
            metadata=sum_of([deliveries.metadata]),
            lost_offsets=self._lost_offsets(),
            letters=tuple(self._letters.counts()),
            newest_letters=tuple(self._letters.newest()),
            settled=dict(self._settled),
            recent=tuple(reversed(self._recent)),
        )

    def _lose(self, partition: int, first: int, end: int) -> None:
        self._deliveries.lose(partition, first, end)
        self._visitors.lose(partition, first, end)
        self._by_step.lose(partition, first, end)

    def _lost_offsets(self) -> int:
        """Counted as in reconcile: gaps in the ledger, and one that the group has not reached yet."""
        numbers = {*self._gaps, *self._lost_before}
        return sum(
            size_of_union([*self._gaps.get(number, ()), self._lost_before.get(number, (0, 0))])
            for number in numbers
        )

"""All that the page counts, of one reading of the topics.

In: what is read, in any order between the topics. Out, at any time: `View`. No I/O. Visitors are counted by the
module that counts them for `flagpost reconcile`, once by flag and variation and once by step of time besides;
deliveries by `deliveries`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flagpost_consumer.core.experiments import Splits, splits_of
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.selection import not_selected
from flagpost_consumer.operator.dead_letters.records import DeadLetter, Marker
from flagpost_consumer.operator.reconciliation.counting import (
    Counts,
    Interval,
    Published,
    Row,
    size_of_union,
    sum_of,
)
from flagpost_consumer.operator.reconciliation.sample_ratio import (
    Assignment,
    SampleRatio,
    Samples,
    assignment_of,
    check_ratios,
)
from flagpost_consumer.operator.reconciliation.visitors import VisitorCounts, Visitors
from flagpost_consumer.settings import Settings
from flagpost_consumer.web.deliveries import Deliveries
from flagpost_consumer.web.letters import LetterCount, Letters
from flagpost_schemas import LedgerEntry, Settlements

STEPS: Final = 48
"""Into how many steps the window is cut for charts."""
RECENT: Final = 20
"""Settlements that the live part shows."""
VISITOR_BYTES: Final = 280
"""In both countings of visitors, and in the samples of experiments."""
AWAITED_BYTES: Final = 500
OFFSET_BYTES: Final = 20
"""Of the two countings of visitors together."""
GROUP_BYTES: Final = 700


@dataclass(frozen=True, slots=True)
class Recent:
    """One settlement of a moment ago."""

    settled_at: int
    partition: int
    entry: LedgerEntry


@dataclass(frozen=True, slots=True)
class View:
    """What is shown: a state that changes no more."""

    since_ms: int
    """Where the window begins."""
    as_of_ms: int
    """Everything that was in the topics by then is counted."""
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
        """In order."""
        return sorted({flag for flag, _ in self.rows})

    @property
    def unexplained(self) -> int:
        """Deliveries that nobody can explain."""
        return self.totals.unexplained + self.metadata.unexplained


class Aggregates:
    """What is counted since a moment."""

    def __init__(self, since_ms: int, until_ms: int, settings: Settings) -> None:
        """`until_ms`: what is now; the charts' steps are cut by it."""
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
        self._awaited: dict[tuple[int, int], tuple[Assignment, int]] = {}
        """Decisions of experiments that are not settled, by partition and offset, and when they came."""
        self._gaps: dict[int, list[Interval]] = {}
        self._lost_before: dict[int, Interval] = {}
        self._settled = dict.fromkeys((outcome.value for outcome in Outcome), 0)
        self._recent: deque[Recent] = deque(maxlen=RECENT)
        self._offsets = 0
        self._groups: set[tuple[Row, int]] = set()

    @property
    def bytes_held(self) -> int:
        """About what it takes of memory; `tests/unit/test_web_memory.py` holds it to the truth."""
        visitors = VISITOR_BYTES * (len(self._visitors) + len(self._by_step)) + AWAITED_BYTES * len(
            self._awaited
        )
        counted = OFFSET_BYTES * self._offsets + GROUP_BYTES * len(self._groups)
        return visitors + counted + self._deliveries.bytes_held + self._letters.bytes_held

    def publish(self, record: Published, at_ms: int) -> None:
        """A record is on the events topic, since `at_ms`; each offset once."""
        self._offsets += 1
        self._deliveries.publish(record)
        decision = record.decision
        if decision is None or record.row is None:
            return
        assignment = assignment_of(decision)
        if assignment is not None and not_selected(decision, self._select) is None:
            self._sample(record, assignment, at_ms)
        if Kind.TRACK not in record.kinds:  # a replay may be of its metadata alone
            return
        place = record.partition, record.offset
        self._visitors.publish(*place, record.row, decision.visitor_id)
        group = record.row, max(0, at_ms - self.since_ms) // self.step_ms
        self._groups.add(group)
        self._by_step.publish(*place, group, decision.visitor_id)

    def _sample(self, record: Published, assignment: Assignment, at_ms: int) -> None:
        place = record.partition, record.offset
        outcome = self._deliveries.outcome(*place)
        self._samples.take(assignment, at_ms, delivered=outcome is Outcome.DELIVERED)
        if outcome is None:
            self._awaited[place] = assignment, at_ms

    def settle(self, partition: int, settlements: Settlements) -> None:
        """The group has written to the ledger. Raises LaterRelease."""
        for gap in settlements.gaps:
            self._lose(partition, gap.from_offset, gap.to_offset)
            if settlements.settled_at >= self.since_ms:
                self._gaps.setdefault(partition, []).append((gap.from_offset, gap.to_offset))
        for entry in settlements.entries:
            self._deliveries.settle(partition, entry)
            told = entry.offset, entry.kind, entry.outcome, entry.reason, entry.duplicate_of
            self._visitors.settle(partition, *told)
            self._by_step.settle(partition, *told)
            if entry.kind == Kind.TRACK:
                self._sample_again(partition, entry)
            if settlements.settled_at >= self.since_ms:
                self._settled[entry.outcome] += 1
                self._recent.append(Recent(settlements.settled_at, partition, entry))

    def _sample_again(self, partition: int, entry: LedgerEntry) -> None:
        assignment, at_ms = self._awaited.pop((partition, entry.offset), (None, 0))
        if assignment is not None and entry.outcome == Outcome.DELIVERED:
            self._samples.take(assignment, at_ms, delivered=True)

    def commit(self, partition: int, offset: int, first_kept: int) -> None:
        """The group's position in a partition, and the first offset that Kafka has of it."""
        self._deliveries.commit(partition, offset)
        self._visitors.commit(partition, offset)
        self._by_step.commit(partition, offset)
        self._lost_before[partition] = offset, first_kept

    def report(self, value: bytes | None) -> None:
        """A publisher's report of impressions: of it the traffic allocations count here."""
        told_ms, splits = splits_of(value)
        for experiment, shares in splits:
            self._splits.tell(experiment, shares, told_ms)

    def letter(self, found: DeadLetter | Marker | None, value: bytes | None) -> None:
        """A record is on the dead-letter topic."""
        source = self._letters.add(found, value)
        if source is not None:
            self._deliveries.replay(*source)

    def view(self, as_of_ms: int) -> View:
        """How it stands."""
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
        """As reconcile counts it: gaps that were written, and one that the group has not come to yet."""
        numbers = {*self._gaps, *self._lost_before}
        return sum(
            size_of_union([*self._gaps.get(number, ()), self._lost_before.get(number, (0, 0))])
            for number in numbers
        )

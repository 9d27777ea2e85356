"""Rehearses one partition: every record is planned again, and each of its deliveries compared with the ledger.

In: the records of a stretch in the order of their offsets, each once; what the ledger says of them. Out: differences.
No I/O, and no clock: each record is judged at the time at which it ended according to the ledger.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flagpost_consumer.commands.reconcile.counting import Interval
from flagpost_consumer.commands.rehearse.differences import Change, Differences, Example, LeftOut
from flagpost_consumer.commands.rehearse.metadata import Due, MetadataStay
from flagpost_consumer.commands.rehearse.recorded import PartitionLedger, Recorded
from flagpost_consumer.commands.rehearse.tracks import DueTrack, Tracks
from flagpost_consumer.core.outcomes import Ending, Kind, Reason
from flagpost_consumer.core.planning.plan import Planned, Planner, replayed_only
from flagpost_consumer.core.planning.quarantine import twice
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import DecodeFailure, Record

WRITING_SECONDS = 5.0
"""How long before its settlement an answer may have come."""

_AS_IT_CAME = frozenset({Reason.INVALID, Reason.EXPIRED})
"""`invalid` is decided when a record is read. `expired` may be decided later, and then the delivery had a claim until
then.
"""
_UNSENT = frozenset({Reason.SUPERSEDED, Reason.UNCHANGED})
_TAKEN_AS_RECORDED = frozenset({Reason.FIELD_MISSING, Reason.VISITOR_BACKLOG, Reason.SUPPRESSED})
"""Only the ledger knows which fields Pendo had, how much memory there was, and who was suppressed when."""
_WAITED = frozenset({Reason.VISITOR_BACKLOG, Reason.SUPPRESSED})
"""Some of these had waited, and met others, before they ended."""
_BEFORE_SUPPRESSED = frozenset(
    {Reason.UNDECODABLE, Reason.UNKNOWN_SCHEMA, Reason.INVALID, Reason.NO_VISITOR_ID}
)
"""The reasons that are checked before suppression."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is known of a partition besides its records and its ledger."""

    number: int
    counted_from: int
    """Records before this offset are only context."""
    is_whole: bool
    """Whether it begins where the partition did."""
    committed: int
    gaps: Sequence[Interval] = ()
    """What the group could not read, according to the ledger: disjoint, in order."""


class PartitionRehearsal:
    """One partition being rehearsed."""

    def __init__(
        self, policy: Policy, planner: Planner, ledger: PartitionLedger, stretch: Stretch, found: Differences
    ) -> None:
        self._policy = policy
        self._planner = planner
        self._ledger = ledger
        self._stretch = stretch
        self._found = found
        self._tracks = Tracks(ledger)
        self._stays: dict[int, MetadataStay] = {}
        numbers = range(len(ledger.reaches))
        self._open_stays = list(numbers)
        """The stays to which records may still matter, in order."""
        self._ends_next = sorted(numbers, key=ledger.reaches.__getitem__, reverse=True)
        """The stays that have settlements from here on; the last in the list ends first."""
        self._over: list[int] = []
        """The stays that have none, in which a value still waits for the one that replaced it."""
        self._answer_ms = int((policy.limits.request_timeout_seconds + WRITING_SECONDS) * 1000)
        self._covered_from_ms: int | None = None

    def take(self, record: Record) -> None:
        """Take in the next record."""
        recorded = self._ledger.of(record.offset)
        if not recorded and self._is_lost(record.offset):
            self._leave_out(record.offset, LeftOut.LOST)
            return
        if self._covered_from_ms is None:
            # What came within two ttl of the first record may depend on one before it.
            ttl_ms = int(self._policy.dedupe.ttl_seconds * 1000)
            self._covered_from_ms = 0 if self._stretch.is_whole else record.timestamp_ms + 2 * ttl_ms
        self._close_stays(record.offset)
        planned = {plan.kind: plan for plan in self._plan(record, recorded)}
        for kind, plan in planned.items():
            self._take_planned(record, plan, recorded.get(kind), recorded)
        for kind in recorded.keys() - planned.keys():
            self._compare(record, kind, recorded[kind], None)

    def finish(self) -> None:
        """There are no more records."""
        for stay in self._stays.values():
            stay.finish()

    # Planning

    def _plan(self, record: Record, recorded: Mapping[Kind, Recorded]) -> Sequence[Planned]:
        moment = self._moment(record, recorded)
        plans = twice(lambda: replayed_only(self._planner.plan(record.event, moment), record.headers))
        return (Planned(Kind.UNKNOWN, plans),) if isinstance(plans, Ending) else plans

    def _moment(self, record: Record, recorded: Mapping[Kind, Recorded]) -> int:
        """The time, epoch ms, by which a record is judged to be too old or too far ahead.

        The ledger says when a delivery had ended. It was planned and sent some time before: of the possible moments,
        the one that is best for the event is used.
        """
        known = recorded.get(Kind.TRACK) or next(iter(recorded.values()), None)
        if known is None:
            return record.timestamp_ms
        if isinstance(record.event, DecodeFailure):
            return known.settled_at
        if known.reason in _AS_IT_CAME:
            return min(known.settled_at, record.timestamp_ms)
        waited = known.reason is Reason.SUPPRESSED  # perhaps since it was read
        earliest = record.timestamp_ms if waited else known.settled_at - self._answer_ms
        return max(earliest, min(known.settled_at, record.event.occurred_at))

    # Deliveries

    def _take_planned(
        self, record: Record, plan: Planned, recorded: Recorded | None, of_record: Mapping[Kind, Recorded]
    ) -> None:
        if recorded is None and (not of_record or record.offset >= self._stretch.committed):
            is_pending = record.offset >= self._stretch.committed
            self._leave_out(record.offset, LeftOut.PENDING if is_pending else LeftOut.UNEXPLAINED)
            self._let_pass(record, plan)
        elif plan.ending is not None:
            self._compare(record, plan.kind, recorded, _ending_of(plan.ending, recorded))
        elif plan.track is not None and recorded is not None and recorded.was_suppressed_at_once:
            self._compare(record, plan.kind, recorded, Reason.SUPPRESSED)
        elif plan.track is not None:
            reason = self._track_ending(record, plan, recorded)
            if reason is None:
                self._leave_out(record.offset, LeftOut.NOT_COVERED)
            else:
                self._compare(record, plan.kind, recorded, reason)
        else:
            known = of_record.values() if recorded is None else (recorded,)
            self._take_metadata(record, plan, recorded, max(each.stay for each in known))

    def _let_pass(self, record: Record, plan: Planned) -> None:
        """Take in a delivery whose ending is not known: it may have duplicates."""
        if plan.ending is not None:
            return
        if plan.track is not None:
            self._track_ending(record, plan, None)
        else:
            self._under_way(self._due(record, plan, None), len(self._ledger.reaches))

    def _track_ending(self, record: Record, plan: Planned, recorded: Recorded | None) -> Reason | None:
        event, key = record.event, plan.dedupe_key
        assert not isinstance(event, DecodeFailure) and key is not None  # noqa: PT018, S101 - it would be sent
        deadline_ms = self._planner.deadline_ms(event)
        return self._tracks.take(
            DueTrack(key, event.occurred_at, record.offset, record.timestamp_ms, deadline_ms, recorded)
        )

    def _take_metadata(self, record: Record, plan: Planned, recorded: Recorded | None, stay: int) -> None:
        due = self._due(record, plan, recorded)
        if recorded is not None and recorded.reason in _TAKEN_AS_RECORDED:
            self._compare(record, plan.kind, recorded, recorded.reason)
            if recorded.reason in _WAITED:
                self._under_way(due, stay + 1)
            if recorded.reason is Reason.SUPPRESSED:
                # It may have waited until then, or not at all.
                self._stay(stay).doubt(due)
            return
        self._under_way(due, stay)
        self._stay(stay).take(due)

    def _under_way(self, due: Due, before_stay: int) -> None:
        """Take a delivery into the stays of earlier members: they have also read its record, if they settled later
        ones.
        """
        for number in self._open_stays:
            if number >= before_stay:
                break
            if self._ledger.reaches[number] > due.offset or self._has_open(number, due):
                self._stay(number).take(replace(due, is_judged=False, replaced=set()))

    def _has_open(self, number: int, due: Due) -> bool:
        stay = self._stays.get(number)
        return stay is not None and stay.has(due.metadata.key)

    def _due(self, record: Record, plan: Planned, recorded: Recorded | None) -> Due:
        event, metadata = record.event, plan.metadata
        assert not isinstance(event, DecodeFailure) and metadata is not None  # noqa: PT018, S101 - it would be sent
        self._tracks.advance(event.occurred_at)
        return Due(
            record.offset,
            plan.kind,
            metadata,
            event.occurred_at,
            record.timestamp_ms,
            recorded=recorded,
            is_judged=True,
            event_id=event.event_id,
        )

    # Stays

    def _stay(self, number: int) -> MetadataStay:
        stay = self._stays.get(number)
        if stay is None:
            stay = self._stays[number] = MetadataStay(
                self._policy, self._stretch.number, self._metadata_ended
            )
        return stay

    def _close_stays(self, offset: int) -> None:
        """Close the stays in which nothing was settled from an offset on."""
        reaches = self._ledger.reaches
        while self._ends_next and reaches[self._ends_next[-1]] < offset:
            number = self._ends_next.pop()
            if number in self._stays:
                self._stays[number].end_all()
            self._over.append(number)
        for number in [each for each in self._over if each not in self._stays or not self._stays[each].open]:
            self._over.remove(number)
            self._open_stays.remove(number)
            self._stays.pop(number, None)

    # Comparing

    def _metadata_ended(self, due: Due, reason: Reason | LeftOut) -> None:
        recorded = due.recorded
        told = None if recorded is None else recorded.reason
        is_early = due.came_ms < (self._covered_from_ms or 0)
        if is_early and told in _UNSENT and reason is not told:
            reason = LeftOut.NOT_COVERED
        if isinstance(reason, LeftOut):
            self._leave_out(due.offset, reason)
        else:
            self._count(due.offset, Change(due.kind, told, reason), due.event_id)

    def _compare(self, record: Record, kind: Kind, recorded: Recorded | None, reason: Reason | None) -> None:
        event = record.event
        event_id = None if isinstance(event, DecodeFailure) else event.event_id
        self._count(record.offset, Change(kind, recorded.reason if recorded else None, reason), event_id)

    def _count(self, offset: int, change: Change, event_id: str | None) -> None:
        if offset >= self._stretch.counted_from:
            self._found.compare(change, Example(self._stretch.number, offset, event_id))

    def _leave_out(self, offset: int, why: LeftOut) -> None:
        if offset >= self._stretch.counted_from:
            self._found.left_out[why] += 1

    def _is_lost(self, offset: int) -> bool:
        gaps = self._stretch.gaps
        place = bisect_right(gaps, offset, key=lambda gap: gap[0]) - 1
        return place >= 0 and offset < gaps[place][1]


def _ending_of(planned: Ending, recorded: Recorded | None) -> Reason:
    """How a delivery that is not sent would end. Only the ledger knows who was suppressed when."""
    was_suppressed = recorded is not None and recorded.reason is Reason.SUPPRESSED
    return planned.reason if planned.reason in _BEFORE_SUPPRESSED or not was_suppressed else Reason.SUPPRESSED

"""The engine: decides what becomes of every record, and never waits.

In: records, assignments, answers, acknowledgements, and the time. Out: `poll` returns the requests to make to Pendo,
what has been settled, and when to call again. It awaits nothing, reads no clock, draws no randomness of its own and
logs nothing; so the same engine runs in the service and under virtual time.

A record walks through it in one direction: `receive` plans its deliveries and hands each to `track_sending` or
`metadata_sending`; `poll`, or after an answer `start`, starts requests; `answered` ends them, or puts them back to
wait; `settling` hands each ending out, and closes the books when it is `acknowledged`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import cast

from flagpost_consumer.core.actions import Actions
from flagpost_consumer.core.backoff import RandomSource
from flagpost_consumer.core.books.accounts import Accounts
from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.books.deliveries import (
    Delivery,
    Duplicates,
    Partition,
    Position,
    Settlement,
    Stage,
)
from flagpost_consumer.core.books.offsets import Offsets
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.books.settling import Settling
from flagpost_consumer.core.books.stalls import Stall
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.metadata.sending import MetadataAttempt, MetadataSending
from flagpost_consumer.core.moments import earliest
from flagpost_consumer.core.outcomes import Ending, Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt, Attempts
from flagpost_consumer.core.pendo.endpoint import Endpoint, EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer, judge
from flagpost_consumer.core.planning.clock_check import ClockCheck
from flagpost_consumer.core.planning.mapping import Metadata
from flagpost_consumer.core.planning.plan import FieldCatalog, Planned, Planner, replayed_only
from flagpost_consumer.core.planning.quarantine import Suspects, twice
from flagpost_consumer.core.planning.suppressions import Suppression, Suppressions, TooManySuppressions
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import Gap, Record, Undecoded
from flagpost_consumer.core.tracks.appetite import Appetite
from flagpost_consumer.core.tracks.repeats import Repeats
from flagpost_consumer.core.tracks.track_sending import TrackAttempt, TrackSending

CUT_FROM = 0.8
"""Lanes are cut when this part of the limit or more is pending, in records or bytes (docs/contract.md#settings)."""
RESUME_AT = 0.6
"""Intake resumes when less than this part of the limit is pending: well below 1, because each pause makes the client
fetch again.
"""
ENOUGH_FOR_EACH_CONNECTION = 2
"""Number of sendable visitors for each connection above which no more records are wanted for a while."""
CLOCK_SECONDS = 1.0
"""How often to look again at a record that waits for a clock that can be trusted."""
UNWRITTEN_SHARE = 8
"""A partition whose settlements Kafka does not take may hold this fraction of `delivery.max_pending`: one eighth."""
IN_TURN_SECONDS = 60.0
"""Deliveries start in the order in which their records came; only one that expires sooner than this comes forward
(docs/decisions/0044).
"""
CLOCK_SHARE = 0.1
"""Records that wait for the clock may take this part of the pending limit."""
NO_PARTITIONS: frozenset[int] = frozenset()
READINGS_A_BATCH = 8
"""Of each batch, about this many timestamps are compared with the local clock."""


@dataclass(slots=True)
class _WaitingGap:
    """Lost offsets behind records that wait for the clock."""

    gap: Gap
    is_written: bool = False
    """Whether the ledger has it."""


class Engine:
    """One process's part of the work."""

    def __init__(self, policy: Policy, random: RandomSource, suspects: Suspects | None = None) -> None:
        """`suspects`: records at which earlier engines of this process failed."""
        self._policy = policy
        self._suspects = Suspects() if suspects is None else suspects
        self._suppressions = Suppressions()
        self._suppressions_complete = self._suppressions_followed = True
        self._planner = Planner(policy, self._suppressions)
        self._clock_check = ClockCheck(policy.delivery.max_future_seconds)
        self._settling = Settling(max(1, policy.delivery.max_pending // UNWRITTEN_SHARE))
        attempts = Attempts(policy.delivery.max_attempts, random)
        self._tracks = TrackSending(policy, attempts, self._settling, self._clock_check, self._suppressions)
        self._metadata = MetadataSending(policy, attempts, self._settling, self._suppressions)
        self._repeats = Repeats(policy, self._planner, self._settling, self._metadata.is_unchanged)
        self._partitions: dict[int, Partition] = {}
        self._partition_count = 0
        self._clock_waits: dict[Partition, deque[Record | _WaitingGap]] = {}
        """Records that wait for a clock that can be trusted, and all records and gaps behind them. Their partitions
        are paused.
        """
        self._full = False
        self._appetite = Appetite(ENOUGH_FOR_EACH_CONNECTION * policy.limits.max_connections)
        self._draining = False
        self._member_until = -inf
        self.dedupe_counts = DedupeCounts()

    # Partitions

    def assign(self, numbers: Iterable[int], partition_count: int, now: Instant) -> list[Partition]:
        """Take partitions on. Each accepts records once it is restored, and sends after one visitor interval."""
        self._partition_count = self._tracks.partition_count = partition_count
        send_from = now.monotonic + self._policy.delivery.visitor_interval_seconds
        settings = self._policy.dedupe
        assigned = []
        for number in numbers:
            dedupe = Dedupe(settings.ttl_seconds, settings.max_entries, self.dedupe_counts)
            assigned.append(Partition(number, send_from, dedupe, closing=self._draining))
        self._partitions.update({partition.number: partition for partition in assigned})
        self._share_budgets(now)
        return assigned

    def current(self, number: int) -> Partition | None:
        """The current assignment of a partition; None if it is not ours."""
        return self._partitions.get(number)

    def is_restored(self, number: int) -> bool:
        """Whether a partition's ledger has been read, so that its records are accepted."""
        return number in self._partitions and self._partitions[number].restored

    def is_settled_undecoded(self, number: int, offset: int) -> bool:
        """Whether the ledger says that a record could not be decoded and is settled."""
        partition = self._partitions.get(number)
        return partition is not None and partition.settled_before.has(offset, Kind.UNKNOWN)

    def is_current(self, partition: Partition) -> bool:
        """Whether this assignment of a partition still holds."""
        return self._partitions.get(partition.number) is partition

    def restore(self, partition: Partition, restoration: Restoration) -> None:
        """Continue where the partition's last member stopped, according to the ledger."""
        partition.dedupe.forget()
        partition.dedupe = restoration.dedupe
        partition.dedupe.count_in(self.dedupe_counts)
        partition.settled_before = restoration.settled
        partition.window = restoration.window
        partition.offsets = Offsets(restoration.position)
        partition.restored = True

    def lose(self, partition: Partition, gap: Gap) -> None:
        """Kafka no longer has these offsets: commit nothing beyond them until `gap_written`."""
        if (waiting := self._clock_waits.get(partition)) is None:
            self._settling.lose(partition, gap)
        else:
            waiting.append(_WaitingGap(gap))

    def gap_written(self, partition: Partition, gap: Gap) -> None:
        """The ledger now contains the gap."""
        for each in self._clock_waits.get(partition, ()):
            if isinstance(each, _WaitingGap) and each.gap == gap:
                each.is_written = True
                return
        self._settling.gap_written(partition, gap)

    def ledger_replaced(self) -> None:
        """The ledger topic was created anew: offsets in the old one are no longer valid."""
        for partition in self._partitions.values():
            partition.window.ledger_replaced()

    def prove_membership(self, until: float) -> None:
        """We are a member of the group until this monotonic second: what ends before it may be sent.

        Source: docs/architecture.md#the-fence.
        """
        self._member_until = until

    def is_member(self, now: Instant) -> bool:
        """Whether we are proven to be a member of the group."""
        return now.monotonic < self._member_until

    def revoke(self, numbers: Iterable[int], now: Instant) -> None:
        """Hand back what waits in these partitions; `are_answered` and `are_written` tell when the rest has ended."""
        leaving = self._ours(numbers)
        for partition in leaving:
            partition.leaving = partition.closing = True
        self._hand_back_waiting(leaving)
        self._share_budgets(now)

    def are_answered(self, numbers: Iterable[int]) -> bool:
        """Whether none of these partitions' requests is in flight."""
        return not any(partition.in_flight for partition in self._ours(numbers))

    def are_written(self, numbers: Iterable[int]) -> bool:
        """Whether Kafka has acknowledged everything of these partitions that has ended."""
        return not any(partition.unwritten for partition in self._ours(numbers))

    def is_quiet(self, numbers: Iterable[int] | None = None) -> bool:
        """Whether nothing of these partitions (None: of all) is in flight or unacknowledged."""
        chosen = self._partitions if numbers is None else numbers
        return self.are_answered(chosen) and self.are_written(chosen)

    def _ours(self, numbers: Iterable[int]) -> list[Partition]:
        """Those of these partitions that we have."""
        return [self._partitions[number] for number in numbers if number in self._partitions]

    def forget(self, numbers: Iterable[int], now: Instant) -> int:
        """Drop partitions for good; returns how many deliveries in flight were abandoned.

        Deliveries that are unsettled or unacknowledged count as returned.
        """
        partitions = [self._partitions.pop(number) for number in numbers if number in self._partitions]
        abandoned = 0
        for partition in partitions:
            partition.closing = True
            left = _deliveries([partition])
            abandoned += sum(delivery.stage is Stage.IN_FLIGHT for delivery in left)
            self._hand_back(left, {Stage.WAITING, Stage.IN_FLIGHT, Stage.SETTLED})
            self._clock_waits.pop(partition, None)
            self._settling.forget(partition)
            partition.dedupe.forget()
            self._metadata.forget_partition(partition.number)
        self._share_budgets(now)
        return abandoned

    def committable(self, numbers: Iterable[int] | None = None) -> dict[int, Position]:
        """The position of each partition below which every delivery is settled and acknowledged."""
        chosen = self._partitions if numbers is None else numbers
        positions = {n: _position(self._partitions[n]) for n in chosen if n in self._partitions}
        return {number: position for number, position in positions.items() if position is not None}

    @property
    def policy(self) -> Policy:
        """The settings by which it decides."""
        return self._policy

    @property
    def partition_count(self) -> int:
        """How many partitions the topic has."""
        return self._partition_count

    @property
    def assigned(self) -> list[int]:
        """The partitions that are ours and are not being handed over."""
        return [number for number, partition in self._partitions.items() if not partition.leaving]

    # Suppressed visitors

    def know_suppressions(self, known: Suppressions) -> None:
        """These visitors are suppressed, and no others."""
        self._suppressions.become(known)
        self._suppressions_complete = self._suppressions_followed = True

    def suppress(self, suppressions: Iterable[Suppression]) -> None:
        """Add or remove suppressed visitors. A waiting delivery of a suppressed visitor ends when its turn comes; a
        request in flight cannot be cancelled, and is not retried.

        Raises:
            TooManySuppressions: nothing is sent any more until `know_suppressions`.
        """
        try:
            self._suppressions.take(suppressions)
        except TooManySuppressions:
            self._suppressions_complete = False
            raise

    def follow_suppressions(self, *, followed: bool) -> None:
        """Tell whether new suppressions would be noticed; while they would not, nothing is sent."""
        self._suppressions_followed = followed

    @property
    def knows_suppressions(self) -> bool:
        """Whether it is known who is suppressed."""
        return self._suppressions_complete and self._suppressions_followed

    # Records

    def receive(self, records: Sequence[Record | Undecoded], now: Instant) -> None:
        """Take records in. Records of partitions that are not ours or not restored, and records seen before, are
        ignored.
        """
        for record in records[:: max(1, len(records) // READINGS_A_BATCH)]:
            self._clock_check.note(record, now)
        for record in records:
            partition = self._partitions.get(record.partition)
            if partition is None or partition.closing or not partition.restored:
                continue
            left = self._decoded(record, partition, now) if isinstance(record, Undecoded) else record
            if left is None:
                continue
            if partition in self._clock_waits or not self._take(left, partition, now):
                self._clock_waits.setdefault(partition, deque()).append(left)
        self._repeats.close()

    def looks_for_duplicates(self) -> bool:
        """Whether records should arrive undecoded where possible; ask once for each batch."""
        return self._repeats.is_worth_it()

    def _decoded(self, undecoded: Undecoded, partition: Partition, now: Instant) -> Record | None:
        """The decoded record; None if it was recognised as a duplicate and is settled, or was seen before."""
        position = partition.offsets.position
        if position is not None and undecoded.offset < position:
            return None
        place = self._suspects.handled = (undecoded.partition, undecoded.offset)
        may_be_taken = partition not in self._clock_waits and self._suspects.condemned(*place) is None
        record = None
        if not may_be_taken or not self._repeats.take(undecoded, partition, now):
            record = undecoded.decode()
            self._repeats.learn(undecoded, record)
        self._suspects.handled = None
        return record

    def _take(self, record: Record, partition: Partition, now: Instant) -> bool:
        """Take a record in; False if it must wait for a clock that can be trusted."""
        position = partition.offsets.position
        if position is not None and record.offset < position:
            return True
        self._suspects.handled = (record.partition, record.offset)
        taken = self._take_next(record, partition, now)
        self._suspects.handled = None
        return taken

    def _take_next(self, record: Record, partition: Partition, now: Instant) -> bool:
        plans = self._condemned(record) or self._plan(record, now)
        for plan in plans:
            if plan.ending is not None and self._clock_check.doubts(plan.ending, now):
                return False
        if partition.settled_before:
            plans = _not_settled(plans, partition.settled_before.kinds(record.offset))
            if not plans:
                self._settling.pass_over(record.offset, partition)
                return True
        deadline_ms = self._planner.deadline_ms(record.event)
        turn = now.monotonic + min(IN_TURN_SECONDS, (deadline_ms - now.wall_ms) / 1000)
        held = record.held()
        deliveries = [Delivery(held, partition, planned, deadline_ms, turn) for planned in plans]
        self._settling.take(held, partition, deliveries)
        for delivery in deliveries:
            self._enter(delivery, now)
        return True

    def _take_untaken(self, now: Instant) -> None:
        """Try again to take in the records that wait for the clock."""
        for partition, records in list(self._clock_waits.items()):
            while records and not partition.closing and self._take_waiting(records[0], partition, now):
                records.popleft()
            if not records or partition.closing:
                del self._clock_waits[partition]

    def _take_waiting(self, waiting: Record | _WaitingGap, partition: Partition, now: Instant) -> bool:
        """Take in what waits for the clock; False if it must wait on."""
        if isinstance(waiting, Record):
            return self._take(waiting, partition, now)
        self._settling.lose(partition, waiting.gap)
        if waiting.is_written:
            self._settling.gap_written(partition, waiting.gap)
        return True

    def _plan(self, record: Record, now: Instant) -> Sequence[Planned]:
        plans = twice(self._plan_once, record, now)
        return self._quarantine(plans) if isinstance(plans, Ending) else plans

    def _plan_once(self, record: Record, now: Instant) -> Sequence[Planned]:
        plans = self._planner.plan(record.event, now.wall_ms)
        return replayed_only(plans, record.headers) if record.headers else plans

    def _condemned(self, record: Record) -> Sequence[Planned]:
        detail = self._suspects.condemned(record.partition, record.offset)
        return () if detail is None else self._quarantine(Ending(Reason.INVALID, detail))

    def _quarantine(self, ending: Ending) -> Sequence[Planned]:
        self.accounts.quarantined += 1
        return (Planned(Kind.UNKNOWN, ending),)

    def _enter(self, delivery: Delivery, now: Instant) -> None:
        planned = delivery.planned
        if planned.repairs:
            # There may be ten thousand repairs, and they are not needed once they are counted.
            delivery.planned = planned._replace(repairs=())
        if planned.ending is not None:
            self._settling.settle(delivery, planned.ending, now)
        elif planned.track is not None:
            self._tracks.enter(delivery, planned.track, planned.repairs, now)
        else:  # so it has metadata, and a time: only what ends at once may have none
            occurred_at = cast("int", delivery.record.occurred_at)
            delivery.partition.dedupe.advance(occurred_at)
            self._metadata.enter(delivery, cast("Metadata", planned.metadata), occurred_at, now)

    # Time

    def poll(self, now: Instant) -> Actions:
        """Start what may start, and return all that is to be done."""
        if self._clock_waits:
            self._take_untaken(now)
        if self.fullness >= CUT_FROM:
            self._tracks.cut_long_lines(now)
            self._metadata.give_up_hoards(now)
        may_send = self._may_send(now)
        if self._settling.unacknowledged.take_released():
            self._tracks.lanes.unpark(now.monotonic)
        self._metadata.settle_ended(now)
        attempts = self._start(now) if may_send else []
        can_flush = self.metadata.is_open and self.knows_suppressions
        if self._draining and self._settling.waiting and not can_flush:
            self._hand_back_waiting(self._partitions.values())
        return Actions(
            attempts,
            self._settling.collect(),
            self._wake_at(now, may_send=may_send),
            self._intake_paused(),
            self._partitions_paused(now),
            self._settling.collect_duplicates(),
        )

    def start(self, now: Instant) -> list[Attempt]:
        """Start what may start, right after an answer. Everything else that `poll` does can wait a little."""
        return self._start(now) if self._may_send(now) else []

    def _start(self, now: Instant) -> list[Attempt]:
        metadata = self._metadata.start(now, self._has_connection)
        return [*metadata, *self._tracks.start(now, self._has_connection)]

    def _may_send(self, now: Instant) -> bool:
        limits = self._policy.limits
        is_member = now.monotonic + limits.request_timeout_seconds < self._member_until
        must_stop = self._settling.unacknowledged.must_stop(2 * limits.max_connections, now.monotonic)
        return is_member and not must_stop and self.knows_suppressions

    def _has_connection(self) -> bool:
        return self.track.in_flight + self.metadata.in_flight < self._policy.limits.max_connections

    def _wake_at(self, now: Instant, *, may_send: bool) -> float | None:
        look_again = now.monotonic + CLOCK_SECONDS if self._clock_waits else None
        # Only an acknowledgement, of answers or of a commit, lets sending go on; waiting does not.
        if not may_send or not self._has_connection():
            return look_again
        return earliest(look_again, self._tracks.due_at(now.monotonic), self._metadata.due_at(now.monotonic))

    @property
    def is_full(self) -> bool:
        """Whether the limit of pending records or bytes is reached."""
        return self.fullness >= 1.0

    @property
    def fullness(self) -> float:
        """Pending records or bytes as a part of their limit; at 1.0 intake must pause."""
        delivery, settling = self._policy.delivery, self._settling
        return max(
            settling.pending_records / delivery.max_pending,
            settling.pending_bytes / delivery.max_pending_bytes,
        )

    def wants_records(self, now: Instant) -> bool:
        """Whether to take records in now: yes if few could start or while Pendo is not well; else see `Appetite`."""
        startable = self._tracks.lanes.startable if self.track.state is EndpointState.OK else 0
        return self._appetite.wants(startable, now.monotonic)

    def _intake_paused(self) -> bool:
        self._full = self.fullness >= (RESUME_AT if self._full else 1.0)
        # A partition that is not restored is not read anyway.
        is_blind = not self.knows_suppressions and any(each.restored for each in self._partitions.values())
        return self._full or self._draining or is_blind or (self.track.is_down and self._tracks.can_probe)

    def _partitions_paused(self, now: Instant) -> frozenset[int]:
        """Partitions that should not be read: their records would only pile up."""
        if not (self._clock_waits or self._settling.piled_up or self._settling.unacknowledged.held):
            return NO_PARTITIONS
        looks = self._looks_at_clock(now)
        return frozenset(
            number for number, reason in self.stalled.items() if not (looks and reason is Stall.CLOCK)
        )

    def _looks_at_clock(self, now: Instant) -> bool:
        """Whether to read a little although it has to wait for the clock: without it, services that had a wrong clock
        would outvote the others for ever once all partitions wait.
        """
        if not (self._clock_waits and self._clock_check.is_old(now)):
            return False
        delivery, waiting = self._policy.delivery, list(chain.from_iterable(self._clock_waits.values()))
        size = sum(len(each.value or b"") for each in waiting if isinstance(each, Record))
        return max(len(waiting) / delivery.max_pending, size / delivery.max_pending_bytes) < CLOCK_SHARE

    @property
    def stalled(self) -> dict[int, Stall]:
        """Partitions that make no progress, and why."""
        waits = {partition.number: Stall.CLOCK for partition in self._clock_waits}
        unwritten = {*self._settling.unacknowledged.held, *self._settling.piled_up}
        return waits | {partition.number: Stall.LEDGER for partition in unwritten}

    # Answers

    def answered(self, attempt: Attempt, answer: Answer, now: Instant) -> None:
        """Handle the answer to a request."""
        verdict = judge(answer)
        if isinstance(attempt, TrackAttempt):
            record = attempt.lane.queue[0].record
            self._suspects.handled = (record.partition, record.offset)
            self._tracks.answered(attempt, answer, verdict, now)
        else:
            self._metadata.answered(cast("MetadataAttempt", attempt), answer, verdict, now)
        self._suspects.handled = None

    def acknowledged(self, written: Sequence[Settlement | Duplicates], ledger_offset: int) -> None:
        """Kafka has these of one partition, at this offset of the ledger."""
        settlements: list[Settlement] = []
        for each in written:
            if isinstance(each, Duplicates):
                self._settling.acknowledged_duplicates(each, ledger_offset)
            else:
                settlements.append(each)
        if settlements:
            self._settling.acknowledged(settlements, ledger_offset)
            self._metadata.acknowledged(settlements)

    # Handing back

    def _hand_back_waiting(self, partitions: Iterable[Partition]) -> None:
        self._hand_back(_deliveries(partitions), {Stage.WAITING})

    def _hand_back(
        self,
        deliveries: Iterable[Delivery],
        stages: set[Stage],
        chosen: Callable[[Delivery], bool] = lambda _: True,
    ) -> None:
        """Hand back the deliveries that are at one of these stages."""
        given_up = [delivery for delivery in deliveries if delivery.stage in stages and chosen(delivery)]
        for delivery in given_up:
            self._settling.hand_back(delivery)
        self._tracks.remove_returned({d.who for d in given_up if d.planned.track})
        self._metadata.remove(given_up)

    def drain(self, now: Instant) -> None:
        """Stop: accept no records, hand back what waits, send waiting metadata at once."""
        self._draining = True
        for partition in self._partitions.values():
            partition.closing = True
        tracks = _deliveries(self._partitions.values())
        self._hand_back(tracks, {Stage.WAITING}, lambda delivery: delivery.item is None)
        self._metadata.flush(now)

    @property
    def is_drained(self) -> bool:
        """Whether nothing is in flight, unacknowledged, or waiting to be sent."""
        return not self._settling.waiting and self.is_quiet()

    # What the shell tells and asks

    @property
    def track(self) -> Endpoint:
        """The state of Pendo's track endpoint."""
        return self._tracks.endpoint

    @property
    def metadata(self) -> Endpoint:
        """The state of Pendo's metadata endpoint."""
        return self._metadata.endpoint

    @property
    def endpoints(self) -> Mapping[EndpointName, Endpoint]:
        """Both endpoints, by name."""
        return {EndpointName.TRACK: self.track, EndpointName.METADATA: self.metadata}

    @property
    def accounts(self) -> Accounts:
        """The books."""
        return self._settling.accounts

    def secret_changed(self, endpoint: EndpointName, now: Instant) -> None:
        """A credential has changed: an endpoint that refused the old one is tried at once."""
        (self.track if endpoint is EndpointName.TRACK else self.metadata).secret_changed(now.monotonic)

    def know_fields(self, fields: FieldCatalog) -> None:
        """Note which metadata fields Pendo has."""
        self._planner.fields = fields
        self._repeats.forget()

    def _share_budgets(self, now: Instant) -> None:
        fraction = len(self.assigned) / self._partition_count if self._partition_count else 0.0
        for endpoint in (self.track, self.metadata):
            endpoint.budget.share(fraction, now.monotonic)

    def waits_for_pendo(self, now: Instant) -> bool:
        """Whether records wait for Pendo, its limits, or the pace of visitors: more capacity would not help."""
        ready = self._tracks.lanes.ready(now.monotonic)
        return self._full or not self.track.is_open or ready > self.track.budget.available(now.monotonic)

    @property
    def pending_records(self) -> int:
        """Records held in memory."""
        return self._settling.pending_records

    @property
    def pending_bytes(self) -> int:
        """Bytes that these take besides what every record takes (`record_weights`)."""
        return self._settling.pending_bytes

    @property
    def unacknowledged(self) -> int:
        """Number of Pendo's answers whose settlement Kafka has not acknowledged."""
        return len(self._settling.unacknowledged)

    def sendable(self, now: Instant) -> int:
        """Track deliveries that could start now if there were capacity: they wait for no pace, budget or retry."""
        if not self.track.is_open:
            return 0
        return int(min(self._tracks.lanes.ready(now.monotonic), self.track.budget.available(now.monotonic)))

    def paced(self, now: Instant) -> int:
        """Track deliveries that wait for their visitor's pace."""
        lanes = self._tracks.lanes
        return lanes.waiting - lanes.ready(now.monotonic)

    def oldest_pending_ms(self) -> int | None:
        """When the oldest pending event occurred, epoch ms; in each partition only the first unsettled record is
        looked at.
        """
        oldest = [partition.offsets.oldest() for partition in self._partitions.values()]
        return min((_occurred_at(taken) for taken in oldest if taken), default=None)

    def hottest_visitors(self, count: int) -> list[tuple[str, int]]:
        """The visitors with the longest lanes, and how many deliveries wait there."""
        return heapq.nlargest(count, self._tracks.lanes.lengths(), key=lambda entry: entry[1])


def _position(partition: Partition) -> Position | None:
    offset = partition.offsets.committable()
    if offset is None:
        return None
    window = partition.window
    needed = window.oldest_needed(offset, partition.dedupe.needed_from_ms)
    return Position(offset, needed, window.settles_from)


def _occurred_at(taken: list[Delivery] | Duplicates) -> int:
    """When the first event of an entry occurred, if known."""
    if isinstance(taken, Duplicates):
        return taken.occurred_at
    record = taken[0].record
    return record.timestamp_ms if record.occurred_at is None else record.occurred_at


def _not_settled(plans: Sequence[Planned], settled: frozenset[Kind]) -> Sequence[Planned]:
    """The deliveries that the ledger does not settle; an undecodable record is settled as a whole."""
    return () if Kind.UNKNOWN in settled else [plan for plan in plans if plan.kind not in settled]


def _deliveries(partitions: Iterable[Partition]) -> list[Delivery]:
    """All deliveries of the unsettled records; for duplicates there are none."""
    return [
        delivery
        for partition in partitions
        for taken in partition.offsets.unsettled()
        if not isinstance(taken, Duplicates)
        for delivery in taken
    ]

"""Track deliveries: each visitor's lane, and the requests that start from it.

In: planned track deliveries in the order of their offsets, answers. Out: attempts to make, endings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import cast

from flagpost_consumer.core.books.deliveries import Delivery, Stage
from flagpost_consumer.core.books.settling import Settling
from flagpost_consumer.core.books.shares import Holding, Room, is_hot
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.moments import latest
from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.pendo.attempts import Attempt, Attempts, others_passed, tell
from flagpost_consumer.core.pendo.budget import Budget
from flagpost_consumer.core.pendo.endpoint import Endpoint, EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer, Verdict
from flagpost_consumer.core.planning.clock_check import ClockCheck
from flagpost_consumer.core.planning.mapping import Track, track_body
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_consumer.core.planning.pendo_rules import Repair
from flagpost_consumer.core.planning.plan import expired
from flagpost_consumer.core.planning.quarantine import twice
from flagpost_consumer.core.planning.suppressions import SUPPRESSED, Suppressions
from flagpost_consumer.core.planning.visitor_names import ANONYMOUS_PREFIX
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import HeldRecord
from flagpost_consumer.core.tracks.lanes import Lane, Lanes

CLOCK_SECONDS = 5.0
"""How often to look again at a delivery that is too old only by a clock that is not trusted."""
LINES_CHECKED_A_SECOND = 1_000
"""Check for this many lanes whether their visitors' records are on the right partition: hashing a key in Python takes
as long as planning, and a service with a wrong partitioner shows in any of its records.
"""
HOT_SHARE = 0.35
"""The part of the pending limit that may wait behind others of the same visitor, once memory runs short. Together
with the share of metadata it is below the part at which intake resumes.
"""
_FAILURES = frozenset({Verdict.TRANSIENT, Verdict.SETUP})


@dataclass(slots=True, eq=False)
class TrackAttempt(Attempt):
    """The request for one track event."""

    lane: Lane[Delivery]
    """The lane whose first delivery it carries."""


class TrackSending:
    """The track deliveries of one process."""

    def __init__(
        self,
        policy: Policy,
        attempts: Attempts,
        settling: Settling,
        clock_check: ClockCheck,
        suppressions: Suppressions,
    ) -> None:
        """`suppressions`: the visitors to whom nothing is sent, even if deliveries of theirs already wait."""
        self._delivery = policy.delivery
        self._attempts = attempts
        self._settling = settling
        self._clock_check = clock_check
        self._suppressions = suppressions
        self._room = Room.of(HOT_SHARE, policy.delivery)
        self.lanes: Lanes[Delivery] = Lanes(
            policy.delivery.visitor_interval_seconds, self._room.least, self._room.least_stuck
        )
        self.endpoint = Endpoint(
            policy.limits.max_connections, Budget(policy.limits.track_requests_per_minute)
        )
        self.partition_count = 0
        self._checked_second = 0
        self._checked = 0
        """How many lanes were checked in that second."""

    # In

    def enter(self, delivery: Delivery, track: Track, repairs: Sequence[Repair], now: Instant) -> None:
        """Take in a delivery: a duplicate ends at once, any other joins its visitor's lane.

        `repairs`: what was changed in its properties.
        """
        repeated = _claim(delivery)
        if repeated is not None:
            self._settling.settle(delivery, Ending(Reason.DEDUPE, duplicate_of=repeated), now)
            return
        delivery.successes_seen = self.endpoint.successes
        accounts, who = self._settling.accounts, delivery.who
        if repairs:
            accounts.repairs.update(repair.rule for repair in repairs)
        if self.lanes.lane(who) is None and not self._is_in_place(delivery.record, track.visitor_id, now):
            accounts.mispartitioned += 1
        self.lanes.push(who, delivery, now.monotonic)

    def _is_in_place(self, record: HeldRecord, visitor_id: str, now: Instant) -> bool:
        """Whether a record is on the partition that Kafka's default partitioner chooses for its visitor, if it is
        checked.
        """
        second = int(now.monotonic)
        if second != self._checked_second:
            self._checked_second, self._checked = second, 0
        self._checked += 1
        if self._checked > LINES_CHECKED_A_SECOND:
            return True
        key = visitor_id.encode()
        if (
            record.key != key
        ):  # an anonymous visitor's is the anonymous id, to which the prefix has been added
            key = visitor_id.removeprefix(ANONYMOUS_PREFIX).encode()
        return record.key == key and partition_of(key, self.partition_count) == record.partition

    def cut_long_lines(self, now: Instant) -> None:
        """Cut the lanes that could stop all others; only while Pendo accepts events (docs/contract.md#settings).

        A lane keeps at most `delivery.max_pending_per_visitor`. Dozens of hot visitors could fill the memory although
        each keeps to that, so together they get a third of the pending limit, in fair shares; visitors whose requests
        fail likewise. A lane that is long because everything had to wait is left as it is.
        """
        longest = self._delivery.max_pending_per_visitor
        if not longest or self.endpoint.state is not EndpointState.OK:
            return
        for lane in list(self.lanes.long.values()):
            most = Holding(longest - 1, inf)
            self._cut(lane, most, f"over {longest} of this visitor's events wait", now)
        hot = [lane for lane in self.lanes.long.values() if self.lanes.is_stuck(lane) or self._is_hot(lane)]
        share = self._room.share([lane.holding for lane in hot])
        if share is not None:
            for lane in hot:
                most = share.or_more(self.lanes.may_keep(lane))
                self._cut(
                    lane, most, "this visitor's waiting events use more than their fair share of memory", now
                )

    def _is_hot(self, lane: Lane[Delivery]) -> bool:
        within_ms = lane.queue[-1].record.timestamp_ms - lane.queue[0].record.timestamp_ms
        return is_hot(len(lane.queue), within_ms, self._delivery.visitor_interval_seconds + lane.took_seconds)

    def _cut(self, lane: Lane[Delivery], most: Holding, why: str, now: Instant) -> None:
        detail = f"{why} (delivery.max_pending_per_visitor)"
        for cut in self.lanes.shorten(lane, most):
            self._settling.settle(cut, Ending(Reason.VISITOR_BACKLOG, detail), now)

    # Out

    @property
    def can_probe(self) -> bool:
        """Whether there is a delivery that can show that the endpoint is back, and comes before those that fail."""
        rejected = map(self.lanes.lane, self.endpoint.rejected_probes)
        return self.lanes.unfailed > sum(lane.unfailed for lane in rejected if lane is not None)

    def due_at(self, moment: float) -> float | None:
        """When a request is to start: `moment` if at once, None if that depends on an answer or a record."""
        if self.endpoint.probes:
            due = self.lanes.probe_due_at(moment)
        else:
            due = self.lanes.due_at(moment, self.endpoint.limit)
        return latest(due, self.endpoint.opens_at(moment))

    def start(self, now: Instant, has_connection: Callable[[], bool]) -> Iterator[TrackAttempt]:
        """Start what may start."""
        moment = now.monotonic
        while has_connection():
            opens_at = self.endpoint.opens_at(moment)
            if opens_at is None or opens_at > moment:
                return
            lane = self._next_lane(moment)
            if lane is None:
                return
            delivery = lane.queue[0]
            if self._suppressions.hold(lane.visitor_id):
                self.lanes.discard_first(lane, moment)
                self._settling.settle(delivery, SUPPRESSED, now)
            elif now.wall_ms > delivery.deadline_ms:
                self._expire(lane, delivery, now)
            elif isinstance(body := twice(_body, delivery), Ending):
                self.lanes.discard_first(lane, moment)
                self._settling.accounts.quarantined += 1
                self._settling.settle(delivery, body, now)
            else:
                self._settling.start(delivery)
                yield TrackAttempt(EndpointName.TRACK, body, self.endpoint.start(lane.visitor_id), lane)

    def _expire(self, lane: Lane[Delivery], delivery: Delivery, now: Instant) -> None:
        """End a delivery that has grown too old, unless the local clock is wrong."""
        ending = expired(self._delivery.max_age_seconds)
        if self._clock_check.doubts(ending, now):
            self.lanes.again(lane, now.monotonic, CLOCK_SECONDS)
        else:
            self.lanes.discard_first(lane, now.monotonic)
            self._settling.settle(delivery, ending, now)

    def _next_lane(self, moment: float) -> Lane[Delivery] | None:
        if self.endpoint.probes:
            return self.lanes.take_least_failed(moment, self.endpoint.rejected_probes)
        return self.lanes.take(moment, self.endpoint.limit)

    # Answers

    def answered(self, attempt: TrackAttempt, answer: Answer, verdict: Verdict, now: Instant) -> None:
        """Handle the answer to a request."""
        lane = attempt.lane
        delivery = lane.queue[0]
        is_current = tell(self.endpoint, attempt.ticket, answer, verdict, now)
        alone = verdict is not Verdict.DELIVERED and others_passed(delivery, self.endpoint)
        ending = self._attempts.note(
            delivery, answer, verdict, self.endpoint, is_current=is_current, alone=alone
        )
        if verdict in _FAILURES:
            self.lanes.failed(lane, alone=alone)
        elif verdict is Verdict.THROTTLED:
            self.lanes.throttled(lane)
        elif verdict is Verdict.REJECTED:
            self.lanes.rejected(lane)
        else:
            self.lanes.passed(lane)
        if ending is not None:
            self.lanes.answered(lane, now.monotonic)
            self._settling.settle(delivery, ending, now)
        elif delivery.is_tried_again:
            self._settling.put_back(delivery)
            delay = self._attempts.wait(delivery.failures, answer, verdict, now)
            self.lanes.again(lane, now.monotonic, delay, alone=alone)
        else:
            self.lanes.answered(lane, now.monotonic)
            self._give_up(delivery)

    def _give_up(self, delivery: Delivery) -> None:
        if delivery.stage is not Stage.RETURNED:
            self._settling.put_back(delivery)
            self._settling.hand_back(delivery)

    # Handing back

    def remove_returned(self, visitor_ids: Iterable[str]) -> None:
        """Take what was handed back out of these visitors' lanes; what is in flight stays."""
        self.lanes.remove(visitor_ids, lambda delivery: delivery.stage is Stage.RETURNED)


def _body(delivery: Delivery) -> bytes:
    track = delivery.planned.track
    return b"" if track is None else track_body(track)


def _claim(delivery: Delivery) -> int | None:
    # What is to be sent has both.
    key, occurred_at = cast("bytes", delivery.planned.dedupe_key), cast("int", delivery.record.occurred_at)
    return delivery.partition.dedupe.claim(key, occurred_at, delivery.record.offset)

"""Track deliveries: each visitor's line, and the requests that go from its head.

In: planned track deliveries in the order of their offsets, answers. Out: attempts to make, endings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from flagpost_consumer.core.attempts import Attempts, poison, tell
from flagpost_consumer.core.budget import Budget
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.endpoint import Endpoint, EndpointState
from flagpost_consumer.core.lanes import Lane, Lanes
from flagpost_consumer.core.mapping import Track, track_body
from flagpost_consumer.core.moments import is_now, latest
from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.partitioner import partition_of
from flagpost_consumer.core.plan import expired
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import Attempt, Delivery, EndpointName, Record, Stage
from flagpost_consumer.core.settling import Settling
from flagpost_consumer.core.verdict import Answer, Verdict


class TrackSending:
    """The track deliveries of one process."""

    def __init__(self, policy: Policy, attempts: Attempts, settling: Settling) -> None:
        self._delivery = policy.delivery
        self._attempts = attempts
        self._settling = settling
        self.lanes: Lanes[Delivery] = Lanes(policy.delivery.visitor_interval_seconds)
        self._long: set[str] = set()
        self.endpoint = Endpoint(
            policy.limits.max_connections, Budget(policy.limits.track_requests_per_minute)
        )
        self.partition_count = 0

    # In

    def enter(self, delivery: Delivery, track: Track, now: Instant) -> None:
        """Take in a delivery: a duplicate ends at once, any other joins its visitor's line."""
        repeated = _claim(delivery)
        if repeated is not None:
            self._settling.settle(delivery, Ending(Reason.DEDUPE, duplicate_of=repeated), now)
            return
        delivery.successes_seen = self.endpoint.successes
        accounts, visitor_id = self._settling.accounts, track.visitor_id
        accounts.repairs.update(repair.rule for repair in delivery.planned.repairs)
        if self.lanes.lane(visitor_id) is None and not self._is_in_place(delivery.record, visitor_id):
            accounts.mispartitioned += 1
        lane = self.lanes.push(visitor_id, delivery, now.monotonic)
        if 0 < self._delivery.max_pending_per_visitor < len(lane.queue):
            self._long.add(visitor_id)

    def _is_in_place(self, record: Record, visitor_id: str) -> bool:
        """Whether a record is where Kafka's default partitioner puts its visitor's others."""
        key = visitor_id.encode()
        return record.key == key and partition_of(key, self.partition_count) == record.partition

    def cut_long_lines(self, now: Instant) -> None:
        """Cut the lines that could stop all others; only while Pendo takes events (CONTRACT section 5)."""
        if not self._long or self.endpoint.state is not EndpointState.OK:
            return
        longest = self._delivery.max_pending_per_visitor
        detail = f"over {longest} of this visitor's events wait (delivery.max_pending_per_visitor)"
        for visitor_id in self._long:
            lane = self.lanes.lane(visitor_id)
            for cut in self.lanes.shorten(lane, longest) if lane else ():
                self._settling.settle(cut, Ending(Reason.VISITOR_BACKLOG, detail), now)
        self._long.clear()

    # Out

    @property
    def can_probe(self) -> bool:
        """Whether there is a delivery whose answer could tell that the endpoint is back."""
        return self.lanes.waiting > 0 or self.endpoint.in_flight > 0

    def due_at(self, moment: float) -> float | None:
        """When a request is to start: `moment` if at once, None if only an answer or a record can tell."""
        return latest(self.lanes.due_at(moment), self.endpoint.opens_at(moment))

    def start(self, now: Instant, has_connection: Callable[[], bool]) -> Iterator[Attempt]:
        """Start what may start."""
        moment = now.monotonic
        while has_connection() and is_now(self.endpoint.opens_at(moment), moment):
            lane = self.lanes.take(moment, self.endpoint.avoid)
            if lane is None:
                return
            delivery = lane.queue[0]
            if now.wall_ms > delivery.deadline_ms:
                self.lanes.discard_first(lane, moment)
                self._settling.settle(delivery, expired(self._delivery.max_age_seconds), now)
            elif delivery.planned.track is not None:
                self._settling.start(delivery)
                ticket = self.endpoint.start(lane.visitor_id)
                yield Attempt(EndpointName.TRACK, track_body(delivery.planned.track), ticket, lane=lane)

    # Answers

    def answered(
        self, attempt: Attempt, lane: Lane[Delivery], answer: Answer, verdict: Verdict, now: Instant
    ) -> None:
        """Take in what came of a request."""
        delivery = lane.queue[0]
        poisonous = tell(self.endpoint, attempt.ticket, answer, verdict, now)
        ending = self._attempts.note(delivery, answer, verdict, self.endpoint)
        if ending is not None:
            self.lanes.answered(lane, now.monotonic)
            self._settling.settle(delivery, ending, now)
        elif delivery.is_tried_again:
            self._settling.put_back(delivery)
            self.lanes.again(lane, now.monotonic, self._attempts.wait([delivery], answer, verdict, now))
        else:
            self.lanes.answered(lane, now.monotonic)
            self._give_up(delivery)
        if poisonous is not None:
            self._end_poison(poisonous, now)

    def _give_up(self, delivery: Delivery) -> None:
        if delivery.stage is not Stage.RETURNED:
            self._settling.put_back(delivery)
            self._settling.hand_back(delivery)

    def _end_poison(self, visitor_id: str, now: Instant) -> None:
        lane = self.lanes.lane(visitor_id)
        if lane is None or lane.in_flight or not lane.queue or not lane.queue[0].attempts:
            return
        delivery = self.lanes.discard_waiting_first(lane)
        self._settling.settle(delivery, poison(delivery), now)

    # Handing back

    def remove_returned(self, visitor_ids: Iterable[str]) -> None:
        """Take what was handed back out of these visitors' lines; what is in flight stays at their heads."""
        self.lanes.remove(visitor_ids, lambda delivery: delivery.stage is Stage.RETURNED)


def _claim(delivery: Delivery) -> int | None:
    key, occurred_at = delivery.planned.dedupe_key, delivery.record.occurred_at
    if key is None or occurred_at is None:
        return None
    return delivery.partition.dedupe.claim(key, occurred_at, delivery.record.offset)

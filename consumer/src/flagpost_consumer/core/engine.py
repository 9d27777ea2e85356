"""The engine: decides what becomes of every record, and never waits.

In: records, assignments, answers, acknowledgements, and the time. Out: `poll` gives what is to be requested of
Pendo, what has been settled, and when to call again. It awaits nothing, reads no clock, draws no randomness of
its own and logs nothing; so the same engine runs in the service and under virtual time.

A record walks through it in one direction: `receive` plans its deliveries; a track delivery claims its key and
joins its visitor's lane, a metadata delivery its target's fields; `poll` starts requests; `answered` ends
them, or puts them back to wait; `_settle`, the one place through which all endings pass, hands each ending
out; `acknowledged` closes the books on it and frees its offset.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from math import inf

from flagpost_consumer.core.accounts import Accounts
from flagpost_consumer.core.backoff import RandomSource, retry_delay
from flagpost_consumer.core.budget import Budget
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.endpoint import Endpoint, EndpointState
from flagpost_consumer.core.lanes import Lane, Lanes
from flagpost_consumer.core.mapping import metadata_body, track_body
from flagpost_consumer.core.metadata_answers import read_errors
from flagpost_consumer.core.metadata_batches import Batch, Item, MetadataBatches
from flagpost_consumer.core.outcomes import DELIVERED, Ending, Outcome, Reason
from flagpost_consumer.core.partitioner import partition_of
from flagpost_consumer.core.plan import FieldCatalog, Planned, Planner, expired
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import (
    Actions,
    Attempt,
    Delivery,
    EndpointName,
    Partition,
    Record,
    Settlement,
    Stage,
)
from flagpost_consumer.core.verdict import Answer, Verdict, judge, retry_after_seconds

MAX_METADATA_IN_FLIGHT = 4
"""Metadata goes by the thousand: a few requests at once suffice, and a hanging one holds few connections."""
UNACKNOWLEDGED_SECONDS = 1.0
"""Sending stops while an answer has waited this long for its acknowledgement."""
SHED_FROM = 0.8
"""The part of `delivery.max_pending` from which long lanes are cut."""
RESUME_AT = 0.6
"""The part of `delivery.max_pending` at which intake resumes: well below, for a pause refetches."""

REPLAY_KIND_HEADER = "flagpost-replay-kind"


class Engine:
    """One process's part of the work."""

    def __init__(self, policy: Policy, random: RandomSource) -> None:
        self._policy = policy
        self._random = random
        limits, delivery = policy.limits, policy.delivery
        self._planner = Planner(policy)
        self._lanes: Lanes[Delivery] = Lanes(delivery.visitor_interval_seconds)
        self._long_lanes: set[str] = set()
        self._metadata: MetadataBatches[Delivery] = MetadataBatches(
            batch_size=policy.metadata.batch_size,
            linger_seconds=policy.metadata.linger_seconds,
            ttl_seconds=policy.dedupe.ttl_seconds,
            max_entries=policy.dedupe.max_entries,
        )
        self.track = Endpoint(limits.max_connections, Budget(limits.track_requests_per_minute))
        self.metadata = Endpoint(
            min(MAX_METADATA_IN_FLIGHT, limits.max_connections), Budget(limits.metadata_requests_per_minute)
        )
        self._partitions: dict[int, Partition] = {}
        self._partition_count = 0
        self._epochs = 0
        self._pending_records = 0
        self._full = False
        self._draining = False
        self._settlements: list[Settlement] = []
        self._unacknowledged: dict[Delivery, float] = {}
        self.accounts = Accounts()
        self.dedupe_counts = DedupeCounts()

    # Partitions

    def assign(self, numbers: Iterable[int], partition_count: int, now: Instant) -> None:
        """Take partitions on; nothing of them is sent for one visitor interval."""
        self._partition_count = partition_count
        send_from = now.monotonic + self._policy.delivery.visitor_interval_seconds
        for number in numbers:
            self._epochs += 1
            dedupe = Dedupe(
                self._policy.dedupe.ttl_seconds, self._policy.dedupe.max_entries, self.dedupe_counts
            )
            self._partitions[number] = Partition(number, self._epochs, send_from, dedupe)
        self._share_budgets(now)

    def revoke(self, numbers: Iterable[int], now: Instant) -> None:
        """Hand back what waits of these partitions; `is_quiet` tells when what is in flight has ended."""
        leaving = [self._partitions[number] for number in numbers if number in self._partitions]
        for partition in leaving:
            partition.leaving = True
        self._hand_back(
            [delivery for partition in leaving for delivery in _unsettled(partition)], with_metadata=True
        )
        self._share_budgets(now)

    def is_quiet(self, numbers: Iterable[int]) -> bool:
        """Whether nothing of these partitions is in flight or unacknowledged."""
        return not any(self._partitions[number].busy for number in numbers if number in self._partitions)

    def forget(self, numbers: Iterable[int], now: Instant) -> int:
        """Give partitions up for good; gives how many requests in flight were abandoned.

        What of them is still unsettled, or not acknowledged, counts as returned.
        """
        abandoned = 0
        for number in numbers:
            partition = self._partitions.pop(number, None)
            if partition is None:
                continue
            partition.gone = True
            left = _unsettled(partition)
            abandoned += sum(delivery.stage is Stage.IN_FLIGHT for delivery in left)
            self._hand_back(left, with_metadata=True)
            self._abandon(left)
            partition.dedupe.forget()
            self._metadata.forget_partition(number)
            self._pending_records -= len(partition.offsets)
        self._share_budgets(now)
        return abandoned

    def committable(self, numbers: Iterable[int] | None = None) -> dict[int, int]:
        """The position of each partition below which every delivery is settled and acknowledged."""
        chosen = self._partitions if numbers is None else numbers
        positions = {
            number: self._partitions[number].offsets.committable()
            for number in chosen
            if number in self._partitions
        }
        return {number: position for number, position in positions.items() if position is not None}

    @property
    def assigned(self) -> list[int]:
        """The partitions that are this process's and are to stay so."""
        return [number for number, partition in self._partitions.items() if not partition.leaving]

    # Records

    def receive(self, records: Sequence[Record], now: Instant) -> None:
        """Take records in; those of partitions that are not ours, or seen before, are passed over."""
        if self._draining:
            return
        for record in records:
            partition = self._partitions.get(record.partition)
            if partition is None or partition.leaving:
                continue
            position = partition.offsets.position
            if position is None or record.offset >= position:
                self._take(record, partition, now)

    def _take(self, record: Record, partition: Partition, now: Instant) -> None:
        planned = self._plan(record, now)
        deadline = record.occurred_at
        deadline_ms = inf if deadline is None else deadline + self._policy.delivery.max_age_seconds * 1000
        deliveries = [Delivery(record, partition, plan, deadline_ms) for plan in planned]
        partition.offsets.take(record.offset, deliveries)
        self._pending_records += 1
        self.accounts.records += 1
        for delivery in deliveries:
            self.accounts.plan(delivery.kind)
            self._enter(delivery, now)

    def _plan(self, record: Record, now: Instant) -> Sequence[Planned]:
        planned = self._planner.plan(record.event, now.wall_ms)
        only = next((value for name, value in record.headers if name == REPLAY_KIND_HEADER and value), None)
        if only is None:
            return planned
        kind = only.decode("utf-8", "replace")
        return [plan for plan in planned if plan.kind == kind] or planned

    def _enter(self, delivery: Delivery, now: Instant) -> None:
        planned = delivery.planned
        if planned.ending is not None:
            self._settle(delivery, planned.ending, now)
        elif planned.track is not None:
            self._enter_lane(delivery, planned.track.visitor_id, now)
        elif planned.metadata is not None:
            self._enter_metadata(delivery, now)

    def _enter_lane(self, delivery: Delivery, visitor_id: str, now: Instant) -> None:
        repeated = self._claim(delivery)
        if repeated is not None:
            self._settle(delivery, Ending(Reason.DEDUPE, duplicate_of=repeated), now)
            return
        self.accounts.repairs.update(repair.rule for repair in delivery.planned.repairs)
        if self._lanes.lane(visitor_id) is None:
            self._check_partition(delivery.record, visitor_id)
        lane = self._lanes.push(visitor_id, delivery, now.monotonic)
        if 0 < self._policy.delivery.max_pending_per_visitor < len(lane.queue):
            self._long_lanes.add(visitor_id)

    def _enter_metadata(self, delivery: Delivery, now: Instant) -> None:
        metadata, record = delivery.planned.metadata, delivery.record
        occurred_at = record.occurred_at
        if metadata is None or occurred_at is None:
            return
        delivery.item = Item(
            delivery,
            metadata,
            record.partition,
            record.offset,
            occurred_at,
            missing=bool(delivery.planned.missing_fields),
        )
        # A newly assigned partition sends nothing for one interval, metadata included.
        self._metadata.offer(delivery.item, max(now.monotonic, delivery.not_before))
        self._settle_ended_metadata(now)

    def _claim(self, delivery: Delivery) -> int | None:
        key, occurred_at = delivery.planned.dedupe_key, delivery.record.occurred_at
        if key is None or occurred_at is None:
            return None
        return delivery.partition.dedupe.claim(key, occurred_at, delivery.record.offset)

    def _check_partition(self, record: Record, visitor_id: str) -> None:
        """Count a record that another producer's partitioner put where its visitor's others are not."""
        key = visitor_id.encode()
        if record.key != key or partition_of(key, self._partition_count) != record.partition:
            self.accounts.mispartitioned += 1

    # Time

    def poll(self, now: Instant) -> Actions:
        """Start what may start, and give all that is to be done."""
        self._shed(now)
        attempts: list[Attempt] = []
        if self._may_send(now):
            self._start_metadata(attempts, now)
            self._start_track(attempts, now)
        if self._draining and not self.metadata.is_open:
            self._hand_back(self._all_unsettled(), with_metadata=True)
        settlements, self._settlements = self._settlements, []
        return Actions(attempts, settlements, self._wake_at(now), self._intake_paused())

    def _may_send(self, now: Instant) -> bool:
        """Whether few enough answers wait for their acknowledgement to risk more (they are what a crash repeats)."""
        if not self._unacknowledged:
            return True
        oldest = next(iter(self._unacknowledged.values()))
        return (
            len(self._unacknowledged) <= 2 * self._policy.limits.max_connections
            and now.monotonic - oldest <= UNACKNOWLEDGED_SECONDS
        )

    def _has_connection(self) -> bool:
        return self.track.in_flight + self.metadata.in_flight < self._policy.limits.max_connections

    def _start_track(self, attempts: list[Attempt], now: Instant) -> None:
        moment = now.monotonic
        while self._has_connection() and _is_now(self.track.opens_at(moment), moment):
            lane = self._lanes.take(moment, self.track.avoid)
            if lane is None:
                return
            delivery = lane.queue[0]
            if now.wall_ms > delivery.deadline_ms:
                self._lanes.discard_first(lane, moment)
                self._settle(delivery, expired(self._policy.delivery.max_age_seconds), now)
            elif delivery.planned.track is not None:
                self._mark_in_flight(delivery)
                body = track_body(delivery.planned.track)
                ticket = self.track.start(lane.visitor_id)
                attempts.append(Attempt(EndpointName.TRACK, body, ticket, lane=lane))

    def _start_metadata(self, attempts: list[Attempt], now: Instant) -> None:
        moment = now.monotonic
        while self._has_connection() and _is_now(self._metadata.due_at(moment), moment):
            if not _is_now(self.metadata.opens_at(moment), moment):
                return
            batch = self._metadata.take(moment, self.metadata.avoid)
            if batch is None:
                return
            records = self._metadata.gather(batch, moment)
            if records:
                for item in self._metadata.items(batch):
                    self._mark_in_flight(item.owner)
                ticket = self.metadata.start(batch.who)
                body = metadata_body(batch.target, records)
                attempts.append(Attempt(EndpointName.METADATA, body, ticket, batch=batch))

    def _shed(self, now: Instant) -> None:
        """Cut the lines that could stop all others; only while Pendo takes events (CONTRACT section 5)."""
        delivery = self._policy.delivery
        if not self._long_lanes or self._pending_records < SHED_FROM * delivery.max_pending:
            return
        if self.track.state is not EndpointState.OK:
            return
        longest = delivery.max_pending_per_visitor
        for visitor_id in self._long_lanes:
            lane = self._lanes.lane(visitor_id)
            for cut in self._lanes.shorten(lane, longest) if lane else ():
                detail = f"over {longest} of this visitor's events wait (delivery.max_pending_per_visitor)"
                self._settle(cut, Ending(Reason.VISITOR_BACKLOG, detail), now)
        self._long_lanes.clear()

    def _wake_at(self, now: Instant) -> float | None:
        # While too many answers are unacknowledged, no time but an acknowledgement lets sending go on.
        if not self._may_send(now) or not self._has_connection():
            return None
        moment = now.monotonic
        return _earliest(
            _latest(self._lanes.due_at(moment), self.track.opens_at(moment)),
            _latest(self._metadata.due_at(moment), self.metadata.opens_at(moment)),
        )

    def _intake_paused(self) -> bool:
        most = self._policy.delivery.max_pending
        self._full = self._pending_records >= (RESUME_AT * most if self._full else most)
        return self._full or self._draining or self.track.is_down

    # Answers

    def answered(self, attempt: Attempt, answer: Answer, now: Instant) -> None:
        """Take in what came of a request."""
        verdict = judge(answer)
        if attempt.lane is not None:
            self._track_answered(attempt, attempt.lane, answer, verdict, now)
        elif attempt.batch is not None:
            self._metadata_answered(attempt, attempt.batch, answer, verdict, now)

    def _tell_endpoint(
        self, endpoint: Endpoint, attempt: Attempt, answer: Answer, verdict: Verdict, now: Instant
    ) -> str | None:
        """Tell an endpoint of an answer; gives the poison that the answer exposes."""
        ticket, moment = attempt.ticket, now.monotonic
        if verdict is Verdict.DELIVERED:
            return endpoint.succeeded(ticket)
        if verdict is Verdict.TRANSIENT:
            endpoint.failed(ticket, moment)
        elif verdict is Verdict.THROTTLED:
            endpoint.throttled(ticket, retry_after_seconds(answer.retry_after, now.wall_ms), moment)
        elif verdict is Verdict.SETUP:
            endpoint.refused(ticket, moment)
        else:
            endpoint.rejected(ticket, moment)
        return None

    def _track_answered(
        self, attempt: Attempt, lane: Lane[Delivery], answer: Answer, verdict: Verdict, now: Instant
    ) -> None:
        delivery = lane.queue[0]
        poison = self._tell_endpoint(self.track, attempt, answer, verdict, now)
        ending = self._judge_attempt(delivery, answer, verdict, self.track)
        if ending is None and not (delivery.partition.leaving or delivery.partition.gone or self._draining):
            self._mark_waiting(delivery)
            self._lanes.again(lane, now.monotonic, self._delay([delivery], answer, verdict, now))
        else:
            self._lanes.answered(lane, now.monotonic)
            self._end_attempt(delivery, ending, now)
        if poison is not None:
            self._end_poisonous_track(poison, now)

    def _judge_attempt(
        self, delivery: Delivery, answer: Answer, verdict: Verdict, endpoint: Endpoint
    ) -> Ending | None:
        """Note an attempt at a delivery; gives the delivery's ending, or None to try again."""
        delivery.attempts += 1
        delivery.unseen += answer.unseen
        if answer.status is not None:
            delivery.status = answer.status
        others_passed = endpoint.successes > delivery.successes_seen
        delivery.successes_seen = endpoint.successes
        if verdict is Verdict.DELIVERED:
            return DELIVERED
        if verdict is Verdict.REJECTED:
            return Ending(Reason.REJECTED, _refusal(answer))
        delivery.failures += 1
        if verdict is Verdict.TRANSIENT and others_passed:
            delivery.counted_attempts += 1
        if delivery.counted_attempts >= self._policy.delivery.max_attempts:
            detail = f"{delivery.attempts} attempts failed while others passed; the last: {answer.label}"
            return Ending(Reason.ATTEMPTS_EXHAUSTED, detail)
        return None

    def _delay(self, deliveries: Iterable[Delivery], answer: Answer, verdict: Verdict, now: Instant) -> float:
        """How long deliveries whose attempt failed wait for the next one."""
        if verdict is Verdict.THROTTLED:
            asked = retry_after_seconds(answer.retry_after, now.wall_ms)
            if asked is not None:
                return asked
        return retry_delay(max((delivery.failures for delivery in deliveries), default=1), self._random)

    def _end_attempt(self, delivery: Delivery, ending: Ending | None, now: Instant) -> None:
        """End a delivery after its attempt: settle it, or hand it back."""
        if delivery.stage is Stage.RETURNED:
            return
        if ending is None:
            self._mark_waiting(delivery)
            self._return(delivery)
        else:
            self._settle(delivery, ending, now)

    def _end_poisonous_track(self, visitor_id: str, now: Instant) -> None:
        lane = self._lanes.lane(visitor_id)
        if lane is None or lane.in_flight or not lane.queue or not lane.queue[0].attempts:
            return
        delivery = self._lanes.discard_waiting_first(lane)
        self._settle(delivery, _poison(delivery), now)

    # Metadata answers

    def _metadata_answered(
        self, attempt: Attempt, batch: Batch, answer: Answer, verdict: Verdict, now: Instant
    ) -> None:
        poison = self._tell_endpoint(self.metadata, attempt, answer, verdict, now)
        deliveries = [item.owner for item in self._metadata.items(batch)]
        endings = {
            delivery: self._judge_attempt(delivery, answer, verdict, self.metadata) for delivery in deliveries
        }
        if verdict is Verdict.DELIVERED:
            self._batch_accepted(batch, answer, now)
        elif verdict is Verdict.REJECTED:
            self._batch_rejected(batch, answer, now)
        else:
            batch.suspected = verdict is Verdict.SETUP
            delay = self._delay(deliveries, answer, verdict, now)
            self._metadata.again(batch, now.monotonic + delay, lambda item: endings.get(item.owner))
        if poison is not None:
            self._end_poisonous_batch(poison, now)
        self._settle_ended_metadata(now)
        self._put_back([delivery for delivery in deliveries if delivery.stage is Stage.IN_FLIGHT])

    def _batch_accepted(self, batch: Batch, answer: Answer, now: Instant) -> None:
        ids = list(batch.ids)
        errors = read_errors(answer.body, ids)
        for target_id, detail in errors.refused.items():
            self._metadata.refused(batch, target_id, Ending(Reason.REJECTED, detail), now.monotonic)
        rest = [target_id for target_id in ids if target_id not in errors.refused]
        if errors.unnamed:
            self._retry_halves(batch, rest, Ending(Reason.REJECTED, "Pendo counts it as failed"), now)
        else:
            self._metadata.accepted(batch, rest, now.monotonic)

    def _batch_rejected(self, batch: Batch, answer: Answer, now: Instant) -> None:
        """A final answer to a whole batch: those it names are refused, the others are tried without them."""
        ids = list(batch.ids)
        errors = read_errors(answer.body, ids)
        for target_id, detail in errors.refused.items():
            self._metadata.refused(batch, target_id, Ending(Reason.REJECTED, detail), now.monotonic)
        rest = [target_id for target_id in ids if target_id not in errors.refused]
        if errors.refused and rest:
            self._metadata.again(Batch(batch.target, batch.group, rest), now.monotonic)
        else:
            self._retry_halves(batch, rest, Ending(Reason.REJECTED, _refusal(answer)), now)

    def _retry_halves(self, batch: Batch, ids: list[str], ending: Ending, now: Instant) -> None:
        """Look for the bad record among ids, so that it costs only itself."""
        if len(ids) == 1:
            self._metadata.refused(batch, ids[0], ending, now.monotonic)
        else:
            self._metadata.split(batch, ids, now.monotonic)

    def _end_poisonous_batch(self, who: str, now: Instant) -> None:
        batch = self._metadata.withdraw_suspected(who)
        if batch is None or not self._metadata.gather(batch, now.monotonic):
            return
        first = next(iter(self._metadata.items(batch))).owner
        self._retry_halves(batch, list(batch.ids), _poison(first), now)

    def _settle_ended_metadata(self, now: Instant) -> None:
        ended, self._metadata.ended = self._metadata.ended, []
        for item, ending in ended:
            if item.owner.stage is not Stage.RETURNED:
                self._settle(item.owner, ending, now)

    def _put_back(self, deliveries: list[Delivery]) -> None:
        """Metadata deliveries whose request failed wait again, or are handed back."""
        still = [d for d in deliveries if d.item is not None and not self._metadata.is_in_flight(d.item)]
        for delivery in still:
            self._mark_waiting(delivery)
        leaving = [d for d in still if d.partition.leaving or self._draining]
        self._hand_back(leaving, with_metadata=True)

    # Endings

    def _settle(self, delivery: Delivery, ending: Ending, now: Instant) -> None:
        """The one place through which every ending passes."""
        if delivery.stage is not Stage.IN_FLIGHT:
            delivery.partition.busy += 1
        delivery.stage = Stage.SETTLED
        if ending.outcome is Outcome.DEAD_LETTERED:
            self._release_claim(delivery)
        if delivery.attempts:
            self._unacknowledged[delivery] = now.monotonic
        self._settlements.append(Settlement(delivery, ending, now.wall_ms))

    def _release_claim(self, delivery: Delivery) -> None:
        key, occurred_at = delivery.planned.dedupe_key, delivery.record.occurred_at
        if key is not None and occurred_at is not None:
            delivery.partition.dedupe.release(key, occurred_at, delivery.record.offset)

    def acknowledged(self, settlements: Iterable[Settlement]) -> None:
        """Kafka has the settlements (and the dead letters that go with them): close the books on them."""
        for settlement in settlements:
            delivery = settlement.delivery
            if delivery.stage is not Stage.SETTLED:
                continue
            delivery.stage = Stage.ACKNOWLEDGED
            partition = delivery.partition
            partition.busy -= 1
            self._unacknowledged.pop(delivery, None)
            self.accounts.settle(delivery.kind, settlement.ending)
            offset = delivery.record.offset
            if all(sibling.stage is Stage.ACKNOWLEDGED for sibling in partition.offsets.entry(offset)):
                partition.offsets.settle(offset)
                self._pending_records -= 1

    def _hand_back(self, deliveries: Iterable[Delivery], *, with_metadata: bool) -> None:
        """Give up deliveries that wait; those in flight or settled stay as they are."""
        waiting = [
            delivery
            for delivery in deliveries
            if delivery.stage is Stage.WAITING and (with_metadata or delivery.item is None)
        ]
        for delivery in waiting:
            self._return(delivery)
        visitors = {d.planned.track.visitor_id for d in waiting if d.planned.track is not None}
        self._lanes.remove(visitors, lambda delivery: delivery.stage is Stage.RETURNED)
        self._metadata.remove([delivery.item for delivery in waiting if delivery.item is not None])

    def _return(self, delivery: Delivery) -> None:
        delivery.stage = Stage.RETURNED
        self.accounts.hand_back(delivery.kind)

    def _abandon(self, deliveries: Iterable[Delivery]) -> None:
        """Hand back even what is in flight or not acknowledged: its partition is another member's."""
        for delivery in deliveries:
            if delivery.stage in {Stage.IN_FLIGHT, Stage.SETTLED}:
                self._unacknowledged.pop(delivery, None)
                if delivery.item is not None:
                    self._metadata.remove([delivery.item])
                self._return(delivery)

    def _mark_in_flight(self, delivery: Delivery) -> None:
        if delivery.stage is Stage.WAITING:
            delivery.stage = Stage.IN_FLIGHT
            delivery.partition.busy += 1

    def _mark_waiting(self, delivery: Delivery) -> None:
        if delivery.stage is Stage.IN_FLIGHT:
            delivery.stage = Stage.WAITING
            delivery.partition.busy -= 1

    # The end

    def drain(self, now: Instant) -> None:
        """Stop: take nothing in, hand back what waits, send waiting metadata at once."""
        self._draining = True
        self._hand_back(self._all_unsettled(), with_metadata=False)
        self._metadata.flush(now.monotonic)

    @property
    def is_drained(self) -> bool:
        """Whether nothing is in flight, unacknowledged, or waiting to be sent."""
        waiting = any(delivery.stage is Stage.WAITING for delivery in self._all_unsettled())
        return not waiting and self.is_quiet(self._partitions)

    def _all_unsettled(self) -> list[Delivery]:
        return [delivery for partition in self._partitions.values() for delivery in _unsettled(partition)]

    # What the shell tells and asks

    def secret_changed(self, endpoint: EndpointName, now: Instant) -> None:
        """A credential is a new one: an endpoint that refused the old one is tried at once."""
        (self.track if endpoint is EndpointName.TRACK else self.metadata).secret_changed(now.monotonic)

    def know_fields(self, fields: FieldCatalog) -> None:
        """Take note of the metadata fields that Pendo has."""
        self._planner.fields = fields

    def _share_budgets(self, now: Instant) -> None:
        fraction = len(self.assigned) / self._partition_count if self._partition_count else 0.0
        for endpoint in (self.track, self.metadata):
            endpoint.budget.share(fraction, now.monotonic)

    @property
    def waits_for_pendo(self) -> bool:
        """Whether intake is paused, or would be, because of what Pendo does and how visitors are paced."""
        return self._full or not self.track.is_open

    @property
    def pending_records(self) -> int:
        """Records held in memory."""
        return self._pending_records

    @property
    def unacknowledged(self) -> int:
        """Answers of Pendo whose settlement Kafka has not acknowledged."""
        return len(self._unacknowledged)

    def sendable(self, now: Instant) -> int:
        """Track deliveries that could go out now if there were capacity."""
        return self._lanes.ready(now.monotonic) if self.track.is_open else 0

    def paced(self, now: Instant) -> int:
        """Track deliveries that wait for their visitor's turn."""
        return self._lanes.waiting - self._lanes.ready(now.monotonic)

    def oldest_pending_ms(self) -> int | None:
        """When the oldest pending event occurred, epoch ms, to the order of each partition's offsets."""
        oldest = [partition.offsets.oldest() for partition in self._partitions.values()]
        records = [deliveries[0].record for deliveries in oldest if deliveries]
        return min(
            (r.timestamp_ms if r.occurred_at is None else r.occurred_at for r in records), default=None
        )

    def hottest_visitors(self, count: int) -> list[tuple[str, int]]:
        """The visitors with the longest lines, and how many deliveries wait there."""
        return heapq.nlargest(count, self._lanes.lengths(), key=lambda entry: entry[1])


def _unsettled(partition: Partition) -> list[Delivery]:
    return [delivery for deliveries in partition.offsets.unsettled() for delivery in deliveries]


def _is_now(moment: float | None, now: float) -> bool:
    return moment is not None and moment <= now


def _earliest(*moments: float | None) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _latest(due: float | None, opens: float | None) -> float | None:
    return None if due is None or opens is None else max(due, opens)


def _refusal(answer: Answer) -> str:
    said = answer.body[:200].decode("utf-8", "replace").strip()
    return f"Pendo answered {answer.label}" + (f": {said}" if said else "")


def _poison(delivery: Delivery) -> Ending:
    detail = f"Pendo answered {delivery.status} to this delivery while it took another's"
    return Ending(Reason.REJECTED, detail)

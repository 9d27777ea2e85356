"""One consumer under virtual time: the real engine, with a simulated CPU, log, ledger and Pendo around it.

In: a policy, what work costs, Pendo's latency, decisions. Out: what was delivered, when, and what it cost. The event
loop is a single server: everything that has arrived by the beginning of a turn is done in it, and takes as long as it
costs. As in the service, the next request starts at once after an answer, and everything else waits a millisecond.
Nothing here decides what becomes of a record; the engine does.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from random import Random

from flagpost_consumer.adapters.kafka.handed_over import BATCH_MESSAGES
from flagpost_consumer.adapters.ledger.writer import LINGER_SECONDS, MAX_BATCH_SETTLEMENTS
from flagpost_consumer.commands.plan.costs import Costs
from flagpost_consumer.commands.plan.traffic import Before, Decisions
from flagpost_consumer.core.books.deliveries import Partition, Settlement
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.mapping import decision_metadata
from flagpost_consumer.core.planning.plan import decision_key
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import Record
from flagpost_consumer.service.timers import TIMER_SLACK_SECONDS
from flagpost_schemas import (
    DecisionEvent,
    Event,
    VisitorMetadata,
    encode_single_object,
    partition_key,
    variation_as_sent,
)

START_MS = 1_800_000_000_000
"""The moment 0, epoch ms."""
WARM_UP_SECONDS = 60.0
"""Virtual time before the moment 0, in which Pendo gets the metadata values that it has when the plan begins."""
FETCH_SECONDS = 0.005
"""From the service's call to the consumer, through Kafka; what arrives within it arrives together."""
ACKNOWLEDGE_SECONDS = 0.003
"""Until Kafka has acknowledged a ledger record."""
OK = Answer(200)
METADATA_KINDS = frozenset({Kind.VISITOR_METADATA, Kind.ACCOUNT_METADATA})


@dataclass(frozen=True, slots=True)
class Pendo:
    """Pendo's latency."""

    latency_seconds: float
    jitter_seconds: float = 0.0
    """The mean of an additional latency, exponentially distributed."""

    def answers_after(self, random: Random) -> float:
        """The seconds of one request."""
        jitter = random.expovariate(1 / self.jitter_seconds) if self.jitter_seconds else 0.0
        return self.latency_seconds + jitter


@dataclass(slots=True)
class Counted:
    """What has happened since the moment 0."""

    turns: int = 0
    """Turns of the event loop."""
    exchanges: int = 0
    """Batches of records and of settlements."""
    records: int = 0
    settled: Counter[tuple[Kind, Outcome]] = field(default_factory=Counter)
    """Deliveries that ended."""
    requests: Counter[EndpointName] = field(default_factory=Counter)
    cpu_seconds: float = 0.0
    """Of all threads, without an idle process's share."""
    ages: list[float] = field(default_factory=list)
    """Seconds from each delivered decision to Pendo's answer, in the order of the answers."""
    most_pending: int = 0
    first_settled_at: float = inf
    last_settled_at: float = 0.0


class Pod:
    """One consumer process with its partitions."""

    def __init__(
        self,
        policy: Policy,
        costs: Costs,
        pendo: Pendo,
        decisions: Sequence[Decisions],
        partition_count: int,
        random: Random,
    ) -> None:
        """`partition_count`: the number of all partitions, of which this process has some."""
        self._policy = policy
        self._costs = costs
        self._pendo = pendo
        self._random = random
        self._decisions = {each.partition: each for each in decisions}
        self._partition_count = partition_count
        self._write_at = policy.limits.max_connections
        self.engine = Engine(policy, random.random)
        self.counted = Counted()
        self.now = -WARM_UP_SECONDS
        """Virtual time: the beginning of the present or last turn of the event loop."""
        self._spent = 0.0
        """CPU seconds of this turn."""
        self._free_at = self.now
        """When the event loop finishes its turn."""
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._paused = False
        self._to_come: list[tuple[float, int]] = []
        """When each partition's next decision arrives."""
        self._read_at = inf
        self._wanted = False
        """Whether the engine must act in this turn."""
        self._timer_at = inf
        self._unwritten: dict[Partition, list[Settlement]] = {}
        self._unwritten_answers = 0
        self._flush_at = inf
        self._offsets: Counter[int] = Counter()
        self._ledger_offsets: Counter[int] = Counter()
        self._value = b""

    @property
    def unread(self) -> float:
        """About how many decisions have arrived and are not read."""
        return sum(each.arrived(self.now) - each.read for each in self._decisions.values())

    @property
    def behind(self) -> float:
        """How many have arrived and are not settled."""
        return self.unread + self.engine.pending_records

    # The run

    def begin(self, before: Mapping[int, Before]) -> None:
        """Run to the moment 0 as a process that was at work before; without anything before, as a new one."""
        for partition in self.engine.assign(sorted(self._decisions), self._partition_count, self._instant):
            self.engine.restore(partition, self._restoration(before[partition.number].sent if before else ()))
        self.engine.prove_membership(inf)
        if self._policy.decisions.visitor_metadata:
            self._let_pendo_have({number: each.made for number, each in before.items()})
        self.run(0.0)
        self.counted = Counted()
        self._to_come = [(each.next_at, number) for number, each in self._decisions.items()]
        heapq.heapify(self._to_come)
        self._read_soon()

    def run(self, until: float) -> None:
        """Continue to a moment."""
        while self._agenda and max(self._agenda[0][0], self._free_at) <= until:
            self._turn()
        self.now = max(self.now, until)

    def _restoration(self, sent: Iterable[DecisionEvent]) -> Restoration:
        """The ledger's content about decisions that were sent before."""
        restoration = Restoration(0, self._policy.dedupe)
        restoration.take_claims(
            0,
            [
                (
                    0,
                    Kind.TRACK,
                    Outcome.DELIVERED,
                    decision_key(event.visitor_id, event.flag_key, variation_as_sent(event)),
                    event.occurred_at,
                )
                for event in sent
            ],
        )
        restoration.finish(1)
        return restoration

    def _let_pendo_have(self, made: Mapping[int, Sequence[DecisionEvent]]) -> None:
        """Send the metadata of earlier decisions: it is in no ledger."""
        for number, events in made.items():
            for first in range(0, len(events), BATCH_MESSAGES):
                part = [self._metadata_of(event) for event in events[first : first + BATCH_MESSAGES]]
                self._at(self.now, partial(self._receive, [(number, event) for event in part]))

    def _metadata_of(self, event: DecisionEvent) -> VisitorMetadata:
        ahead_seconds = self._policy.delivery.max_future_seconds
        return VisitorMetadata(
            event_id=event.event_id,
            # Events further ahead would be refused.
            occurred_at=min(event.occurred_at, self._instant.wall_ms + int(ahead_seconds * 1000)),
            visitor_id=event.visitor_id,
            values=decision_metadata(event, self._policy.decisions),
        )

    # A turn of the event loop

    def _turn(self) -> None:
        self.now = max(self._agenda[0][0], self._free_at)
        self._spent = 0.0
        self._wanted = False
        self._spend(self._costs.turn_us)
        self.counted.turns += 1
        while self._agenda and self._agenda[0][0] <= self.now:
            heapq.heappop(self._agenda)[2]()
        if self._wanted:
            self._act()
        self.counted.cpu_seconds += self._spent
        self.counted.most_pending = max(self.counted.most_pending, self.engine.pending_records)
        self._free_at = self._clock

    def _act(self) -> None:
        """Do everything that the engine returns."""
        actions = self.engine.poll(self._instant)
        for attempt in actions.attempts:
            self._send(attempt)
        self._settle(actions.settlements)
        resumed = self._paused and not actions.intake_paused
        self._paused = actions.intake_paused
        if resumed:
            self._read_soon()
        if actions.wake_at is not None:
            self._act_at(actions.wake_at)

    def _act_at(self, moment: float) -> None:
        """Act at a moment, with one timer, like the service; it may fire early, for nothing."""
        if moment < self._timer_at:
            self._timer_at = moment
            self._at(max(moment, self._clock) + TIMER_SLACK_SECONDS, partial(self._timer_ended, moment))

    def _timer_ended(self, moment: float) -> None:
        if moment == self._timer_at:
            self._timer_at = inf
            self._wanted = True

    def _at(self, moment: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._agenda, (moment, self._number, what))

    def _spend(self, microseconds: float) -> None:
        """Use CPU; what happens before the moment 0 costs nothing."""
        if self.now >= 0:
            self._spent += microseconds / 1e6

    def _exchange(self) -> None:
        self.counted.exchanges += 1
        self._spend(self._costs.exchange_us)

    @property
    def _clock(self) -> float:
        """The time that the event loop has reached."""
        return self.now + self._spent * self._costs.loop_share

    @property
    def _instant(self) -> Instant:
        return Instant(self._clock, START_MS + int(self._clock * 1000))

    # The log

    def _read_soon(self) -> None:
        """Read as soon as there is something."""
        if self._to_come and not self._paused:
            moment = max(self._to_come[0][0] + FETCH_SECONDS, self._clock)
            if moment < self._read_at:
                self._read_at = moment
                self._at(moment, self._read)

    def _read(self) -> None:
        self._read_at = inf
        if self._paused:
            return
        batch: list[tuple[int, Event]] = []
        while self._to_come[0][0] <= self.now and len(batch) < BATCH_MESSAGES:
            number = self._to_come[0][1]
            decisions = self._decisions[number]
            batch.append((number, decisions.take()))
            heapq.heapreplace(self._to_come, (decisions.next_at, number))
        self._receive(batch)
        self._read_soon()

    def _receive(self, batch: Iterable[tuple[int, Event]]) -> None:
        records = [self._record(number, event) for number, event in batch]
        self._exchange()
        self._spend(self._costs.record_us * len(records))
        self.counted.records += len(records)
        self.engine.receive(records, self._instant)
        self._wanted = True

    def _record(self, number: int, event: Event) -> Record:
        if isinstance(event, DecisionEvent):
            # One value stands for all: only its size matters.
            self._value = self._value or encode_single_object(event)
        offset = self._offsets[number]
        self._offsets[number] += 1
        key = partition_key(event)
        return Record(number, offset, event.occurred_at, key, self._value, (), event, fresh=True)

    # Pendo

    def _send(self, attempt: Attempt) -> None:
        self.counted.requests[attempt.endpoint] += 1
        self._spend_on(attempt)
        seconds = self._pendo.answers_after(self._random) if self.now >= 0 else 0.0
        self._at(self._clock + seconds, partial(self._answer, attempt))

    def _answer(self, attempt: Attempt) -> None:
        self._spend_on(attempt)
        self.engine.answered(attempt, OK, self._instant)
        for following in self.engine.start(self._instant):
            self._send(following)
        self._act_at(self._clock)

    def _spend_on(self, attempt: Attempt) -> None:
        """A track request costs half at its start and half at its answer; metadata costs by the value."""
        if attempt.endpoint is EndpointName.TRACK:
            self._spend(self._costs.request_us / 2)

    # The ledger

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        """Write settlements soon, like the ledger's writer."""
        for settlement in settlements:
            self._count(settlement)
            unwritten = self._unwritten.setdefault(settlement.delivery.partition, [])
            unwritten.append(settlement)
            self._unwritten_answers += settlement.delivery.attempts > 0
            if self._unwritten_answers >= self._write_at or len(unwritten) >= MAX_BATCH_SETTLEMENTS:
                self._flush()
        if self._unwritten and self._flush_at == inf:
            self._flush_at = self._clock + LINGER_SECONDS
            self._at(self._flush_at, self._flush_in_time)

    def _count(self, settlement: Settlement) -> None:
        delivery, outcome = settlement.delivery, settlement.ending.outcome
        self.counted.settled[delivery.kind, outcome] += 1
        self.counted.first_settled_at = min(self.counted.first_settled_at, self._clock)
        self.counted.last_settled_at = self._clock
        is_delivered = outcome is Outcome.DELIVERED
        if delivery.kind in METADATA_KINDS:
            self._spend(self._costs.metadata_sent_us if is_delivered else self._costs.metadata_unsent_us)
        elif is_delivered and delivery.record.occurred_at is not None:
            self.counted.ages.append((settlement.settled_at_ms - delivery.record.occurred_at) / 1000)

    def _flush_in_time(self) -> None:
        if self._flush_at <= self.now:
            self._flush()

    def _flush(self) -> None:
        self._flush_at = inf
        written, self._unwritten, self._unwritten_answers = self._unwritten, {}, 0
        if written:
            self._exchange()
            self._at(self._clock + ACKNOWLEDGE_SECONDS, partial(self._acknowledge, written))

    def _acknowledge(self, written: dict[Partition, list[Settlement]]) -> None:
        for partition, settlements in written.items():
            self.engine.acknowledged(settlements, self._ledger_offsets[partition.number])
            self._ledger_offsets[partition.number] += 1
        self._wanted = True

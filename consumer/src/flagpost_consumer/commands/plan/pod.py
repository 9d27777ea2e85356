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

from flagpost_consumer.adapters.kafka.decoding import PART_RECORDS
from flagpost_consumer.adapters.kafka.handed_over import BATCH_MESSAGES
from flagpost_consumer.adapters.ledger.writer import LINGER_SECONDS, MAX_BATCH_SETTLEMENTS
from flagpost_consumer.commands.plan.costs import Costs, Work
from flagpost_consumer.commands.plan.traffic import Before, Decisions
from flagpost_consumer.core.books.deliveries import Duplicates, Partition, Settlement, each_settled
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
from flagpost_consumer.core.records import Record, Undecoded
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

    work: dict[Work, float] = field(default_factory=lambda: dict.fromkeys(Work, 0.0))
    """How many units of each; a request that has no answer yet is half a unit."""
    records: int = 0
    settled: Counter[tuple[Kind, Outcome]] = field(default_factory=Counter)
    """Deliveries that ended."""
    requests: Counter[EndpointName] = field(default_factory=Counter)
    cpu_seconds: float = 0.0
    """Of all threads, without an idle process's share."""
    ages: list[float] = field(default_factory=list)
    """Seconds from each delivered decision to Pendo's answer, in the order of the answers."""
    most_pending: int = 0
    last_settled_at: float = 0.0

    @property
    def settlements(self) -> int:
        """Deliveries that ended, in all."""
        return self.settled.total()


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
        *,
        decodes_all: bool = False,
    ) -> None:
        """`partition_count`: the number of all partitions, of which this process has some. `decodes_all`: duplicates
        are decoded too (with `metrics.flags`).
        """
        self._policy = policy
        self._costs = costs
        self._pendo = pendo
        self._random = random
        self._decisions = {each.partition: each for each in decisions}
        self._partition_count = partition_count
        self._decodes_all = decodes_all
        self._decoded = 0
        """How many of the present records were decoded; the others were recognised as duplicates."""
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
        self._unwritten: dict[Partition, list[Settlement | Duplicates]] = {}
        self._unwritten_answers = 0
        self._flush_at = inf
        self._offsets: Counter[int] = Counter()
        self._ledger_offsets: Counter[int] = Counter()

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

    def run_until_settled(self, count: int) -> None:
        """Continue until so many deliveries have ended since the moment 0, or nothing happens any more."""
        while self._agenda and self.counted.settlements < count:
            self._turn()

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
        self._work(Work.TURN)
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
        self._settle_duplicates(actions.duplicates)
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

    def _work(self, work: Work, units: float = 1) -> None:
        """Use CPU; what happens before the moment 0 costs nothing."""
        if self.now >= 0:
            self._spent += units * self._costs.of(work) / 1e6
            self.counted.work[work] += units

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

    def _receive(self, batch: Sequence[tuple[int, Event]]) -> None:
        self._work(Work.EXCHANGE)
        for first in range(0, len(batch), PART_RECORDS):
            self._receive_part(batch[first : first + PART_RECORDS])
        self._wanted = True

    def _receive_part(self, part: Sequence[tuple[int, Event]]) -> None:
        """Let the engine take records in; like the service, undecoded ones if it looks for duplicates."""
        records = [self._record(number, event) for number, event in part]
        if not self._decodes_all and self.engine.looks_for_duplicates():
            self._decoded = 0
            self.engine.receive([self._undecoded(each) for each in records], self._instant)
        else:
            self._decoded = len(records)
            self.engine.receive(records, self._instant)
        self.counted.records += len(records)
        self._work(Work.RECORD, self._decoded)
        self._work(Work.DUPLICATE, len(records) - self._decoded)

    def _record(self, number: int, event: Event) -> Record:
        offset = self._offsets[number]
        self._offsets[number] += 1
        value, key = encode_single_object(event), partition_key(event)
        return Record(number, offset, event.occurred_at, key, value, (), event, fresh=True)

    def _undecoded(self, record: Record) -> Record | Undecoded:
        if not isinstance(record.event, DecisionEvent) or record.value is None:
            return self.decode(record)
        return Undecoded(record.partition, record.offset, record.key, record.value, record, self)

    # As the reader of its undecoded records

    def decode(self, message: Record) -> Record:
        """Decode a record; it is only counted, because it is decoded already."""
        self._decoded += 1
        return message

    def timestamp_ms(self, message: Record) -> int:
        """When a record was produced, epoch ms."""
        return message.timestamp_ms

    def is_fresh(self, message: Record) -> bool:
        """Whether it was read as it was written."""
        return message.fresh

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
            self._work(Work.REQUEST, 0.5)

    # The ledger

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        """Write settlements soon, like the ledger's writer."""
        for settlement in settlements:
            delivery = settlement.delivery
            self._count(delivery.kind, settlement.ending.outcome)
            if settlement.ending.outcome is Outcome.DELIVERED and delivery.kind is Kind.TRACK:
                assert delivery.record.occurred_at is not None  # noqa: S101 - of an event
                self.counted.ages.append((settlement.settled_at_ms - delivery.record.occurred_at) / 1000)
            self._unwritten_answers += delivery.attempts > 0
            self._write_soon(settlement, delivery.partition)

    def _settle_duplicates(self, together: Sequence[Duplicates]) -> None:
        """The same for duplicates for which no deliveries were made."""
        for duplicates in together:
            for each in each_settled(duplicates):
                self._count(each.kind, each.ending.outcome)
            self._write_soon(duplicates, duplicates.partition)

    def _write_soon(self, ended: Settlement | Duplicates, partition: Partition) -> None:
        unwritten = self._unwritten.setdefault(partition, [])
        unwritten.append(ended)
        if self._unwritten_answers >= self._write_at or len(unwritten) >= MAX_BATCH_SETTLEMENTS:
            self._flush()
        elif self._flush_at == inf:
            self._flush_at = self._clock + LINGER_SECONDS
            self._at(self._flush_at, self._flush_in_time)

    def _count(self, kind: Kind, outcome: Outcome) -> None:
        self.counted.settled[kind, outcome] += 1
        self.counted.last_settled_at = self._clock
        if kind in METADATA_KINDS:
            self._work(Work.METADATA_SENT if outcome is Outcome.DELIVERED else Work.METADATA_UNSENT)

    def _flush_in_time(self) -> None:
        if self._flush_at <= self.now:
            self._flush()

    def _flush(self) -> None:
        self._flush_at = inf
        written, self._unwritten, self._unwritten_answers = self._unwritten, {}, 0
        if written:
            self._work(Work.EXCHANGE)
            self._at(self._clock + ACKNOWLEDGE_SECONDS, partial(self._acknowledge, written))

    def _acknowledge(self, written: dict[Partition, list[Settlement | Duplicates]]) -> None:
        for partition, ended in written.items():
            self.engine.acknowledged(ended, self._ledger_offsets[partition.number])
            self._ledger_offsets[partition.number] += 1
        self._wanted = True

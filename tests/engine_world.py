"""A world in virtual time: a partitioned log, members of a group, and a Pendo that answers as the test says.

The real engine runs in it; only Kafka, HTTP and the clock are simulated. One seeded random source decides what
happens, so a failing run can be repeated.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from math import inf
from random import Random

import orjson

from flagpost_consumer.core.books.deliveries import Partition, Settlement
from flagpost_consumer.core.books.restoration import Restoration, Settled
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_consumer.core.planning.suppressions import Suppression, Suppressions
from flagpost_consumer.core.policy import Policy
from flagpost_consumer.core.records import DecodeFailure, Record
from flagpost_consumer.core.tracks.track_sending import TrackAttempt
from flagpost_consumer.service.kafka_calls import SETTLED_SECONDS
from flagpost_schemas import DecisionEvent, Event

START_MS = 1_800_000_000_000
ANSWERS_SECONDS = 0.001
"""How long after an answer the service calls its engine for work that starts no request."""
KINDS = tuple(Kind)
OK = Answer(200)
TIMED_OUT = Answer(failure=Failure.TIMEOUT)
BROKEN = Answer(failure=Failure.BROKEN)
REFUSED_CONNECTION = Answer(failure=Failure.UNREACHABLE)


def decision(
    visitor: str, flag: str = "checkout", variation: str | None = "a", **fields: object
) -> DecisionEvent:
    """A decision as the publisher would make it, at the start of virtual time; `fields` replace its own."""
    values: dict[str, object] = {
        "event_id": f"e-{visitor}-{flag}-{variation}-{fields.get('occurred_at')}",
        "occurred_at": START_MS,
        "visitor_id": visitor,
        "flag_key": flag,
        "enabled": True,
        "variation_key": variation,
        "rule_key": "rule",
        "decision_event_dispatched": True,
        "attributes": {},
    }
    return DecisionEvent(**{**values, **fields})  # type: ignore[arg-type]


def record(
    event: Event | DecodeFailure,
    offset: int = 0,
    partition: int = 0,
    key: str | None = None,
    value_bytes: int = 8,
) -> Record:
    """An event as a record of the log."""
    if key is None:
        key = getattr(event, "visitor_id", None) or getattr(event, "account_id", None) or ""
    occurred_at = getattr(event, "occurred_at", START_MS)
    return Record(
        partition, offset, occurred_at, key.encode(), b"original"[:value_bytes].ljust(value_bytes), (), event
    )


def ready(engine: Engine, numbers: Iterable[int], count: int, now: Instant, policy: Policy) -> None:
    """Assign partitions that had no owner before, restored and with a membership that does not end."""
    for partition in engine.assign(numbers, count, now):
        engine.restore(partition, Restoration(0, policy.dedupe))
    engine.prove_membership(inf)


def acknowledge(engine: Engine, settlements: Iterable[Settlement], ledger_offset: int = 0) -> None:
    """Acknowledge settlements, each partition's in a ledger record of its own."""
    for group in by_partition(settlements):
        engine.acknowledged(group, ledger_offset)


def positions(engine: Engine) -> dict[int, int]:
    """The offsets that may be committed."""
    return {number: position.offset for number, position in engine.committable().items()}


def by_partition(settlements: Iterable[Settlement]) -> list[list[Settlement]]:
    groups: dict[Partition, list[Settlement]] = defaultdict(list)
    for settlement in settlements:
        groups[settlement.delivery.partition].append(settlement)
    return list(groups.values())


def in_the_ledger(settlement: Settlement) -> Settled:
    """A settlement as it is read from the ledger."""
    delivery = settlement.delivery
    return (
        delivery.record.offset,
        delivery.kind,
        settlement.ending.outcome,
        delivery.planned.dedupe_key,
        delivery.record.occurred_at,
    )


@dataclass(frozen=True)
class Sight:
    """One request as Pendo saw it, and its answer."""

    endpoint: EndpointName
    arrived_at: float
    answered_at: float
    ids: tuple[str, ...]
    offset: int | None
    """The source offset, for a track request."""
    partition: int | None
    body: bytes
    answer: Answer
    member: int

    @property
    def parsed(self) -> object:
        return orjson.loads(self.body)


Answering = Callable[["World", Attempt], tuple[Answer, float, float]]
"""Returns an answer, the seconds until the request arrives, and the seconds from then until it is answered."""


def at_once(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
    """Pendo accepts everything within a few milliseconds."""
    del attempt
    return OK, world.random.uniform(0, 0.002), world.random.uniform(0, 0.01)


@dataclass
class Member:
    """One consumer: an engine, and what the service and the adapters would do for it."""

    number: int
    engine: Engine
    assigned: set[int] = field(default_factory=set)
    restored: set[int] = field(default_factory=set)
    positions: dict[int, int] = field(default_factory=dict)
    wake_number: int = 0
    paused: bool = False
    still: frozenset[int] = frozenset()
    """Partitions that the engine wants no records of."""
    alive: bool = True
    frozen_until: float = 0.0
    """Its event loop does nothing before this time."""
    cut_off: bool = False
    """It cannot reach Kafka: none of its commits and settlements arrives."""
    proven_at: float = 0.0
    """When the group last heard from it."""


def check_balance(engine: Engine) -> None:
    """Check that an engine's books balance, for each kind."""
    for kind in KINDS:
        assert engine.accounts.difference(kind) == 0


class World:
    """Runs members against a log and a Pendo until nothing is left to do."""

    def __init__(
        self,
        policy: Policy,
        random: Random,
        *,
        partitions: int = 1,
        answering: Answering = at_once,
        batch: int = 50,
        acknowledge_seconds: float = 0.05,
        restore_seconds: float = 0.5,
        session_seconds: float = inf,
    ) -> None:
        self.policy = policy
        self.random = random
        self.partitions = partitions
        self.answering = answering
        self.batch = batch
        self.acknowledge_seconds = acknowledge_seconds
        self.restore_seconds = restore_seconds
        self.session_seconds = session_seconds
        """How long the group keeps a member that it does not hear from."""
        self.now = 0.0
        self.value_bytes: Callable[[Event | DecodeFailure], int] = lambda _: 8
        """How large the value of an event's record is."""
        self.wall_step_ms = 0
        """How far the wall clock was set forward (or back, below 0)."""
        self.log: dict[int, list[Record]] = {number: [] for number in range(partitions)}
        self.committed: dict[int, int] = dict.fromkeys(range(partitions), 0)
        self.ledger: dict[int, list[list[Settled]]] = {number: [] for number in range(partitions)}
        self.needed_from: dict[int, int] = dict.fromkeys(range(partitions), 0)
        """By partition: the ledger offset that is stored with the commit."""
        self.settled: dict[tuple[int, int, Kind], list[Settlement]] = defaultdict(list)
        """(partition, offset, kind) to its acknowledged settlements."""
        self.sights: list[Sight] = []
        self.members: list[Member] = []
        self.most_pending = 0
        self._books_checked: dict[int, tuple[int, ...]] = {}
        """For each member, the totals of its books when their balance was checked last."""
        self.suppressions = Suppressions()
        self.suppressed_at: dict[str, list[tuple[float, bool]]] = defaultdict(list)
        """For each visitor: when its suppression began (True) or ended (False)."""
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._number = 0

    # Set-up

    def publish(self, event: Event | DecodeFailure, key: str | None = None) -> Record:
        """Append an event to the partition that Kafka's partitioner chooses."""
        made = record(event, key=key, value_bytes=self.value_bytes(event))
        number = partition_of(made.key or b"", self.partitions)
        made = made._replace(partition=number, offset=len(self.log[number]))
        self.log[number].append(made)
        for member in self.members:
            if number in member.assigned:
                self.at(self.now, partial(self._read, member))
        return made

    def publish_at(self, moment: float, event: Event) -> None:
        """Append an event at a time."""
        self.at(moment, partial(self.publish, event))

    def join(self, partitions: set[int] | None = None) -> Member:
        """Start a member with the given partitions, or with all."""
        member = Member(len(self.members), Engine(self.policy, self.random.random))
        self.members.append(member)
        member.engine.know_suppressions(self.suppressions)
        self.assign(member, set(self.log) if partitions is None else partitions)
        return member

    def suppress(self, visitor_id: str, *, is_suppressed: bool = True) -> None:
        """Suppress a visitor, or end that; every member learns of it at once."""
        said = [Suppression(visitor_id, is_suppressed)]
        self.suppressed_at[visitor_id].append((self.now, is_suppressed))
        self.suppressions.take(said)
        for member in self.members:
            member.engine.suppress(said)
            self._act(member)

    def assign(self, member: Member, partitions: set[int]) -> None:
        """Assign partitions to a member, from their committed offsets on, once it has read the ledger."""
        member.assigned |= partitions
        member.restored -= partitions
        self.prove(member)
        for partition in member.engine.assign(sorted(partitions), self.partitions, self.instant):
            delay = self.random.uniform(0, self.restore_seconds)
            self.at(self.now + delay, partial(self._restore, member, partition))

    def prove(self, member: Member) -> None:
        """A commit of a member is acknowledged: the group keeps it for one more session."""
        member.proven_at = self.now
        member.engine.prove_membership(self.now + self.session_seconds)

    def _restore(self, member: Member, partition: Partition) -> None:
        if not member.alive or not member.engine.is_current(partition):
            return
        if self.is_frozen(member):
            self.at(member.frozen_until, partial(self._restore, member, partition))
            return
        number = partition.number
        restoration = Restoration(self.committed[number], self.policy.dedupe)
        for offset in range(self.needed_from[number], len(self.ledger[number])):
            restoration.take(offset, self.ledger[number][offset])
        restoration.finish(len(self.ledger[number]))
        member.engine.restore(partition, restoration)
        member.positions[number] = self.committed[number]
        member.restored.add(number)
        self._read(member)

    def is_frozen(self, member: Member) -> bool:
        """Whether a member's event loop does nothing at present."""
        return self.now < member.frozen_until

    def at(self, moment: float, what: Callable[[], object]) -> None:
        """Call `what` at a time."""
        self._number += 1
        heapq.heappush(self._agenda, (moment, self._number, what))

    @property
    def instant(self) -> Instant:
        """The time on both clocks."""
        return Instant(self.now, START_MS + int(self.now * 1000) + self.wall_step_ms)

    # Events of the world

    def crash(self, member: Member) -> set[int]:
        """Kill a member, as kill -9 does: what it held is lost; returns the partitions that it had."""
        member.alive = False
        member.restored.clear()
        partitions, member.assigned = member.assigned, set()
        return partitions

    def hand_over(self, member: Member, moved: set[int]) -> None:
        """Move partitions of a member to a new one, which gets them once they are free."""
        newcomer = self.join(set())
        self.revoke(member, moved, lambda: self.assign(newcomer, moved))

    def revoke(self, member: Member, partitions: set[int], then: Callable[[], None]) -> None:
        """Revoke a member's partitions as a cooperative rebalance does; `then` is called once they are free."""
        member.engine.revoke(sorted(partitions), self.instant)
        member.assigned -= partitions
        self._act(member)
        deadline = self.now + self.policy.limits.request_timeout_seconds + SETTLED_SECONDS

        def wait() -> None:
            if not member.alive:
                then()
            elif self.is_frozen(member):
                self.at(member.frozen_until, wait)
            elif member.engine.is_quiet(partitions) or self.now >= deadline:
                self.commit(member, partitions)
                member.engine.forget(partitions, self.instant)
                self._act(member)
                then()
            else:
                self.at(self.now + 0.01, wait)

        wait()

    def commit(self, member: Member, partitions: set[int] | None = None) -> None:
        """Commit the offsets that a member's engine allows; checks that everything below them is settled."""
        if member.cut_off:
            return
        # Kafka refuses a commit of partitions that belong to another member by now.
        numbers = member.assigned if partitions is None else partitions
        for number, (position, ledger_offset, _) in member.engine.committable(numbers).items():
            for offset in range(self.committed[number], position):
                self.check_settled(number, offset)
            assert position >= self.committed[number] or not member.alive
            self.committed[number] = max(self.committed[number], position)
            self.needed_from[number] = ledger_offset or 0

    def check_settled(self, partition: int, offset: int) -> None:
        """Check that every delivery of the records below a committed offset is in the ledger."""
        is_settled = any(self.settled.get((partition, offset, kind)) for kind in Kind)
        assert is_settled, f"offset {offset} of partition {partition} is committed and not settled"

    # Running

    def run(self, until: float = 1e9) -> None:
        """Run until nothing is left to do, or until a time."""
        for member in self.members:
            self._act(member)
        while self._agenda and self._agenda[0][0] <= until:
            moment, _, what = heapq.heappop(self._agenda)
            self.now = max(self.now, moment)
            what()
            self._check_books_that_moved()
        self.check_books()
        if until < 1e9:
            self.now = until

    def check_books(self) -> None:
        """Check that the books of every member balance."""
        for member in self.members:
            check_balance(member.engine)

    def _check_books_that_moved(self) -> None:
        """Check the members whose totals have changed: most events of the world change no books, or one member's."""
        for member in self.members:
            if not member.alive:
                continue  # nothing calls its engine any more
            accounts = member.engine.accounts
            books = accounts.planned, accounts.pending, accounts.returned, accounts.settled
            totals = tuple([sum(each.values()) for each in books])
            if totals != self._books_checked.get(member.number):
                self._books_checked[member.number] = totals
                check_balance(member.engine)
            if (pending := member.engine.pending_records) > self.most_pending:
                self.most_pending = pending

    def _read(self, member: Member) -> None:
        if not member.alive or member.paused or member.cut_off:
            return
        if self.is_frozen(member):
            self.at(member.frozen_until, lambda: self._read(member))
            return
        for number in sorted(member.assigned & member.restored - member.still):
            position = member.positions[number]
            records = self.log[number][position : position + self.batch]
            if records:
                member.positions[number] += len(records)
                member.engine.receive(records, self.instant)
                self._act(member)
                self.at(self.now, lambda: self._read(member))
                return

    def _act(self, member: Member) -> None:
        """Do what the engine requests."""
        if not member.alive:
            return
        if self.is_frozen(member):
            self.at(member.frozen_until, lambda: self._act(member))
            return
        actions = member.engine.poll(self.instant)
        for attempt in actions.attempts:
            self._send(member, attempt)
        if actions.settlements:
            self.write(member, actions.settlements)
        resumed = (member.paused and not actions.intake_paused) or bool(
            member.still - actions.partitions_paused
        )
        member.paused, member.still = actions.intake_paused, actions.partitions_paused
        if resumed:
            self.at(self.now, lambda: self._read(member))
        member.wake_number += 1
        if actions.wake_at is not None:
            assert actions.wake_at > self.now or actions.attempts, "the engine asks to be woken without end"
            number = member.wake_number
            self.at(actions.wake_at, lambda: self._wake(member, number))

    def write(self, member: Member, settlements: list[Settlement]) -> None:
        """Write settlements; Kafka acknowledges them a moment later."""
        delay = self.random.uniform(0, self.acknowledge_seconds)
        self.at(self.now + delay, lambda: self._acknowledge(member, settlements))

    def _wake(self, member: Member, number: int) -> None:
        if number == member.wake_number:
            self._act(member)

    def _acknowledge(self, member: Member, settlements: list[Settlement]) -> None:
        if not member.alive and self.random.random() < 0.5:
            return  # killed before the write; otherwise it was killed between the write and the acknowledgement
        if member.alive and self.is_frozen(member):
            self.at(member.frozen_until, lambda: self._acknowledge(member, settlements))
            return
        for settlement in settlements:
            made = settlement.delivery.record
            self.settled[made.partition, made.offset, settlement.delivery.kind].append(settlement)
        for group in by_partition(settlements):
            number = group[0].delivery.partition.number
            self.ledger[number].append([in_the_ledger(settlement) for settlement in group])
            if member.alive:
                member.engine.acknowledged(group, len(self.ledger[number]) - 1)
        if not member.alive:
            return
        self.commit(member)
        self._act(member)

    def _send(self, member: Member, attempt: Attempt) -> None:
        answer, until_arrival, until_answer = self.answering(self, attempt)
        if answer.failure is Failure.TIMEOUT:
            until_answer = self.policy.limits.request_timeout_seconds
        arrived_at = self.now + until_arrival
        answered_at = arrived_at + until_answer
        offset = partition = None
        if isinstance(attempt, TrackAttempt):
            source = attempt.lane.queue[0].record
            offset, partition = source.offset, source.partition
        if answer.failure is not Failure.UNREACHABLE:
            self.sights.append(
                Sight(
                    attempt.endpoint, arrived_at, answered_at, _ids(attempt), offset, partition,
                    attempt.body, answer, member.number,
                )
            )  # fmt: skip
        self.at(answered_at, lambda: self._answer(member, attempt, answer))

    def _answer(self, member: Member, attempt: Attempt, answer: Answer) -> None:
        if member.alive and self.is_frozen(member):
            self.at(member.frozen_until, lambda: self._answer(member, attempt, answer))
        elif member.alive:
            member.engine.answered(attempt, answer, self.instant)
            for following in member.engine.start(self.instant):
                self._send(member, following)
            self.at(self.now + ANSWERS_SECONDS, lambda: self._act(member))

    # What must hold

    @property
    def track_sights(self) -> list[Sight]:
        return [sight for sight in self.sights if sight.endpoint is EndpointName.TRACK]

    def by_visitor(self) -> dict[str, list[Sight]]:
        """Track requests of each visitor in the order of their arrival."""
        seen: dict[str, list[Sight]] = defaultdict(list)
        for sight in sorted(self.track_sights, key=lambda sight: sight.arrived_at):
            seen[sight.ids[0]].append(sight)
        return seen

    def check_spacing(self) -> None:
        """Check that a visitor's track requests arrive at least one interval after the answer to the one before."""
        interval = self.policy.delivery.visitor_interval_seconds
        for sights in self.by_visitor().values():
            for before, after in pairwise(sights):
                earliest = before.arrived_at if before.member != after.member else before.answered_at
                assert after.arrived_at >= earliest + interval - 1e-6

    def check_order(self) -> None:
        """Check that each member sends a visitor's requests in the order of the offsets."""
        for sights in self.by_visitor().values():
            for before, after in pairwise(sights):
                if before.member == after.member and before.partition == after.partition:
                    assert (after.offset or 0) >= (before.offset or 0)

    def check_nothing_lost(self) -> None:
        """Check that every record is committed, and that each of its deliveries is settled."""
        for number, records in self.log.items():
            assert self.committed[number] == len(records)
            for made in records:
                self.check_settled(number, made.offset)

    def delivered_offsets(self) -> set[tuple[int, int]]:
        """The (partition, offset) of each track request that Pendo answered with 2xx."""
        return {
            (sight.partition or 0, sight.offset or 0)
            for sight in self.track_sights
            if sight.answer.status == 200
        }

    def reasons(self, kind: Kind = Kind.TRACK) -> dict[tuple[int, int], Reason]:
        """(partition, offset) to the reason of its first settlement."""
        return {
            (partition, offset): settlements[0].ending.reason
            for (partition, offset, of), settlements in self.settled.items()
            if of is kind
        }

    def outcomes(self, kind: Kind = Kind.TRACK) -> dict[tuple[int, int], Outcome]:
        """(partition, offset) to the outcome of its first settlement."""
        return {
            (partition, offset): settlements[0].ending.outcome
            for (partition, offset, of), settlements in self.settled.items()
            if of is kind
        }


def _ids(attempt: Attempt) -> tuple[str, ...]:
    if isinstance(attempt, TrackAttempt):
        return (attempt.lane.visitor_id,)
    assert isinstance(attempt, MetadataAttempt)
    return tuple(attempt.batch.ids)

"""Everything at once: revocations, losses, crashes, drains, new secrets, and a Pendo that answers in every way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_world import BROKEN, OK, REFUSED_CONNECTION, START_MS, TIMED_OUT, Member, World, decision
from example_counts import examples
from flagpost_consumer.core.books.deliveries import Partition
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import (
    DedupeSettings,
    DeliverySettings,
    EndpointLimits,
    MetadataSettings,
    Policy,
)
from flagpost_consumer.core.records import DecodeFailure, Record
from flagpost_consumer.core.tracks.track_sending import TrackAttempt
from flagpost_schemas import AccountMetadata, DecisionEvent, Event, VisitorMetadata

SEEDS = st.integers(min_value=0, max_value=2**32)
CALM_FROM = 60.0
"""From this moment on, Pendo accepts everything, and nothing happens to the members."""
PARTITIONS = 5

Weighted = list[tuple[Answer, float]]
TRANSIENT: Weighted = [
    (Answer(500), 3),
    (TIMED_OUT, 2),
    (BROKEN, 3),
    (REFUSED_CONNECTION, 3),
    (Answer(408), 1),
]
THROTTLED: Weighted = [(Answer(429), 3), (Answer(429, "2"), 2), (Answer(429, "0"), 1), (Answer(429, "x"), 1)]
SETUP: Weighted = [(Answer(401), 2), (Answer(404), 1), (Answer(302), 1)]
FINAL: Weighted = [(Answer(400), 2), (Answer(422, body=b"\xff\xfe"), 1)]


class Chaos(World):
    """A world in which members crash, drain, join, and lose or hand over partitions."""

    def __init__(self, seed: int, policy: Policy, bad: Weighted) -> None:
        self.draw = Random(seed)
        self.bad = bad
        self.badness = self.draw.choice((0.05, 0.3, 0.9))
        super().__init__(policy, self.draw, partitions=PARTITIONS, answering=Chaos.answer, batch=7)
        self.planned: dict[tuple[int, int], set[Kind]] = {}
        self.moving: set[int] = set()
        """Partitions that no member owns at present."""
        self.assignments: dict[int, Partition] = {}
        """The assignment of the partition of each track sight, by the sight's number; each one is another object."""

    @staticmethod
    def answer(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
        assert isinstance(world, Chaos)
        draw = world.draw
        answer = OK
        if world.now < CALM_FROM and draw.random() < world.badness:
            answers, weights = zip(*world.bad, strict=True)
            (answer,) = draw.choices(answers, weights)
        if isinstance(attempt, MetadataAttempt) and answer.status in {200, 400} and world.now < CALM_FROM:
            answer = Answer(
                answer.status, body=partial_errors(draw, attempt.batch.ids, world.bad is TRANSIENT)
            )
        return answer, draw.uniform(0, 0.01), draw.choice((0.0, 0.02, 1.5))

    def publish(self, event: Event | DecodeFailure, key: str | None = None) -> Record:
        made = super().publish(event, key)
        self.planned[made.partition, made.offset] = kinds_of(event)
        return made

    def check_settled(self, partition: int, offset: int) -> None:
        for kind in self.planned[partition, offset]:
            assert self.settled[partition, offset, kind], f"{kind} of {partition}/{offset} is not settled"

    def _send(self, member: Member, attempt: Attempt) -> None:
        if isinstance(attempt, TrackAttempt):
            self.assignments[len(self.sights)] = attempt.lane.queue[0].partition
        super()._send(member, attempt)

    # Troubles

    def any_member(self) -> Member:
        living = [member for member in self.members if member.alive]
        return self.draw.choice(living) if living else self.join(set())

    def give(self, partitions: set[int]) -> None:
        """Assign partitions that no member owns."""
        self.moving -= partitions
        if partitions:
            self.assign(self.any_member(), partitions)

    def some_of(self, member: Member) -> set[int]:
        return {number for number in member.assigned if self.draw.random() < 0.6}

    def do_revoke(self) -> None:
        member = self.any_member()
        partitions = self.some_of(member)
        self.moving |= partitions
        self.revoke(member, partitions, lambda: self.give(partitions))

    def do_lose(self) -> None:
        """A member's session ends: it learns of it, and a member (perhaps the same) is assigned its partitions."""
        member = self.any_member()
        partitions, member.assigned = member.assigned, set()
        self.moving |= partitions
        member.engine.forget(partitions, self.instant)
        self._act(member)
        self.at(self.now + self.draw.choice((0.01, 0.5, 6.0)), lambda: self.give(partitions))

    def do_crash(self) -> None:
        partitions = self.crash(self.any_member())
        self.moving |= partitions
        self.at(self.now + 5.0, lambda: self.give(partitions))

    def do_drain(self) -> None:
        """SIGTERM: drain for a while, commit, leave."""
        member = self.any_member()
        member.engine.drain(self.instant)
        self._act(member)
        deadline = self.now + 4.0

        def leave() -> None:
            if not member.alive:
                return
            if not member.engine.is_drained and self.now < deadline:
                self.at(self.now + 0.05, leave)
                return
            partitions, member.assigned = member.assigned, set()
            self.commit(member, partitions)
            member.engine.forget(partitions, self.instant)
            self.check_books()
            member.alive = False
            self.moving |= partitions
            self.give(partitions)

        leave()

    def do_change_secret(self) -> None:
        member = self.any_member()
        member.engine.secret_changed(self.draw.choice(list(EndpointName)), self.instant)
        self._act(member)

    def do_join(self) -> None:
        self.join(set())

    # What must hold in the end

    def check_ended(self) -> None:
        """Nothing is left anywhere: no delivery, request, lane or target, and no entry that is not counted."""
        self.check_nothing_lost()
        for member in self.members:
            if member.alive:
                check_empty(member)

    def check_order(self) -> None:
        """As long as a member has a partition, each visitor's requests come in the order of the offsets."""
        reached: dict[tuple[int, Partition, str], int] = defaultdict(int)
        for number, sight in sorted(enumerate(self.sights), key=lambda entry: entry[1].arrived_at):
            if sight.offset is not None:
                key = sight.member, self.assignments[number], sight.ids[0]
                assert sight.offset >= reached[key]
                reached[key] = sight.offset

    def check_one_request_an_id(self) -> None:
        """Within one member, no two metadata requests of an id are in flight at once."""
        busy: dict[tuple[int, str, str], float] = {}
        for sight in sorted(self.sights, key=lambda sight: sight.arrived_at):
            for entry in sight.parsed if sight.endpoint is EndpointName.METADATA else []:  # type: ignore[attr-defined]
                name = next(iter(entry))
                key = sight.member, name, entry[name]
                assert sight.arrived_at >= busy.get(key, 0.0)
                busy[key] = sight.answered_at

    def check_values(self) -> None:
        """Pendo has the newest value of each field of the visitors and accounts that have no dead letters."""
        died = {
            self.log[partition][offset].key
            for (partition, offset, _), settlements in self.settled.items()
            for settlement in settlements
            if settlement.ending.outcome is Outcome.DEAD_LETTERED
        }
        held = self.values_at_pendo()
        for (target_id, name), value in self.newest_values().items():
            if target_id.encode() not in died:
                assert held.get((target_id, name)) == value, (target_id, name)

    def values_at_pendo(self) -> dict[tuple[str, str], object]:
        held: dict[tuple[str, str], object] = {}
        for sight in sorted(self.sights, key=lambda sight: sight.arrived_at):
            if sight.endpoint is EndpointName.TRACK or not was_taken(sight.answer):
                continue
            for entry in sight.parsed:  # type: ignore[attr-defined]
                target_id = entry.get("visitorId") or entry["accountId"]
                held.update({(target_id, name): value for name, value in entry["values"].items()})
        return held

    def newest_values(self) -> dict[tuple[str, str], object]:
        newest: dict[tuple[str, str], tuple[tuple[int, int], object]] = {}
        for records in self.log.values():
            for made in records:
                for target_id, name, value in values_of(made.event):
                    age = (getattr(made.event, "occurred_at", 0), made.offset)
                    if (target_id, name) not in newest or newest[target_id, name][0] < age:
                        newest[target_id, name] = age, value
        return {key: value for key, (_, value) in newest.items()}


def was_taken(answer: Answer) -> bool:
    """Whether Pendo accepted a request that arrived; it also accepts one whose answer breaks off or times out."""
    return answer.status == 200 or answer is BROKEN or answer is TIMED_OUT


def partial_errors(draw: Random, ids: list[str], all_taken: bool) -> bytes:
    """The body of a metadata answer: sometimes nonsense, sometimes errors by record."""
    if all_taken or draw.random() < 0.7:
        return draw.choice((b"", b"nonsense", b"[]", b'{"failed":"x","errors":{},"missing":7}', b"{}"))
    bad = draw.sample(ids, draw.randint(0, len(ids)))
    errors = [
        draw.choice(
            (
                {"index": ids.index(name)},
                {"id": name},
                {"visitorId": name, "error": "no"},
                "text",
                {"index": -1},
            )
        )
        for name in bad
    ]
    missing = draw.sample(ids, draw.randint(0, 1))
    return orjson.dumps(
        {"failed": draw.choice((len(bad), 0, -3, 10**15)), "errors": errors, "missing": missing}
    )


def kinds_of(event: Event | DecodeFailure) -> set[Kind]:
    if isinstance(event, DecodeFailure):
        return {Kind.UNKNOWN}
    if isinstance(event, AccountMetadata):
        return {Kind.ACCOUNT_METADATA}
    if isinstance(event, VisitorMetadata):
        return {Kind.VISITOR_METADATA}
    if isinstance(event, DecisionEvent) and event.variation_key is not None:
        return {Kind.TRACK, Kind.VISITOR_METADATA}
    return {Kind.TRACK}


def values_of(event: Event | DecodeFailure) -> list[tuple[str, str, object]]:
    if isinstance(event, DecisionEvent) and event.variation_key is not None:
        return [(event.visitor_id, f"[Optimizely] {event.flag_key}", event.variation_key)]
    if isinstance(event, VisitorMetadata):
        return [(event.visitor_id, name, value) for name, value in event.values.items()]
    if isinstance(event, AccountMetadata):
        return [(event.account_id, name, value) for name, value in event.values.items()]
    return []


def check_empty(member: Member) -> None:
    engine = member.engine
    assert engine.pending_records == 0
    assert engine.unacknowledged == 0
    assert engine.is_quiet(range(PARTITIONS))
    assert (engine.track.in_flight, engine.metadata.in_flight) == (0, 0)
    assert sum(engine.accounts.pending.values()) == 0
    partitions = engine._partitions.values()
    assert engine.dedupe_counts.entries == sum(len(p.dedupe) for p in partitions)
    if not engine.assigned:
        return  # Without a partition there is no budget: empty lanes and targets stay until there is one.
    lanes, batches = engine._tracks.lanes, engine._metadata._batches
    assert (len(lanes), lanes.waiting, lanes._ready, lanes._delayed) == (0, 0, [], [])
    assert (batches._targets, batches._not_yet) == ({}, {})
    assert not any(batches._queues.values())
    assert len(batches._retries) == len(batches._order) == 0


def policy_of(draw: Random) -> Policy:
    return Policy(
        delivery=DeliverySettings(
            max_pending=draw.choice((10, 40, 400)),
            max_pending_per_visitor=draw.choice((0, 3)),
            visitor_interval_seconds=draw.choice((0.0, 0.1, 1.0)),
            max_attempts=draw.choice((2, 10)),
            max_age_seconds=draw.choice((30.0, 600_000.0)),
        ),
        dedupe=DedupeSettings(
            ttl_seconds=draw.choice((0.0, 20.0, 1800.0)), max_entries=draw.choice((20, 10_000))
        ),
        metadata=MetadataSettings(
            batch_size=draw.choice((1, 3, 1000)), linger_seconds=draw.choice((0.0, 0.5, 2.0))
        ),
        limits=EndpointLimits(
            max_connections=draw.choice((1, 2, 8)),
            request_timeout_seconds=3.0,
            metadata_timeout_seconds=5.0,
            track_requests_per_minute=draw.choice((None, 3000.0)),
            metadata_requests_per_minute=draw.choice((None, 600.0)),
        ),
    )


def publish_everything(world: Chaos, events: int, *, ordered: bool) -> None:
    draw = world.draw
    for number in range(events):
        moment = draw.uniform(0, CALM_FROM)
        late = 0 if ordered else draw.choice((0, 0, draw.randrange(30_000)))
        who = "hot" if draw.random() < 0.3 else f"v{draw.randrange(8)}"
        world.publish_at(moment, event_of(draw, number, who, START_MS + int(moment * 1000) - late))


def event_of(draw: Random, number: int, who: str, at: int) -> Event:
    common: dict[str, object] = {"event_id": f"e{number}", "occurred_at": at}
    if draw.random() < 0.25:
        values = {
            name: draw.choice(("x", 1, None, ["l"]))
            for name in draw.sample(("p", "q", "r"), draw.randint(1, 3))
        }
        if draw.random() < 0.5:
            return AccountMetadata(account_id="acc" + who, values=values, **common)  # type: ignore[arg-type]
        return VisitorMetadata(visitor_id=who, values=values, **common)  # type: ignore[arg-type]
    return decision(who, draw.choice(("one", "two")), draw.choice(("a", "b", None)), **common)


def chaotic_world(seed: int, bad: Weighted, *, ordered: bool = False) -> Chaos:
    world = Chaos(seed, policy_of(Random(seed ^ 0x5EED)), bad)
    draw = world.draw
    world.join({0, 1, 2})
    world.join({3, 4})
    harms: list[Callable[[], None]] = [
        world.do_revoke, world.do_lose, world.do_crash, world.do_drain, world.do_change_secret, world.do_join,
    ]  # fmt: skip
    for _ in range(draw.randrange(12)):
        world.at(draw.uniform(0, CALM_FROM), draw.choice(harms))
    publish_everything(world, 120, ordered=ordered)
    for moment in (5.0, 30.0):
        world.at(moment, lambda: world.publish(DecodeFailure(Reason.UNDECODABLE, "cut short"), key="damaged"))
    world.run()
    return world


@pytest.mark.parametrize("bad", [TRANSIENT, TRANSIENT + THROTTLED, TRANSIENT + THROTTLED + SETUP + FINAL])
@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(22))
def test_nothing_is_lost_or_left_over_whatever_happens(bad: Weighted, seed: int) -> None:
    world = chaotic_world(seed, bad)
    world.check_ended()
    world.check_spacing()
    world.check_order()
    world.check_one_request_an_id()


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(34))
def test_pendo_ends_with_the_newest_values_whatever_happens(seed: int) -> None:
    world = chaotic_world(seed, TRANSIENT, ordered=True)
    world.check_ended()
    world.check_values()

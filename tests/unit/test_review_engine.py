"""The engine in rare combinations: late answers, second assignments, outages that leave nothing to probe with."""

from __future__ import annotations

import gc
from collections.abc import Callable
from random import Random
from typing import Any

import orjson
import pytest

from engine_world import (
    BROKEN,
    OK,
    START_MS,
    TIMED_OUT,
    Answering,
    World,
    acknowledge,
    decision,
    positions,
    ready,
    record,
)
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.metadata.answers import read_errors
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer, retry_after_seconds
from flagpost_consumer.core.planning import pendo_rules
from flagpost_consumer.core.policy import (
    DecisionsSettings,
    DedupeSettings,
    DeliverySettings,
    EndpointLimits,
    MetadataSettings,
    Policy,
)
from flagpost_consumer.core.records import DecodeFailure
from flagpost_consumer.core.tracks.track_sending import TrackAttempt
from flagpost_schemas import MetadataValue, VisitorMetadata

TRACKS_ONLY = Policy(decisions=DecisionsSettings(visitor_metadata=False))
NO_LINGER = Policy(metadata=MetadataSettings(linger_seconds=0.0))


def instant(seconds: float) -> Instant:
    return Instant(seconds, START_MS + int(seconds * 1000))


def metadata(visitor: str, at: int = 0, **values: MetadataValue) -> VisitorMetadata:
    return VisitorMetadata(
        event_id=f"{visitor}-{at}", occurred_at=START_MS + at, visitor_id=visitor, values=values
    )


def engine_with(policy: Policy, *partitions: int) -> Engine:
    engine = Engine(policy, Random(1).random)
    ready(engine, partitions or [0], 8, instant(0.0), policy)
    return engine


def attempts_at(engine: Engine, seconds: float) -> list[Attempt]:
    """Return the attempts that start at a moment; Kafka acknowledges settlements at once."""
    attempts = []
    for _ in range(2):
        actions = engine.poll(instant(seconds))
        acknowledge(engine, actions.settlements)
        attempts += actions.attempts
    return attempts


def sent_values(attempt: Attempt) -> dict[str, dict[str, object]]:
    return {entry["visitorId"]: entry["values"] for entry in orjson.loads(attempt.body)}


def take_all(engine: Engine, seconds: float) -> dict[int, Reason]:
    """Let Pendo accept everything from a moment on; returns each offset's reason."""
    reasons = {}
    for _ in range(100):
        actions = engine.poll(instant(seconds))
        reasons.update({s.delivery.record.offset: s.ending.reason for s in actions.settlements})
        acknowledge(engine, actions.settlements)
        for attempt in actions.attempts:
            engine.answered(attempt, OK, instant(seconds))
        seconds += 1.0
    assert engine.pending_records == 0
    return reasons


def answering(script: Callable[[World, Attempt], Answer]) -> Answering:
    return lambda world, attempt: (script(world, attempt), 0.0, 0.01)


# An endpoint that is down, and nothing left to probe it with


def test_intake_goes_on_when_nothing_is_left_to_probe_with_after_all_expired() -> None:
    policy = TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_age_seconds=60.0)})
    world = World(policy, Random(1), answering=answering(lambda w, _: Answer(503) if w.now < 300 else OK))
    world.join()
    for number in range(5):
        world.publish(decision(f"v{number}"))
    world.publish_at(400.0, decision("later", occurred_at=START_MS + 400_000))
    world.run(until=2_000.0)
    assert world.reasons()[0, 5] is Reason.OK


@pytest.mark.parametrize("lost", [True, False])
def test_intake_goes_on_when_nothing_is_left_to_probe_with_after_a_rebalance(lost: bool) -> None:
    world = World(
        TRACKS_ONLY,
        Random(1),
        partitions=2,
        answering=answering(lambda w, _: Answer(503) if w.now < 300 else OK),
    )
    member = world.join()
    for number in range(8):
        world.publish(decision(f"v{number}"))
    world.run(until=60.0)
    assert member.engine.track.state is EndpointState.UNREACHABLE
    if lost:
        member.engine.forget([0, 1], world.instant)
        world.assign(member, {0, 1})
    else:
        world.revoke(member, {0, 1}, lambda: world.assign(member, {0, 1}))
    world.run(until=2_000.0)
    world.check_nothing_lost()


# A partition that comes back while a request is in flight


@pytest.mark.parametrize("answer", [TIMED_OUT, BROKEN, Answer(503)])
def test_a_value_read_again_while_its_abandoned_request_fails_is_sent(answer: Answer) -> None:
    engine = engine_with(NO_LINGER)
    made = record(metadata("v", plan="pro"))
    engine.receive([made], instant(0.0))
    (abandoned,) = attempts_at(engine, 2.0)
    engine.forget([0], instant(3.0))
    ready(engine, [0], 8, instant(3.0), Policy())
    engine.receive([made], instant(3.0))
    assert attempts_at(engine, 10.0) == [], "the id has a request in flight"
    engine.answered(abandoned, answer, instant(20.0))
    attempts = attempts_at(engine, 200.0)
    assert [sent_values(attempt) for attempt in attempts] == [{"v": {"plan": "pro"}}]
    engine.answered(attempts[0], OK, instant(201.0))
    acknowledge(engine, engine.poll(instant(201.0)).settlements)
    assert engine.accounts.total(Kind.VISITOR_METADATA, Outcome.DELIVERED) == 1
    assert positions(engine) == {0: 1}


def test_an_abandoned_track_request_holds_the_visitors_lane_until_its_answer() -> None:
    engine = engine_with(TRACKS_ONLY)
    made = record(decision("v"))
    engine.receive([made], instant(0.0))
    (abandoned,) = attempts_at(engine, 2.0)
    engine.forget([0], instant(3.0))
    ready(engine, [0], 8, instant(3.0), Policy())
    engine.receive([made], instant(3.0))
    assert attempts_at(engine, 9.0) == []
    engine.answered(abandoned, OK, instant(9.0))
    assert attempts_at(engine, 9.5) == [], "the pace counts from that answer"
    assert len(attempts_at(engine, 10.0)) == 1
    assert engine.accounts.returned[Kind.TRACK] == 1
    assert engine.accounts.difference(Kind.TRACK) == 0


def test_returned_deliveries_are_neither_sendable_nor_paced() -> None:
    """docs/contract.md#metrics: the scaling signal counts what could be sent now."""
    engine = engine_with(TRACKS_ONLY)
    for offset in range(3):
        engine.receive([record(decision(f"v{offset}"), offset)], instant(2.0))
    assert (engine.sendable(instant(2.0)), engine.paced(instant(2.0))) == (3, 0)
    engine.forget([0], instant(2.0))
    assert (engine.sendable(instant(2.0)), engine.paced(instant(2.0))) == (0, 0)


def test_returned_deliveries_are_not_written_to_the_ledger() -> None:
    """docs/contract.md#accounting: returned deliveries are unsettled, and never in the ledger."""
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(DecodeFailure(Reason.UNDECODABLE, "cut short"))], instant(0.0))
    engine.forget([0], instant(0.0))
    assert engine.accounts.returned[Kind.UNKNOWN] == 1
    assert engine.poll(instant(0.1)).settlements == []


def test_a_late_acknowledgement_after_a_second_assignment_settles_nothing() -> None:
    engine = engine_with(TRACKS_ONLY)
    made = record(DecodeFailure(Reason.UNDECODABLE, "cut short"))
    engine.receive([made], instant(0.0))
    early = engine.poll(instant(0.0)).settlements
    engine.forget([0], instant(1.0))
    ready(engine, [0], 8, instant(1.0), Policy())
    engine.receive([made], instant(1.0))
    acknowledge(engine, early)
    assert positions(engine) == {0: 0}
    assert not engine.is_quiet([0])
    acknowledge(engine, engine.poll(instant(2.0)).settlements)
    assert positions(engine) == {0: 1}
    assert engine.is_quiet([0])
    assert engine.pending_records == 0
    assert engine.accounts.difference(Kind.UNKNOWN) == 0


def test_metadata_of_a_newly_assigned_partition_waits_for_one_interval() -> None:
    """docs/contract.md#settings: a newly assigned partition sends nothing for one interval."""
    engine = engine_with(NO_LINGER, 0)
    ready(engine, [1], 8, instant(100.0), Policy())
    for partition, visitor in enumerate(("old", "new")):
        engine.receive([record(metadata(visitor, plan="x"), partition=partition)], instant(100.0))
    (first,) = attempts_at(engine, 100.0)
    assert sent_values(first) == {"old": {"plan": "x"}}
    (second,) = attempts_at(engine, 101.0)
    assert sent_values(second) == {"new": {"plan": "x"}}


# Credentials


def test_a_refusal_of_the_old_secret_makes_no_delivery_poison() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision("a"), 0)], instant(0.0))
    (refused,) = attempts_at(engine, 1.0)
    engine.answered(refused, Answer(401), instant(1.1))
    engine.secret_changed(EndpointName.TRACK, instant(1.2))
    engine.receive([record(decision("b"), 1)], instant(1.2))
    assert set(take_all(engine, 1.3).values()) == {Reason.OK}


def test_a_refusal_that_comes_after_the_secret_was_changed_makes_no_delivery_poison() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision("a"), 0)], instant(0.0))
    (refused,) = attempts_at(engine, 1.0)
    engine.secret_changed(EndpointName.TRACK, instant(1.1))
    engine.answered(refused, Answer(401), instant(1.2))
    engine.receive([record(decision("b"), 1)], instant(1.2))
    assert set(take_all(engine, 1.3).values()) == {Reason.OK}


def test_a_late_refusal_from_before_the_recovery_makes_no_delivery_poison() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision(v), offset) for offset, v in enumerate("abc")], instant(0.0))
    slow, second, third = attempts_at(engine, 1.0)
    engine.answered(second, Answer(401), instant(1.1))
    engine.answered(third, Answer(401), instant(1.1))
    assert engine.track.state is EndpointState.UNAUTHORIZED
    engine.secret_changed(EndpointName.TRACK, instant(2.0))
    engine.receive([record(decision("d"), 3)], instant(2.0))
    (probe,) = attempts_at(engine, 2.5)
    engine.answered(probe, OK, instant(2.6))
    engine.answered(slow, Answer(401), instant(2.7))
    assert set(take_all(engine, 3.0).values()) == {Reason.OK}


# Useless requests


@pytest.mark.parametrize("others", [Answer(429, "60"), Answer(429)])
def test_throttling_while_one_visitor_is_suspected_holds_the_endpoint(others: Answer) -> None:
    def script(_: World, attempt: Attempt) -> Answer:
        assert isinstance(attempt, TrackAttempt)
        return Answer(403) if attempt.lane.visitor_id == "v0" else others

    world = World(TRACKS_ONLY, Random(1), answering=answering(script))
    world.join()
    for number in range(500):
        world.publish(decision(f"v{number}"))
    world.run(until=30.0)
    assert len(world.track_sights) < 100


def test_an_outage_that_answers_in_turn_with_401_and_503_costs_few_requests() -> None:
    random = Random(5)
    answers = (Answer(401), Answer(503))
    world = World(TRACKS_ONLY, Random(1), answering=answering(lambda *_: random.choice(answers)))
    world.join()
    for number in range(500):
        world.publish(decision(f"v{number}"))
    world.run(until=600.0)
    assert len(world.track_sights) < 64 + 100


def test_metadata_that_is_throttled_without_a_wait_is_not_sent_all_the_time() -> None:
    def script(_: World, attempt: Attempt) -> Answer:
        return Answer(429, "0") if attempt.endpoint is EndpointName.METADATA else OK

    world = World(Policy(), Random(1), answering=answering(script))
    world.join()
    world.publish(metadata("v", plan="x"))
    world.run(until=60.0)
    assert len(world.sights) < 70


def test_metadata_that_hangs_leaves_connections_to_track_events() -> None:
    """docs/contract.md#outcomes: an endpoint that is unreachable holds its own deliveries only."""
    limits = EndpointLimits(max_connections=4, metadata_requests_per_minute=None)
    engine = engine_with(NO_LINGER.model_copy(update={"limits": limits}))
    hanging = []
    for number in range(4):
        engine.receive([record(metadata(f"m{number}", plan="x"), number)], instant(0.0))
        hanging += attempts_at(engine, 2.0)
    assert {attempt.endpoint for attempt in hanging} == {EndpointName.METADATA}
    engine.receive([record(decision("v", variation=None), 4)], instant(2.0))
    assert [attempt.endpoint for attempt in attempts_at(engine, 2.0)] == [EndpointName.TRACK]


def test_a_poisonous_and_a_slow_visitor_together_delay_no_other() -> None:
    """docs/guarantees.md#isolation: a hot, slow or poisonous visitor delays no other."""

    def script(_: World, attempt: Attempt) -> Answer:
        who = attempt.lane.visitor_id if isinstance(attempt, TrackAttempt) else ""
        return {"poison": Answer(404), "slow": TIMED_OUT}.get(who, OK)

    world = World(TRACKS_ONLY, Random(1), answering=answering(script))
    world.join()
    world.publish(decision("poison"))
    world.publish_at(1.02, decision("slow", occurred_at=START_MS - 1000))
    for number in range(20):
        world.publish_at(1.03, decision(f"v{number}"))
    world.run(until=60.0)
    others = [sight for sight in world.track_sights if sight.ids[0].startswith("v")]
    assert len(others) == 20
    assert max(sight.arrived_at for sight in others) < 5.0


# Metadata's final state


@pytest.mark.parametrize("answer", [TIMED_OUT, BROKEN])
def test_a_value_is_sent_again_when_another_may_have_been_taken_since(answer: Answer) -> None:
    """docs/contract.md#requests-to-pendo: after a time-out the newest value is sent again."""
    engine = engine_with(NO_LINGER)
    engine.receive([record(metadata("v", 0, plan="a"), 0)], instant(0.0))
    (first,) = attempts_at(engine, 2.0)
    engine.answered(first, OK, instant(2.1))
    engine.receive([record(metadata("v", 1000, plan="b"), 1)], instant(3.0))
    (unseen,) = attempts_at(engine, 4.0)
    engine.answered(unseen, answer, instant(63.0))
    engine.receive([record(metadata("v", 2000, plan="a"), 2)], instant(63.0))
    attempts = attempts_at(engine, 200.0)
    assert [sent_values(attempt) for attempt in attempts] == [{"v": {"plan": "a"}}], "Pendo may hold b"


def test_a_null_id_in_an_answer_names_no_record() -> None:
    body = b'{"failed":1,"errors":[{"id":null,"index":1,"error":"no"}]}'
    assert set(read_errors(body, ["None", "v"]).refused) == {"v"}


def test_settled_deliveries_are_freed_without_the_garbage_collector() -> None:
    """The service runs the collector seldom: reference cycles would stay for millions of records."""
    engine = engine_with(NO_LINGER)
    gc.collect()
    gc.disable()
    try:
        for offset in range(0, 200, 2):
            engine.receive([record(metadata(f"v{offset}", plan="x"), offset)], instant(2.0))
            engine.receive([record(decision(f"d{offset}"), offset + 1)], instant(2.0))
        assert len(take_all(engine, 3.0)) == 200
        assert gc.collect() < 100
    finally:
        gc.enable()


def test_the_sent_values_that_are_remembered_stay_within_the_limit_of_the_process() -> None:
    """docs/contract.md#settings: dedupe.max_entries is per process, not per partition."""
    policy = NO_LINGER.model_copy(update={"dedupe": DedupeSettings(max_entries=100)})
    engine = engine_with(policy, *range(8))
    for partition in range(8):
        for offset in range(50):
            event = metadata(f"v{partition}-{offset}", plan="x")
            engine.receive([record(event, offset, partition)], instant(0.0))
    reasons = take_all(engine, 2.0)
    assert set(reasons.values()) == {Reason.OK}
    assert len(engine._metadata._batches._sent) == 100


# What Pendo may answer


@pytest.mark.parametrize(
    "header",
    [
        "Wed, 21 Oct 99999999999999999999 07:28:00 GMT",
        "Wed, 99999999999999999999 Oct 2026 07:28:00 GMT",
        "Wed, 21 Oct 2026 07:28:00 +99999999999999999999",
        "Wed, 21 Oct 2026 99999999999999999999:28:00 GMT",
    ],
)
def test_a_retry_after_beyond_any_calendar_counts_as_none(header: str) -> None:
    assert retry_after_seconds(header, START_MS) is None


# Records that cost too much


class CountingJson:
    """orjson, with a count of the bytes that it has made."""

    def __init__(self) -> None:
        self.made = 0

    def dumps(self, value: object) -> bytes:
        made = orjson.dumps(value)
        self.made += len(made)
        return made


def test_the_work_of_cutting_properties_to_size_is_linear(monkeypatch: Any) -> None:
    counting = CountingJson()
    monkeypatch.setattr(pendo_rules, "orjson", counting)
    properties = {f"name_{number}": number for number in range(3_000)}
    kept, repairs = pendo_rules.trim(properties)
    assert pendo_rules.size_bytes(kept) <= pendo_rules.MAX_PROPERTIES_BYTES
    assert len(kept) + len(repairs) == 3_000
    assert counting.made < 20 * len(orjson.dumps(properties))


def test_the_work_of_distinguishing_colliding_names_is_linear(monkeypatch: Any) -> None:
    tried: list[str] = []
    candidate = pendo_rules._single_outer_underscores

    def counted(name: str) -> str:
        tried.append(name)
        return candidate(name)

    monkeypatch.setattr(pendo_rules, "_single_outer_underscores", counted)
    foreign = [chr(0x4E00 + number) for number in range(1_000)]
    kept, _ = pendo_rules.trim(dict.fromkeys(foreign, True))
    assert list(kept)[:3] == ["_", "_2", "_3"]
    assert len(tried) < 20 * len(foreign)


def test_deliveries_that_wait_for_the_budget_are_not_sendable_and_more_pods_would_not_help() -> None:
    """docs/contract.md#metrics: pods do not help a backlog that waits for Pendo's limits."""
    limits = EndpointLimits(track_requests_per_minute=60.0 * 8)  # of eight partitions one is ours
    policy = TRACKS_ONLY.model_copy(update={"limits": limits})
    engine = engine_with(policy)
    for offset in range(10):
        engine.receive([record(decision(f"v{offset}"), offset)], instant(2.0))
    assert engine.sendable(instant(2.0)) == 1
    assert engine.waits_for_pendo(instant(2.0))
    for second in range(3, 12):
        for attempt in attempts_at(engine, float(second)):
            engine.answered(attempt, OK, instant(float(second)))
    assert not engine.waits_for_pendo(instant(13.0))

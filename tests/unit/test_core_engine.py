"""The engine, case by case, in the virtual world."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

import orjson
import pytest

from engine_steps import engine_with, instant, visitors
from engine_world import BROKEN, OK, START_MS, TIMED_OUT, Answering, Sight, World, decision, record
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
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
from flagpost_schemas import AccountMetadata, Event, MetadataValue, TrackEvent, VisitorMetadata

TRACKS_ONLY = Policy(decisions=DecisionsSettings(visitor_metadata=False))
Scripted = Callable[[Attempt], Answer]


def answering(script: Scripted, seconds: float = 0.01) -> Answering:
    return lambda _, attempt: (script(attempt), 0.0, seconds)


def of_visitor(answers: dict[str, list[Answer]]) -> Scripted:
    """Answer each visitor's attempts with its answers in turn; everything else with 200."""

    def script(attempt: Attempt) -> Answer:
        visitor = attempt.lane.visitor_id if isinstance(attempt, TrackAttempt) else ""
        left = answers.get(visitor, [])
        return left.pop(0) if left else OK

    return script


def world_of(
    *events: Event | DecodeFailure, policy: Policy = TRACKS_ONLY, script: Scripted | None = None
) -> World:
    world = World(policy, Random(7), answering=answering(script or (lambda _: OK)))
    for event in events:
        world.publish(event)
    world.join()
    world.run()
    world.check_nothing_lost()
    return world


def metadata(visitor: str, at: int = 0, **values: MetadataValue) -> VisitorMetadata:
    return VisitorMetadata(
        event_id=f"{visitor}-{at}", occurred_at=START_MS + at, visitor_id=visitor, values=values
    )


def metadata_requests(world: World) -> list[list[dict[str, object]]]:
    return [orjson.loads(sight.body) for sight in world.sights if sight.endpoint is EndpointName.METADATA]


# Track


def test_visitors_go_side_by_side_and_each_in_its_own_order() -> None:
    events = [decision(f"v{n % 3}", f"flag{n}") for n in range(9)]
    world = world_of(*events)
    world.check_spacing()
    world.check_order()
    assert world.now < 5.0, "three visitors' three events take three intervals, not nine"
    assert {len(sights) for sights in world.by_visitor().values()} == {3}


def test_a_newly_assigned_partition_sends_nothing_for_one_interval() -> None:
    world = world_of(decision("v"))
    assert world.track_sights[0].arrived_at >= 1.0


@pytest.mark.parametrize(
    "answer",
    [Answer(500), Answer(429), Answer(429, "3"), Answer(503, "3"), TIMED_OUT, BROKEN, Answer(408)],
)
def test_a_retry_goes_before_later_events_of_its_visitor_and_keeps_the_pace(answer: Answer) -> None:
    events = [decision("v", "one"), decision("v", "two"), decision("w", "three")]
    world = world_of(*events, script=of_visitor({"v": [answer, answer]}))
    world.check_spacing()
    assert [sight.offset for sight in world.by_visitor()["v"]] == [0, 0, 0, 1]
    assert set(world.reasons().values()) == {Reason.OK}
    waits = [after.arrived_at - before.answered_at for before, after in _pairs(world, "v")]
    if answer.retry_after:
        assert waits[0] >= 3.0


def _pairs(world: World, visitor: str) -> list[tuple[Sight, Sight]]:
    return list(pairwise(world.by_visitor()[visitor]))


def test_a_rejected_delivery_is_dead_lettered_and_its_claim_is_free() -> None:
    first, again = decision("v", occurred_at=START_MS), decision("v", occurred_at=START_MS + 1000)
    world = World(TRACKS_ONLY, Random(1), answering=answering(of_visitor({"v": [Answer(400, body=b"bad")]})))
    world.publish(first)
    world.publish(first)
    world.join()
    world.publish_at(10.0, again)
    world.run()
    assert world.reasons() == {(0, 0): Reason.REJECTED, (0, 1): Reason.DEDUPE, (0, 2): Reason.OK}
    (settlement,) = world.settled[0, 0, Kind.TRACK]
    assert settlement.ending.detail == "Pendo answered 400: bad"
    assert settlement.delivery.status == 400
    (duplicate,) = world.settled[0, 1, Kind.TRACK]
    assert duplicate.ending.duplicate_of == 0


def test_attempts_count_only_while_others_pass() -> None:
    policy = TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_attempts=3)})
    poor = {"poor": [Answer(500)] * 100}
    alone = World(policy, Random(3), answering=answering(of_visitor(dict(poor))))
    alone.publish(decision("poor"))
    alone.join()
    alone.run(until=600.0)
    assert len(alone.track_sights) > 10
    assert not alone.settled, "nobody else could tell whether it is this delivery or Pendo"
    events = [decision("poor"), *(decision(f"v{n}") for n in range(5))]
    company = World(policy, Random(3), answering=answering(of_visitor({"poor": [Answer(500)] * 100})))
    company.join()
    for number, event in enumerate(events):
        company.publish(event)
        company.publish_at(number * 40.0, decision(f"later{number}"))
    company.run()
    company.check_nothing_lost()
    (settlement,) = [
        s[0] for s in company.settled.values() if s[0].ending.reason is Reason.ATTEMPTS_EXHAUSTED
    ]
    assert settlement.delivery.attempts >= 3
    assert settlement.delivery.counted_attempts == 3


def test_throttling_of_one_visitor_never_counts_as_an_attempt() -> None:
    script = of_visitor({"slow": [Answer(429, "1")] * 40})
    world = world_of(decision("slow"), *(decision(f"v{n}") for n in range(3)), script=script)
    assert world.reasons()[0, 0] is Reason.OK
    assert world.settled[0, 0, Kind.TRACK][0].delivery.attempts == 41


def test_an_event_that_grows_too_old_while_it_waits_expires() -> None:
    policy = TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_age_seconds=30)})
    world = world_of(
        decision("v", "one"),
        decision("v", "two"),
        policy=policy,
        script=of_visitor({"v": [Answer(429, "40")]}),
    )
    assert world.reasons() == {(0, 0): Reason.EXPIRED, (0, 1): Reason.EXPIRED}
    assert len(world.track_sights) == 1


def test_a_backlog_of_one_visitor_is_cut_only_when_memory_runs_short() -> None:
    delivery = DeliverySettings(max_pending=100, max_pending_per_visitor=10)
    policy = TRACKS_ONLY.model_copy(update={"delivery": delivery})
    short = world_of(*(decision("hot", f"f{n}") for n in range(70)), policy=policy)
    assert set(short.reasons().values()) == {Reason.OK}
    events = [decision("hot", f"f{n}") for n in range(150)]
    world = World(policy, Random(1))
    for event in events:
        world.publish(event)
    world.join()
    world.run()
    world.check_nothing_lost()
    assert Reason.VISITOR_BACKLOG in set(world.reasons().values())
    kept = [offset for (_, offset), reason in world.reasons().items() if reason is Reason.OK]
    assert kept[:10] == list(range(10)), "the oldest stay"


def test_intake_pauses_when_full_and_resumes_well_below() -> None:
    policy = TRACKS_ONLY.model_copy(
        update={
            "delivery": DeliverySettings(
                max_pending=20, max_pending_per_visitor=0, visitor_interval_seconds=0.1
            )
        }
    )
    world = World(policy, Random(1), batch=5)
    for number in range(100):
        world.publish(decision("hot", f"f{number}"))
    world.join()
    world.run()
    world.check_nothing_lost()
    assert world.most_pending <= 25


def test_sending_stops_while_too_many_answers_are_unacknowledged() -> None:
    policy = TRACKS_ONLY.model_copy(update={"limits": EndpointLimits(max_connections=4)})
    world = World(policy, Random(1), acknowledge_seconds=1e6)
    for number in range(50):
        world.publish(decision(f"v{number}"))
    world.join()
    world.run(until=60.0)
    assert 8 <= len(world.track_sights) <= 2 * 4 + 4


@pytest.mark.parametrize(
    ("max_age_seconds", "order"),
    [(3600.0, ["young", "old", "older"]), (30.0, ["older", "old", "young"])],
)
def test_deliveries_start_as_they_came_but_those_that_expire_within_a_minute_start_first(
    max_age_seconds: float, order: list[str]
) -> None:
    policy = TRACKS_ONLY.model_copy(
        update={
            "limits": EndpointLimits(max_connections=1),
            "delivery": TRACKS_ONLY.delivery.model_copy(update={"max_age_seconds": max_age_seconds}),
        }
    )
    world = world_of(
        decision("young"),
        decision("old", occurred_at=START_MS - 5000),
        decision("older", occurred_at=START_MS - 9000),
        policy=policy,
    )
    assert [sight.ids[0] for sight in world.track_sights] == order


@pytest.mark.parametrize(("seconds_left", "first"), [(60.0, "came first"), (59.9, "expires")])
def test_only_deliveries_that_expire_in_less_than_a_minute_start_first(
    seconds_left: float, first: str
) -> None:
    """docs/decisions/0044."""
    limits = EndpointLimits(max_connections=1)
    engine = engine_with(TRACKS_ONLY.model_copy(update={"limits": limits}))
    now = instant(1.0)
    oldest_ms = now.wall_ms - int(TRACKS_ONLY.delivery.max_age_seconds * 1000)
    expires = decision("expires", occurred_at=oldest_ms + int(seconds_left * 1000))
    engine.receive([record(decision("came first"), 0), record(expires, 1)], now)
    assert visitors(engine.poll(now).attempts) == [first]


def test_undecodable_and_duplicate_records_are_settled_in_their_place() -> None:
    event = TrackEvent(event_id="same", occurred_at=START_MS, visitor_id="v", event="Clicked")
    world = world_of(event, DecodeFailure(Reason.UNDECODABLE, "cut short"), event)
    assert world.reasons() == {(0, 0): Reason.OK, (0, 2): Reason.DEDUPE}
    assert world.settled[0, 1, Kind.UNKNOWN][0].ending.outcome is Outcome.DEAD_LETTERED


def test_a_replayed_record_plans_only_the_kind_that_was_dead_lettered() -> None:
    world = World(Policy(), Random(1))
    made = world.publish(decision("v"))
    world.log[0][0] = made._replace(headers=(("flagpost-replay-kind", b"visitor_metadata"),))
    world.join()
    world.run()
    assert set(world.settled) == {(0, 0, Kind.VISITOR_METADATA)}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # The dead-lettered kind is not planned any more: the other kind must not be sent in its place.
        (b"account_metadata", {Kind.ACCOUNT_METADATA: Reason.INVALID}),
        (b"unknown", {Kind.TRACK: Reason.OK, Kind.VISITOR_METADATA: Reason.OK}),
        (b"nonsense", {Kind.TRACK: Reason.OK, Kind.VISITOR_METADATA: Reason.OK}),
        (None, {Kind.TRACK: Reason.OK, Kind.VISITOR_METADATA: Reason.OK}),
    ],
)
def test_a_replay_of_a_kind_that_is_not_planned_is_invalid_and_of_an_unknown_kind_sends_all(
    kind: bytes | None, expected: dict[Kind, Reason]
) -> None:
    world = World(Policy(), Random(1))
    made = world.publish(decision("v"))
    world.log[0][0] = made._replace(headers=(("flagpost-replay-kind", kind),))
    world.join()
    world.run()
    assert {of: settled[0].ending.reason for (_, _, of), settled in world.settled.items()} == expected


# Metadata


def test_values_are_coalesced_and_sent_in_one_request() -> None:
    events = [
        metadata("v", 0, plan="free"),
        metadata("w", 0, plan="pro"),
        metadata("v", 5, plan="pro", seats=3),
    ]
    world = world_of(*events, policy=Policy())
    (request,) = metadata_requests(world)
    assert request == [
        {"visitorId": "v", "values": {"plan": "pro", "seats": 3}},
        {"visitorId": "w", "values": {"plan": "pro"}},
    ]
    assert world.reasons(Kind.VISITOR_METADATA) == {
        (0, 0): Reason.SUPERSEDED, (0, 1): Reason.OK, (0, 2): Reason.OK
    }  # fmt: skip


def test_a_value_that_pendo_has_is_not_sent_again_but_a_b_a_sends_a_again() -> None:
    world = World(Policy(), Random(1))
    world.join()
    for number, plan in enumerate(["a", "a", "b", "a", "a"]):
        world.publish_at(10.0 * number, metadata("v", number, plan=plan))
    world.run()
    sent = [request[0]["values"] for request in metadata_requests(world)]
    assert sent == [{"plan": "a"}, {"plan": "b"}, {"plan": "a"}]
    reasons = world.reasons(Kind.VISITOR_METADATA)
    assert [offset for (_, offset), reason in reasons.items() if reason is Reason.UNCHANGED] == [1, 4]


def test_an_older_value_after_a_newer_one_is_superseded() -> None:
    world = World(Policy(), Random(1))
    world.join()
    world.publish(metadata("v", 5000, plan="new"))
    world.publish_at(10.0, metadata("v", 0, plan="old"))
    world.run()
    assert world.reasons(Kind.VISITOR_METADATA)[0, 1] is Reason.SUPERSEDED
    assert len(metadata_requests(world)) == 1


def test_types_count_when_values_are_compared() -> None:
    world = World(Policy(), Random(1))
    world.join()
    values: list[MetadataValue] = [1, True, 1.0, "1"]
    for number, value in enumerate(values):
        world.publish_at(10.0 * number, metadata("v", number, x=value))
    world.run()
    assert len(metadata_requests(world)) == 4


def test_one_bad_record_is_rejected_alone() -> None:
    policy = Policy(metadata=MetadataSettings(batch_size=64))

    def script(attempt: Attempt) -> Answer:
        assert isinstance(attempt, MetadataAttempt)
        return Answer(400) if "v37" in attempt.batch.ids else OK

    world = world_of(*(metadata(f"v{n}", plan="x") for n in range(64)), policy=policy, script=script)
    reasons = world.reasons(Kind.VISITOR_METADATA)
    assert reasons.pop((0, 37)) is Reason.REJECTED
    assert set(reasons.values()) == {Reason.OK}
    assert len(metadata_requests(world)) <= 1 + 2 * 6


def test_errors_by_record_are_settled_by_record() -> None:
    body = {"total": 4, "updated": 2, "failed": 2, "missing": ["v1"], "errors": [{"index": 3, "error": "no"}]}

    def script(attempt: Attempt) -> Answer:
        del attempt
        return Answer(200, body=orjson.dumps(body))

    world = world_of(*(metadata(f"v{n}", plan="x") for n in range(4)), policy=Policy(), script=script)
    assert list(world.reasons(Kind.VISITOR_METADATA).values()).count(Reason.OK) == 2
    settled = world.settled[0, 3, Kind.VISITOR_METADATA][0]
    assert (settled.ending.reason, settled.ending.detail) == (Reason.REJECTED, "Pendo: no")
    assert len(metadata_requests(world)) == 1


def test_failures_that_pendo_counts_without_naming_are_found_by_halving() -> None:
    def script(attempt: Attempt) -> Answer:
        assert isinstance(attempt, MetadataAttempt)
        return Answer(200, body=orjson.dumps({"failed": int("v2" in attempt.batch.ids)}))

    world = world_of(*(metadata(f"v{n}", plan="x") for n in range(4)), policy=Policy(), script=script)
    reasons = world.reasons(Kind.VISITOR_METADATA)
    assert [offset for (_, offset), reason in reasons.items() if reason is Reason.REJECTED] == [2]


def test_after_a_time_out_the_newest_value_is_sent() -> None:
    answers = [TIMED_OUT]
    world = World(Policy(), Random(1), answering=answering(lambda _: answers.pop() if answers else OK))
    world.join()
    world.publish(metadata("v", 0, plan="old"))
    world.publish_at(5.0, metadata("v", 9, plan="new"))
    world.run()
    assert [request[0]["values"] for request in metadata_requests(world)] == [
        {"plan": "old"},
        {"plan": "new"},
    ]
    assert world.reasons(Kind.VISITOR_METADATA) == {(0, 0): Reason.SUPERSEDED, (0, 1): Reason.OK}


def test_metadata_that_is_refused_holds_only_itself() -> None:
    def script(attempt: Attempt) -> Answer:
        return Answer(403) if attempt.endpoint is EndpointName.METADATA else OK

    world = World(Policy(), Random(1), answering=answering(script))
    member = world.join()
    for number in range(40):
        world.publish_at(number, decision(f"v{number}"))
    world.run(until=120.0)
    assert member.engine.metadata.state is EndpointState.UNAUTHORIZED
    assert member.engine.track.state is EndpointState.OK
    assert len(world.track_sights) == 40
    assert not member.paused
    assert not any(kind is Kind.VISITOR_METADATA for _, _, kind in world.settled)
    assert len(metadata_requests(world)) <= 36


def test_accounts_and_visitors_have_requests_of_their_own() -> None:
    account = AccountMetadata(event_id="a", occurred_at=START_MS, account_id="v", values={"tier": 1})
    world = world_of(account, metadata("v", plan="x"), policy=Policy())
    bodies = {sight.body for sight in world.sights}
    assert bodies == {
        b'[{"accountId":"v","values":{"tier":1}}]',
        b'[{"visitorId":"v","values":{"plan":"x"}}]',
    }


def test_draining_sends_waiting_metadata_at_once_and_hands_back_the_rest() -> None:
    world = World(Policy(metadata=MetadataSettings(linger_seconds=60.0)), Random(1))
    member = world.join()
    for number in range(5):
        world.publish(decision("hot", f"f{number}"))
    world.run(until=2.0)
    member.engine.drain(world.instant)
    world.run(until=3.0)
    assert member.engine.is_drained
    accounts = member.engine.accounts
    assert accounts.total(Kind.VISITOR_METADATA, Outcome.DELIVERED) == 5
    assert accounts.returned[Kind.TRACK] == 5 - accounts.total(Kind.TRACK, Outcome.DELIVERED) > 0
    assert accounts.difference(Kind.TRACK) == accounts.difference(Kind.VISITOR_METADATA) == 0


def test_no_duplicate_removal_with_a_ttl_of_zero() -> None:
    policy = TRACKS_ONLY.model_copy(update={"dedupe": DedupeSettings(ttl_seconds=0)})
    world = world_of(decision("v"), decision("v"), policy=policy)
    assert list(world.reasons().values()) == [Reason.OK, Reason.OK]

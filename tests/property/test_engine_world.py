"""The engine under virtual time: random arrivals, answers, delays, rebalances and crashes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_world import BROKEN, OK, REFUSED_CONNECTION, START_MS, TIMED_OUT, World, decision
from example_counts import examples
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DedupeSettings, DeliverySettings, EndpointLimits, Policy
from flagpost_consumer.core.tracks.track_sending import TrackAttempt
from flagpost_schemas import DecisionEvent

SEEDS = st.integers(min_value=0, max_value=2**32)
FLAGS = ("checkout", "search", "banner")


def small_policy(**delivery: float) -> Policy:
    return Policy(
        delivery=DeliverySettings(**{"max_pending": 60, "max_pending_per_visitor": 0, **delivery}),  # type: ignore[arg-type]
        dedupe=DedupeSettings(ttl_seconds=20.0),
        limits=EndpointLimits(max_connections=8, request_timeout_seconds=3.0, metadata_timeout_seconds=5.0),
    )


def publish_traffic(world: World, random: Random, events: int, seconds: float) -> None:
    """Decisions of a few visitors, one of them hot, spread over some seconds, a few of them late."""
    for number in range(events):
        visitor = "hot" if random.random() < 0.2 else f"v{random.randrange(12)}"
        moment = random.uniform(0, seconds)
        late = random.choice((0, 0, 0, random.randrange(15_000)))
        event = decision(
            visitor,
            random.choice(FLAGS),
            random.choice(("a", "b", None)),
            enabled=random.random() < 0.8,
            event_id=f"event-{number}",
            occurred_at=START_MS + int(moment * 1000) - late,
        )
        world.publish_at(moment, event)


def faulty(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
    """A Pendo that fails in every transient way."""
    del attempt
    random = world.random
    answer = random.choices(
        (OK, Answer(500), Answer(503), Answer(429), Answer(429, "2"), TIMED_OUT, BROKEN, REFUSED_CONNECTION),
        (80, 4, 2, 3, 1, 2, 4, 4),
    )[0]
    return answer, random.uniform(0, 0.01), random.choice((0.0, 0.005, 0.3))


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(36))
def test_a_faulty_pendo_costs_no_event_no_order_and_no_pace(seed: int) -> None:
    random = Random(seed)
    world = World(small_policy(), random, partitions=3, answering=faulty)
    world.join()
    publish_traffic(world, random, events=120, seconds=20.0)
    world.run()
    world.check_nothing_lost()
    world.check_spacing()
    world.check_order()
    assert set(world.outcomes().values()) <= {Outcome.DELIVERED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED}
    assert world.most_pending <= 60 + world.batch
    delivered = {key for key, outcome in world.outcomes().items() if outcome is Outcome.DELIVERED}
    assert delivered <= world.delivered_offsets()


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(36))
def test_crashes_and_rebalances_lose_nothing_and_keep_the_pace(seed: int) -> None:
    random = Random(seed)
    world = World(small_policy(), random, partitions=4, answering=faulty)
    first, second = world.join({0, 1}), world.join({2, 3})
    publish_traffic(world, random, events=100, seconds=20.0)

    def crash() -> None:
        freed = world.crash(second)
        # The group notices after the session time-out, which no request outlives.
        world.at(world.now + 5.0, lambda: world.assign(first, freed))

    def hand_over() -> None:
        world.hand_over(first, {0} & first.assigned)

    world.at(random.uniform(0, 15), crash)
    world.at(random.uniform(0, 25), hand_over)
    world.run()
    world.check_nothing_lost()
    world.check_spacing()
    world.check_order()


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(24))
def test_which_event_is_a_duplicate_depends_on_the_records_not_on_the_time(seed: int) -> None:
    """Live traffic and the replay of a backlog agree with the rule, event by event."""
    expected: dict[tuple[int, int], bool] = {}
    judged = []
    for live in (True, False):
        random = Random(seed)
        world = World(small_policy(visitor_interval_seconds=0.2), random, partitions=2)
        publish_traffic(world, random, events=150, seconds=120.0)
        if not live:
            world.run()
        world.join()
        world.run()
        judged.append({key: reason is Reason.DEDUPE for key, reason in world.reasons().items()})
        expected = {
            (partition, offset): duplicate
            for partition, records in world.log.items()
            for offset, duplicate in enumerate(by_the_rule([made.event for made in records], ttl_ms=20_000))
        }
    assert judged[0] == judged[1] == expected


def by_the_rule(events: list[object], ttl_ms: int) -> list[bool]:
    """Which events are duplicates, by the rule of docs/contract.md#settings, `dedupe.ttl_seconds`."""
    sent: dict[tuple[str, str, str | None], list[int]] = {}
    duplicates = []
    for event in events:
        assert isinstance(event, DecisionEvent)
        variation = event.variation_key if event.enabled else "off"
        times = sent.setdefault((event.visitor_id, event.flag_key, variation), [])
        duplicate = any(abs(event.occurred_at - time) < ttl_ms for time in times)
        if not duplicate:
            times.append(event.occurred_at)
        duplicates.append(duplicate)
    return duplicates


@given(seed=SEEDS, status=st.sampled_from([401, 403, 404, 302, 500, 503]))
@settings(deadline=None, max_examples=examples(24))
def test_an_outage_costs_few_requests_and_no_event(seed: int, status: int) -> None:
    random = Random(seed)
    outage = (5.0, 605.0)

    def answering(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
        del attempt
        down = outage[0] <= world.now < outage[1]
        return Answer(status) if down else OK, 0.001, 0.01

    policy = small_policy(max_pending=2000)
    world = World(policy, random, partitions=2, answering=answering)
    member = world.join()
    for number in range(200):
        world.publish_at(number * 0.2, decision(f"v{number}", occurred_at=START_MS))
    world.run(until=300.0)
    expected = EndpointState.UNREACHABLE if status >= 500 else EndpointState.UNAUTHORIZED
    assert member.engine.track.state is expected
    assert member.paused
    world.run()
    world.check_nothing_lost()
    world.check_order()
    world.check_spacing()
    assert set(world.reasons().values()) == {Reason.OK}
    for endpoint in EndpointName:
        futile = [s for s in world.sights if s.endpoint is endpoint and s.answer.status == status]
        assert len(futile) <= policy.limits.max_connections + 36


@pytest.mark.parametrize("status", [401, 404])
def test_a_poisonous_visitor_is_dead_lettered_and_delays_no_other(status: int) -> None:
    def answering(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
        del world
        poison = isinstance(attempt, TrackAttempt) and attempt.lane.visitor_id == "poison"
        return Answer(status) if poison else OK, 0.001, 0.01

    world = World(small_policy(), Random(1), answering=answering)
    world.join()
    world.publish(decision("poison"))
    for number in range(20):
        world.publish(decision(f"v{number}"))
    world.run()
    world.check_nothing_lost()
    reasons = world.reasons()
    assert reasons.pop((0, 0)) is Reason.REJECTED
    assert set(reasons.values()) == {Reason.OK}
    others = [sight for sight in world.track_sights if sight.ids[0] != "poison"]
    assert max(sight.arrived_at for sight in others) < 2.0
    assert len(world.by_visitor()["poison"]) == 2, "one refusal may be chance, the second one tells"


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(30))
def test_pendo_ends_with_the_newest_metadata_and_an_id_has_one_request_at_a_time(seed: int) -> None:
    random = Random(seed)

    def answering(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
        if attempt.endpoint is EndpointName.TRACK:
            return OK, 0.0, 0.001
        return faulty(world, attempt)

    world = World(small_policy(visitor_interval_seconds=0.01), random, partitions=2, answering=answering)
    world.join()
    for number in range(150):
        moment = random.uniform(0, 15)
        event = decision(
            f"v{random.randrange(6)}",
            random.choice(FLAGS),
            random.choice("abc"),
            event_id=f"m{number}",
            occurred_at=START_MS + int(moment * 1000) - random.choice((0, random.randrange(4000))),
        )
        world.publish_at(moment, event)
    world.run()
    world.check_nothing_lost()
    assert metadata_at_pendo(world) == newest_variations(world)
    assert {Outcome.DELIVERED, Outcome.DUPLICATE} >= set(world.outcomes(Kind.VISITOR_METADATA).values())


def newest_variations(world: World) -> dict[tuple[str, str], str | None]:
    """The variation of the newest decision for each visitor and flag."""
    newest: dict[tuple[str, str], tuple[tuple[int, int], str | None]] = {}
    for records in world.log.values():
        for made in records:
            event = made.event
            assert isinstance(event, DecisionEvent)
            key, age = (event.visitor_id, event.flag_key), (event.occurred_at, made.offset)
            if key not in newest or newest[key][0] < age:
                newest[key] = age, event.variation_key
    return {key: variation for key, (_, variation) in newest.items()}


def metadata_at_pendo(world: World) -> dict[tuple[str, str], str]:
    """What Pendo has in the end; checks that an id never has two requests in flight."""
    at_pendo: dict[tuple[str, str], str] = {}
    busy: dict[str, float] = {}
    sights = [sight for sight in world.sights if sight.endpoint is EndpointName.METADATA]
    for sight in sorted(sights, key=lambda sight: sight.arrived_at):
        for entry in sight.parsed:  # type: ignore[attr-defined]
            visitor = entry["visitorId"]
            assert sight.arrived_at >= busy.get(visitor, 0.0)
            busy[visitor] = sight.answered_at
            if sight.answer.status == 200:
                for name, value in entry["values"].items():
                    at_pendo[visitor, name.removeprefix("[Optimizely] ")] = value
    return at_pendo

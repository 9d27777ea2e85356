"""Suppressions under virtual time: whatever waits, fails or moves, nothing of a suppressed visitor is sent."""

from __future__ import annotations

from functools import partial
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine_world import BROKEN, OK, REFUSED_CONNECTION, START_MS, TIMED_OUT, World, decision
from example_counts import examples
from flagpost_consumer.core.outcomes import Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DedupeSettings, DeliverySettings, EndpointLimits, Policy
from flagpost_schemas import VisitorMetadata

SEEDS = st.integers(min_value=0, max_value=2**32)
ON_ITS_WAY_SECONDS = 0.01
"""A request that started before a suppression arrives at most this much later."""
SECONDS = 30.0


def failing(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
    """A Pendo that is down now and then, and refuses some requests."""
    del attempt
    random = world.random
    if 8.0 < world.now % 15.0 < 12.0:
        return random.choice((Answer(503), REFUSED_CONNECTION, TIMED_OUT)), 0.0, 0.2
    answers = (OK, Answer(500), Answer(429), Answer(400), Answer(401), TIMED_OUT, BROKEN)
    answer = random.choices(answers, (70, 8, 4, 4, 4, 4, 6))[0]
    return answer, random.uniform(0, ON_ITS_WAY_SECONDS), random.choice((0.0, 0.005, 0.5))


def suppressed_world(seed: int) -> World:
    """Members that crash and hand over, and visitors that are suppressed, and allowed again, at any moment."""
    draw = Random(seed)
    policy = Policy(
        delivery=DeliverySettings(
            max_pending=draw.choice((40, 400)),
            max_pending_per_visitor=0,
            visitor_interval_seconds=draw.choice((0.0, 0.2, 1.0)),
        ),
        dedupe=DedupeSettings(ttl_seconds=20.0),
        limits=EndpointLimits(max_connections=8, request_timeout_seconds=3.0, metadata_timeout_seconds=5.0),
    )
    world = World(policy, draw, partitions=2, answering=failing)
    world.join()
    for number in range(150):
        moment, visitor = draw.uniform(0, SECONDS), f"v{draw.randrange(6)}"
        occurred_at = START_MS + int(moment * 1000)
        if draw.random() < 0.3:
            values = {draw.choice(("plan", "city")): draw.choice(("a", "b"))}
            event_id = f"m{number}"
            changed = VisitorMetadata(
                event_id=event_id, occurred_at=occurred_at, visitor_id=visitor, values=dict(values)
            )
            world.publish_at(moment, changed)
        else:
            flag = draw.choice(("checkout", "search", "banner"))
            shown = decision(visitor, flag, draw.choice("ab"), event_id=f"e{number}", occurred_at=occurred_at)
            world.publish_at(moment, shown)
    for _ in range(8):
        suppress = partial(world.suppress, f"v{draw.randrange(6)}", is_suppressed=draw.random() < 0.7)
        world.at(draw.uniform(0, SECONDS), suppress)

    def crash() -> None:
        if world.members[-1].assigned:  # not in the middle of a hand-over
            freed = world.crash(world.members[-1])
            world.at(world.now + 6.0, lambda: world.join(freed))

    def hand_over() -> None:
        member = world.members[-1]
        if member.alive and member.assigned:
            world.hand_over(member, set(member.assigned))

    for _ in range(2):
        world.at(draw.uniform(0, SECONDS), draw.choice((crash, hand_over)))
    world.run()
    return world


def was_suppressed(world: World, visitor_id: str, moment: float) -> bool:
    """Whether a visitor was suppressed at a moment, and for `ON_ITS_WAY_SECONDS` before it."""
    told = world.suppressed_at[visitor_id]
    before = [is_suppressed for at, is_suppressed in told if at <= moment - ON_ITS_WAY_SECONDS]
    lately = [is_suppressed for at, is_suppressed in told if moment - ON_ITS_WAY_SECONDS < at <= moment]
    return bool(before) and before[-1] and all(lately)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(34))
def test_nothing_of_a_suppressed_visitor_arrives_at_pendo(seed: int) -> None:
    world = suppressed_world(seed)
    for sight in world.sights:
        wrong = [each for each in sight.ids if was_suppressed(world, each, sight.arrived_at)]
        assert wrong == [], f"{sight.endpoint} at {sight.arrived_at}"


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(34))
def test_every_event_is_accounted_for_and_no_innocent_visitor_is_dropped(seed: int) -> None:
    world = suppressed_world(seed)
    world.check_nothing_lost()
    world.check_order()
    ever = {
        name for name, told in world.suppressed_at.items() if any(is_suppressed for _, is_suppressed in told)
    }
    for settlements in world.settled.values():
        for settlement in settlements:
            if settlement.ending.reason is Reason.SUPPRESSED:
                assert settlement.ending.outcome is Outcome.DROPPED
                assert settlement.delivery.record.facts.visitor_id in ever

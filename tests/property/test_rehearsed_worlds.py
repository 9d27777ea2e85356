"""The rehearsal of what the engine did in random worlds: with the same settings, nothing would end differently."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_world import BROKEN, OK, REFUSED_CONNECTION, START_MS, TIMED_OUT, World, at_once, decision
from example_counts import examples
from flagpost_consumer.commands.rehearse.differences import LeftOut
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName
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
from flagpost_schemas import AccountMetadata, Event, MetadataValue, TrackEvent, VisitorMetadata
from property.hostile_world import HostileWorld
from rehearsed_world import RecordedWorld, rehearse, told

SEEDS = st.integers(min_value=0, max_value=2**32)
TTL_SECONDS = 20.0


def policy_of(draw: Random) -> Policy:
    return Policy(
        delivery=DeliverySettings(
            max_pending=draw.choice((40, 400)),
            max_pending_per_visitor=draw.choice((0, 5, 20)),
            visitor_interval_seconds=draw.choice((0.0, 0.1, 1.0)),
            max_attempts=draw.choice((2, 10)),
            max_age_seconds=draw.choice((15.0, 600_000.0)),
        ),
        dedupe=DedupeSettings(ttl_seconds=TTL_SECONDS),
        metadata=MetadataSettings(
            batch_size=draw.choice((2, 1000)), linger_seconds=draw.choice((0.0, 0.5, 2.0))
        ),
        limits=EndpointLimits(max_connections=8, request_timeout_seconds=3.0, metadata_timeout_seconds=5.0),
    )


def any_event(draw: Random, number: int, moment: float) -> Event | DecodeFailure:
    """An event of any kind, or a bad record; some of them are late."""
    late = draw.choice((0, 0, 0, draw.randrange(int(TTL_SECONDS * 900))))
    make = draw.choices(EVENTS, (60, 12, 15, 6, 5))[0]
    return make(draw, number, START_MS + int(moment * 1000) - late)


def any_visitor(draw: Random) -> str:
    """A visitor's id. One visitor publishes more than may be sent."""
    return "hot" if draw.random() < 0.3 else f"v{draw.randrange(8)}"


def a_decision(draw: Random, number: int, occurred_at: int) -> Event:
    return decision(
        any_visitor(draw),
        draw.choice(("checkout", "search")),
        draw.choice(("a", "b", None)),
        enabled=draw.random() < 0.8,
        event_id=f"e{number}",
        occurred_at=occurred_at,
        consent={"analytics": draw.random() < 0.5} if draw.random() < 0.1 else None,
    )


def a_track_event(draw: Random, number: int, occurred_at: int) -> Event:
    del number
    return TrackEvent(
        event_id=f"t{draw.randrange(10)}",
        occurred_at=occurred_at,
        visitor_id=any_visitor(draw),
        event="Clicked",
    )


def a_visitors_metadata(draw: Random, number: int, occurred_at: int) -> Event:
    names = draw.sample(("plan", "city", "[Optimizely] checkout"), draw.randint(1, 3))
    values: dict[str, MetadataValue] = {name: draw.choice(("a", "b")) for name in names}
    return VisitorMetadata(
        event_id=f"m{number}", occurred_at=occurred_at, visitor_id=any_visitor(draw), values=values
    )


def an_accounts_metadata(draw: Random, number: int, occurred_at: int) -> Event:
    values: dict[str, MetadataValue] = {"tier": draw.choice(("x", "y"))}
    return AccountMetadata(event_id=f"a{number}", occurred_at=occurred_at, account_id="acme", values=values)


def a_bad_record(draw: Random, number: int, occurred_at: int) -> Event | DecodeFailure:
    """A record that is too far ahead, has no visitor, or cannot be read."""
    return draw.choice(
        (
            decision("v1", occurred_at=occurred_at + 330_000, event_id=f"f{number}"),
            decision("", occurred_at=occurred_at, event_id=f"n{number}"),
            DecodeFailure(Reason.UNDECODABLE, "cut short"),
        )
    )


EVENTS = (a_decision, a_track_event, a_visitors_metadata, an_accounts_metadata, a_bad_record)


def publish_traffic(world: RecordedWorld, draw: Random, events: int, seconds: float) -> None:
    for number in range(events):
        moment = draw.uniform(0, seconds)
        event = any_event(draw, number, moment)
        world.at(moment, lambda event=event: world.publish(event))  # type: ignore[misc]


def suppress_some(world: RecordedWorld, draw: Random, seconds: float) -> None:
    """Suppress a visitor now and then, or undo it."""
    for _ in range(draw.choice((0, 6))):
        suppress = partial(world.suppress, any_visitor(draw), is_suppressed=draw.random() < 0.7)
        world.at(draw.uniform(0, seconds), suppress)


def faulty(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
    """A Pendo that fails in every way, some of them permanent."""
    answers = (
        OK, Answer(500), Answer(503, "2"), Answer(429), Answer(429, "1"), Answer(400, body=b"no"), TIMED_OUT, BROKEN,
        REFUSED_CONNECTION,
    )  # fmt: skip
    answer = world.random.choices(answers, (70, 6, 2, 3, 1, 5, 3, 4, 4))[0]
    if attempt.endpoint is EndpointName.METADATA and answer is TIMED_OUT:
        return answer, 0.0, world.policy.limits.metadata_timeout_seconds
    return answer, world.random.uniform(0, 0.01), world.random.choice((0.0, 0.005, 0.3, 1.0))


def faulty_world(seed: int) -> RecordedWorld:
    """One member, and a Pendo that fails in every way."""
    draw = Random(seed)
    world = RecordedWorld(policy_of(draw), draw, partitions=2, answering=faulty)
    world.join()
    publish_traffic(world, draw, events=150, seconds=draw.choice((5.0, 60.0)))
    suppress_some(world, draw, 60.0)
    world.run()
    return world


def restless_world(seed: int) -> RecordedWorld:
    """Members that crash and hand over, and a Pendo that fails now and then."""
    draw = Random(seed)
    world = RecordedWorld(policy_of(draw), draw, partitions=2, answering=draw.choice((at_once, faulty)))
    world.join()
    publish_traffic(world, draw, events=150, seconds=60.0)
    suppress_some(world, draw, 60.0)

    def crash() -> None:
        freed = world.crash(world.members[-1])
        # The group notices after the session time-out; no request takes that long.
        world.at(world.now + 6.0, lambda: world.join(freed))

    def hand_over() -> None:
        member = world.members[-1]
        if member.alive and member.assigned:
            world.hand_over(member, set(member.assigned))

    for number in range(3):
        world.at(number * 20 + draw.uniform(0, 12), draw.choice((crash, hand_over)))
    world.run()
    return world


@pytest.mark.parametrize("made", [faulty_world, restless_world])
@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(18))
def test_nothing_would_end_differently(made: Callable[[int], RecordedWorld], seed: int) -> None:
    world = made(seed)
    found = rehearse(world)
    assert told(found) == {}
    assert set(found.left_out) <= {LeftOut.UNCLEAR, LeftOut.NOT_COVERED}
    assert found.compared + found.left_out.total() == len(
        [key for key in world.settled if world.settled[key]]
    )


class RecordedHostileWorld(RecordedWorld, HostileWorld):
    """Troubles of every kind except two: clocks that jump (wrong times in the ledger), and topics made anew."""

    def do_jump(self) -> None:
        """The wall clocks stay right."""

    def do_replace_topic(self) -> None:
        """The topic stays."""


@pytest.mark.parametrize("seed", [1])
def test_nothing_would_end_differently_after_outages_freezes_and_crashes(seed: int) -> None:
    world = RecordedHostileWorld(seed)
    world.run_all()
    found = rehearse(world)
    assert told(found) == {}
    assert found.compared > 2000
    assert found.left_out.total() < found.compared / 20


@given(seed=SEEDS)
@settings(deadline=None, max_examples=examples(18))
def test_a_denied_flag_changes_exactly_its_own_deliveries(seed: int) -> None:
    world = faulty_world(seed)
    without = world.policy.model_copy(update={"decisions": DecisionsSettings(flags_deny=["sea*"])})
    found = rehearse(world, without)
    expected = [
        settlements[0].ending.reason
        for settlements in world.settled.values()
        if settlements and settlements[0].delivery.record.facts.flag_key == "search"
    ]
    before_it = {Reason.INVALID, Reason.NO_VISITOR_ID, Reason.SUPPRESSED, Reason.NO_CONSENT}
    assert {change.rehearsed for change in found.rows} <= {Reason.FLAG_FILTERED}
    assert found.different == len([reason for reason in expected if reason not in before_it])

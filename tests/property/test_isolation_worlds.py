"""Worlds in which some visitors fail, hang, are refused or are hot, and all others are served in time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import inf
from random import Random

import pytest

from engine_world import BROKEN, OK, REFUSED_CONNECTION, START_MS, TIMED_OUT, World, decision
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DecisionsSettings, DeliverySettings, EndpointLimits, Policy
from flagpost_consumer.core.tracks.track_sending import TrackAttempt

pytestmark = pytest.mark.thorough

Poison = Callable[[World, str], Answer | None]
"""The answer to a visitor's request; None: 200."""

POISONS = [
    pytest.param(answer, id=str(answer.status or "hangs"))
    for answer in (Answer(500), Answer(404), Answer(403), Answer(302), TIMED_OUT)
]


def policy_of(connections: int = 16, **delivery: float) -> Policy:
    return Policy(
        delivery=DeliverySettings(**{"visitor_interval_seconds": 1.0, **delivery}),  # type: ignore[arg-type]
        decisions=DecisionsSettings(visitor_metadata=False),
        limits=EndpointLimits(max_connections=connections),
    )


def world_of(policy: Policy, poison: Poison, latency_seconds: float = 0.05, **world: object) -> World:
    def answering(world: World, attempt: Attempt) -> tuple[Answer, float, float]:
        assert isinstance(attempt, TrackAttempt)
        return poison(world, attempt.lane.visitor_id) or OK, 0.0, latency_seconds

    return World(policy, Random(5), answering=answering, **world)  # type: ignore[arg-type]


def event_at(world: World, moment: float, visitor: str, number: int) -> None:
    occurred_at = START_MS + int(moment * 1000)
    world.publish_at(moment, decision(visitor, f"flag{number}", occurred_at=occurred_at))


def delivered_visitors(world: World) -> list[str]:
    return [sight.ids[0] for sight in world.track_sights if sight.answer.status == 200]


@pytest.mark.parametrize("answer", POISONS)
def test_two_poisonous_visitors_and_a_lull_stop_nobody(answer: Answer) -> None:
    """Before the fix, intake paused with only the two in memory to probe with, until they expired 6.9 days later."""
    poisonous = {"a", "b"}
    world = world_of(policy_of(), lambda _, visitor: answer if visitor in poisonous else None)
    member = world.join()
    for number in range(6):
        for visitor in poisonous:
            event_at(world, 2.0 + number, visitor, number)
    world.run(until=300.0)
    assert member.engine.track.state is not EndpointState.OK
    assert not member.paused, "nothing in memory could tell that Pendo is back"
    event_at(world, 301.0, "healthy", 0)
    world.run(until=400.0)
    assert delivered_visitors(world) == ["healthy"]


NO_PROBES = [
    pytest.param(answer, events, id=f"{answer.label} after {answer.retry_after}")
    for answer, events in (
        (Answer(400), 100),
        (Answer(429), 1),
        (Answer(429, "1"), 1),
        (Answer(429, "300"), 1),
    )
]
"""Answers that do not tell whether an endpoint is back, and the number of events of the visitor who gets them."""


@pytest.mark.parametrize("answer", POISONS)
@pytest.mark.parametrize(("other", "events"), NO_PROBES)
def test_two_poisonous_visitors_and_one_whose_answers_say_nothing_stop_nobody(
    answer: Answer, other: Answer, events: int
) -> None:
    """Before the fix, intake paused as long as there was an event of the third, but others were tried before it, or
    it again and again.
    """
    answers = {"a": answer, "b": answer, "other": other}
    world = world_of(policy_of(), lambda _, visitor: answers.get(visitor))
    world.join()
    for number in range(6):
        event_at(world, 2.0 + number, "a", number)
        event_at(world, 2.0 + number, "b", number)
    for number in range(events):
        event_at(world, 2.0 + number * 0.1, "other", number)
    event_at(world, 301.0, "healthy", 0)
    world.run(until=301.0 + 44.0)
    assert delivered_visitors(world) == ["healthy"]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_some_visitors_are_answered_others_wait_a_minute_at_most(seed: int) -> None:
    """Before the fix, healthy events waited for ever in two of five such worlds."""
    draw = Random(seed)
    bad = {f"bad{number}": draw.choice(SOME_ANSWERS) for number in range(draw.randrange(1, 8))}
    is_often_rejected = draw.random() < 0.3

    def poison(_: World, visitor: str) -> Answer | None:
        rejected = is_often_rejected and visitor in bad and draw.random() < 0.05
        return Answer(400) if rejected else bad.get(visitor)

    world = world_of(policy_of(draw.choice((2, 8, 64))), poison)
    world.join()
    for number in range(draw.choice((10, 60, 300))):
        event_at(world, 2.0 + number * draw.choice((0.01, 0.5, 2.0)), draw.choice(list(bad)), number)
    moments = [draw.uniform(1, 900) for _ in range(6)]
    for number, moment in enumerate(moments):
        event_at(world, moment, f"healthy{number}", number)
    world.run(until=1000.0)
    arrived = {sight.ids[0]: sight.arrived_at for sight in world.track_sights if sight.answer is OK}
    waited = [arrived.get(f"healthy{number}", inf) - moment for number, moment in enumerate(moments)]
    assert max(waited) < 60.0


SOME_ANSWERS = [
    *(Answer(status) for status in (400, 403, 404, 408, 429, 500)),
    *(Answer(429, "7"), Answer(302), TIMED_OUT, BROKEN, REFUSED_CONNECTION),
]


@pytest.mark.parametrize("answer", POISONS)
def test_a_trickle_of_healthy_visitors_goes_through_among_poisonous_ones(answer: Answer) -> None:
    """Each healthy event is sent within the longest pause between two probes plus the time-out of one."""
    world = world_of(policy_of(), lambda _, visitor: answer if visitor.startswith("bad") else None)
    world.join()
    for number in range(200):
        event_at(world, 2.0 + number * 0.5, f"bad{number % 10}", number)
    moments = [300.0 + 60.0 * number for number in range(10)]
    for number, moment in enumerate(moments):
        event_at(world, moment, f"healthy{number}", number)
    world.run(until=1000.0)
    assert sorted(delivered_visitors(world)) == [f"healthy{number}" for number in range(10)]
    arrived = {sight.ids[0]: sight.arrived_at for sight in world.track_sights if sight.answer is OK}
    waited = [arrived[f"healthy{number}"] - moment for number, moment in enumerate(moments)]
    assert max(waited) < 30.0 + 10.0 + 2.0


def test_in_an_outage_the_probe_is_the_delivery_that_failed_least() -> None:
    world = world_of(policy_of(), lambda w, _: Answer(503) if w.now < 600 else None)
    member = world.join()
    for number in range(60):
        event_at(world, 2.0, f"v{number}", 0)
    world.run(until=500.0)
    assert member.paused, "there are deliveries to probe with that never failed"
    probed = [sight.ids[0] for sight in world.track_sights]
    assert len(probed) == len(set(probed)), "nobody is probed with twice while others never failed"
    world.run(until=1000.0)
    world.check_nothing_lost()


@pytest.mark.parametrize("percent", [1, 5])
@pytest.mark.parametrize("answer", [Answer(500), TIMED_OUT], ids=["500", "hangs"])
def test_others_keep_nine_tenths_of_their_rate(answer: Answer, percent: int) -> None:
    """Before the fix, half of the others' events, or a sixth, were sent within the same time."""
    visitors, rate, seconds = 200, 100, 50
    world = world_of(
        policy_of(connections=8),
        lambda _, visitor: answer if int(visitor) % 100 < percent else None,
        latency_seconds=0.05,
        batch=200,
    )
    world.join()
    draw = Random(9)
    published = 0
    for number in range(rate * seconds):
        visitor = draw.randrange(visitors)
        event_at(world, 2.0 + number / rate, str(visitor), number)
        published += visitor % 100 >= percent
    world.run(until=seconds + 4.0)
    assert len(delivered_visitors(world)) >= 0.9 * published


def test_random_refusals_kill_no_delivery() -> None:
    """Before the fix, one refusal was enough: 2 % random 404s dead-lettered 1.4 % of the events."""
    draw = Random(3)
    world = world_of(
        policy_of(connections=16),
        lambda *_: Answer(404) if draw.random() < 0.02 else None,
        latency_seconds=0.02,
    )
    world.join()
    for number in range(4000):
        event_at(world, 2.0 + number / 200, f"v{number}", 0)
    world.run()
    world.check_nothing_lost()
    reasons = list(world.reasons().values())
    assert reasons.count(Reason.REJECTED) <= 8, "2 % of 2 %, and some luck"
    assert world.now < 2.0 + 20.0 + 15.0, "no refusal has taken the endpoint down"


def test_random_throttling_costs_no_throughput() -> None:
    """Before the fix, three 429s in ten seconds held the endpoint: 0.5 % 429s cut 1,103 events a second to 252."""
    draw = Random(3)
    world = world_of(
        policy_of(connections=16),
        lambda *_: Answer(429) if draw.random() < 0.005 else None,
        latency_seconds=0.05,
    )
    member = world.join()
    for number in range(4000):
        event_at(world, 2.0 + number / 250, f"v{number}", 0)
    world.run(until=20.0)
    assert len(delivered_visitors(world)) >= 0.97 * 4000
    assert member.engine.track.limit == 16


def test_dozens_of_hot_visitors_hold_back_no_cold_one() -> None:
    """By default, 34 visitors with 600 events each fill the memory; here 40 do, with limits 20 times lower."""
    policy = policy_of(max_pending=1000, max_pending_per_visitor=30)
    world = world_of(policy, lambda *_: None, latency_seconds=0.01, batch=100)
    world.join()
    for second in range(30):
        for hot in range(40):
            for number in range(3):
                event_at(world, 2.0 + second, f"hot{hot}", 100 * second + number)
        for cold in range(20):
            event_at(world, 2.5 + second, f"cold{second}-{cold}", 0)
    world.run(until=40.0)
    cold_sights = [sight for sight in world.track_sights if sight.ids[0].startswith("cold")]
    assert len(cold_sights) == 30 * 20
    published_at = {f"cold{second}-{cold}": 2.5 + second for second in range(30) for cold in range(20)}
    assert max(sight.arrived_at - published_at[sight.ids[0]] for sight in cold_sights) < 2.0
    cut = [key for key, reason in world.reasons().items() if reason is Reason.VISITOR_BACKLOG]
    assert cut, "something had to give"
    assert {(world.log[p][o].key or b"")[:3] for p, o in cut} == {b"hot"}


def test_hot_visitors_of_large_events_hold_back_no_cold_one() -> None:
    policy = policy_of(max_pending=2000, max_pending_bytes=400_000, max_pending_per_visitor=600)
    world = world_of(policy, lambda *_: None, latency_seconds=0.01, batch=20)
    world.value_bytes = lambda event: 5000 if event.visitor_id.startswith("hot") else 200  # type: ignore[union-attr]
    member = world.join()
    for second in range(60):
        for hot in range(20):
            event_at(world, 2.0 + second, f"hot{hot}", 2 * second)
            event_at(world, 2.0 + second, f"hot{hot}", 2 * second + 1)
        event_at(world, 2.5 + second, f"cold{second}", 0)
    most_bytes = 0
    for second in range(70):
        world.run(until=float(second))
        most_bytes = max(most_bytes, member.engine.pending_bytes)
    arrived = {sight.ids[0]: sight.arrived_at for sight in world.track_sights}
    assert max(arrived[f"cold{second}"] - (2.5 + second) for second in range(60)) < 2.0
    assert most_bytes <= 400_000 + 20 * 5200


def test_a_visitors_order_and_pace_hold_while_it_fails() -> None:
    world = world_of(
        policy_of(), lambda w, visitor: Answer(500) if visitor == "sick" and w.now < 60 else None
    )
    world.join()
    for number in range(10):
        event_at(world, 2.0, "sick", number)
        event_at(world, 2.0 + number, f"well{number}", 0)
    world.run()
    world.check_nothing_lost()
    world.check_spacing()
    offsets = [sight.offset or 0 for sight in world.by_visitor()["sick"]]
    assert all(before <= after for before, after in pairwise(offsets))


@pytest.mark.parametrize("answer", POISONS)
def test_the_metadata_of_poisonous_visitors_holds_up_no_others(answer: Answer) -> None:
    """Once, six of forty visitors were in every batch that probed, and no metadata was delivered. Later, while the
    endpoint seemed down, these six, who had waited for longest, were the first probes: it took three minutes.
    """

    def answering(_: World, attempt: Attempt) -> tuple[Answer, float, float]:
        ids = attempt.batch.ids if isinstance(attempt, MetadataAttempt) else []
        return (answer if any(each.startswith("bad") for each in ids) else OK), 0.0, 0.05

    policy = policy_of().model_copy(update={"decisions": DecisionsSettings()})
    world = World(policy, Random(5), answering=answering)
    world.join()
    for number in range(6):
        event_at(world, 2.0, f"bad{number}", number)
    for number in range(34):
        event_at(world, 2.0, f"v{number}", number)
    for number in range(60):
        event_at(world, 20.0 + number, f"later{number}", number)
    world.run(until=90.0)
    assert unsent(world, b"later") == []
    assert unsent(world, b"v") == [], "those who were in their batches, too"


def unsent(world: World, prefix: bytes) -> list[bytes | None]:
    """The visitors with this prefix whose metadata Pendo has not accepted."""
    reasons = world.reasons(Kind.VISITOR_METADATA)
    named = [made for made in world.log[0] if (made.key or b"").startswith(prefix)]
    return [made.key for made in named if reasons.get((0, made.offset)) is not Reason.OK]


def test_a_new_owner_does_not_probe_with_the_poisonous_first() -> None:
    """It does not know which visitors have failed before. Before the fix, it probed with the oldest events first,
    those of visitors that always fail: the endpoint seemed down, and each failed probe doubled the pause to the next.
    """
    world = world_of(
        policy_of(max_attempts=100), lambda _, visitor: Answer(500) if visitor.startswith("bad") else None
    )
    first = world.join()
    for number in range(40):
        event_at(world, 20.0 + number, f"bad{number}", number)
    for number in range(240):
        event_at(world, 2.0 + number, f"v{number}", 0)
    world.at(150.0, lambda: world.revoke(first, {0}, lambda: world.assign(world.join(set()), {0})))
    world.run(until=260.0)
    arrived = {sight.ids[0]: sight.arrived_at for sight in world.track_sights if sight.answer is OK}
    waited = [arrived[f"v{number}"] - (2.0 + number) for number in range(240)]
    assert max(waited) < 5.0


@pytest.mark.parametrize(
    ("answer", "cold"),
    [
        (Answer(429, "60"), 20),
        (Answer(429, "60"), 10),
        (Answer(429, "60"), 2),
        (Answer(429), 5),
        (Answer(503, "60"), 20),
        (Answer(503, "60"), 2),
    ],
)
def test_visitors_that_are_to_come_back_later_hold_back_no_others(answer: Answer, cold: int) -> None:
    """They publish slowly, so that none is hot, and fail seldom; but their lanes do not get shorter either.

    With less traffic their answers are a larger share. Before the fix, three 429s then held everybody for as long as
    Pendo asked of one visitor, again and again: of ten cold events a second hardly one was sent.
    """
    world = world_of(
        policy_of(max_pending=400, max_pending_per_visitor=60),
        lambda _, visitor: answer if visitor.startswith("slow") else None,
        latency_seconds=0.01,
    )
    world.join()
    for second in range(300):
        for number in range(2 if second >= 20 else 0):
            event_at(world, 2.0 + second, f"slow{(2 * second + number) % 8}", second)
        for number in range(cold):
            event_at(world, 2.5 + second, f"cold{second}-{number}", 0)
    world.run(until=320.0)
    arrived = {sight.ids[0]: sight.arrived_at for sight in world.track_sights if sight.answer is OK}
    waited = [
        arrived.get(f"cold{second}-{number}", 999.0) - (2.5 + second)
        for second in range(300)
        for number in range(cold)
    ]
    assert max(waited) < 5.0


def test_visitors_that_pendo_answers_slowly_hold_back_no_others() -> None:
    """They publish slowly and never fail, but their events still come faster than they are sent."""

    def answering(_: World, attempt: Attempt) -> tuple[Answer, float, float]:
        assert isinstance(attempt, TrackAttempt)
        return OK, 0.0, 9.0 if attempt.lane.visitor_id.startswith("slow") else 0.01

    policy = policy_of(max_pending=400, max_pending_per_visitor=60)
    world = World(policy, Random(5), answering=answering)
    world.join()
    for second in range(400):
        for number in range(2):
            event_at(world, 2.0 + second, f"slow{(2 * second + number) % 8}", second)
        for number in range(10):
            event_at(world, 2.5 + second, f"cold{second}-{number}", 0)
    world.run(until=420.0)
    arrived = {sight.ids[0]: sight.arrived_at for sight in world.track_sights}
    waited = [
        arrived.get(f"cold{second}-{number}", 999.0) - (2.5 + second)
        for second in range(400)
        for number in range(10)
    ]
    assert max(waited) < 5.0


@pytest.mark.parametrize("failures", [0, 1])
def test_old_events_faster_than_pendo_accepts_them_hold_back_no_new_one(failures: int) -> None:
    """Before the fix, the nearest deadline went first: an event of today, or its retry, waited for last week's."""
    tries: list[float] = []

    def answer(world: World, visitor: str) -> Answer | None:
        if visitor != "new":
            return None
        tries.append(world.now)
        return Answer(503) if len(tries) <= failures else None

    world = world_of(policy_of(connections=1), answer, latency_seconds=0.5)
    world.join()
    event_at(world, 10.0, "new", 0)
    for number in range(900):  # three a second, where two are accepted
        moment = number / 3
        last_week = START_MS + int((moment - 6 * 24 * 3600) * 1000)
        world.publish_at(moment, decision(f"old{number}", occurred_at=last_week))
    world.run(until=300.0)
    assert len(tries) == failures + 1
    assert tries[0] < 20.0
    assert tries[-1] < 40.0


def test_an_event_that_is_about_to_expire_overtakes_those_of_the_last_minute() -> None:
    policy = policy_of(connections=1, max_age_seconds=3600.0)
    world = world_of(policy, lambda _world, _visitor: None, latency_seconds=0.5)
    world.join()
    for number in range(60):
        event_at(world, 10.0, f"v{number}", 0)
    expires_at = 25.0
    world.publish_at(12.0, decision("old", occurred_at=START_MS + int((expires_at - 3600.0) * 1000)))
    world.run(until=100.0)
    order = delivered_visitors(world)
    assert set(order) == {"old", *(f"v{number}" for number in range(60))}
    assert order.index("old") < 10

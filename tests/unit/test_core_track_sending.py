"""Track deliveries: what an answer means for a lane, and how lanes are cut that together take more than their part of
the memory.
"""

from __future__ import annotations

from collections import Counter

import pytest

from engine_steps import TRACKS_ONLY, attempts_at, engine_with, instant, reasons, settle_all, visitors
from engine_world import OK, START_MS, acknowledge, decision, ready, record
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.pendo.endpoint import EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.pendo_rules import Rule
from flagpost_consumer.core.policy import DecisionsSettings, DeliverySettings, Policy
from flagpost_consumer.core.tracks.track_sending import HOT_SHARE, TrackAttempt
from flagpost_schemas import TrackEvent

MOST = 200
POLICY = Policy(
    decisions=DecisionsSettings(visitor_metadata=False),
    delivery=DeliverySettings(max_pending=MOST, max_pending_per_visitor=100),
)


def published(engine: Engine, *visitors: str, each_after_ms: int = 0) -> None:
    """Receive an event of each of these visitors, in this order; each event has another flag."""
    first = engine.accounts.records
    engine.receive(
        [
            record(decision(visitor, f"flag{n}", occurred_at=START_MS + n * each_after_ms), first + n)
            for n, visitor in enumerate(visitors)
        ],
        instant(0.0),
    )


def test_hot_visitors_share_a_third_of_the_memory_and_lose_their_newest_events() -> None:
    engine = engine_with(POLICY)
    hot = [f"hot{n % 3}" for n in range(177)]
    published(engine, *hot, "calm", "calm")
    settlements = engine.poll(instant(0.0)).settlements
    kept = Counter(hot)
    for each in settlements:
        kept[each.delivery.who] -= 1
    share = int(HOT_SHARE * MOST) // 3
    assert kept == dict.fromkeys(("hot0", "hot1", "hot2"), 1 + share), (
        "the first of each, and what may wait behind"
    )
    assert {each.ending.reason for each in settlements} == {Reason.VISITOR_BACKLOG}
    assert {each.ending.detail for each in settlements} == {
        "this visitor's waiting events use more than their fair share of memory (delivery.max_pending_per_visitor)"
    }
    assert min(each.delivery.record.offset for each in settlements) == 3 * (1 + share), "the newest"


@pytest.mark.parametrize(
    "visitors",
    [
        pytest.param(["hot"] * 100 + [f"v{n}" for n in range(70)], id="one alone has its own limit"),
        pytest.param([f"hot{n % 2}" for n in range(159)], id="the memory is not short"),
        pytest.param([f"v{n % 16}" for n in range(176)], id="no lane is long"),
    ],
)
def test_no_visitor_is_cut_where_it_is_not_needed(visitors: list[str]) -> None:
    engine = engine_with(POLICY)
    published(engine, *visitors)
    assert engine.poll(instant(0.0)).settlements == []


def test_visitors_who_publish_no_faster_than_half_their_pace_are_not_hot() -> None:
    """Their backlog is worked off twice as fast as it grew. Of the 89 events of each, 88 came after another one."""
    for each_after_ms, is_cut in ((1_011, True), (1_012, False)):
        engine = engine_with(POLICY)
        published(engine, *(f"v{n % 2}" for n in range(178)), each_after_ms=each_after_ms)
        assert bool(engine.poll(instant(0.0)).settlements) is is_cut


def test_if_pendo_takes_longer_than_the_pace_a_visitor_is_hot_at_a_lower_rate() -> None:
    """A visitor's events come every 2.4 s: slower than half of one a second, faster than half of one in 2 s."""
    for took_seconds, is_cut in ((0.0, False), (1.0, True)):
        engine = engine_with(POLICY)
        published(engine, *(f"v{n % 2}" for n in range(178)), each_after_ms=1_200)
        for attempt in attempts_at(engine, 1.0):
            engine.answered(attempt, OK, instant(1.0 + took_seconds))
        endings = Counter(each.ending.reason for each in engine.poll(instant(2.0)).settlements)
        assert endings.pop(Reason.OK) == 2
        assert bool(endings.pop(Reason.VISITOR_BACKLOG, 0)) is is_cut
        assert not endings


def test_one_hot_visitor_keeps_the_limit_of_one_visitor_and_the_detail_names_it() -> None:
    engine = engine_with(POLICY)
    published(engine, *["hot"] * 150, *(f"v{n}" for n in range(15)))
    settlements = engine.poll(instant(0.0)).settlements
    assert {each.delivery.who for each in settlements} == {"hot"}
    assert len(settlements) == 150 - POLICY.delivery.max_pending_per_visitor
    assert {each.ending.detail for each in settlements} == {
        "over 100 of this visitor's events wait (delivery.max_pending_per_visitor)"
    }


def test_visitors_that_are_to_come_back_later_while_others_pass_keep_a_tenth_of_the_limit() -> None:
    """Their events may stay for hours; the others keep what is sent within five seconds."""
    delivery = DeliverySettings(max_pending=MOST, max_pending_per_visitor=40)
    engine = engine_with(POLICY.model_copy(update={"delivery": delivery}))
    later = [f"later{n}" for n in range(18)]
    published(engine, *later, *(f"good{n}" for n in range(18)))
    attempts = sorted(attempts_at(engine, 1.0), key=lambda each: each.ticket.who)
    for good, poor in zip(attempts[:18], attempts[18:], strict=True):
        engine.answered(good, OK, instant(1.0))
        engine.answered(poor, Answer(503, "300"), instant(1.0))
    acknowledge(engine, engine.poll(instant(1.0)).settlements)
    assert engine.track.state is EndpointState.OK
    published(engine, *later * 9)
    cut = Counter(each.delivery.who for each in engine.poll(instant(1.0)).settlements)
    assert cut == dict.fromkeys(later, 9 - 4)


# What an answer means


def attempt_at(engine: Engine, seconds: float) -> TrackAttempt:
    (attempt,) = attempts_at(engine, seconds)
    assert isinstance(attempt, TrackAttempt)
    return attempt


def test_a_lane_is_failing_from_a_failure_until_a_request_has_not_failed_and_a_429_changes_nothing() -> None:
    engine = engine_with(TRACKS_ONLY)
    published(engine, "v", "v")
    seconds = 1.0
    for answer, failures in (
        (Answer(503), 1),
        (Answer(429), 1),
        (Answer(404), 2),
        (Answer(429), 2),
        (Answer(400), 0),
        (Answer(503), 1),
        (OK, 0),
    ):
        attempt = attempt_at(engine, seconds)
        engine.answered(attempt, answer, instant(seconds))
        assert attempt.lane.failures == failures
        seconds += 100.0


def test_a_429_says_when_to_come_back_however_often_the_delivery_failed_before() -> None:
    engine = Engine(TRACKS_ONLY, lambda: 0.99)
    ready(engine, (0,), 8, instant(0.0), TRACKS_ONLY)
    published(engine, "v")
    for seconds in (100.0, 200.0, 300.0):
        engine.answered(attempt_at(engine, seconds), Answer(503), instant(seconds))
    engine.answered(attempt_at(engine, 400.0), Answer(429, "2"), instant(400.0))
    assert attempts_at(engine, 401.9) == []
    assert visitors([attempt_at(engine, 402.0)]) == ["v"]


def test_a_visitor_whose_probe_was_refused_for_its_contents_is_not_the_next_probe() -> None:
    """docs/guarantees.md#progress-and-isolation"""
    engine = engine_with(TRACKS_ONLY)
    published(engine, "a", "b")
    for attempt in attempts_at(engine, 1.0):
        engine.answered(attempt, Answer(401), instant(1.0))
    assert engine.track.state is EndpointState.UNAUTHORIZED
    published(engine, "poison", "poison")
    probe = attempt_at(engine, 60.0)
    assert visitors([probe]) == ["poison"], "it has not failed yet"
    engine.answered(probe, Answer(400), instant(60.0))
    acknowledge(engine, engine.poll(instant(60.0)).settlements)
    assert visitors([attempt_at(engine, 70.0)]) != ["poison"]


@pytest.mark.parametrize("answer", [Answer(400), Answer(429), Answer(429, "300")])
def test_intake_goes_on_while_no_waiting_visitor_can_show_that_pendo_is_back(answer: Answer) -> None:
    """docs/decisions/0012: before, it waited for the visitor with this answer."""
    engine = engine_with(TRACKS_ONLY)
    published(engine, "a", "b")
    for attempt in attempts_at(engine, 1.0):
        engine.answered(attempt, Answer(401), instant(1.0))
    assert not engine.poll(instant(1.5)).intake_paused, "only visitors that fail wait"
    published(engine, "other")
    assert engine.poll(instant(1.5)).intake_paused
    probe = attempt_at(engine, 60.0)
    assert visitors([probe]) == ["other"]
    engine.answered(probe, answer, instant(60.0))
    assert not engine.poll(instant(62.0)).intake_paused
    published(engine, "other")
    assert not engine.poll(instant(62.0)).intake_paused, "the same visitor again"
    published(engine, "new")
    assert engine.poll(instant(62.0)).intake_paused


def test_intake_pauses_while_a_visitor_waits_whose_latest_request_passed() -> None:
    engine = engine_with(TRACKS_ONLY)
    published(engine, "well", "a", "b", "well")
    for attempt in attempts_at(engine, 1.0):
        answer = OK if visitors([attempt]) == ["well"] else Answer(401)
        engine.answered(attempt, answer, instant(1.0))
    assert engine.track.state is EndpointState.UNAUTHORIZED
    assert engine.poll(instant(1.5)).intake_paused


# Expiry and repairs


def test_an_event_is_sent_until_the_last_millisecond_of_its_maximum_age() -> None:
    policy = TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_age_seconds=30)})
    for seconds, reason in ((30.0, Reason.OK), (30.001, Reason.EXPIRED)):
        engine = engine_with(policy)
        published(engine, "v")
        assert reasons(settle_all(engine, seconds)) == {0: reason}


def test_repairs_of_what_is_sent_are_counted_by_their_rule() -> None:
    engine = engine_with(TRACKS_ONLY)
    event = TrackEvent(
        event_id="e",
        occurred_at=START_MS,
        visitor_id="v",
        event="Clicked",
        properties={"a b": 1, "c d": 2, "fine": 3},
    )
    engine.receive([record(event)], instant(0.0))
    assert engine.accounts.repairs == {Rule.NAME_CHARACTERS: 2}

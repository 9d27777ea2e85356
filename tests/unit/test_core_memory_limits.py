"""Full memory: intake pauses and resumes well below the limit; lanes are cut only while Pendo accepts events."""

from __future__ import annotations

import pytest

from engine_steps import TRACKS_ONLY, answer_all, damaged, engine_with, instant
from engine_world import OK, acknowledge, decision, record
from flagpost_consumer.core.books.deliveries import Settlement
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Outcome, Reason
from flagpost_consumer.core.pendo.endpoint import EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DeliverySettings, Policy

MAX_PENDING = 100
CUT_FROM = 80
"""docs/contract.md#settings: lanes are cut from 80 % of delivery.max_pending on."""
LINE = 5


def limited(max_pending_per_visitor: int = LINE) -> Policy:
    delivery = DeliverySettings(max_pending=MAX_PENDING, max_pending_per_visitor=max_pending_per_visitor)
    return TRACKS_ONLY.model_copy(update={"delivery": delivery})


def is_paused(engine: Engine) -> bool:
    return engine.poll(instant(0.0)).intake_paused


def test_intake_pauses_when_memory_is_full_and_not_before() -> None:
    engine = engine_with(limited())
    engine.receive([damaged(offset) for offset in range(MAX_PENDING - 1)], instant(0.0))
    assert not is_paused(engine)
    engine.receive([damaged(MAX_PENDING - 1)], instant(0.0))
    assert is_paused(engine)


def test_intake_resumes_well_below_the_limit_and_pauses_again_only_at_the_limit() -> None:
    """After a pause the client fetches again: pausing and resuming at each record would cost more than it saves."""
    engine = engine_with(limited())
    engine.receive([damaged(offset) for offset in range(MAX_PENDING)], instant(0.0))
    actions = engine.poll(instant(0.0))
    assert actions.intake_paused
    left, paused_at = actions.settlements, []
    while left:
        acknowledge(engine, [left.pop(0)])
        if is_paused(engine):
            paused_at.append(len(left))
    assert paused_at == list(range(MAX_PENDING - 1, min(paused_at) - 1, -1)), "it resumes once"
    assert 50 <= min(paused_at) <= 70
    engine.receive([damaged(MAX_PENDING + offset) for offset in range(MAX_PENDING - 1)], instant(0.0))
    assert not is_paused(engine)


def backlog(settlements: list[Settlement]) -> list[int]:
    """The offsets of the deliveries that were cut off their lanes."""
    return [
        each.delivery.record.offset for each in settlements if each.ending.reason is Reason.VISITOR_BACKLOG
    ]


def test_intake_pauses_and_resumes_by_bytes_as_it_does_by_records() -> None:
    size = len(b"damaged") + len(b"original")
    delivery = DeliverySettings(max_pending_bytes=MAX_PENDING * size)
    engine = engine_with(TRACKS_ONLY.model_copy(update={"delivery": delivery}))
    engine.receive([damaged(offset) for offset in range(MAX_PENDING - 1)], instant(0.0))
    first = engine.poll(instant(0.0))
    assert not first.intake_paused
    engine.receive([damaged(MAX_PENDING - 1)], instant(0.0))
    left = first.settlements + engine.poll(instant(0.0)).settlements
    paused_at = []
    while left:
        if is_paused(engine):
            paused_at.append(len(left))
        acknowledge(engine, [left.pop(0)])
    assert paused_at == list(range(MAX_PENDING, min(paused_at) - 1, -1)), "it resumes once"
    assert 50 <= min(paused_at) <= 70


@pytest.mark.parametrize("state", [EndpointState.UNREACHABLE, EndpointState.UNAUTHORIZED])
def test_no_lane_is_cut_while_pendo_accepts_nothing(state: EndpointState) -> None:
    """docs/contract.md#outcomes: an outage makes no dead letters, however long it lasts."""
    engine = engine_with(limited())
    refusal = Answer(503) if state is EndpointState.UNREACHABLE else Answer(401)
    engine.receive([record(decision(f"v{offset}"), offset) for offset in range(20)], instant(0.0))
    answer_all(engine, 1.0, refusal)
    assert engine.track.state is state
    hot = [record(decision("hot", f"flag{number}"), 20 + number) for number in range(CUT_FROM)]
    engine.receive(hot, instant(1.0))
    seen: list[Settlement] = []
    for minute in range(60):
        actions = engine.poll(instant(60.0 * minute + 2.0))
        seen += actions.settlements
        for attempt in actions.attempts:
            engine.answered(attempt, refusal, instant(60.0 * minute + 3.0))
    assert engine.track.state is state
    assert seen == []
    assert engine.accounts.pending.total() == 20 + CUT_FROM


def test_lanes_are_cut_once_pendo_accepts_events_again_and_lose_their_newest() -> None:
    engine = engine_with(limited())
    engine.receive([record(decision(f"v{offset}"), offset) for offset in range(20)], instant(0.0))
    answer_all(engine, 1.0, Answer(503))
    hot = [record(decision("hot", f"flag{number}"), 20 + number) for number in range(CUT_FROM)]
    engine.receive(hot, instant(1.0))
    assert answer_all(engine, 60.0, OK) == 1, "a probe"
    cut = sorted(backlog(engine.poll(instant(60.0)).settlements))
    assert 20 + LINE <= cut[0] <= 20 + LINE + 1, (
        "the oldest stay, beside the one that may have been the probe"
    )
    assert cut == list(range(cut[0], 20 + CUT_FROM))


def test_no_lane_is_cut_below_four_fifths_of_the_memory() -> None:
    engine = engine_with(limited())
    hot = [record(decision("hot", f"flag{number}"), number) for number in range(CUT_FROM)]
    engine.receive(hot[:-1], instant(0.0))
    assert engine.poll(instant(0.0)).settlements == []
    engine.receive(hot[-1:], instant(0.0))
    settlements = engine.poll(instant(0.0)).settlements
    assert sorted(backlog(settlements)) == list(range(LINE, CUT_FROM))
    assert {each.ending.outcome for each in settlements} == {Outcome.DEAD_LETTERED}


def test_a_lane_of_exactly_the_limit_is_not_cut() -> None:
    engine = engine_with(limited())
    engine.receive(
        [record(decision("hot", f"flag{number}"), number) for number in range(LINE)]
        + [record(decision("longer", f"flag{number}"), LINE + number) for number in range(LINE + 1)]
        + [damaged(2 * LINE + 1 + number) for number in range(CUT_FROM)],
        instant(0.0),
    )
    assert backlog(engine.poll(instant(0.0)).settlements) == [2 * LINE]


def test_the_delivery_in_flight_stays_when_its_lane_is_cut() -> None:
    engine = engine_with(limited(max_pending_per_visitor=1))
    engine.receive([record(decision("hot", f"flag{number}"), number) for number in range(3)], instant(0.0))
    (attempt,) = engine.poll(instant(1.0)).attempts
    engine.receive([damaged(3 + number) for number in range(CUT_FROM)], instant(1.0))
    assert sorted(backlog(engine.poll(instant(1.0)).settlements)) == [1, 2]
    engine.answered(attempt, OK, instant(1.1))
    (settlement,) = engine.poll(instant(1.1)).settlements
    assert (settlement.delivery.record.offset, settlement.ending.reason) == (0, Reason.OK)


def test_with_a_limit_of_zero_no_lane_is_ever_cut() -> None:
    engine = engine_with(limited(max_pending_per_visitor=0))
    engine.receive(
        [record(decision("hot", f"flag{number}"), number) for number in range(2 * MAX_PENDING)], instant(0.0)
    )
    assert engine.poll(instant(0.0)).settlements == []

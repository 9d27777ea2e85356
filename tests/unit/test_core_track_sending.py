"""Track deliveries: what becomes of lanes that together take more than their part of the memory."""

from __future__ import annotations

from collections import Counter

import pytest

from engine_steps import engine_with, instant
from engine_world import START_MS, decision, record
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.policy import DecisionsSettings, DeliverySettings, Policy
from flagpost_consumer.core.tracks.track_sending import HOT_SHARE

MOST = 200
POLICY = Policy(
    decisions=DecisionsSettings(visitor_metadata=False),
    delivery=DeliverySettings(max_pending=MOST, max_pending_per_visitor=100),
)


def published(engine: Engine, *visitors: str, each_after_ms: int = 0) -> None:
    """An event of each of these visitors, one after the other; a visitor that is named again has another flag."""
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
def test_nobody_is_cut_where_it_is_not_needed(visitors: list[str]) -> None:
    engine = engine_with(POLICY)
    published(engine, *visitors)
    assert engine.poll(instant(0.0)).settlements == []


def test_visitors_who_publish_no_faster_than_half_their_pace_are_not_hot() -> None:
    """A backlog of theirs is worked off twice as fast as it grew. Of 89 events each, 88 came after another."""
    for each_after_ms, is_cut in ((1_011, True), (1_012, False)):
        engine = engine_with(POLICY)
        published(engine, *(f"v{n % 2}" for n in range(178)), each_after_ms=each_after_ms)
        assert bool(engine.poll(instant(0.0)).settlements) is is_cut

"""When the engine wants more records (docs/decisions/0038)."""

from __future__ import annotations

import pytest

from engine_steps import TRACKS_ONLY, answer_all, attempts_at, engine_with, instant
from engine_world import OK, decision, record
from flagpost_consumer.core.engine import ENOUGH_FOR_EACH_CONNECTION, Engine
from flagpost_consumer.core.pendo.endpoint import EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DeliverySettings, EndpointLimits
from flagpost_consumer.core.tracks.appetite import PATIENCE_SECONDS, Appetite

CONNECTIONS = 2
ENOUGH = ENOUGH_FOR_EACH_CONNECTION * CONNECTIONS
POLICY = TRACKS_ONLY.model_copy(
    update={
        "limits": EndpointLimits(max_connections=CONNECTIONS),
        "delivery": DeliverySettings(visitor_interval_seconds=1.0),
    }
)


def engine_that_may_send() -> Engine:
    """An engine whose partition's first interval, one second, is over."""
    engine = engine_with(POLICY)
    assert attempts_at(engine, 1.0) == []
    return engine


def receive(engine: Engine, visitors: int, seconds: float, first: int = 0) -> None:
    events = [record(decision(f"v{first + n}"), first + n) for n in range(visitors)]
    engine.receive(events, instant(seconds))


@pytest.mark.parametrize("startable", [0, 3])
def test_records_are_wanted_while_few_could_start(startable: int) -> None:
    assert Appetite(4).wants(startable, 1.0)


def test_no_records_are_wanted_for_a_while_once_enough_could_start() -> None:
    appetite = Appetite(4)
    assert not appetite.wants(4, 1.0)
    assert not appetite.wants(100, 1.0 + PATIENCE_SECONDS - 0.01)
    assert appetite.wants(100, 1.0 + PATIENCE_SECONDS)
    assert appetite.wants(1_000, 100.0), "and from then on all there is room for"


def test_the_wait_starts_again_once_few_could_start() -> None:
    appetite = Appetite(4)
    assert not appetite.wants(4, 1.0)
    assert appetite.wants(3, 1.2)
    assert not appetite.wants(4, 1.3)
    assert not appetite.wants(4, 1.2 + PATIENCE_SECONDS)


def test_only_visitors_whose_events_could_start_count() -> None:
    engine = engine_that_may_send()
    receive(engine, ENOUGH - 1, 1.0)
    assert engine.wants_records(instant(1.0))
    receive(engine, 1, 1.0, first=ENOUGH)
    assert not engine.wants_records(instant(1.0))
    assert len(attempts_at(engine, 1.0)) == CONNECTIONS
    assert engine.wants_records(instant(1.0)), "those on their way do not count"


def test_many_events_of_one_visitor_do_not_keep_others_out() -> None:
    engine = engine_that_may_send()
    events = [record(decision("hot", f"flag{n}"), n) for n in range(10 * ENOUGH)]
    engine.receive(events, instant(1.0))
    assert engine.wants_records(instant(1.0))


def test_visitors_that_wait_for_their_pace_or_a_retry_do_not_count() -> None:
    engine = engine_that_may_send()
    events = [record(decision(f"v{n % 8}", f"flag{n}"), n) for n in range(16)]
    engine.receive(events, instant(1.0))
    assert not engine.wants_records(instant(1.0))
    for _ in range(2):
        answer_all(engine, 1.0, OK)
    for _ in range(2):
        answer_all(engine, 1.0, Answer(500))
    assert engine.track.state is EndpointState.OK
    assert engine.wants_records(instant(1.0))


def test_all_records_are_wanted_while_pendo_is_down() -> None:
    engine = engine_that_may_send()
    receive(engine, 40, 1.0)
    assert not engine.wants_records(instant(1.0))
    while engine.track.state is EndpointState.OK:
        answer_all(engine, 1.0, Answer(503))
    receive(engine, 40, 1.0, first=100)
    assert engine.wants_records(instant(1.0))

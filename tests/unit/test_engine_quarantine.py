"""A record on which our own code raises is given up, and its partition continues (docs/guarantees.md#progress)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from engine_steps import Reader, undecoded
from engine_world import OK, START_MS, World, acknowledge, decision, positions, ready, record
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.planning.mapping import track_body
from flagpost_consumer.core.planning.plan import Planner
from flagpost_consumer.core.planning.quarantine import MAX_SUSPECTS, Suspects
from flagpost_consumer.core.policy import DecisionsSettings, Policy
from flagpost_consumer.core.tracks.lanes import Lanes
from flagpost_consumer.core.tracks.repeats import Repeats

TRACKS_ONLY = Policy(decisions=DecisionsSettings(visitor_metadata=False))


def instant(seconds: float) -> Instant:
    return Instant(seconds, START_MS + int(seconds * 1000))


def raising_for(visitor: str, work: Callable[..., Any], visitor_of: Callable[..., str]) -> Callable[..., Any]:
    """The function `work` with a defect: it raises KeyError for one visitor's events."""

    def defective(*arguments: Any) -> Any:
        if visitor_of(*arguments) == visitor:
            raise KeyError(visitor)
        return work(*arguments)

    return defective


def test_a_record_on_which_planning_raises_is_dead_lettered_and_delays_no_other(monkeypatch: Any) -> None:
    """Before the fix, the process ended, and read the record again after each restart."""
    plan = raising_for("strange", Planner.plan, lambda _, event, __: event.visitor_id)
    monkeypatch.setattr(Planner, "plan", plan)
    world = World(TRACKS_ONLY, Random(1))
    for visitor in ("a", "strange", "b", "strange"):
        world.publish(decision(visitor))
    member = world.join()
    world.run()
    world.check_nothing_lost()
    assert world.reasons() == {(0, 0): Reason.OK, (0, 2): Reason.OK}
    (quarantined,) = world.settled[0, 1, Kind.UNKNOWN]
    assert (quarantined.ending.outcome, quarantined.ending.reason) == (Outcome.DEAD_LETTERED, Reason.INVALID)
    assert "a defect of Flagpost's: KeyError at " in quarantined.ending.detail
    assert "strange" not in quarantined.ending.detail
    assert member.engine.accounts.quarantined == 2


def test_a_defect_that_comes_once_costs_nothing(monkeypatch: Any) -> None:
    plan, failures = Planner.plan, [MemoryError()]

    def failing_once(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return plan(*arguments)

    monkeypatch.setattr(Planner, "plan", failing_once)
    world = World(TRACKS_ONLY, Random(1))
    world.publish(decision("a"))
    world.join()
    world.run()
    assert world.reasons() == {(0, 0): Reason.OK}


def test_a_body_that_cannot_be_made_is_dead_lettered_and_its_lane_goes_on(monkeypatch: Any) -> None:
    body = raising_for("strange", track_body, lambda track: track.properties["flag_key"])
    monkeypatch.setattr("flagpost_consumer.core.tracks.track_sending.track_body", body)
    world = World(TRACKS_ONLY, Random(1))
    for flag in ("one", "strange", "two"):
        world.publish(decision("v", flag))
    world.publish(decision("w", "strange"))
    member = world.join()
    world.run()
    world.check_nothing_lost()
    ok, invalid = Reason.OK, Reason.INVALID
    assert world.reasons() == {(0, 0): ok, (0, 1): invalid, (0, 2): ok, (0, 3): invalid}
    assert member.engine.accounts.quarantined == 2


def test_a_record_at_which_two_engines_failed_is_not_handled_a_third_time(monkeypatch: Any) -> None:
    """An engine that failed while it changed its state is not used again; `Suspects` names the record to the next."""
    push = raising_for("strange", Lanes.push, lambda _, visitor, *__: visitor)
    monkeypatch.setattr(Lanes, "push", push)
    suspects = Suspects()
    records = [record(decision(visitor), offset) for offset, visitor in enumerate(("a", "strange", "b"))]
    for _ in range(2):
        engine = engine_with(suspects)
        with pytest.raises(KeyError) as failed:
            engine.receive(records, instant(0.0))
        assert suspects.blame(failed.value)
    engine = engine_with(suspects)
    engine.receive(records, instant(0.0))
    settlements = engine.poll(instant(0.0)).settlements
    assert [each.delivery.record.offset for each in settlements] == [1]
    assert settlements[0].ending.reason is Reason.INVALID
    assert "KeyError at " in settlements[0].ending.detail
    acknowledge(engine, settlements)
    assert positions(engine) == {0: 0}
    assert engine.accounts.quarantined == 1


def test_a_record_that_fails_before_it_is_decoded_is_not_handled_a_third_time(monkeypatch: Any) -> None:
    take = raising_for("strange", Repeats.take, lambda _, undecoded, *__: undecoded.key.decode())
    monkeypatch.setattr(Repeats, "take", take)
    suspects = Suspects()
    records = [undecoded(decision("strange"), 0, Reader())]
    for _ in range(2):
        engine = engine_with(suspects)
        with pytest.raises(KeyError) as failed:
            engine.receive(records, instant(0.0))
        assert suspects.blame(failed.value)
    engine = engine_with(suspects)
    engine.receive(records, instant(0.0))
    (settlement,) = engine.poll(instant(0.0)).settlements
    assert settlement.ending.reason is Reason.INVALID


def test_the_record_whose_answer_cannot_be_handled_is_blamed(monkeypatch: Any) -> None:
    def defective(*_: object) -> None:
        raise KeyError

    suspects = Suspects()
    engine = engine_with(suspects)
    engine.receive([record(decision(visitor), offset) for offset, visitor in enumerate("ab")], instant(1.0))
    first, second = engine.poll(instant(1.0)).attempts
    engine.answered(first, OK, instant(1.0))
    assert not suspects.blame(KeyError()), "nothing is handled any more"
    monkeypatch.setattr(Lanes, "answered", defective)
    for _ in range(2):
        with pytest.raises(KeyError) as failed:
            engine.answered(second, OK, instant(1.0))
        assert suspects.blame(failed.value)
    assert [suspects.condemned(0, offset) is None for offset in (0, 1)] == [True, False]


def engine_with(suspects: Suspects) -> Engine:
    engine = Engine(TRACKS_ONLY, Random(1).random, suspects)
    ready(engine, [0], 8, instant(0.0), TRACKS_ONLY)
    return engine


def test_a_failure_while_no_record_is_handled_blames_none() -> None:
    suspects = Suspects()
    engine = engine_with(suspects)
    engine.receive([record(decision("a"))], instant(0.0))
    assert not suspects.blame(KeyError())
    assert suspects.condemned(0, 0) is None


def test_a_failure_after_a_duplicate_was_recognised_does_not_blame_it() -> None:
    suspects = Suspects()
    engine, reader = engine_with(suspects), Reader()
    engine.receive([undecoded(decision("a"), offset, reader) for offset in (0, 1)], instant(0.0))
    assert len(engine.poll(instant(0.0)).duplicates) == 1
    assert not suspects.blame(KeyError())


def test_beyond_the_limit_the_oldest_suspects_are_forgotten() -> None:
    suspects = Suspects()
    for offset in range(MAX_SUSPECTS + 1):
        for _ in range(2):
            suspects.handled = (0, offset)
            suspects.blame(KeyError())
    assert suspects.condemned(0, 0) is None
    assert suspects.condemned(0, 1) is not None
    assert suspects.condemned(0, MAX_SUSPECTS) is not None

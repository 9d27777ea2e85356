"""What an answer says of the delivery it was for, and of no other."""

from __future__ import annotations

from random import Random

from engine_steps import TRACKS_ONLY, attempts_at, engine_with, instant, reasons, settle_all, visitors
from flagpost_consumer.adapters.ledger_writer import entry_of
from flagpost_consumer.core.endpoint import EndpointState
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.policy import DeliverySettings
from flagpost_consumer.core.records import Attempt
from flagpost_consumer.core.verdict import Answer
from simulation import (
    BROKEN,
    OK,
    REFUSED_CONNECTION,
    START_MS,
    TIMED_OUT,
    Answering,
    World,
    acknowledge,
    decision,
    record,
)


def in_turn(visitor: str, answers: list[Answer]) -> Answering:
    """A visitor's answers in turn; then, and to everybody else, 200."""
    left = list(answers)

    def answer(_: World, attempt: Attempt) -> tuple[Answer, float, float]:
        assert attempt.lane is not None
        given = left.pop(0) if left and attempt.lane.visitor_id == visitor else OK
        return given, 0.0, 0.01

    return answer


def track_state(engine: Engine) -> EndpointState:
    return engine.track.state


def test_a_429_never_counts_as_an_attempt_however_many_others_pass_meanwhile() -> None:
    policy = TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_attempts=3)})
    world = World(policy, Random(1), answering=in_turn("slow", [Answer(429, "1")] * 12))
    world.join()
    world.publish(decision("slow"))
    for number in range(120):
        world.publish_at(number * 0.25, decision(f"v{number}"))
    world.run()
    (settlement,) = world.settled[0, 0, Kind.TRACK]
    assert settlement.ending.reason is Reason.OK
    assert settlement.delivery.attempts == 13


def test_attempts_whose_answer_was_never_seen_are_counted() -> None:
    """CONTRACT section 10: `unseen` is what Pendo may have taken without our knowledge."""
    answers = [TIMED_OUT, BROKEN, REFUSED_CONNECTION, Answer(503), TIMED_OUT]
    world = World(TRACKS_ONLY, Random(1), answering=in_turn("v", answers))
    world.join()
    world.publish(decision("v"))
    world.run()
    (settlement,) = world.settled[0, 0, Kind.TRACK]
    entry = entry_of(settlement)
    assert (entry.reason, entry.attempts, entry.unseen, entry.status) == ("ok", 6, 3, 200)


def test_refusals_of_requests_from_before_a_recovery_do_not_take_the_endpoint_down_again() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision(f"v{offset}"), offset) for offset in range(5)], instant(1.0))
    slow, also_slow, third, *rest = attempts_at(engine, 1.0)
    for refused in (third, *rest):
        engine.answered(refused, Answer(401), instant(1.1))
    assert track_state(engine) is EndpointState.UNAUTHORIZED
    engine.receive([record(decision("fresh"), 5)], instant(2.0))
    (probe,) = attempts_at(engine, 60.0)
    engine.answered(probe, OK, instant(60.1))
    assert track_state(engine) is EndpointState.OK
    for late in (slow, also_slow):
        engine.answered(late, Answer(401), instant(60.2))
    assert track_state(engine) is EndpointState.OK
    after = engine.poll(instant(60.2))
    assert not after.intake_paused
    acknowledge(engine, after.settlements)
    for attempt in after.attempts:
        engine.answered(attempt, OK, instant(60.3))
    assert set(reasons(settle_all(engine, 61.0)).values()) == {Reason.OK}


def test_what_follows_a_refused_delivery_in_its_line_is_not_taken_for_the_poison() -> None:
    """The refused delivery has ended otherwise: another visitor's success says nothing of the next one."""
    engine = engine_with(TRACKS_ONLY)
    line = [record(decision("bad", flag), offset) for offset, flag in enumerate(("first", "second"))]
    engine.receive(line, instant(1.0))
    for answer, at in ((Answer(404), 1.0), (Answer(400), 60.0)):
        (attempt,) = attempts_at(engine, at)
        assert visitors([attempt]) == ["bad"]
        engine.answered(attempt, answer, instant(at))
    engine.receive([record(decision("other"), 2)], instant(60.1))
    (attempt,) = attempts_at(engine, 60.1)
    assert visitors([attempt]) == ["other"], "the line rests after its answer"
    engine.answered(attempt, OK, instant(60.2))
    assert reasons(settle_all(engine, 60.2)) == {2: Reason.OK, 1: Reason.OK}


def test_what_follows_an_expired_delivery_that_was_refused_is_not_taken_for_the_poison() -> None:
    policy = TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_age_seconds=30.0)})
    engine = engine_with(policy)
    line = [decision("bad", "first"), decision("bad", "second", occurred_at=START_MS + 60_000)]
    engine.receive([record(event, offset) for offset, event in enumerate(line)], instant(1.0))
    (attempt,) = attempts_at(engine, 1.0)
    engine.answered(attempt, Answer(404), instant(1.1))
    other = decision("other", occurred_at=START_MS + 60_000)
    engine.receive([record(other, 2)], instant(60.0))
    settled = reasons(settle_all(engine, 60.0))
    assert settled == {0: Reason.EXPIRED, 1: Reason.OK, 2: Reason.OK}


# Attempts that count


def passes(engine: Engine, visitor: str, offset: int, at: float) -> None:
    """Let Pendo take an event of a visitor."""
    engine.receive([record(decision(visitor), offset)], instant(at))
    (attempt,) = attempts_at(engine, at)
    engine.answered(attempt, OK, instant(at))
    acknowledge(engine, engine.poll(instant(at)).settlements)


def fails(engine: Engine, at: float) -> dict[int, Reason]:
    """Let the poor visitor's next attempt fail; gives what ended by that."""
    (attempt,) = attempts_at(engine, at)
    assert visitors([attempt]) == ["poor"]
    engine.answered(attempt, Answer(503), instant(at))
    return reasons({each.delivery.record.offset: each for each in engine.poll(instant(at)).settlements})


def test_an_attempt_counts_only_if_another_visitor_passed_since_the_one_before() -> None:
    engine = engine_with(TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_attempts=3)}))
    engine.receive([record(decision("poor"), 0)], instant(1.0))
    assert fails(engine, 1.0) == {}, "nobody has passed"
    passes(engine, "first", 1, 1.1)
    for number in range(1, 6):
        assert fails(engine, 70.0 * number) == {}, "one success of another lets one attempt count"
    passes(engine, "second", 2, 351.0)
    assert fails(engine, 420.0) == {}
    passes(engine, "third", 3, 421.0)
    assert fails(engine, 490.0) == {0: Reason.ATTEMPTS_EXHAUSTED}


# Poison


def refused(engine: Engine, at: float) -> dict[int, Reason]:
    """Let Pendo refuse the poisonous visitor's next attempt; gives what ended by that."""
    (attempt,) = attempts_at(engine, at)
    assert visitors([attempt]) == ["bad"]
    engine.answered(attempt, Answer(404), instant(at))
    return reasons({each.delivery.record.offset: each for each in engine.poll(instant(at)).settlements})


def test_a_delivery_that_is_refused_twice_while_another_visitor_passes_between_is_poison() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision("bad"), 0)], instant(1.0))
    assert refused(engine, 1.0) == {}
    passes(engine, "other", 1, 1.1)
    assert refused(engine, 60.0) == {0: Reason.REJECTED}


def test_a_delivery_that_is_refused_again_and_again_while_nobody_else_passes_is_not() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision("bad"), 0)], instant(1.0))
    for at in (1.0, 60.0, 120.0, 180.0):
        assert refused(engine, at) == {}
    passes(engine, "other", 1, 180.1)
    assert refused(engine, 240.0) == {0: Reason.REJECTED}


def test_a_request_that_started_before_the_refusal_proves_nothing() -> None:
    """When a key is revoked, what began a moment before still passes."""
    engine = engine_with(TRACKS_ONLY)
    engine.receive(
        [record(decision(visitor), offset) for offset, visitor in enumerate(("bad", "other"))], instant(1.0)
    )
    by_visitor = {each.ticket.who: each for each in attempts_at(engine, 1.0)}
    engine.answered(by_visitor["bad"], Answer(404), instant(1.1))
    engine.answered(by_visitor["other"], OK, instant(1.2))
    acknowledge(engine, engine.poll(instant(1.2)).settlements)
    assert refused(engine, 60.0) == {}


def test_a_visitors_own_success_does_not_show_its_next_delivery_to_be_poison() -> None:
    engine = engine_with(TRACKS_ONLY)
    passes(engine, "bad", 0, 1.0)
    engine.receive([record(decision("bad", "next"), 1)], instant(2.0))
    for at in (2.0, 60.0, 120.0):
        assert refused(engine, at) == {}

"""What an answer means for its own delivery and for the endpoint; it means nothing for other deliveries."""

from __future__ import annotations

from random import Random

import pytest

from engine_steps import TRACKS_ONLY, attempts_at, engine_with, instant, reasons, settle_all, visitors
from engine_world import (
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
from flagpost_consumer.adapters.ledger.writer import entry_of
from flagpost_consumer.core.books.deliveries import Delivery
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Ending, Kind, Reason
from flagpost_consumer.core.pendo.attempts import (
    MAX_SAID_CHARACTERS,
    Attempt,
    Attempts,
    others_passed,
    refusal,
    tell,
)
from flagpost_consumer.core.pendo.budget import Budget
from flagpost_consumer.core.pendo.endpoint import Endpoint, EndpointState
from flagpost_consumer.core.pendo.verdict import Answer, Failure, Verdict, judge
from flagpost_consumer.core.policy import DeliverySettings
from flagpost_consumer.core.tracks.track_sending import TrackAttempt


def in_turn(visitor: str, answers: list[Answer]) -> Answering:
    """Answer a visitor's attempts with these answers in turn; everything else is answered with 200."""
    left = list(answers)

    def answer(_: World, attempt: Attempt) -> tuple[Answer, float, float]:
        assert isinstance(attempt, TrackAttempt)
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
    """docs/contract.md#ledger-records: `unseen` counts attempts that Pendo may have accepted unknown to us."""
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


def test_the_delivery_after_a_refused_one_in_its_lane_is_not_taken_for_poison() -> None:
    """The refused delivery was settled as rejected: another visitor's success means nothing for the next delivery."""
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


def test_the_delivery_after_a_refused_one_that_expired_is_not_taken_for_poison() -> None:
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
    """Let Pendo accept an event of a visitor."""
    engine.receive([record(decision(visitor), offset)], instant(at))
    (attempt,) = attempts_at(engine, at)
    engine.answered(attempt, OK, instant(at))
    acknowledge(engine, engine.poll(instant(at)).settlements)


def fails(engine: Engine, at: float) -> dict[int, Reason]:
    """Let the next attempt of the visitor `poor` fail; returns the reasons of the settlements, by offset."""
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
    """Let Pendo refuse the next attempt of the visitor `bad`; returns the reasons of the settlements, by offset."""
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


def test_a_delivery_that_is_refused_many_times_while_nobody_else_passes_is_not_poison() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision("bad"), 0)], instant(1.0))
    for at in (1.0, 60.0, 120.0, 180.0):
        assert refused(engine, at) == {}
    passes(engine, "other", 1, 180.1)
    assert refused(engine, 240.0) == {0: Reason.REJECTED}


def test_a_request_that_started_before_the_refusal_proves_nothing() -> None:
    """When a key is revoked, requests that started a moment before still succeed."""
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


# What an answer means for the endpoint


def probing() -> Endpoint:
    """An endpoint that has been down since second 0 and probes."""
    endpoint = Endpoint(8, Budget(None))
    for visitor in ("a", "b"):
        endpoint.refused(endpoint.start(visitor), 0.0)
    return endpoint


@pytest.mark.parametrize(
    ("answer", "opens"),
    [
        (Answer(503), 3.0),
        (Answer(503, "9"), 10.0),
        (Answer(503, "Fri, 15 Jan 2027 08:00:21 GMT"), 21.0),
        (Answer(429, "9"), 10.0),
        (Answer(429, "Fri, 15 Jan 2027 08:00:21 GMT"), 21.0),
        (Answer(401, "9"), 3.0),
        (Answer(400, "9"), 2.0),
        (Answer(200), 1.0),
    ],
)
def test_a_probe_s_answer_and_its_retry_after_say_when_the_next_request_may_go(
    answer: Answer, opens: float
) -> None:
    endpoint = probing()
    assert tell(endpoint, endpoint.start("p"), answer, judge(answer), instant(1.0))
    assert endpoint.opens_at(1.0) == opens


def test_a_refusal_from_before_a_new_secret_is_ignored() -> None:
    endpoint = probing()
    ticket = endpoint.start("p")
    endpoint.secret_changed(1.0)
    assert not tell(endpoint, ticket, Answer(401), Verdict.SETUP, instant(1.0))


def test_a_visitor_s_own_success_is_not_another_s() -> None:
    delivery = a_delivery("v")
    delivery.successes_seen = 0
    endpoint = Endpoint(8, Budget(None))
    endpoint.succeeded(endpoint.start("v"), 0.0)
    assert not others_passed(delivery, endpoint)
    endpoint.succeeded(endpoint.start("w"), 0.0)
    assert others_passed(delivery, endpoint)
    delivery.successes_seen = endpoint.successes
    assert not others_passed(delivery, endpoint), "it is from before the delivery's last attempt"


def a_delivery(visitor: str) -> Delivery:
    """The delivery of a visitor's decision."""
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision(visitor), 0)], instant(1.0))
    (settlement,) = settle_all(engine, 1.0).values()
    return settlement.delivery


# How long a delivery waits


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Answer(503), 4.0),
        (Answer(503, "1"), 4.0),
        (Answer(503, "9"), 9.0),
        (Answer(503, "Fri, 15 Jan 2027 08:00:21 GMT"), 20.0),
        (Answer(429), 4.0),
        (Answer(429, "0"), 4.0),
        (Answer(429, "1"), 1.0),
        (Answer(404, "9"), 9.0),
    ],
)
def test_a_delivery_waits_for_the_backoff_and_never_less_than_asked_for(
    answer: Answer, seconds: float
) -> None:
    attempts = Attempts(5, lambda: 0.5)
    assert attempts.wait(3, answer, judge(answer), instant(1.0)) == seconds


def test_the_first_wait_is_at_most_two_seconds_and_may_be_none() -> None:
    answer = Answer(503)
    assert Attempts(5, lambda: 0.999).wait(0, answer, judge(answer), instant(1.0)) == 0.999 * 2.0
    assert Attempts(5, lambda: 0.0).wait(1, answer, judge(answer), instant(1.0)) == 0.0


# The details of a settlement


def test_a_refusal_is_reported_in_pendo_s_own_words_if_it_gave_any() -> None:
    assert refusal(Answer(400, body=b"no such\nvisitor")) == "Pendo answered 400: no such visitor"
    assert refusal(Answer(400)) == "Pendo answered 400"
    assert refusal(Answer(413, body=b"\xff")) == "Pendo answered 413: \N{REPLACEMENT CHARACTER}"
    assert refusal(Answer(400, body=b"no" + b" " * 2_000)) == "Pendo answered 400: no"
    exactly = refusal(Answer(400, body=b"x" * MAX_SAID_CHARACTERS)).removeprefix("Pendo answered 400: ")
    longer = refusal(Answer(400, body=b"x" * 10_000)).removeprefix("Pendo answered 400: ")
    assert exactly == "x" * MAX_SAID_CHARACTERS
    assert longer == "x" * (MAX_SAID_CHARACTERS - 1) + "…"


def test_the_details_of_a_poisonous_delivery_and_of_one_that_was_given_up() -> None:
    engine = engine_with(TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_attempts=1)}))
    engine.receive([record(decision("bad"), 0)], instant(1.0))
    assert refused(engine, 1.0) == {}
    passes(engine, "other", 1, 1.1)
    (attempt,) = attempts_at(engine, 60.0)
    engine.answered(attempt, Answer(404), instant(60.0))
    (poison,) = engine.poll(instant(60.0)).settlements
    assert "404" in poison.ending.detail
    assert poison.ending.reason is Reason.REJECTED
    acknowledge(engine, [poison])
    engine.receive([record(decision("poor"), 2)], instant(61.0))
    (attempt,) = attempts_at(engine, 61.0)
    passes(engine, "third", 3, 61.1)
    engine.answered(attempt, Answer(failure=Failure.TIMEOUT), instant(61.2))
    (given_up,) = engine.poll(instant(61.2)).settlements
    assert given_up.ending.reason is Reason.ATTEMPTS_EXHAUSTED
    assert given_up.ending.detail.startswith("1 attempts failed")
    assert "timeout" in given_up.ending.detail


def test_a_success_of_the_visitor_s_own_after_its_refusal_does_not_make_it_poison() -> None:
    attempts, endpoint, delivery = Attempts(10, lambda: 0.0), Endpoint(8, Budget(None)), a_delivery("v")

    def note_refusal() -> Ending | None:
        answer = Answer(404)
        return attempts.note(delivery, answer, judge(answer), endpoint, is_current=True, alone=False)

    assert note_refusal() is None
    endpoint.succeeded(endpoint.start("v"), 0.0)
    assert note_refusal() is None
    endpoint.succeeded(endpoint.start("w"), 0.0)
    ending = note_refusal()
    assert ending is not None
    assert ending.reason is Reason.REJECTED


def test_each_failed_attempt_counts_once_for_the_backoff_and_a_rejection_is_reported_in_pendo_s_words() -> (
    None
):
    attempts, endpoint, delivery = Attempts(10, lambda: 0.0), Endpoint(8, Budget(None)), a_delivery("v")

    def note(answer: Answer) -> Ending | None:
        return attempts.note(delivery, answer, judge(answer), endpoint, is_current=True, alone=False)

    before = delivery.attempts
    for failures in (1, 2, 3):
        assert note(Answer(503)) is None
        assert (delivery.failures, delivery.attempts) == (failures, before + failures)
    assert note(Answer(400, body=b"no such event")) == Ending(
        Reason.REJECTED, "Pendo answered 400: no such event"
    )

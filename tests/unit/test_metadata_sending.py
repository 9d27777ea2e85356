"""How the metadata room handles deliveries and answers, driven step by step through the engine."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from engine_steps import NO_LINGER, attempts_at, engine_with, instant, metadata, reasons, settle_all
from engine_world import OK, START_MS, World, acknowledge, record
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.metadata.batches import FAILED_SHARE
from flagpost_consumer.core.metadata.sending import HOARD_SECONDS, MetadataAttempt, MetadataSending
from flagpost_consumer.core.outcomes import Ending, Kind, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.mapping import Metadata
from flagpost_consumer.core.policy import DeliverySettings, EndpointLimits, MetadataSettings, Policy

SINGLY = Policy(
    delivery=DeliverySettings(visitor_interval_seconds=0.0),
    metadata=MetadataSettings(linger_seconds=0.0, batch_size=1),
)

NO_BUDGET = EndpointLimits(metadata_requests_per_minute=None)


def sending_of(engine: Engine) -> MetadataSending:
    return engine._metadata


def ids(attempt: Attempt) -> list[str]:
    assert isinstance(attempt, MetadataAttempt)
    return list(attempt.batch.ids)


def receive(engine: Engine, *visitors: str, seconds: float = 1.0) -> None:
    """Take in a value of each of these visitors, at offsets from 0 on."""
    for offset, visitor in enumerate(visitors):
        engine.receive([record(metadata(visitor, offset, plan="pro"), offset)], instant(seconds))


# Deliveries that come in


def test_a_delivery_with_a_missing_field_says_so_although_the_rest_is_unchanged() -> None:
    engine = engine_with(NO_LINGER)
    engine.know_fields({("visitor", "custom"): {"plan": "plan"}})
    engine.receive([record(metadata("v", 0, plan="pro"), 0)], instant(1.0))
    assert reasons(settle_all(engine, 1.0)) == {0: Reason.OK}
    engine.receive([record(metadata("v", 1, plan="pro"), 1)], instant(200.0))
    engine.receive([record(metadata("v", 2, plan="pro", nowhere=1), 2)], instant(200.0))
    assert reasons(settle_all(engine, 200.0)) == {1: Reason.UNCHANGED, 2: Reason.FIELD_MISSING}


def test_a_value_is_unchanged_in_the_partition_in_which_it_was_sent() -> None:
    engine = engine_with(NO_LINGER)
    receive(engine, "v")
    settle_all(engine, 1.0)
    value = Metadata("visitor", "custom", "v", {"plan": "pro"})
    assert sending_of(engine).is_unchanged(value, 0, START_MS, 1)
    assert not sending_of(engine).is_unchanged(value, 1, START_MS, 1)


# Requests that go out


@pytest.mark.parametrize(
    ("connections", "at_once"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3), (8, 4), (64, 4)]
)
def test_metadata_takes_half_of_the_connections_and_at_most_four(connections: int, at_once: int) -> None:
    limits = EndpointLimits(max_connections=connections, metadata_requests_per_minute=None)
    engine = engine_with(SINGLY.model_copy(update={"limits": limits}))
    receive(engine, *"abcdefgh")
    assert len(attempts_at(engine, 1.0)) == at_once


def test_everything_that_waits_is_sent_without_lingering_once_the_process_drains() -> None:
    engine = engine_with(Policy(metadata=MetadataSettings(linger_seconds=300.0)))
    receive(engine, "failed", seconds=10.0)
    (attempt,) = attempts_at(engine, 310.0)
    engine.answered(attempt, Answer(503, retry_after="600"), instant(311.0))
    receive(engine, "failed", "waits", seconds=312.0)
    engine.drain(instant(312.0))
    assert sorted(ids(attempt)[0] for attempt in attempts_at(engine, 312.0)) == ["failed", "waits"]


@pytest.mark.parametrize(("visitors", "passed"), [("a", 0), ("ab", 1), ("abc", 1)])
def test_a_request_for_several_ids_that_passes_counts_as_anothers_for_each_of_them(
    visitors: str, passed: int
) -> None:
    engine = engine_with(NO_LINGER)
    receive(engine, *visitors)
    (attempt,) = attempts_at(engine, 1.0)
    engine.answered(attempt, OK, instant(1.0))
    assert sending_of(engine).endpoint.passed_another("a") == passed


def test_an_endpoint_that_refuses_everybody_is_tried_with_one_id_after_the_other() -> None:
    """Before the fix, the id that failed last was retried before others had their turn."""
    tried: list[str] = []

    def answering(_: World, attempt: Attempt) -> tuple[Answer, float, float]:
        tried.append("".join(ids(attempt)))
        return Answer(403), 0.0, 0.05

    policy = SINGLY.model_copy(update={"metadata": MetadataSettings(linger_seconds=0.5, batch_size=2)})
    world = World(policy, Random(1), answering=answering)
    world.join()
    for offset, visitor in enumerate("abcd"):
        world.publish(metadata(visitor, offset, plan="pro"))
    world.run(until=200.0)
    assert tried[:2] == ["ab", "cd"]
    assert sorted(tried[2:6]) == sorted(tried[6:10]) == list("abcd")


def test_the_id_that_failed_last_goes_after_all_others_although_it_is_its_turn() -> None:
    engine = engine_with(SINGLY.model_copy(update={"limits": NO_BUDGET}))
    receive(engine, "a")
    (attempt,) = attempts_at(engine, 1.0)
    engine.answered(attempt, Answer(500), instant(1.0))
    for offset in range(1, FAILED_SHARE + 1):
        engine.receive([record(metadata(f"v{offset}", offset, plan="pro"), offset)], instant(90.0))
    started = []
    while attempts := attempts_at(engine, 90.0):
        for attempt in attempts:
            started += ids(attempt)
            engine.answered(attempt, Answer(400), instant(90.0))  # neither a failure nor a success
    assert started == [f"v{offset}" for offset in range(1, FAILED_SHARE + 1)] + ["a"]


def test_a_request_that_was_no_probe_and_fails_while_the_endpoint_is_down_stays_a_batch() -> None:
    pairs = MetadataSettings(linger_seconds=0.0, batch_size=2)
    engine = engine_with(SINGLY.model_copy(update={"metadata": pairs, "limits": NO_BUDGET}))
    receive(engine, *"abcdef")
    attempts = attempts_at(engine, 1.0)
    for attempt in attempts:
        engine.answered(attempt, Answer(403), instant(1.0))
    sending = sending_of(engine)
    assert sending.endpoint.is_down
    assert len(sending._batches._retries) == len(attempts) == 3


# Ids that take more than their share


HOARDING = Policy(
    delivery=DeliverySettings(max_pending=100, max_pending_per_visitor=60, visitor_interval_seconds=0.1),
    metadata=MetadataSettings(linger_seconds=0.0),
    limits=EndpointLimits(metadata_requests_per_minute=None),
)
"""An id alone may have 15 deliveries that wait behind its first."""


def hoarding(policy: Policy) -> Engine:
    """An engine in which the first value of an id hangs, and 24 more have come at 10 s."""
    engine = engine_with(policy)
    receive(engine, "v", seconds=5.0)
    assert len(attempts_at(engine, 5.0)) == 1
    for offset in range(1, 25):
        engine.receive([record(metadata("v", offset, plan=offset), offset)], instant(10.0))
    return engine


def given_up_at(engine: Engine, seconds: float) -> int:
    """How many deliveries are given up at a moment because their id has too many."""
    sending_of(engine).give_up_hoards(instant(seconds))
    settlements = engine._settling.collect()
    acknowledge(engine, settlements)
    return [settlement.ending.reason for settlement in settlements].count(Reason.VISITOR_BACKLOG)


def test_deliveries_of_one_id_beyond_its_share_are_given_up_after_a_while() -> None:
    engine = hoarding(HOARDING)
    assert given_up_at(engine, 5.0 + HOARD_SECONDS - 0.1) == 0
    assert given_up_at(engine, 5.0 + HOARD_SECONDS) == 9
    assert given_up_at(engine, 5.0 + HOARD_SECONDS) == 0


def test_nothing_is_given_up_if_an_id_has_no_limit() -> None:
    delivery = HOARDING.delivery.model_copy(update={"max_pending_per_visitor": 0})
    assert given_up_at(hoarding(HOARDING.model_copy(update={"delivery": delivery})), 60.0) == 0


def answer_each(engine: Engine, seconds: float, answer: Callable[[str], Answer | None]) -> None:
    """Answer the attempts that start at a moment, each by its first id; None: the request hangs."""
    for attempt in attempts_at(engine, seconds):
        if (given := answer(ids(attempt)[0])) is not None:
            engine.answered(attempt, given, instant(seconds))


def test_nothing_is_given_up_until_pendo_has_accepted_metadata_for_a_while() -> None:
    """While Pendo accepts nothing, the metadata of every id waits, and no id is the cause."""
    engine = hoarding(HOARDING)
    endpoint = sending_of(engine).endpoint
    for offset in range(25, 35):
        engine.receive([record(metadata(f"w{offset}", offset, plan="pro"), offset)], instant(11.0))
        answer_each(engine, 11.0, lambda _: Answer(503))
    assert endpoint.is_down
    assert given_up_at(engine, 60.0) == 0
    answer_each(engine, 60.0, lambda _: Answer(503))
    assert endpoint.is_down
    answer_each(engine, 120.0, lambda _: OK)
    assert endpoint.state is EndpointState.OK
    assert given_up_at(engine, 120.0) == 0
    assert given_up_at(engine, 120.0 + HOARD_SECONDS - 0.1) == 0
    assert given_up_at(engine, 120.0 + HOARD_SECONDS) == 9


# Answers


def answered(answer: Answer, *, later: bool = False) -> tuple[Engine, dict[int, Ending]]:
    """Answer the only value of an id, while a newer one waits if `later`; returns how each offset ended."""
    engine = engine_with(NO_LINGER)
    receive(engine, "v", seconds=1.0)
    (attempt,) = attempts_at(engine, 1.0)
    if later:
        engine.receive([record(metadata("v", 5, other=1), 5)], instant(1.0))
    engine.answered(attempt, answer, instant(2.0))
    settlements = engine._settling.collect()
    return engine, {each.delivery.record.offset: each.ending for each in settlements}


def test_a_record_that_pendo_counts_as_failed_says_so() -> None:
    _, ended = answered(Answer(200, body=b'{"failed": 1}'))
    assert ended[0].reason is Reason.REJECTED
    assert "counts it as failed" in ended[0].detail


def test_a_record_that_pendo_refuses_without_naming_it_says_what_pendo_answered() -> None:
    _, ended = answered(Answer(400, body=b"no such group"))
    assert ended[0].reason is Reason.REJECTED
    assert "400" in ended[0].detail
    assert "no such group" in ended[0].detail


@pytest.mark.parametrize("body", [b"", b'{"missing": ["v"]}'])
def test_newer_values_of_an_id_are_sent_after_its_record_was_refused(body: bytes) -> None:
    engine, _ = answered(Answer(400, body=body), later=True)
    assert [ids(attempt) for attempt in attempts_at(engine, 3.0)] == [["v"]]


def test_an_answer_about_a_delivery_handed_back_meanwhile_is_ignored() -> None:
    engine = engine_with(NO_LINGER)
    receive(engine, "v")
    (attempt,) = attempts_at(engine, 1.0)
    engine.forget([0], instant(2.0))
    engine.answered(attempt, Answer(500), instant(3.0))
    assert attempts_at(engine, 600.0) == []
    assert engine.accounts.difference(Kind.VISITOR_METADATA) == 0


def test_after_a_429_the_request_is_retried_when_pendo_asks_for_it_whatever_failed_before() -> None:
    engine = engine_with(NO_LINGER)
    receive(engine, "v")
    seconds = 1.0
    for _ in range(6):
        seconds += 100.0
        (attempt,) = attempts_at(engine, seconds)
        engine.answered(attempt, Answer(500), instant(seconds))
    (attempt,) = attempts_at(engine, seconds + 100.0)
    engine.answered(attempt, Answer(429, retry_after="2"), instant(seconds + 100.0))
    assert attempts_at(engine, seconds + 101.9) == []
    assert len(attempts_at(engine, seconds + 102.0)) == 1


def test_a_probe_whose_attempts_are_exhausted_ends() -> None:
    """Another visitor's request passed before all others failed, so each failure after it counts."""
    policy = SINGLY.model_copy(
        update={"delivery": DeliverySettings(visitor_interval_seconds=0.0, max_attempts=1)}
    )
    engine = engine_with(policy)
    receive(engine, *"abcdefghijklmnop")
    ended: dict[int, Reason] = {}
    probes = 0
    for minute in range(30):
        seconds = 60.0 * (minute + 1)
        is_down = sending_of(engine).endpoint.is_down
        for attempt in attempts_at(engine, seconds):
            probes += is_down
            engine.answered(attempt, OK if ids(attempt) == ["a"] else Answer(503), instant(seconds))
        settlements = engine._settling.collect()
        acknowledge(engine, settlements)
        ended.update({each.delivery.record.offset: each.ending.reason for each in settlements})
    assert probes > 0
    assert ended == {0: Reason.OK, **dict.fromkeys(range(1, 16), Reason.ATTEMPTS_EXHAUSTED)}

"""A metadata value that is offered while another value of its field is in flight."""

from __future__ import annotations

import orjson
import pytest

from engine_steps import NO_LINGER, engine_with, instant, metadata, reasons
from engine_world import OK, acknowledge, record
from flagpost_consumer.core.books.deliveries import Settlement
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DedupeSettings
from flagpost_schemas import VisitorMetadata

TTL_MS = 10_000
POLICY = NO_LINGER.model_copy(update={"dedupe": DedupeSettings(ttl_seconds=TTL_MS / 1000)})


def values(attempt: Attempt) -> dict[str, object]:
    (entry,) = orjson.loads(attempt.body)
    found: dict[str, object] = entry["values"]
    return found


def in_flight(engine: Engine, event: VisitorMetadata) -> Attempt:
    """Send the first value; returns its attempt."""
    engine.receive([record(event, 0)], instant(2.0))
    (attempt,) = engine.poll(instant(2.0)).attempts
    return attempt


def let_pendo_take(engine: Engine, attempt: Attempt) -> tuple[list[dict[str, object]], dict[int, Reason]]:
    """Let Pendo accept this and all later attempts; returns the later values, and how each offset ended."""
    engine.answered(attempt, OK, instant(3.0))
    sent: list[dict[str, object]] = []
    settled: dict[int, Settlement] = {}
    for second in range(4, 20):
        actions = engine.poll(instant(float(second)))
        settled.update({each.delivery.record.offset: each for each in actions.settlements})
        acknowledge(engine, actions.settlements)
        for following in actions.attempts:
            sent.append(values(following))
            engine.answered(following, OK, instant(float(second)))
    assert engine.pending_records == 0
    return sent, reasons(settled)


def test_a_value_older_than_one_found_unchanged_in_flight_is_superseded() -> None:
    """A at 1 s is in flight, A at 5 s needs no request of its own: B at 3 s is older than Pendo's value then."""
    engine = engine_with(POLICY)
    attempt = in_flight(engine, metadata("v", 1_000, plan="a"))
    engine.receive([record(metadata("v", 5_000, plan="a"), 1)], instant(2.1))
    engine.receive([record(metadata("v", 3_000, plan="b"), 2)], instant(2.2))
    sent, ended = let_pendo_take(engine, attempt)
    assert sent == []
    assert ended == {0: Reason.OK, 1: Reason.UNCHANGED, 2: Reason.SUPERSEDED}


def test_a_value_older_than_one_found_unchanged_is_superseded_also_after_the_answer() -> None:
    engine = engine_with(POLICY)
    attempt = in_flight(engine, metadata("v", 1_000, plan="a"))
    engine.receive([record(metadata("v", 5_000, plan="a"), 1)], instant(2.1))
    engine.answered(attempt, OK, instant(2.2))
    acknowledge(engine, engine.poll(instant(2.2)).settlements)
    engine.receive([record(metadata("v", 3_000, plan="b"), 2)], instant(2.3))
    actions = engine.poll(instant(2.3))
    assert actions.attempts == []
    assert [each.ending.reason for each in actions.settlements] == [Reason.SUPERSEDED]


def test_a_value_newer_than_the_one_in_flight_follows_it() -> None:
    engine = engine_with(POLICY)
    attempt = in_flight(engine, metadata("v", 1_000, plan="a"))
    engine.receive([record(metadata("v", 3_000, plan="b"), 1)], instant(2.1))
    assert engine.poll(instant(2.1)).attempts == [], "one request an id at a time"
    sent, ended = let_pendo_take(engine, attempt)
    assert sent == [{"plan": "b"}]
    assert ended == {0: Reason.OK, 1: Reason.OK}


@pytest.mark.parametrize(
    ("offset", "at", "reason"),
    [
        (1, 999, Reason.SUPERSEDED),
        (1, 1_000, Reason.OK),  # equal times: the higher offset wins
        (1, 1_001, Reason.OK),
    ],
)
def test_the_newer_of_two_values_wins_by_time_then_by_offset(offset: int, at: int, reason: Reason) -> None:
    engine = engine_with(POLICY)
    attempt = in_flight(engine, metadata("v", 1_000, plan="a"))
    engine.receive([record(metadata("v", at, plan="b"), offset)], instant(2.1))
    sent, ended = let_pendo_take(engine, attempt)
    assert ended == {0: Reason.OK, 1: reason}
    assert sent == ([{"plan": "b"}] if reason is Reason.OK else [])


@pytest.mark.parametrize(("apart_ms", "is_sent"), [(TTL_MS - 1, False), (TTL_MS, True)])
def test_the_same_value_is_unchanged_only_within_one_ttl_of_the_one_in_flight(
    apart_ms: int, is_sent: bool
) -> None:
    engine = engine_with(POLICY)
    attempt = in_flight(engine, metadata("v", 1_000, plan="a"))
    engine.receive([record(metadata("v", 1_000 + apart_ms, plan="a"), 1)], instant(12.0))
    sent, ended = let_pendo_take(engine, attempt)
    assert sent == ([{"plan": "a"}] if is_sent else [])
    assert ended == {0: Reason.OK, 1: Reason.OK if is_sent else Reason.UNCHANGED}


@pytest.mark.parametrize(("apart_ms", "is_sent"), [(TTL_MS - 1, False), (TTL_MS, True)])
def test_the_same_value_is_unchanged_only_within_one_ttl_of_the_last_one_sent(
    apart_ms: int, is_sent: bool
) -> None:
    engine = engine_with(POLICY)
    attempt = in_flight(engine, metadata("v", 1_000, plan="a"))
    let_pendo_take(engine, attempt)
    engine.receive([record(metadata("v", 1_000 + apart_ms, plan="a"), 1)], instant(30.0))
    assert bool(engine.poll(instant(30.0)).attempts) is is_sent


@pytest.mark.parametrize(("apart_ms", "is_sent"), [(TTL_MS - 1, False), (TTL_MS, True)])
def test_an_older_value_is_superseded_only_within_one_ttl_of_the_last_one_sent(
    apart_ms: int, is_sent: bool
) -> None:
    engine = engine_with(POLICY)
    attempt = in_flight(engine, metadata("v", 20_000, plan="a"))
    let_pendo_take(engine, attempt)
    engine.receive([record(metadata("v", 20_000 - apart_ms, plan="b"), 1)], instant(30.0))
    assert bool(engine.poll(instant(30.0)).attempts) is is_sent


def test_a_value_that_fails_is_superseded_by_a_newer_one_that_waits() -> None:
    engine = engine_with(POLICY)
    attempt = in_flight(engine, metadata("v", 1_000, plan="a", seats=1))
    engine.receive([record(metadata("v", 3_000, plan="b"), 1)], instant(2.1))
    engine.answered(attempt, Answer(503), instant(3.0))
    (again,) = engine.poll(instant(300.0)).attempts
    assert values(again) == {"plan": "b", "seats": 1}

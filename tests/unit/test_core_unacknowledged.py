"""What is sent again after a crash is bounded (docs/guarantees.md#sent-twice): sending waits for acknowledgements."""

from __future__ import annotations

from engine_steps import TRACKS_ONLY, damaged, engine_with, instant, visitors
from engine_world import OK, TIMED_OUT, acknowledge, decision, record
from flagpost_consumer.core.books.deliveries import Settlement
from flagpost_consumer.core.books.unacknowledged import MAX_WAIT_SECONDS, Unacknowledged
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import DecisionsSettings, EndpointLimits, Policy

ONE_CONNECTION = Policy(
    decisions=DecisionsSettings(visitor_metadata=False), limits=EndpointLimits(max_connections=1)
)


def deliver(engine: Engine, offset: int, at: float) -> list[Settlement]:
    """Let Pendo accept one event; returns its settlement, which Kafka does not have yet."""
    engine.receive([record(decision(f"v{offset}"), offset)], instant(at))
    (attempt,) = engine.poll(instant(at)).attempts
    engine.answered(attempt, OK, instant(at))
    return engine.poll(instant(at)).settlements


def may_send(engine: Engine, offset: int, at: float) -> bool:
    """Whether another visitor's event is sent at a moment."""
    engine.receive([record(decision(f"v{offset}"), offset)], instant(at))
    return bool(engine.poll(instant(at)).attempts)


def test_sending_goes_on_while_an_answer_waits_for_its_acknowledgement_for_one_second() -> None:
    engine = engine_with(TRACKS_ONLY)
    deliver(engine, 0, at=2.0)
    assert may_send(engine, 1, at=2.0 + MAX_WAIT_SECONDS)


def test_sending_stops_when_an_answer_waits_longer_and_goes_on_once_kafka_has_it() -> None:
    engine = engine_with(TRACKS_ONLY)
    settlements = deliver(engine, 0, at=2.0)
    assert not may_send(engine, 1, at=2.01 + MAX_WAIT_SECONDS)
    assert engine.poll(instant(60.0)).wake_at is None, "no time, but an acknowledgement, lets it go on"
    acknowledge(engine, settlements)
    assert visitors(engine.poll(instant(60.0)).attempts) == ["v1"]


def test_the_oldest_answer_counts_not_the_newest() -> None:
    engine = engine_with(TRACKS_ONLY)
    first = deliver(engine, 0, at=2.0)
    second = deliver(engine, 1, at=2.9)
    acknowledge(engine, second)
    assert not may_send(engine, 2, at=3.5)
    acknowledge(engine, first)
    assert len(engine.poll(instant(3.5)).attempts) == 1


def test_once_the_oldest_is_acknowledged_the_next_one_counts_from_its_own_answer() -> None:
    engine = engine_with(TRACKS_ONLY)
    first = deliver(engine, 0, at=2.0)
    deliver(engine, 1, at=2.9)
    acknowledge(engine, first)
    assert may_send(engine, 2, at=3.5)
    assert not may_send(engine, 3, at=4.0)


def test_more_than_twice_the_connections_may_not_be_unacknowledged() -> None:
    engine = engine_with(ONE_CONNECTION)
    deliver(engine, 0, at=2.0)
    deliver(engine, 1, at=2.0)
    assert engine.unacknowledged == 2
    third = deliver(engine, 2, at=2.0)
    assert engine.unacknowledged == 3
    assert not may_send(engine, 3, at=2.0)
    acknowledge(engine, third)
    assert len(engine.poll(instant(2.0)).attempts) == 1


def test_settlements_that_needed_no_request_stop_nothing() -> None:
    """After a crash nothing of them is sent again: so sending continues however many wait, and however long."""
    engine = engine_with(ONE_CONNECTION)
    engine.receive([damaged(offset) for offset in range(100)], instant(2.0))
    assert len(engine.poll(instant(2.0)).settlements) == 100
    assert engine.unacknowledged == 0
    assert may_send(engine, 100, at=500.0)


def test_a_delivery_that_is_returned_before_its_acknowledgement_stops_nothing_any_more() -> None:
    engine = engine_with(TRACKS_ONLY, partitions=[0, 1])
    deliver(engine, 0, at=2.0)
    engine.forget([0], instant(3.0))
    assert engine.unacknowledged == 0
    engine.receive([record(decision("w"), 0, partition=1)], instant(60.0))
    assert len(engine.poll(instant(60.0)).attempts) == 1


def test_an_answer_that_comes_while_its_partition_is_held_is_waited_for_too() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision(f"v{offset}"), offset) for offset in range(2)], instant(2.0))
    early, late = engine.poll(instant(2.0)).attempts
    engine.answered(early, OK, instant(2.0))
    first = engine.poll(instant(2.0)).settlements
    assert not may_send(engine, 2, at=4.0)
    engine.answered(late, OK, instant(4.1))
    second = engine.poll(instant(4.1)).settlements
    acknowledge(engine, first)
    assert engine.poll(instant(4.2)).attempts == []
    acknowledge(engine, second)
    assert visitors(engine.poll(instant(4.3)).attempts) == ["v2"]


def test_a_refusal_after_an_answer_that_was_never_seen_is_waited_for() -> None:
    """Pendo may have the event of the first request: after a crash it would be sent again."""
    engine = engine_with(TRACKS_ONLY)
    engine.receive([record(decision("v"))], instant(2.0))
    for at, answer in ((2.0, TIMED_OUT), (60.0, Answer(400))):
        (attempt,) = engine.poll(instant(at)).attempts
        engine.answered(attempt, answer, instant(at))
    assert engine.unacknowledged == 1


def test_an_acknowledgement_of_a_held_partition_lets_no_other_partition_send() -> None:
    """Only an acknowledgement of another partition shows that the others may continue."""
    policy = Policy(
        decisions=DecisionsSettings(visitor_metadata=False), limits=EndpointLimits(max_connections=2)
    )
    engine = engine_with(policy, partitions=[0, 1])
    settlements = [each for offset in range(4) for each in deliver(engine, offset, at=2.0)]
    engine.receive([record(decision(f"v{offset}"), offset) for offset in (4, 5)], instant(2.0))
    for attempt in engine.poll(instant(2.0)).attempts:
        engine.answered(attempt, OK, instant(2.0))
    assert engine.unacknowledged == 6
    engine.receive([record(decision("w"), 0, partition=1)], instant(4.0))
    assert engine.poll(instant(4.0)).attempts == []
    acknowledge(engine, settlements[:1])
    assert engine.poll(instant(4.0)).attempts == [], "five are more than twice the connections"
    acknowledge(engine, settlements[1:2])
    assert visitors(engine.poll(instant(4.0)).attempts) == ["w"]


def test_a_release_is_reported_once() -> None:
    (settlement,) = deliver(engine_with(TRACKS_ONLY), 0, at=2.0)
    subject = Unacknowledged()
    assert not subject.take_released(), "nothing has been held yet"
    subject.add(settlement.delivery, settlement.ending, 2.0)
    subject.must_stop(128, 2.01 + MAX_WAIT_SECONDS)
    assert subject.held == {settlement.delivery.partition}
    subject.acknowledged(settlement.delivery)
    assert [subject.take_released() for _ in range(2)] == [True, False]

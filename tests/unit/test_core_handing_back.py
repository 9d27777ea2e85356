"""What is handed back when a partition is revoked or the process stops: at once, completely, and nothing else."""

from __future__ import annotations

import pytest

from engine_steps import (
    NO_LINGER,
    TRACKS_ONLY,
    answer_all,
    attempts_at,
    damaged,
    engine_with,
    instant,
    metadata,
    reasons,
    settle_all,
    visitors,
)
from engine_world import OK, acknowledge, decision, positions, ready, record
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.endpoint import EndpointState
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.policy import EndpointLimits, Policy


def two_events_each(engine: Engine, *partitions: int) -> None:
    """Receive two events of a visitor in each partition: the second waits for the first."""
    for number in partitions:
        events = [decision(f"visitor{number}", flag) for flag in ("first", "second")]
        engine.receive([record(event, offset, number) for offset, event in enumerate(events)], instant(0.0))


# A partition is revoked


def test_waiting_events_of_a_revoked_partition_are_handed_back_at_once() -> None:
    engine = engine_with(TRACKS_ONLY, partitions=[0, 1])
    two_events_each(engine, 0, 1)
    engine.revoke([1], instant(0.5))
    assert engine.accounts.returned == {Kind.TRACK: 2}
    assert engine.accounts.pending == {Kind.TRACK: 2}
    assert engine.is_quiet([1])
    assert engine.paced(instant(0.5)) == 2, "what stays waits for the interval of a new partition"
    assert visitors(attempts_at(engine, 5.0)) == ["visitor0"]


def test_a_revoked_partition_waits_only_for_its_requests_in_flight() -> None:
    engine = engine_with(TRACKS_ONLY)
    two_events_each(engine, 0)
    (attempt,) = attempts_at(engine, 1.0)
    engine.revoke([0], instant(1.1))
    assert engine.accounts.returned == {Kind.TRACK: 1}
    assert not engine.is_quiet([0])
    engine.answered(attempt, OK, instant(1.2))
    assert not engine.is_quiet([0]), "Kafka has not acknowledged it"
    assert attempts_at(engine, 60.0) == []
    assert engine.is_quiet([0])
    assert positions(engine) == {0: 1}
    assert engine.forget([0], instant(60.0)) == 0
    assert engine.accounts.returned == {Kind.TRACK: 1}


def test_a_delivery_that_fails_after_its_partition_was_revoked_is_handed_back_not_retried() -> None:
    engine = engine_with(TRACKS_ONLY)
    two_events_each(engine, 0)
    (attempt,) = attempts_at(engine, 1.0)
    engine.revoke([0], instant(1.1))
    engine.answered(attempt, Answer(503), instant(1.2))
    assert engine.is_quiet([0])
    assert engine.accounts.returned == {Kind.TRACK: 2}
    assert attempts_at(engine, 600.0) == []


def test_waiting_metadata_of_a_revoked_partition_is_handed_back_at_once() -> None:
    engine = engine_with(NO_LINGER, partitions=[0, 1])
    for number in (0, 1):
        event = metadata(f"visitor{number}", plan="pro")
        engine.receive([record(event, 0, number)], instant(0.0))
    engine.revoke([1], instant(0.5))
    assert engine.accounts.returned == {Kind.VISITOR_METADATA: 1}
    (attempt,) = attempts_at(engine, 5.0)
    assert attempt.body == b'[{"visitorId":"visitor0","values":{"plan":"pro"}}]'


def test_a_revoked_partition_takes_no_more_records() -> None:
    """Otherwise they would be sent by this member and, from the committed offset on, by the next one."""
    engine = engine_with(TRACKS_ONLY, partitions=[0, 1])
    engine.revoke([1], instant(1.0))
    two_events_each(engine, 0, 1)
    assert engine.accounts.records == 2
    assert engine.accounts.planned == {Kind.TRACK: 2}
    assert positions(engine) == {0: 0, 1: 0}
    assert visitors(attempts_at(engine, 5.0)) == ["visitor0"]


def test_a_partition_that_comes_back_takes_records_again() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.revoke([0], instant(1.0))
    engine.forget([0], instant(1.0))
    ready(engine, [0], 8, instant(1.0), TRACKS_ONLY)
    two_events_each(engine, 0)
    assert reasons(settle_all(engine, 2.0)) == {0: Reason.OK, 1: Reason.OK}


def test_a_revoked_partition_counts_for_no_budget() -> None:
    """docs/contract.md#settings: budgets are split by the share of partitions; the next owner has its own at once."""
    policy = Policy(limits=EndpointLimits(track_requests_per_minute=60.0, metadata_requests_per_minute=600.0))
    engine = engine_with(policy, partitions=[0, 1, 2], count=4)
    budgets = engine.track.budget, engine.metadata.budget
    assert [budget.per_minute for budget in budgets] == [45.0, 450.0]
    engine.revoke([1, 2], instant(1.0))
    assert engine.assigned == [0]
    assert [budget.per_minute for budget in budgets] == [15.0, 150.0]
    engine.forget([1, 2], instant(2.0))
    assert [budget.per_minute for budget in budgets] == [15.0, 150.0]
    engine.assign([1], 4, instant(3.0))
    assert [budget.per_minute for budget in budgets] == [30.0, 300.0]
    engine.forget([0, 1], instant(4.0))
    assert [budget.per_minute for budget in budgets] == [0.0, 0.0]


def test_a_revoked_partition_reduces_the_rate_of_the_others_at_once() -> None:
    policy = TRACKS_ONLY.model_copy(update={"limits": EndpointLimits(track_requests_per_minute=60.0)})
    engine = engine_with(policy, partitions=[0, 1], count=2)
    engine.receive([record(decision(f"v{offset}"), offset) for offset in range(100)], instant(0.0))
    engine.revoke([1], instant(0.0))
    sent = sum(answer_all(engine, float(second), OK) for second in range(61))
    assert sent == 30, "half of sixty a minute"


# The process stops


def refuse_metadata_of_two_visitors(engine: Engine) -> None:
    for offset in range(2):
        engine.receive([record(metadata(f"v{offset}", plan="pro"), offset)], instant(2.0))
        assert answer_all(engine, 2.0, Answer(403)) >= 1
    assert engine.metadata.state is EndpointState.UNAUTHORIZED


def test_a_drain_does_not_wait_for_metadata_that_is_down() -> None:
    engine = engine_with(NO_LINGER)
    refuse_metadata_of_two_visitors(engine)
    engine.drain(instant(3.0))
    assert answer_all(engine, 3.0, Answer(403)) <= 1, "at most a probe"
    assert answer_all(engine, 3.0, Answer(403)) == 0
    assert engine.is_drained
    assert engine.accounts.returned == {Kind.VISITOR_METADATA: 2}
    assert engine.accounts.difference(Kind.VISITOR_METADATA) == 0
    assert positions(engine) == {0: 0}


def test_a_drain_hands_back_waiting_metadata_when_its_endpoint_goes_down_meanwhile() -> None:
    policy = NO_LINGER.model_copy(update={"limits": EndpointLimits(metadata_requests_per_minute=None)})
    engine = engine_with(policy)
    attempts = []
    for offset in range(3):
        engine.receive([record(metadata(f"v{offset}", plan="pro"), offset)], instant(2.0))
        attempts += attempts_at(engine, 2.0)
    assert len(attempts) == 3
    engine.receive([record(metadata("v0", 9, plan="free"), 3)], instant(2.0))
    engine.drain(instant(2.1))
    assert engine.accounts.pending.total() == 4, "in flight, or waiting to be sent after it"
    for attempt in attempts:
        engine.answered(attempt, Answer(403), instant(2.2))
    assert attempts_at(engine, 2.2) == []
    assert engine.is_drained
    assert sum(engine.accounts.pending.values()) == 0


def test_a_drain_sends_waiting_metadata_and_hands_back_waiting_tracks() -> None:
    engine = engine_with(Policy())
    engine.receive([record(decision("v"))], instant(0.0))
    engine.drain(instant(0.1))
    assert engine.accounts.returned == {Kind.TRACK: 1}
    (attempt,) = attempts_at(engine, 1.0)
    engine.answered(attempt, OK, instant(1.1))
    acknowledge(engine, engine.poll(instant(1.1)).settlements)
    assert engine.accounts.total(Kind.VISITOR_METADATA, Outcome.DELIVERED) == 1
    assert engine.is_drained


def test_a_drain_waits_until_kafka_has_settlements_that_needed_no_request() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([damaged(offset) for offset in range(3)], instant(0.0))
    engine.drain(instant(0.1))
    assert not engine.is_quiet()
    assert attempts_at(engine, 0.1) == []
    assert engine.is_drained
    assert engine.accounts.total(Kind.UNKNOWN, Outcome.DEAD_LETTERED) == 3


def test_a_partition_that_is_assigned_during_a_drain_takes_nothing_in() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.drain(instant(0.0))
    (partition,) = engine.assign([1], 8, instant(1.0))
    engine.restore(partition, Restoration(0, TRACKS_ONLY.dedupe))
    two_events_each(engine, 0, 1)
    assert engine.accounts.records == 0
    assert engine.is_drained


# Partitions that are not ours


@pytest.mark.parametrize("numbers", [[7], []])
def test_a_partition_that_is_not_ours_is_quiet_and_has_no_position(numbers: list[int]) -> None:
    engine = engine_with(TRACKS_ONLY)
    two_events_each(engine, 0)
    attempts_at(engine, 1.0)
    assert engine.is_quiet(numbers)
    assert not engine.is_quiet()
    assert engine.committable(numbers) == {}
    engine.revoke(numbers, instant(1.0))
    assert engine.forget(numbers, instant(1.0)) == 0
    assert engine.assigned == [0]

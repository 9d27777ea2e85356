"""The engine apart from records and answers: partitions, membership, suppressions, limits, figures, the stop."""

from __future__ import annotations

from random import Random

import pytest

from engine_steps import (
    NO_LINGER,
    TRACKS_ONLY,
    attempts_at,
    damaged,
    engine_with,
    instant,
    metadata,
    visitors,
)
from engine_world import OK, START_MS, acknowledge, decision, positions, ready, record
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.metadata.sending import MetadataAttempt
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.pendo_rules import Rule
from flagpost_consumer.core.planning.suppressions import Suppression, Suppressions, TooManySuppressions
from flagpost_consumer.core.policy import (
    DecisionsSettings,
    DedupeSettings,
    DeliverySettings,
    EndpointLimits,
    Policy,
)
from flagpost_consumer.core.records import Gap


def receive(engine: Engine, *names: str, at: float = 1.0, first: int = 0) -> None:
    """Receive one event of each visitor."""
    engine.receive([record(decision(name), offset) for offset, name in enumerate(names, first)], instant(at))


def knows(engine: Engine) -> bool:
    """Whether the engine knows which visitors are suppressed."""
    return engine.knows_suppressions


def is_drained(engine: Engine) -> bool:
    """Whether nothing is left to do before the process ends."""
    return engine.is_drained


def goes(engine: Engine, at: float) -> list[str]:
    """The visitors whose track events start at a moment."""
    return visitors(engine.poll(instant(at)).attempts)


# Partitions


def test_a_partition_is_known_from_its_assignment_to_its_end() -> None:
    engine = Engine(TRACKS_ONLY, Random(1).random)
    first, second = engine.assign([3, 5], 8, instant(0.0))
    assert (engine.current(3), engine.current(5), engine.current(4)) == (first, second, None)
    assert engine.is_current(first)
    engine.restore(first, Restoration(0, TRACKS_ONLY.dedupe))
    assert [engine.is_restored(number) for number in (3, 4, 5)] == [True, False, False]
    assert (engine.assigned, engine.partition_count, engine.policy) == ([3, 5], 8, TRACKS_ONLY)
    engine.revoke([3, 9], instant(1.0))
    assert (engine.assigned, engine.current(3)) == ([5], first)
    engine.forget([3, 9], instant(1.0))
    assert (engine.current(3), engine.is_current(first)) == (None, False)
    (again,) = engine.assign([3], 8, instant(2.0))
    assert not engine.is_current(first)
    assert engine.is_current(again)


def test_records_are_taken_in_once_their_partition_is_restored_and_until_it_leaves() -> None:
    engine = Engine(TRACKS_ONLY, Random(1).random)
    (partition,) = engine.assign([0], 8, instant(0.0))
    engine.prove_membership(1e9)
    receive(engine, "early")
    engine.restore(partition, Restoration(0, TRACKS_ONLY.dedupe))
    engine.receive([record(decision("w"), 0, partition=4), record(decision("v"))], instant(1.0))
    assert engine.accounts.records == 1
    receive(engine, "again")
    assert engine.stalled == {}, "a record that is read again waits for nothing"
    engine.revoke([0], instant(1.0))
    receive(engine, "late", first=1)
    assert engine.accounts.records == 1
    assert engine.accounts.planned == {Kind.TRACK: 1}


def test_before_its_first_assignment_an_engine_knows_of_no_partition_and_may_send_nothing() -> None:
    policy = Policy(limits=EndpointLimits(track_requests_per_minute=480.0))
    engine = Engine(policy, Random(1).random)
    assert engine.partition_count == 0
    engine.revoke([0], instant(0.0))
    assert [endpoint.budget.per_minute for endpoint in engine.endpoints.values()] == [0.0, 0.0]
    assert not engine.is_member(instant(1e9))


def test_claims_of_a_partition_are_counted_once_however_often_it_is_assigned() -> None:
    """Before the fix, each assignment left one more table of claims among those that share the limit."""
    engine = Engine(TRACKS_ONLY, Random(1).random)
    for _ in range(3):
        ready(engine, [0, 1], 8, instant(0.0), TRACKS_ONLY)
        assert len(engine.dedupe_counts.partitions) == 2
        engine.forget([0, 1], instant(0.0))
        assert engine.dedupe_counts.partitions == []


def test_nothing_is_sent_of_a_partition_in_its_first_visitor_interval() -> None:
    engine = engine_with(TRACKS_ONLY)
    receive(engine, "v", at=0.5)
    actions = engine.poll(instant(0.5))
    assert (actions.attempts, actions.wake_at) == ([], 1.0)
    assert goes(engine, 1.0) == ["v"]


def test_deliveries_settled_in_the_ledger_are_skipped_and_others_of_their_record_are_sent() -> None:
    engine = Engine(NO_LINGER, Random(1).random)
    (partition,) = engine.assign([0], 8, instant(0.0))
    restoration = Restoration(0, NO_LINGER.dedupe)
    restoration.take(
        7,
        [
            (0, Kind.UNKNOWN, Outcome.DEAD_LETTERED, None, None),
            (1, Kind.TRACK, Outcome.DROPPED, None, None),
            (2, Kind.TRACK, Outcome.DROPPED, None, None),
            (2, Kind.VISITOR_METADATA, Outcome.DROPPED, None, None),
        ],
    )
    restoration.finish(8)
    engine.restore(partition, restoration)
    engine.prove_membership(1e9)
    asked = [(0, 0), (0, 1), (0, 9), (5, 0)]
    assert [engine.is_settled_undecoded(*each) for each in asked] == [True, False, False, False]
    engine.receive([damaged(0)], instant(1.0))
    receive(engine, "a", "b", first=1)
    assert engine.accounts.redeliveries == 2
    assert engine.accounts.records == 3
    assert engine.accounts.planned == {Kind.VISITOR_METADATA: 1}
    assert positions(engine) == {0: 1}
    (attempt,) = attempts_at(engine, 1.0)
    assert isinstance(attempt, MetadataAttempt)
    engine.answered(attempt, OK, instant(1.0))
    acknowledge(engine, engine.poll(instant(1.0)).settlements, 8)
    assert positions(engine) == {0: 3}


def test_a_record_settled_as_undecodable_stays_settled_although_it_can_be_decoded_now() -> None:
    """Its dead letter may have been replayed since: sending the record too would deliver it twice."""
    engine = Engine(NO_LINGER, Random(1).random)
    (partition,) = engine.assign([0], 8, instant(0.0))
    restoration = Restoration(0, NO_LINGER.dedupe)
    restoration.take(7, [(0, Kind.UNKNOWN, Outcome.DEAD_LETTERED, None, None)])
    restoration.finish(8)
    engine.restore(partition, restoration)
    receive(engine, "v")
    assert (engine.accounts.redeliveries, engine.accounts.planned, positions(engine)) == (1, {}, {0: 1})


def test_deleted_offsets_hold_the_position_until_they_are_in_the_ledger() -> None:
    engine = engine_with(TRACKS_ONLY)
    partition = engine.current(0)
    assert partition is not None
    gap = Gap(0, 5)
    engine.lose(partition, gap)
    assert (engine.accounts.offsets_lost, engine.pending_records, positions(engine)) == (5, 1, {0: 0})
    assert not engine.is_quiet()
    assert engine.oldest_pending_ms() is None
    receive(engine, "before", first=4)
    assert engine.accounts.records == 0, "it is below the gap's end"
    engine.gap_written(partition, gap)
    assert (engine.pending_records, positions(engine), engine.is_quiet()) == (0, {0: 5}, True)


def test_a_new_ledger_is_read_from_its_beginning() -> None:
    engine = engine_with(TRACKS_ONLY)
    receive(engine, "v")
    for attempt in attempts_at(engine, 1.0):
        engine.answered(attempt, OK, instant(1.0))
    acknowledge(engine, engine.poll(instant(1.0)).settlements, 100)
    assert engine.committable()[0].ledger_offset == 100
    engine.ledger_replaced()
    assert engine.committable()[0].ledger_offset == 0


def test_only_partitions_that_have_a_position_report_one() -> None:
    engine = engine_with(TRACKS_ONLY, partitions=[0, 1])
    engine.assign([2], 8, instant(0.0))
    assert positions(engine) == {0: 0, 1: 0}
    assert set(engine.committable([1, 2, 7])) == {1}


@pytest.mark.parametrize("answer", [OK, Answer(503), Answer(429), Answer(400)])
def test_only_its_own_partition_waits_for_a_request_in_flight(answer: Answer) -> None:
    engine = engine_with(TRACKS_ONLY, partitions=[0, 1])
    receive(engine, "v")
    (attempt,) = attempts_at(engine, 1.0)
    assert (engine.is_quiet(), engine.is_quiet([0]), engine.is_quiet([1, 7])) == (False, False, True)
    assert engine.forget([1], instant(1.0)) == 0
    assert engine.forget([0], instant(1.0)) == 1
    engine.answered(attempt, answer, instant(1.0))
    assert engine.poll(instant(1.0)).settlements == []
    assert engine.accounts.returned == {Kind.TRACK: 1}
    assert engine.is_drained
    assert goes(engine, 600.0) == [], "it is another member's by now"


def test_requests_that_are_abandoned_are_counted_over_all_partitions_that_are_lost() -> None:
    engine = engine_with(TRACKS_ONLY, partitions=[0, 1])
    engine.receive([record(decision("v"), 0), record(decision("w"), 0, partition=1)], instant(1.0))
    assert goes(engine, 1.0) == ["v", "w"]
    assert engine.forget([0, 1], instant(1.0)) == 2


def test_a_ledger_record_from_before_the_log_went_back_restores_claims_and_settles_nothing() -> None:
    restoration = Restoration(0, DedupeSettings(), settles_from=5)
    key = b"k" * 16
    for ledger_offset, offset in ((4, 0), (5, 1)):
        restoration.take(ledger_offset, [(offset, Kind.TRACK, Outcome.DELIVERED, key, START_MS)])
    assert [restoration.settled.has(offset, Kind.TRACK) for offset in (0, 1)] == [False, True]
    assert restoration.dedupe.repeated(key, START_MS) == 0
    off = Restoration(0, DedupeSettings(ttl_seconds=0.0))
    off.take(0, [(0, Kind.TRACK, Outcome.DELIVERED, key, START_MS)])
    assert off.dedupe.repeated(key, START_MS) is None, "a ttl of 0 removes no duplicates"


def test_the_ledger_offset_from_which_entries_settle_is_committed_with_the_position() -> None:
    engine = Engine(TRACKS_ONLY, Random(1).random)
    (partition,) = engine.assign([0], 8, instant(0.0))
    engine.restore(partition, Restoration(3, TRACKS_ONLY.dedupe, settles_from=5))
    position = engine.committable()[0]
    assert (position.offset, position.settles_from) == (3, 5)


# Membership


def test_a_request_starts_only_if_it_would_end_while_membership_is_proved() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.prove_membership(20.0)
    assert [engine.is_member(instant(at)) for at in (19.9, 20.0)] == [True, False]
    receive(engine, "v")
    actions = engine.poll(instant(10.0))
    assert (actions.attempts, actions.wake_at) == ([], None)
    assert engine.start(instant(10.0)) == []
    assert visitors(engine.start(instant(9.9))) == ["v"]


# Suppressions


def test_nothing_is_sent_or_read_while_suppressions_are_not_followed() -> None:
    engine = engine_with(TRACKS_ONLY)
    receive(engine, "v")
    engine.follow_suppressions(followed=False)
    assert not knows(engine)
    actions = engine.poll(instant(1.0))
    assert (actions.attempts, actions.intake_paused) == ([], True)
    engine.follow_suppressions(followed=True)
    actions = engine.poll(instant(1.0))
    assert (visitors(actions.attempts), actions.intake_paused) == (["v"], False)


def test_an_engine_without_a_restored_partition_is_not_paused_for_suppressions() -> None:
    engine = Engine(TRACKS_ONLY, Random(1).random)
    engine.assign([0], 8, instant(0.0))
    engine.follow_suppressions(followed=False)
    assert not engine.poll(instant(1.0)).intake_paused


def test_more_suppressions_than_fit_stop_everything_until_all_are_known_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.suppress([Suppression("known", is_suppressed=True)])
    monkeypatch.setattr(engine._suppressions, "_max_bytes", 1)
    with pytest.raises(TooManySuppressions):
        engine.suppress([Suppression("v", is_suppressed=True)])
    engine.follow_suppressions(followed=True)
    assert not knows(engine)
    receive(engine, "v", "known")
    assert goes(engine, 1.0) == []
    engine.follow_suppressions(followed=False)
    engine.know_suppressions(Suppressions())
    assert knows(engine)
    assert goes(engine, 1.0) == ["v"], "the other one was dropped as it came"


# How much is held


def test_intake_pauses_at_the_limit_of_pending_deliveries_and_resumes_well_below_it() -> None:
    policy = TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_pending=10)})
    engine = engine_with(policy)
    told = []
    for offset in range(10):
        receive(engine, f"v{offset}", at=0.0, first=offset)
        told.append((engine.is_full, engine.poll(instant(0.0)).intake_paused))
    assert told == [(False, False)] * 9 + [(True, True)]
    resumed = []
    for attempt in engine.poll(instant(1.0)).attempts:
        engine.answered(attempt, OK, instant(1.0))
        acknowledge(engine, engine.poll(instant(1.0)).settlements)
        resumed.append(engine.poll(instant(1.0)).intake_paused)
    assert resumed == [True] * 4 + [False] * 6
    assert engine.fullness == 0.0


def test_lanes_are_cut_from_four_fifths_of_the_limit_on() -> None:
    """docs/settings.md, `delivery.max_pending_per_visitor`."""
    delivery = DeliverySettings(max_pending=10, max_pending_per_visitor=5)
    engine = engine_with(TRACKS_ONLY.model_copy(update={"delivery": delivery}))
    events = [record(decision("hot", f"flag{n}"), n) for n in range(8)]
    engine.receive(events[:7], instant(0.0))
    assert engine.poll(instant(0.0)).settlements == []
    engine.receive(events[7:], instant(0.0))
    cut = {each.ending.reason for each in engine.poll(instant(0.0)).settlements}
    assert cut == {Reason.VISITOR_BACKLOG}


def test_both_endpoints_share_the_connections() -> None:
    limits = EndpointLimits(max_connections=2)
    engine = engine_with(NO_LINGER.model_copy(update={"limits": limits}))
    receive(engine, "a", "b", "c")
    assert len(engine.poll(instant(1.0)).attempts) == 2
    assert (engine.metadata.in_flight, engine.track.in_flight) == (1, 1)


def test_pending_bytes_fill_the_engine_too() -> None:
    policy = TRACKS_ONLY.model_copy(update={"delivery": DeliverySettings(max_pending_bytes=18)})
    engine = engine_with(policy)
    receive(engine, "v", at=0.0)
    assert engine.fullness == 0.5, "a key of one byte, and a value of eight"
    receive(engine, "w", at=0.0, first=1)
    assert engine.is_full
    assert (engine.pending_records, engine.pending_bytes) == (2, 18)


# What the engine reports


def test_each_endpoint_has_its_name_and_only_its_own_new_secret_affects_it() -> None:
    engine = engine_with(NO_LINGER)
    assert dict(engine.endpoints) == {
        EndpointName.TRACK: engine.track,
        EndpointName.METADATA: engine.metadata,
    }
    for endpoint in engine.endpoints.values():
        for visitor in ("a", "b"):
            endpoint.refused(endpoint.start(visitor), 1.0)
    engine.secret_changed(EndpointName.METADATA, instant(1.5))
    assert (engine.track.opens_at(1.5), engine.metadata.opens_at(1.5)) == (2.0, 1.5)
    engine.secret_changed(EndpointName.TRACK, instant(1.6))
    assert engine.track.opens_at(1.6) == 1.6


def test_sendable_deliveries_are_counted_within_the_budget_and_only_while_pendo_works() -> None:
    limits = EndpointLimits(track_requests_per_minute=480.0)
    engine = engine_with(TRACKS_ONLY.model_copy(update={"limits": limits}))
    assert engine.track.budget.per_minute == 60.0, "one partition of eight"
    receive(engine, "a", "b", at=0.0)
    engine.receive([record(decision("a", "another"), 2)], instant(0.0))
    assert (engine.sendable(instant(0.5)), engine.paced(instant(0.5))) == (0, 3)
    assert not engine.waits_for_pendo(instant(0.5))
    assert (engine.sendable(instant(1.0)), engine.paced(instant(1.0))) == (1, 1)
    assert engine.waits_for_pendo(instant(1.0)), "the budget has one request for two visitors"
    for visitor in ("x", "y"):
        engine.track.refused(engine.track.start(visitor), 1.0)
    assert engine.sendable(instant(9.0)) == 0
    assert engine.waits_for_pendo(instant(9.0))


def test_a_full_engine_waits_for_pendo_even_if_only_the_pace_of_visitors_holds_it() -> None:
    delivery = DeliverySettings(max_pending=2)
    engine = engine_with(TRACKS_ONLY.model_copy(update={"delivery": delivery}))
    receive(engine, "a", "b", at=0.0)
    assert engine.poll(instant(0.0)).attempts == []
    assert engine.waits_for_pendo(instant(0.0))


def test_an_engine_without_records_waits_for_a_pendo_that_is_down() -> None:
    engine = engine_with(TRACKS_ONLY)
    assert not engine.waits_for_pendo(instant(1.0))
    for visitor in ("x", "y"):
        engine.track.refused(engine.track.start(visitor), 1.0)
    assert engine.waits_for_pendo(instant(1.0))


def test_the_oldest_pending_event_is_found_over_all_partitions() -> None:
    engine = engine_with(TRACKS_ONLY, partitions=[0, 1])
    assert engine.oldest_pending_ms() is None
    late, early = decision("v", occurred_at=START_MS + 500), decision("w", occurred_at=START_MS + 200)
    published = [record(late, 0), record(early, 0, partition=1)]
    engine.receive([each._replace(timestamp_ms=START_MS) for each in published], instant(0.6))
    assert engine.oldest_pending_ms() == START_MS + 200, "when it occurred, not when Kafka had it"
    engine.forget([1], instant(0.6))
    assert engine.oldest_pending_ms() == START_MS + 500


def test_the_time_of_a_record_that_cannot_be_decoded_is_kafka_s() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.receive([damaged(0)._replace(timestamp_ms=START_MS + 7)], instant(1.0))
    assert engine.oldest_pending_ms() == START_MS + 7


def test_repairs_are_counted_and_not_kept() -> None:
    policy = Policy(decisions=DecisionsSettings(visitor_metadata=False, attribute_properties=["a b"]))
    engine = engine_with(policy)
    engine.receive([record(decision("v", attributes={"a b": 1}))], instant(1.0))
    assert engine.accounts.repairs == {Rule.NAME_CHARACTERS: 1}
    (attempt,) = attempts_at(engine, 1.0)
    engine.answered(attempt, OK, instant(1.0))
    (settlement,) = engine.poll(instant(1.0)).settlements
    assert settlement.delivery.planned.repairs == ()


def test_the_hottest_visitors_are_returned_with_the_number_of_their_waiting_events() -> None:
    engine = engine_with(TRACKS_ONLY)
    events = [decision(name, f"f{n}") for name, count in (("a", 1), ("b", 3), ("c", 2)) for n in range(count)]
    engine.receive([record(event, offset) for offset, event in enumerate(events)], instant(0.0))
    assert engine.hottest_visitors(2) == [("b", 3), ("c", 2)]


def test_records_are_wanted_while_few_could_start_or_pendo_is_down() -> None:
    limits = EndpointLimits(max_connections=1)
    engine = engine_with(TRACKS_ONLY.model_copy(update={"limits": limits}))
    receive(engine, "a", at=0.0)
    assert engine.wants_records(instant(0.0))
    receive(engine, "b", "c", at=0.0, first=1)
    assert goes(engine, 1.0) == ["a"]
    assert [engine.wants_records(instant(at)) for at in (1.0, 1.1, 1.3)] == [False, False, True]
    for number in range(2):
        engine.track.refused(engine.track.start(f"x{number}"), 1.3)
    assert engine.wants_records(instant(1.3))


# The end


def test_a_stop_hands_back_waiting_events_and_sends_waiting_metadata_at_once() -> None:
    policy = Policy()
    engine = engine_with(policy)
    receive(engine, "v", at=0.0)
    engine.receive([record(metadata("w", plan="pro"), 1)], instant(0.0))
    assert not is_drained(engine)
    engine.drain(instant(1.1))
    receive(engine, "late", first=2)
    assert engine.accounts.returned == {Kind.TRACK: 1}
    actions = engine.poll(instant(1.1))
    assert actions.intake_paused
    (attempt,) = actions.attempts
    assert isinstance(attempt, MetadataAttempt)
    assert sorted(attempt.batch.ids) == ["v", "w"]
    engine.answered(attempt, OK, instant(1.2))
    assert not is_drained(engine), "Kafka does not have it yet"
    acknowledge(engine, engine.poll(instant(1.2)).settlements)
    assert is_drained(engine)
    assert engine.accounts.settled == {(Kind.VISITOR_METADATA, Outcome.DELIVERED, Reason.OK): 2}


def test_a_stop_hands_back_metadata_that_pendo_refuses() -> None:
    engine = engine_with(NO_LINGER)
    engine.receive([record(metadata("w", plan="pro"), 0)], instant(1.0))
    for visitor in ("x", "y"):
        engine.metadata.refused(engine.metadata.start(visitor), 1.0)
    engine.drain(instant(1.1))
    assert not is_drained(engine)
    assert engine.poll(instant(1.1)).attempts == []
    assert is_drained(engine)
    assert engine.accounts.returned == {Kind.VISITOR_METADATA: 1}


def test_a_partition_that_is_assigned_during_a_stop_takes_nothing_in() -> None:
    engine = engine_with(TRACKS_ONLY)
    engine.drain(instant(1.0))
    ready(engine, [1], 8, instant(1.0), TRACKS_ONLY)
    engine.receive([record(decision("v"), 0, partition=1)], instant(3.0))
    assert engine.accounts.records == 0


def test_a_delivery_that_fails_during_a_stop_is_handed_back() -> None:
    engine = engine_with(TRACKS_ONLY)
    receive(engine, "v")
    (attempt,) = attempts_at(engine, 1.0)
    engine.drain(instant(1.0))
    assert engine.accounts.returned == {}
    engine.answered(attempt, Answer(503), instant(1.1))
    assert engine.accounts.returned == {Kind.TRACK: 1}
    assert is_drained(engine)

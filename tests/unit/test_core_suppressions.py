"""Nothing of a suppressed visitor is sent: no new event, none that waits, and none that failed before."""

from __future__ import annotations

import tracemalloc

import orjson
import pytest

from engine_steps import (
    NO_LINGER,
    TRACKS_ONLY,
    answer_all,
    attempts_at,
    engine_with,
    instant,
    metadata,
    reasons,
    settle_all,
    visitors,
)
from engine_world import OK, START_MS, TIMED_OUT, acknowledge, decision, positions, record
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.core.pendo.verdict import Answer
from flagpost_consumer.core.planning.suppressions import (
    MAX_BYTES,
    SLOT_BYTES,
    Suppression,
    Suppressions,
    TooManySuppressions,
)
from flagpost_consumer.core.policy import (
    AnonymousPolicy,
    DecisionsSettings,
    DeliverySettings,
    MappingSettings,
    Policy,
)
from flagpost_consumer.core.records import DecodeFailure
from flagpost_schemas import AccountMetadata, Event, TrackEvent

UNAVAILABLE = Answer(503)


def suppress(engine: Engine, *visitor_ids: str) -> None:
    engine.suppress([Suppression(visitor_id, is_suppressed=True) for visitor_id in visitor_ids])


def undo(engine: Engine, visitor_id: str) -> None:
    engine.suppress([Suppression(visitor_id, is_suppressed=False)])


def receive(engine: Engine, *events: Event | DecodeFailure, first: int = 0) -> None:
    engine.receive([record(event, first + n) for n, event in enumerate(events)], instant(0.0))


def ended(engine: Engine) -> dict[tuple[Kind, Reason], int]:
    """How many deliveries Kafka has acknowledged, by kind and reason."""
    return {(kind, reason): count for (kind, _, reason), count in engine.accounts.settled.items()}


def ids_in(attempts: list[Attempt]) -> set[str]:
    """The ids of the visitors and accounts in these requests."""
    bodies = [orjson.loads(attempt.body) for attempt in attempts]
    return {
        each.get("visitorId") or each["accountId"]
        for body in bodies
        for each in (body if isinstance(body, list) else [body])
    }


# New events


def test_events_of_a_suppressed_visitor_are_dropped_of_both_kinds_and_others_are_sent() -> None:
    engine = engine_with(NO_LINGER)
    suppress(engine, "gone")
    receive(engine, decision("gone"), metadata("gone", plan="pro"), decision("stays"))
    attempts = attempts_at(engine, 1.0)
    assert ids_in(attempts) == {"stays"}
    for attempt in attempts:
        engine.answered(attempt, OK, instant(1.0))
    settle_all(engine, 2.0)
    assert ended(engine) == {
        (Kind.TRACK, Reason.SUPPRESSED): 1,
        (Kind.VISITOR_METADATA, Reason.SUPPRESSED): 2,
        (Kind.TRACK, Reason.OK): 1,
        (Kind.VISITOR_METADATA, Reason.OK): 1,
    }
    assert positions(engine) == {0: 3}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (decision(""), Reason.NO_VISITOR_ID),
        (decision("gone", flag=""), Reason.INVALID),
        (decision("gone", consent={"analytics": False}), Reason.SUPPRESSED),
        (decision("gone", flag="internal"), Reason.SUPPRESSED),
        (decision("gone", occurred_at=START_MS - 700_000_000), Reason.SUPPRESSED),
    ],
    ids=["no visitor id", "invalid", "no consent", "flag filtered", "expired"],
)
def test_suppressed_has_its_place_among_the_reasons(event: Event, reason: Reason) -> None:
    policy = Policy(decisions=DecisionsSettings(visitor_metadata=False, flags_deny=["internal"]))
    engine = engine_with(policy)
    suppress(engine, "gone", "")
    receive(engine, event)
    assert reasons(settle_all(engine, 1.0)) == {0: reason}


def test_suppressed_visitors_are_matched_by_the_id_that_pendo_gets() -> None:
    policy = Policy(mapping=MappingSettings(anonymous=AnonymousPolicy.AS_VISITOR))
    engine = engine_with(policy)
    suppress(engine, "gone")
    anonymous = TrackEvent(
        event_id="1", occurred_at=START_MS, visitor_id=None, anonymous_id="gone", event="e"
    )
    account = AccountMetadata(event_id="2", occurred_at=START_MS, account_id="gone", values={"plan": "pro"})
    receive(engine, anonymous, decision("Gone"), decision("gone "), account)
    assert {offset for offset, reason in reasons(settle_all(engine, 1.0)).items() if reason is Reason.OK} == {
        1,
        2,
        3,
    }


@pytest.mark.parametrize("anonymous", [AnonymousPolicy.AS_VISITOR, AnonymousPolicy.AS_ANONYMOUS])
@pytest.mark.parametrize("suppressed", ["gone", "_PENDO_T_gone"])
@pytest.mark.parametrize("anonymous_id", ["gone", "_PENDO_T_gone"])
@pytest.mark.parametrize("more", ["", "e" * 245, "e" * 50_000])
def test_an_anonymous_visitor_is_suppressed_by_either_name_whatever_the_settings_are(
    anonymous: AnonymousPolicy, suppressed: str, anonymous_id: str, more: str
) -> None:
    engine = engine_with(Policy(mapping=MappingSettings(anonymous=anonymous)))

    def event(number: int) -> TrackEvent:
        return TrackEvent(
            event_id=str(number),
            occurred_at=START_MS,
            visitor_id=None,
            anonymous_id=anonymous_id + more,
            event="e",
        )

    receive(engine, event(0))  # waits in its lane when the suppression comes
    suppress(engine, suppressed + more)
    receive(engine, event(1), first=1)
    assert reasons(settle_all(engine, 1.0)) == {0: Reason.SUPPRESSED, 1: Reason.SUPPRESSED}


def test_a_long_id_is_suppressed_like_any_other() -> None:
    engine = engine_with(TRACKS_ONLY)
    suppress(engine, "v" * 50_000)
    receive(engine, decision("v" * 50_000, event_id="1"), decision("v" * 50_001, event_id="2"))
    assert reasons(settle_all(engine, 1.0)) == {0: Reason.SUPPRESSED, 1: Reason.OK}


def test_after_an_undo_new_events_are_sent_but_not_those_dropped_meanwhile() -> None:
    engine = engine_with(TRACKS_ONLY)
    suppress(engine, "back")
    receive(engine, decision("back"))
    assert reasons(settle_all(engine, 1.0)) == {0: Reason.SUPPRESSED}
    undo(engine, "back")
    receive(engine, decision("back"), first=1)
    assert reasons(settle_all(engine, 200.0)) == {1: Reason.OK}


# Events that wait already


def test_events_that_wait_when_the_suppression_comes_are_not_sent() -> None:
    engine = engine_with(TRACKS_ONLY)
    receive(engine, *(decision("gone", f"flag-{n}") for n in range(50)), decision("stays"))
    first = attempts_at(engine, 1.0)
    assert sorted(visitors(first)) == ["gone", "stays"]
    suppress(engine, "gone")
    for attempt in first:
        engine.answered(attempt, OK, instant(1.1))
    settled = reasons(settle_all(engine, 3.0))
    assert attempts_at(engine, 10.0) == []
    assert {settled[offset] for offset in range(1, 50)} == {Reason.SUPPRESSED}
    assert ended(engine)[Kind.TRACK, Reason.OK] == 2, "what was on its way is told as it ended"


@pytest.mark.parametrize("answer", [UNAVAILABLE, TIMED_OUT, Answer(429), Answer(401)])
def test_a_request_in_flight_is_not_retried_after_the_suppression(answer: Answer) -> None:
    engine = engine_with(TRACKS_ONLY)
    receive(engine, decision("gone"), decision("stays"))
    attempts = attempts_at(engine, 1.0)
    suppress(engine, "gone")
    for attempt in attempts:
        engine.answered(attempt, answer, instant(1.1))
    sent_again: list[str] = []
    for second in range(2, 200):
        for attempt in attempts_at(engine, float(second)):
            sent_again += visitors([attempt])
            engine.answered(attempt, OK, instant(float(second)))
    assert set(sent_again) == {"stays"}
    assert ended(engine)[Kind.TRACK, Reason.SUPPRESSED] == 1
    assert engine.pending_records == 0


def test_the_claim_of_a_dropped_event_is_free_again_after_an_undo() -> None:
    engine = engine_with(TRACKS_ONLY)
    receive(engine, decision("gone"))
    suppress(engine, "gone")
    assert reasons(settle_all(engine, 1.0)) == {0: Reason.SUPPRESSED}
    undo(engine, "gone")
    receive(engine, decision("gone", event_id="the same decision once more"), first=1)
    assert reasons(settle_all(engine, 200.0)) == {1: Reason.OK}


def test_metadata_that_lingers_is_not_sent() -> None:
    engine = engine_with(Policy())
    receive(
        engine, metadata("gone", plan="pro"), metadata("gone", at=1, plan="free"), metadata("stays", a="b")
    )
    assert attempts_at(engine, 1.0) == []
    suppress(engine, "gone")
    attempts = attempts_at(engine, 4.0)
    assert ids_in(attempts) == {"stays"}
    for attempt in attempts:
        engine.answered(attempt, OK, instant(4.0))
    settle_all(engine, 5.0)
    assert ended(engine) == {
        (Kind.VISITOR_METADATA, Reason.SUPERSEDED): 1,
        (Kind.VISITOR_METADATA, Reason.SUPPRESSED): 1,
        (Kind.VISITOR_METADATA, Reason.OK): 1,
    }


@pytest.mark.parametrize("answer", [UNAVAILABLE, TIMED_OUT, Answer(400), Answer(429)])
def test_a_failed_batch_is_retried_without_the_suppressed_visitor(answer: Answer) -> None:
    """However the batch is retried: whole, halved, or with one id that probes."""
    engine = engine_with(NO_LINGER)
    names = [f"v{n}" for n in range(7)]
    receive(engine, *(metadata(name, plan="pro") for name in ["gone", *names]))
    answer_all(engine, 1.0, answer)
    suppress(engine, "gone")
    told: set[str] = set()
    for second in range(2, 300):
        attempts = attempts_at(engine, float(second))
        told |= ids_in(attempts)
        for attempt in attempts:
            engine.answered(attempt, OK, instant(float(second)))
    assert told == set(names)
    assert ended(engine)[Kind.VISITOR_METADATA, Reason.SUPPRESSED] == 1
    assert engine.pending_records == 0


def test_values_that_wait_behind_a_request_in_flight_are_dropped_and_those_in_flight_end_with_its_answer() -> (
    None
):
    engine = engine_with(NO_LINGER)
    receive(engine, metadata("gone", plan="pro"))
    (attempt,) = attempts_at(engine, 1.0)
    receive(engine, metadata("gone", at=1, plan="free", seats=4), first=1)
    assert attempts_at(engine, 1.5) == []
    suppress(engine, "gone")
    engine.answered(attempt, OK, instant(2.0))
    settled = settle_all(engine, 3.0)
    assert ended(engine) == {
        (Kind.VISITOR_METADATA, Reason.OK): 1,
        (Kind.VISITOR_METADATA, Reason.SUPPRESSED): 1,
    }
    assert settled[1].ending.outcome is Outcome.DROPPED


def test_a_draining_process_sends_no_metadata_of_a_suppressed_visitor() -> None:
    engine = engine_with(Policy())
    receive(engine, metadata("gone", plan="pro"), metadata("stays", plan="pro"))
    suppress(engine, "gone")
    engine.drain(instant(1.0))
    attempts = attempts_at(engine, 1.0)
    assert ids_in(attempts) == {"stays"}


# The suppressions are not known


def test_nothing_is_sent_while_the_suppressions_are_not_known() -> None:
    engine = engine_with(NO_LINGER)
    receive(engine, decision("gone"), decision("stays"))
    engine.follow_suppressions(followed=False)
    actions = engine.poll(instant(5.0))
    assert (actions.attempts, actions.intake_paused) == ([], True)
    known = Suppressions()
    known.take([Suppression("gone", is_suppressed=True)])
    engine.know_suppressions(known)
    actions = engine.poll(instant(6.0))
    assert not actions.intake_paused
    assert ids_in(actions.attempts) == {"stays"}


def test_a_process_that_stops_while_suppressions_are_not_known_hands_back_waiting_metadata() -> None:
    engine = engine_with(Policy())
    receive(engine, metadata("stays", plan="pro"))
    engine.follow_suppressions(followed=False)
    engine.drain(instant(1.0))
    acknowledge(engine, engine.poll(instant(1.0)).settlements)
    assert engine.is_drained
    assert engine.accounts.returned == {Kind.VISITOR_METADATA: 1}


def test_more_suppressions_than_fit_stop_all_sending_and_forget_no_visitor() -> None:
    engine = engine_with(TRACKS_ONLY)
    known = Suppressions(max_bytes=10_000)
    engine._suppressions._max_bytes = 10_000
    engine.know_suppressions(known)
    with pytest.raises(TooManySuppressions, match="visitors are suppressed"):
        suppress(engine, *(f"visitor-{n}" for n in range(1000)))
    receive(engine, decision("visitor-0"), decision("visitor-998"), decision("visitor-999"))
    assert attempts_at(engine, 5.0) == []
    assert not engine.knows_suppressions
    assert ended(engine) == {(Kind.TRACK, Reason.SUPPRESSED): 1}, "who is known stays so"
    engine.follow_suppressions(followed=False)
    engine.follow_suppressions(followed=True)
    assert not engine.knows_suppressions, "that the topic is followed again says nothing of what was left out"
    fewer = Suppressions()
    fewer.take([Suppression("visitor-999", is_suppressed=True)])
    engine.know_suppressions(fewer)
    assert visitors(attempts_at(engine, 6.0)) == ["visitor-998"]
    assert ended(engine) == {(Kind.TRACK, Reason.SUPPRESSED): 2}


def test_a_duplicate_suppression_takes_no_memory() -> None:
    known = Suppressions(max_bytes=1000)
    for _ in range(1000):
        known.take([Suppression("v", is_suppressed=True)])
    for n in range(1000):
        known.take([Suppression(f"v{n}", is_suppressed=True), Suppression(f"v{n}", is_suppressed=False)])
    known.take([Suppression("nobody", is_suppressed=False)])
    assert len(known) == 1
    assert known.hold("v")
    assert not known.hold("v1")


@pytest.mark.parametrize("letters", ["v", "\N{GRINNING FACE}" * 200])
def test_suppressions_take_no_more_memory_than_their_bound(letters: str) -> None:
    max_bytes = MAX_BYTES // 4
    tracemalloc.start()
    known = Suppressions(max_bytes)
    with pytest.raises(TooManySuppressions):
        known.take(Suppression(f"{number}{letters}", is_suppressed=True) for number in range(1_000_000))
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max_bytes / 2 < held_bytes <= max_bytes
    assert known.hold(f"0{letters}")


def test_metadata_requests_name_no_suppressed_visitor_even_when_a_batch_is_only_theirs() -> None:
    engine = engine_with(NO_LINGER)
    receive(engine, metadata("one", plan="pro"), metadata("two", plan="pro"))
    suppress(engine, "one", "two")
    attempts = attempts_at(engine, 2.0)
    assert [each for each in attempts if each.endpoint is EndpointName.METADATA] == []
    assert engine.pending_records == 0


def test_an_expired_event_that_waited_is_suppressed_and_leaves_no_dead_letter() -> None:
    policy = Policy(
        decisions=DecisionsSettings(visitor_metadata=False), delivery=DeliverySettings(max_age_seconds=60.0)
    )
    engine = engine_with(policy)
    receive(engine, decision("gone"))
    suppress(engine, "gone")
    assert reasons(settle_all(engine, 100.0)) == {0: Reason.SUPPRESSED}


# The bound


def suppressing(visitor_id: str) -> Suppression:
    return Suppression(visitor_id, is_suppressed=True)


def test_a_known_suppression_does_not_hide_a_new_one_that_comes_with_it() -> None:
    known = Suppressions()
    for visitor_ids in (["one"], ["one", "two"]):
        known.take(suppressing(visitor_id) for visitor_id in visitor_ids)
    assert known.hold("two")


def test_as_many_are_held_as_fit_and_an_undo_makes_room_for_one() -> None:
    each_bytes = "v1".__sizeof__() + SLOT_BYTES
    known = Suppressions(max_bytes=3 * each_bytes)
    known.take(suppressing(f"v{number}") for number in range(3))
    with pytest.raises(TooManySuppressions):
        known.take([suppressing("v3")])
    known.take([Suppression("v0", is_suppressed=False), suppressing("v3")])
    with pytest.raises(TooManySuppressions):
        known.take([suppressing("v4")])
    assert (len(known), known.hold("v0"), known.hold("v3")) == (3, False, True)


def test_too_many_are_reported_with_the_limit_and_what_to_do() -> None:
    assert str(TooManySuppressions(450_000, MAX_BYTES)) == (
        "more than 450,000 visitors are suppressed, and 64 MiB can hold no more: "
        "undo some (flagpost suppress VISITOR --undo)"
    )

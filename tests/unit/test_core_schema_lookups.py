"""When the schema registry is asked for which id, and what its answers change: the rules alone, without I/O."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from engine_steps import instant
from engine_world import START_MS
from flagpost_consumer.core.planning import schema_lookups
from flagpost_consumer.core.planning.schema_lookups import (
    MAX_AHEAD_AT_ONCE,
    MAX_ASKED_AT_ONCE,
    NOT_ASKED_YET,
    Found,
    NoAnswer,
    Refused,
    RegistryWait,
    SchemaAnswer,
    SchemaLookups,
    TurnedAway,
    Unknown,
    Unusable,
)

NOT_FOUND = Refused("no such id")
SILENT = NoAnswer("status 503")
TURNED_AWAY = TurnedAway("status 401")
SCHEMA = Found("{}")
STEP = 0.02
"""Fifty requests a second."""


def waiting(*ids: int, unknown_seconds: float = 60.0) -> SchemaLookups:
    """Lookups with partitions 0, 1, … that have waited for these ids since second 0."""
    subject = SchemaLookups(unknown_seconds)
    for partition, schema_id in enumerate(ids):
        subject.hold(schema_id)
        subject.wait(partition, schema_id, instant(0.0))
    return subject


def holding(*ids: int) -> SchemaLookups:
    """Lookups with held records that need these ids, and no partition that waits."""
    subject = SchemaLookups(60.0)
    for schema_id in ids:
        subject.hold(schema_id)
    return subject


def asked(subject: SchemaLookups, now: float = 0.0) -> list[int]:
    """The ids that are asked for from second `now` on while no answer comes."""
    ids = []
    while (schema_id := subject.next(instant(now))) is not None:
        ids.append(schema_id)
        now += STEP
    return ids


def moments(
    subject: SchemaLookups, answer: Callable[[int, float], SchemaAnswer], until: float
) -> list[float]:
    """The times at which ids are asked for if the registry answers at once and `next` is called at `wake_at`."""
    found = []
    now = 0.0
    while (wake_at := subject.wake_at()) is not None and (now := max(now, wake_at)) <= until:
        schema_id = subject.next(instant(now))
        assert schema_id is not None, "woken for nothing"
        found.append(now)
        became = subject.answered(schema_id, answer(schema_id, now), instant(now))
        if became is not None:
            break
    return found


# Which ids are asked for


def test_requests_are_a_fiftieth_of_a_second_apart() -> None:
    subject = waiting(7, 8)
    assert subject.next(instant(0.0)) == 7
    assert subject.wake_at() == STEP
    assert subject.next(instant(STEP * 0.99)) is None
    assert subject.next(instant(STEP)) == 8
    assert subject.next(instant(1.0)) is None, "both are asked for"
    assert subject.wake_at() is None


def test_an_id_is_asked_for_once_however_many_wait_for_it() -> None:
    subject = waiting(7, 7, 7)
    assert asked(subject) == [7]
    assert subject.waiting_for(7) == [0, 1, 2]
    assert subject.waiting_partitions == {0, 1, 2}
    subject.go_on(1)
    subject.go_on(1)
    assert subject.waiting_for(7) == [0, 2]
    assert subject.waiting_for(8) == []


def test_the_id_that_was_waited_for_longest_comes_first() -> None:
    subject = SchemaLookups(60.0)
    for partition, (schema_id, since) in enumerate([(1, 5.0), (9, 3.0), (2, 4.0)]):
        subject.hold(schema_id)
        subject.wait(partition, schema_id, instant(since))
    assert subject.next(instant(3.0)) == 9
    assert asked(subject, 6.0) == [2, 1]


def test_a_few_are_asked_for_ahead_and_partitions_that_wait_come_first() -> None:
    subject = holding(*range(100, 120))
    assert asked(subject) == [100, 101, 102, 103]
    assert MAX_AHEAD_AT_ONCE == 4
    assert subject.wake_at() is None
    for partition in range(8):
        subject.hold(partition)
        subject.wait(partition, partition, instant(1.0))
    assert subject.wake_at() == 1.0
    assert asked(subject, 1.0) == [0, 1, 2, 3]
    assert subject.wake_at() is None, f"there are {MAX_ASKED_AT_ONCE}"
    subject.answered(100, SCHEMA, instant(2.0))
    assert subject.wake_at() == pytest.approx(1.0 + 4 * STEP)
    assert asked(subject, 2.0) == [4]


def test_ids_that_no_held_record_needs_are_not_asked_for() -> None:
    subject = holding(1, 2, 2)
    subject.let_go(1)
    subject.let_go(2)
    assert asked(subject) == [2]
    subject.let_go(2)
    subject.hold(2)
    assert subject.wake_at() is not None
    subject.answered(2, SILENT, instant(1.0))
    subject.let_go(2)
    assert subject.wake_at() is None


def test_while_an_answer_is_awaited_new_ids_wait_until_the_next_request_may_start() -> None:
    subject = holding(1, 2)
    assert subject.wake_at() == -inf
    assert subject.next(instant(5.0)) == 1
    assert subject.wake_at() == 5.0 + STEP


# Refusals


def test_a_refused_id_is_asked_for_more_and_more_rarely_and_a_last_time_at_the_end() -> None:
    subject = waiting(7)
    assert moments(subject, lambda _id, _now: NOT_FOUND, inf) == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 60]


@pytest.mark.parametrize("answer", [NOT_FOUND, TURNED_AWAY])
def test_a_refused_id_becomes_unknown_with_the_registry_s_reason(answer: SchemaAnswer) -> None:
    subject = waiting(7, unknown_seconds=20.0)
    assert subject.answered(7, NOT_FOUND, instant(3.0)) is None
    assert subject.answered(7, answer, instant(22.9)) is None
    became = subject.answered(7, answer, instant(23.0))
    assert isinstance(became, Unknown)
    assert not isinstance(answer, Found)
    assert became.why == f"{answer.why}, for 20 s; Flagpost asks for it again after 200 s"


def test_an_unusable_schema_is_unknown_at_once_even_if_nobody_holds_it() -> None:
    for subject in (waiting(7), SchemaLookups(60.0)):
        became = subject.answered(7, Unusable("a map"), instant(3.0))
        assert became == Unknown("a map; Flagpost asks for it again after 600 s")
        assert subject.forgotten(instant(602.9)) == []
        assert subject.forgotten(instant(603.0)) == [7]
        assert subject.forgotten(instant(603.0)) == []


def test_an_id_that_is_refused_again_is_remembered_from_then_on() -> None:
    subject = SchemaLookups(1.0)
    subject.refuse(1, instant(0.0))
    subject.refuse(2, instant(4.0))
    subject.refuse(1, instant(5.0))
    assert subject.forgotten(instant(14.0)) == [2]
    assert subject.forgotten(instant(15.0)) == [1]


def test_of_too_many_unknown_ids_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_lookups, "MAX_UNKNOWN_IDS", 3)
    subject = SchemaLookups(60.0)
    for schema_id in range(5):
        subject.refuse(schema_id, instant(float(schema_id)))
    assert subject.forgotten(instant(5.0)) == [0, 1]
    assert subject.forgotten(instant(5.0)) == []


@pytest.mark.parametrize("answer", [NOT_FOUND, SILENT, TURNED_AWAY])
def test_an_answer_about_an_id_that_nobody_holds_changes_nothing(answer: SchemaAnswer) -> None:
    subject = waiting(7)
    assert subject.answered(99, answer, instant(0.0)) is None
    assert subject.next(instant(0.0)) == 7
    assert subject.answered(99, SCHEMA, instant(0.0)) == SCHEMA


# A registry that is silent


def test_an_id_without_an_answer_is_asked_for_without_end() -> None:
    subject = waiting(7)
    times = moments(subject, lambda _id, _now: SILENT, 125.0)
    assert times == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5, 121.5]


def test_a_silent_registry_has_one_request_at_a_time() -> None:
    subject = waiting(7, 8, 9)
    subject.hold(100)
    assert subject.next(instant(0.0)) == 7
    subject.answered(7, SILENT, instant(0.1))
    assert subject.next(instant(0.1 + 0.49)) is None
    assert subject.wake_at() == pytest.approx(0.6)
    assert subject.next(instant(0.6)) == 8
    assert subject.wake_at() is None
    assert subject.next(instant(5.0)) is None, "nor is any asked for ahead"
    subject.answered(8, SILENT, instant(5.0))
    assert subject.wake_at() == 6.0, "two were silent: a second"
    assert subject.next(instant(5.99)) is None
    assert subject.next(instant(6.0)) == 9
    subject.answered(9, SCHEMA, instant(6.1))
    assert asked(subject, 6.6) == [9, 7, 8, 100], "it answers"


def test_while_the_registry_is_silent_nothing_is_asked_for_ahead() -> None:
    subject = holding(7, 8)
    assert subject.next(instant(0.0)) == 7
    subject.answered(7, SILENT, instant(0.0))
    assert subject.next(instant(60.0)) is None
    assert subject.wake_at() is None


def test_an_id_that_a_registry_does_not_answer_about_delays_no_others() -> None:
    subject = waiting(7, 8)
    assert asked(subject) == [7, 8]
    for number in range(6):
        subject.answered(7, SILENT, instant(float(number)))
    subject.answered(8, SCHEMA, instant(6.0))
    subject.go_on(1)
    assert subject.wake_at() == 6.5, "soon: the registry is there again"
    subject.answered(7, SILENT, instant(6.5))
    subject.hold(9)
    subject.wait(2, 9, instant(6.5))
    assert subject.next(instant(6.5)) == 9
    assert subject.next(instant(6.6)) is None, "seven failures in a row: half a minute"
    assert subject.wake_at() == 36.5


def test_a_request_that_was_due_before_the_registry_answered_again_is_not_delayed() -> None:
    subject = waiting(7, 8)
    assert asked(subject) == [7, 8]
    subject.answered(7, SILENT, instant(0.0))
    subject.answered(8, SCHEMA, instant(0.2))
    subject.go_on(1)
    assert subject.wake_at() == 0.5


def test_the_time_until_an_id_becomes_unknown_stops_while_the_registry_is_silent() -> None:
    subject = waiting(7, 8)
    assert asked(subject) == [7, 8]
    assert subject.answered(7, NOT_FOUND, instant(0.0)) is None
    assert subject.answered(8, SILENT, instant(10.0)) is None
    assert subject.answered(8, SILENT, instant(50.0)) is None
    assert subject.answered(7, NOT_FOUND, instant(1_010.0)) is None
    assert subject.answered(8, SCHEMA, instant(1_010.0)) == SCHEMA
    subject.go_on(1)
    assert subject.answered(7, NOT_FOUND, instant(1_059.0)) is None
    assert subject.wake_at() == 1_060.0
    assert isinstance(subject.answered(7, NOT_FOUND, instant(1_060.0)), Unknown)


def test_silences_add_up() -> None:
    subject = waiting(7, 8, 9)
    subject.answered(7, NOT_FOUND, instant(0.0))
    for began in (10.0, 200.0):
        subject.answered(8, SILENT, instant(began))
        subject.answered(9, SILENT, instant(began + 1.0))
        subject.answered(9, SCHEMA, instant(began + 100.0))
    assert subject.answered(7, NOT_FOUND, instant(258.9)) is None
    assert isinstance(subject.answered(7, NOT_FOUND, instant(261.0)), Unknown)


def test_being_turned_away_refuses_an_id_only_if_another_id_was_answered_meanwhile() -> None:
    subject = waiting(7, 8, unknown_seconds=1.0)
    for second in (0.0, 10.0, 20.0):
        assert subject.answered(7, TURNED_AWAY, instant(second)) is None
    assert subject.answered(8, SCHEMA, instant(21.0)) == SCHEMA
    assert subject.answered(7, TURNED_AWAY, instant(22.0)) is None
    assert isinstance(subject.answered(7, TURNED_AWAY, instant(23.0)), Unknown)


def test_a_refusal_resets_the_failures_of_an_id() -> None:
    """The next failure counts as the first, and as one of the registry."""
    subject = waiting(7, 8)
    assert asked(subject) == [7, 8]
    for number in range(6):
        subject.answered(7, SILENT, instant(float(number)))
    subject.answered(8, NOT_FOUND, instant(6.0))
    assert subject.answered(7, NOT_FOUND, instant(6.5)) is None
    subject.go_on(1)
    subject.answered(7, SILENT, instant(7.0))
    assert subject.wake_at() == 7.5
    subject.wait(1, 8, instant(7.0))
    assert subject.next(instant(7.0)) is None, "it is the registry that is silent, as far as anybody knows"


def test_an_id_that_is_no_longer_needed_does_not_count_as_silent() -> None:
    subject = waiting(7, 8)
    subject.answered(7, SILENT, instant(0.0))
    subject.go_on(0)
    subject.let_go(7)
    assert subject.next(instant(0.1)) == 8


# What is reported


def test_waiting_partitions_are_reported_with_the_last_answer() -> None:
    subject = SchemaLookups(60.0)
    for partition, schema_id, since in ((5, 7, 1.0), (2, 8, 2.5)):
        subject.hold(schema_id)
        subject.wait(partition, schema_id, instant(since))
    subject.answered(7, TURNED_AWAY, instant(3.0))
    subject.answered(99, SILENT, instant(3.0))
    assert subject.waits() == [
        RegistryWait(2, 8, START_MS + 2_500, NOT_ASKED_YET),
        RegistryWait(5, 7, START_MS + 1_000, "status 401"),
    ]
    subject.answered(7, SCHEMA, instant(4.0))
    assert subject.waits()[1].last_answer == "status 401"

"""From messages to records: order, failures with their reasons, and partitions that wait for the registry."""

from __future__ import annotations

import tracemalloc
from itertools import islice
from typing import Any, cast

import pytest
from confluent_kafka import Message

from engine_steps import decoded_into
from engine_world import START_MS, decision
from flagpost_consumer.adapters.kafka import held_records
from flagpost_consumer.adapters.kafka.decoding import Decoding
from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.core.planning import schema_lookups
from flagpost_consumer.core.planning.schema_lookups import (
    Found,
    NoAnswer,
    Refused,
    SchemaAnswer,
    TurnedAway,
    Unusable,
)
from flagpost_consumer.core.records import DecodeFailure, Record
from flagpost_schemas import DecisionEvent, Decoder, encode_confluent, encode_single_object, schema_of
from registry_world import FakeMessage, RegistryWorld, messages

EVENT = decision("v")
GOOD = encode_single_object(EVENT)
SCHEMA = Found(schema_of(DecisionEvent).text)
NOT_FOUND = Refused("the registry has no schema with this id")
FORBIDDEN = Refused("status 403 of the registry: a missing right, to read this schema")
SILENT = NoAnswer("status 503")
UNAUTHORIZED = TurnedAway("status 401")
MINUTE, HOUR = 60.0, 3600.0


def confluent(schema_id: int) -> bytes:
    return encode_confluent(EVENT, schema_id)


def only(message: FakeMessage) -> Message:
    return cast("Message", message)


def reason_of(record: Record) -> Reason:
    assert isinstance(record.event, DecodeFailure)
    return record.event.reason


def test_a_record_that_cannot_be_decoded_keeps_its_place_and_says_why() -> None:
    taken: list[Record] = []
    done: list[bool] = []
    decoding = Decoding(None, decoded_into(taken))
    decoding.take(
        messages(GOOD, None, GOOD[:-1], b"", b"\xc3\x01" + b"?" * 8, GOOD), lambda: done.append(True)
    )
    assert [record.offset for record in taken] == [0, 1, 2, 3, 4, 5]
    assert taken[0].event == taken[5].event == EVENT
    assert [reason_of(record) for record in taken[1:5]] == [
        Reason.UNDECODABLE,
        Reason.UNDECODABLE,
        Reason.UNDECODABLE,
        Reason.UNKNOWN_SCHEMA,
    ]
    assert all(
        "look for what writes to this topic" in detail or "upgrade Flagpost" in detail
        for detail in (cast("DecodeFailure", record.event).detail for record in taken[1:5])
    )
    assert done == [True]


def test_without_a_registry_confluents_format_is_an_unknown_schema() -> None:
    taken: list[Record] = []
    decoding = Decoding(None, decoded_into(taken))
    decoding.take(messages(confluent(7), GOOD), lambda: None)
    assert [record.offset for record in taken] == [0, 1]
    assert reason_of(taken[0]) is Reason.UNKNOWN_SCHEMA
    assert "kafka.schema_registry.url" in cast("DecodeFailure", taken[0].event).detail


# Answers about one id: a registry that is a second behind, an id that does not exist, a missing right


def test_a_registry_replica_that_is_behind_costs_no_record() -> None:
    """Before the fix, one 404 made all 31 records dead letters, and later ones until the next restart."""
    answers = iter(list[SchemaAnswer]([NOT_FOUND, NOT_FOUND, SCHEMA]))
    world = RegistryWorld(lambda _id, _now: next(answers))
    world.take(*messages(*[confluent(41)] * 31), *messages(GOOD, partition=1))
    assert world.taken_at(1) == [0.0], "the others never waited"
    assert world.decoding.waiting_partitions == {0}
    world.run()
    assert world.offsets(0) == list(range(31))
    assert not world.failures()
    assert world.seconds < 5
    assert world.decoding.waiting_partitions == frozenset()


@pytest.mark.parametrize("first", [GOOD, confluent(40)])
def test_a_record_that_the_ledger_settles_waits_for_no_schema(first: bytes) -> None:
    """Before the fix, each hand-over stopped the partition for a minute: settled records may be read again."""
    world = RegistryWorld(
        lambda schema_id, _now: SCHEMA if schema_id == 40 else None,
        is_settled=lambda partition, offset: (partition, offset) in {(0, 1), (0, 2)},
    )
    world.take(*messages(first, confluent(41), confluent(42), GOOD))
    world.run(1.0)
    assert world.offsets(0) == [0, 1, 2, 3]
    assert world.decoding.waiting_partitions == frozenset()


def test_a_wrong_password_makes_no_id_unknown() -> None:
    world = RegistryWorld(lambda _id, now: UNAUTHORIZED if now < HOUR else SCHEMA)
    world.take(*messages(confluent(42), GOOD), *messages(confluent(43), partition=1))
    world.run(HOUR)
    assert not world.failures()
    world.run(HOUR + MINUTE)
    assert world.offsets(0) == [0, 1]
    assert world.offsets(1) == [0]
    assert not world.failures()


def test_an_id_that_is_turned_away_while_others_are_answered_is_refused() -> None:
    """Before the fix, its partition waited without end if the registry answered 401 to this id alone."""
    world = RegistryWorld(lambda schema_id, _now: UNAUTHORIZED if schema_id == 42 else SCHEMA)
    world.take(*messages(confluent(42), GOOD), *messages(confluent(43), partition=1))
    world.run(MINUTE + 5)
    assert world.offsets(0) == [0, 1]
    (failure,) = world.failures()
    assert failure.reason is Reason.UNKNOWN_SCHEMA
    assert "status 401, for 60 s" in failure.detail
    assert max(world.taken_at(1)) < 1.0, "the other was not held up"


@pytest.mark.parametrize("answer", [NOT_FOUND, FORBIDDEN])
def test_an_id_that_stays_refused_is_unknown_after_a_minute_and_asked_for_anew_after_ten(
    answer: SchemaAnswer,
) -> None:
    """Before the fix, an id that is answered 403 was asked for without end, and every partition waited behind it."""
    world = RegistryWorld(lambda _id, now: answer if now < HOUR else SCHEMA)
    world.take(*messages(confluent(42), GOOD), *messages(GOOD, partition=1))
    world.run(MINUTE - 1)
    assert world.offsets(0) == []
    world.run(MINUTE + 1)
    assert world.offsets(0) == [0, 1]
    [failure] = world.failures()
    assert failure.reason is Reason.UNKNOWN_SCHEMA
    assert failure.detail.startswith(f"schema id 42: {cast('Refused', answer).why}, for 60 s; ")
    assert 5 <= len(world.requests_of(42)) <= 10
    world.take(*messages(confluent(42), first=2))
    assert reason_of(world.taken[-1][1]) is Reason.UNKNOWN_SCHEMA, "while it is remembered"
    asked = len(world.asked)
    world.run(2 * HOUR)
    assert len(world.asked) == asked, "nobody needs it"
    world.take(*messages(confluent(42), first=3))
    world.run()
    assert world.taken[-1][1].event == EVENT, "an hour later it is asked for again"


def test_an_impossible_id_is_unknown_without_a_request() -> None:
    """Before the fix, a record of five bytes stopped all partitions for ever."""
    world = RegistryWorld()
    world.take(*messages(b"\x00\xff\xff\xff\xff", GOOD))
    assert world.offsets(0) == [0, 1]
    assert world.failures()[0].reason is Reason.UNKNOWN_SCHEMA
    assert not world.asked


def test_only_the_partition_of_an_unanswered_id_waits_however_long_it_takes() -> None:
    """A hundred hours later the partition still waits, and the id is asked for every half minute at most."""
    world = RegistryWorld(lambda schema_id, _now: SILENT if schema_id == 44 else SCHEMA)
    world.take(*messages(confluent(44)), *messages(confluent(7), partition=1))
    world.run(100 * HOUR)
    assert world.offsets(0) == []
    assert world.offsets(1) == [0]
    assert len(world.requests_of(44)) < 100 * 121
    [wait] = world.decoding.waits()
    assert (wait.partition, wait.schema_id, wait.since_ms) == (0, 44, START_MS)
    assert wait.last_answer == "status 503"
    world.answers = lambda _id, _now: SCHEMA
    world.run(101 * HOUR)
    assert world.offsets(0) == [0]


def test_a_schema_that_no_record_can_be_read_with_is_unknown_at_once() -> None:
    world = RegistryWorld(lambda _id, _now: Unusable("the schema with id 7 is PROTOBUF, not Avro"))
    world.take(*messages(confluent(7)))
    world.run(1)
    assert "PROTOBUF" in world.failures()[0].detail
    assert "asks for it again after 600 s" in world.failures()[0].detail


def test_a_text_that_is_no_schema_of_ours_is_unknown_and_asked_for_again_later() -> None:
    world = RegistryWorld(
        lambda _id, now: Found('{"type":"record","name":"\\ud800","fields":[]}') if now < 9 else SCHEMA
    )
    world.take(*messages(confluent(7)))
    world.run(1)
    [failure] = world.failures()
    assert failure.reason is Reason.UNKNOWN_SCHEMA
    failure.detail.encode()
    world.run(HOUR)
    world.take(*messages(confluent(7), first=1))
    world.run(HOUR + 1)
    assert world.taken[-1][1].event == EVENT


def test_a_schema_at_which_the_decoder_raises_costs_only_its_own_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def defective(_self: Decoder, _schema_id: int, _text: str) -> bool:
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(Decoder, "add_schema", defective)
    world = RegistryWorld(lambda _id, _now: SCHEMA)
    world.take(*messages(confluent(7), GOOD))
    world.run()
    assert world.offsets(0) == [0, 1]
    assert "a defect of Flagpost's: KeyError at" in world.failures()[0].detail


# A registry that is silent


def test_a_dead_registry_has_one_backoff_for_all_ids() -> None:
    world = RegistryWorld(lambda _id, now: SILENT if now < HOUR else SCHEMA)
    for partition in range(24):
        world.take(*messages(confluent(100 + partition), partition=partition))
    world.run(10 * MINUTE)
    assert len(world.asked) < 40, "it was asked for each id on its own"
    assert world.most_at_once <= 8
    assert not world.taken
    world.run(HOUR + MINUTE)
    assert {record.partition for _, record in world.taken} == set(range(24))
    assert world.taken[0][0] < HOUR + 31
    assert world.taken[-1][0] - world.taken[0][0] < 2, "the first answer is a sign for all"


def test_after_the_first_answer_that_ends_a_silence_all_partitions_continue() -> None:
    world = RegistryWorld(lambda _id, now: SILENT if now < HOUR else SCHEMA)
    world.take(*messages(confluent(7)), *messages(confluent(8), partition=1))
    world.run()
    (first, _), (second, _) = world.taken
    assert HOUR < first < second < first + 1


def test_a_time_of_silence_does_not_count_as_a_time_of_refusals() -> None:
    """A registry that comes back empty for a moment was silent before; that time does not count as refusals."""

    def answers(_id: int, now: float) -> SchemaAnswer:
        if now < 0.1 or 10 * MINUTE < now < 10 * MINUTE + 20:
            return NOT_FOUND
        return SILENT if now < 10 * MINUTE else SCHEMA

    world = RegistryWorld(answers)
    world.take(*messages(confluent(41)))
    world.run(20 * MINUTE)
    assert world.offsets(0) == [0]
    assert not world.failures()


def test_a_registry_that_never_answers_at_all_has_at_most_eight_requests() -> None:
    world = RegistryWorld(lambda _id, _now: None)
    for partition in range(50):
        world.take(*messages(confluent(100 + partition), partition=partition))
    world.run(MINUTE)
    world.take(*messages(confluent(99), partition=99))
    world.run(2 * MINUTE)
    assert len(world.asked) == 8


def test_an_id_that_is_never_answered_does_not_delay_others() -> None:
    """The answers about other ids show whether the registry or only one id is silent."""
    world = RegistryWorld(lambda schema_id, _now: SILENT if schema_id in (44, 45) else SCHEMA)
    world.take(*messages(confluent(44)), *messages(confluent(45), partition=1))
    world.run(HOUR)
    for number in range(20):
        began = world.seconds
        world.take(*messages(confluent(1_000 + number), partition=2 + number))
        world.run(began + 40)
        assert world.taken_at(2 + number), number
        later = world.taken_at(2 + number)[0] - began
        assert later <= (31 if number == 0 else 2), "after the first one has shown that the registry answers"


def test_an_id_that_is_never_answered_does_not_count_as_a_silent_registry() -> None:
    """Otherwise each failure of this id would delay all others for a while."""
    world = RegistryWorld(lambda schema_id, _now: SILENT if schema_id == 44 else SCHEMA)
    world.take(*messages(confluent(44)), *messages(confluent(7), partition=1))
    world.run(MINUTE)
    for number in range(5):
        asked = len(world.requests_of(44))
        world.run(reached=lambda asked=asked: len(world.requests_of(44)) > asked)  # type: ignore[misc]
        began = world.seconds + 0.02
        world.run(began)
        world.take(*messages(confluent(1_000 + number), partition=2 + number))
        world.run(began + 0.1)
        assert world.taken_at(2 + number)


def test_a_partition_that_is_taken_away_while_the_registry_is_silent_leaves_nothing_behind() -> None:
    world = RegistryWorld(lambda schema_id, _now: SILENT if schema_id == 44 else SCHEMA)
    world.take(*messages(confluent(44)))
    world.run(5)
    world.decoding.discard([0])
    world.take(*messages(confluent(7), partition=1))
    world.run(6)
    assert world.offsets(1) == [0]


# Floods


def test_a_flood_of_unknown_ids_costs_others_nothing() -> None:
    """10,000 unknown ids in one partition: another partition's schema is asked for as if they were not there."""
    world = RegistryWorld(lambda schema_id, _now: SCHEMA if schema_id == 7 else NOT_FOUND)
    flood = iter(messages(*(confluent(1_000 + number) for number in range(10_000))))
    while not world.decoding.full_partitions:
        world.take(*islice(flood, 250))
    assert world.decoding.full_partitions == {0}
    world.run(20.0)
    world.take(*messages(confluent(7), partition=1))
    world.run(21.0)
    assert world.taken_at(1)
    assert world.taken_at(1)[0] < 20.1
    assert world.most_requests_in_a_second() <= 51
    assert world.most_at_once <= 8


def test_ids_that_are_asked_for_ahead_leave_room_for_those_that_are_waited_for() -> None:
    world = RegistryWorld(lambda schema_id, _now: SCHEMA if schema_id == 7 else None)
    world.take(*messages(*(confluent(1_000 + number) for number in range(100))))
    world.run(10)
    world.take(*messages(confluent(7), partition=1))
    world.run(11)
    assert world.offsets(1) == [0]


def test_a_flood_ends_and_each_of_its_ids_was_asked_for_twice() -> None:
    """Ids are asked for ahead: otherwise one would wait a minute after the other, 10,000 of them for a week."""
    world = RegistryWorld(lambda schema_id, _now: SCHEMA if schema_id == 7 else NOT_FOUND)
    values = [confluent(1_000 + number) for number in range(1_000)]
    world.take(*messages(*values, confluent(7)))
    world.run()
    assert world.offsets(0) == list(range(1_001))
    assert world.taken[-1][1].event == EVENT
    assert world.seconds < 3 * MINUTE
    assert all(
        (times := world.requests_of(1_000 + number))[-1] - times[0] >= MINUTE for number in range(1_000)
    )
    assert len(world.asked) < 2_100


def test_the_ids_that_are_kept_of_a_flood_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_lookups, "MAX_UNKNOWN_IDS", 1_200)
    world = RegistryWorld(lambda _id, _now: NOT_FOUND)
    for first in range(0, 3_000, 500):
        values = [confluent(1_000 + first + number) for number in range(500)]
        world.take(*messages(*values, first=first))
        world.run(reached=lambda: not world.decoding.waiting_partitions)
    lookups = world.decoding._lookups
    world.take()
    assert len(lookups._unknown) == len(world.decoding._decoder._refused) == 1_200
    assert not lookups._lookups
    assert not lookups._fresh
    assert not lookups._asked


# Held records


def test_other_partitions_go_on_and_the_one_that_waits_keeps_its_order() -> None:
    world = RegistryWorld(lambda _id, now: SILENT if now < 3 else SCHEMA)
    world.take(*messages(GOOD, confluent(7), GOOD, confluent(8)), *messages(GOOD, GOOD, partition=1))
    world.take(*messages(b"", GOOD, first=4), *messages(GOOD, partition=1, first=2))
    assert world.offsets(0) == [0]
    assert world.offsets(1) == [0, 1, 2]
    world.run()
    assert world.offsets(0) == [0, 1, 2, 3, 4, 5]


def test_a_waiting_partition_is_paused_at_a_limit_of_held_records_and_read_again_at_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flagpost_consumer.adapters.kafka.decoding.RELEASED_AT_ONCE", 100)
    world = RegistryWorld(lambda _id, now: SILENT if now < 3 else SCHEMA)
    world.take(*messages(*[confluent(7)] * (held_records.MAX_RECORDS - 1)))
    assert world.decoding.full_partitions == frozenset()
    changes = world.changes
    world.take(*messages(confluent(7), first=999))
    assert world.decoding.full_partitions == {0}
    assert world.changes > changes, "the service hears of it"
    world.run(reached=lambda: len(world.taken) == 400)
    assert world.decoding.full_partitions == {0}
    world.run(reached=lambda: len(world.taken) == 600)
    assert world.decoding.full_partitions == frozenset()
    world.run()
    assert world.offsets(0) == list(range(1_000))


def test_held_records_are_bounded_in_bytes_and_over_all_partitions() -> None:
    world = RegistryWorld(lambda _id, _now: None)
    big = confluent(7) + b"x" * 60_000
    for partition in range(20):
        world.take(*messages(*[big] * 18, partition=partition))
        assert partition in world.decoding.full_partitions
    assert world.decoding.full_partitions == frozenset(range(20))
    few = RegistryWorld(lambda _id, _now: None)
    for partition in range(held_records.MAX_ALL_RECORDS // 100):
        assert few.decoding.full_partitions == frozenset()
        few.take(*messages(*[confluent(7)] * 100, partition=partition))
    assert len(few.decoding.full_partitions) == held_records.MAX_ALL_RECORDS // 100


def test_headers_count_among_the_held_bytes() -> None:
    world = RegistryWorld(lambda _id, _now: None)
    for offset in range(17):
        message = FakeMessage(confluent(7), offset).with_headers([("big", b"x" * 65_000)])
        world.take(only(message))
    assert world.decoding.full_partitions == {0}


def test_the_held_records_of_a_partition_that_is_taken_away_are_forgotten() -> None:
    world = RegistryWorld(lambda _id, now: SILENT if now < 3 else SCHEMA)
    world.take(*messages(confluent(7), confluent(8)), *messages(confluent(7), partition=1))
    told: list[str] = []
    world.decoding.in_turn(0, lambda: told.append("gap"))
    world.decoding.discard([0, 5])
    assert world.decoding.waiting_partitions == {1}
    world.run()
    assert world.offsets(0) == []
    assert world.offsets(1) == [0]
    assert told == []
    assert 8 not in {schema_id for _, schema_id in world.asked}
    world.take(*messages(GOOD))
    assert world.offsets(0) == [0], "the next assignment begins anew"


def test_a_gap_is_reported_after_the_records_before_it() -> None:
    world = RegistryWorld(lambda _id, now: SILENT if now < 3 else SCHEMA)
    told: list[int] = []
    world.take(*messages(confluent(7)))
    world.decoding.in_turn(0, lambda: told.append(len(world.taken)))
    world.decoding.in_turn(1, lambda: told.append(-1))
    world.take(*messages(GOOD, first=9))
    assert told == [-1]
    world.run()
    assert told == [-1, 1]
    assert world.offsets(0) == [0, 9]


def test_a_schema_that_was_forgotten_while_its_record_was_held_is_asked_for_again() -> None:
    world = RegistryWorld(lambda schema_id, now: NOT_FOUND if schema_id == 8 and now < 9 else SCHEMA)
    world.take(*messages(confluent(7)))
    world.run(1)
    world.take(*messages(confluent(8), confluent(7), first=1))
    world.decoding._decoder.forget_schema(7)
    world.run()
    assert world.offsets(0) == [0, 1, 2]
    assert not world.failures()
    assert len(world.requests_of(7)) == 2


def test_partitions_that_go_on_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flagpost_consumer.adapters.kafka.decoding.RELEASED_AT_ONCE", 100)
    world = RegistryWorld(lambda _id, now: SILENT if now < 3 else SCHEMA)
    world.take(*messages(*[confluent(7)] * 500), *messages(*[confluent(7)] * 500, partition=1))
    world.run(reached=lambda: len(world.taken) >= 400)
    assert len(world.offsets(0)) == len(world.offsets(1)) == 200
    world.run()
    assert world.offsets(0) == world.offsets(1) == list(range(500))


# Records at which our own code raises


@pytest.mark.parametrize("part", ["value", "key", "timestamp"])
def test_a_record_that_raises_twice_is_quarantined_and_the_others_go_on(part: str) -> None:
    """Before the fix, it ended the process, and again after every restart."""
    world = RegistryWorld()
    bad = FakeMessage(GOOD, 0)
    bad.raises[part] = [ValueError("visitor-4711") for _ in range(9)]
    world.take(only(bad), *messages(GOOD, first=1))
    assert world.offsets(0) == [0, 1]
    [failure] = world.failures()
    assert failure.reason is Reason.INVALID
    assert failure.detail.startswith("a defect of Flagpost's: ValueError at flagpost_consumer.")
    assert "4711" not in failure.detail
    assert world.quarantined == 1
    record = world.taken[0][1]
    assert (record.value, record.key) == (None if part == "value" else GOOD, None if part == "key" else b"v")
    assert record.headers == (("trace", b"x"),)


def test_an_unexpected_error_of_the_decoder_quarantines_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Decoder.decode

    def defective(self: Decoder, value: bytes | None) -> Any:
        if value == b"\xc3\x01poison":
            raise RecursionError
        return right(self, value)

    monkeypatch.setattr(Decoder, "decode", defective)
    world = RegistryWorld()
    world.take(*messages(GOOD, b"\xc3\x01poison", GOOD))
    assert world.offsets(0) == [0, 1, 2]
    assert world.failures()[0].detail.startswith("a defect of Flagpost's: RecursionError at ")
    assert world.taken[1][1].value == b"\xc3\x01poison", "its dead letter has the original"


def test_a_record_that_raises_once_is_decoded() -> None:
    world = RegistryWorld()
    odd = FakeMessage(GOOD, 0)
    odd.raises["value"] = [MemoryError()]
    world.take(only(odd))
    assert world.taken[0][1].event == EVENT
    assert world.quarantined == 0


@pytest.mark.parametrize("held", [False, True])
def test_headers_that_raise_are_read_once_and_quarantine(held: bool) -> None:
    """If they are read a second time, confluent-kafka may return a list with a null pointer in it."""
    world = RegistryWorld(lambda _id, _now: SCHEMA)
    bad = FakeMessage(confluent(7) if held else GOOD, 0)
    bad.raises["headers"] = [MemoryError()]
    world.take(only(bad), *messages(GOOD, first=1))
    world.run()
    assert world.offsets(0) == [0, 1]
    assert bad.header_reads == 1
    assert world.failures()[0].detail.startswith("a defect of Flagpost's: MemoryError at ")
    assert world.quarantined == 1


@pytest.mark.parametrize("part", ["value", "key"])
def test_a_record_that_raises_while_others_are_held_keeps_its_place(part: str) -> None:
    world = RegistryWorld(lambda _id, now: SILENT if now < 3 else SCHEMA)
    bad = FakeMessage(GOOD, 1)
    bad.raises[part] = [ValueError() for _ in range(9)]
    once = FakeMessage(confluent(8), 2)
    once.raises[part] = [ValueError()]
    world.take(*messages(confluent(7)), only(bad), only(once), *messages(GOOD, first=3))
    world.run()
    assert world.offsets(0) == [0, 1, 2, 3]
    assert [reason_of(record) for _, record in world.taken if record.offset == 1] == [Reason.INVALID]
    assert len(world.failures()) == 1


@pytest.mark.parametrize("held", [False, True])
def test_a_headers_name_that_is_not_utf8_stops_neither_its_record_nor_those_behind_it(held: bool) -> None:
    world = RegistryWorld(lambda _id, _now: SCHEMA)
    unreadable = FakeMessage(confluent(7) if held else GOOD, 0)
    unreadable.raises["headers"] = [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")]
    world.take(only(unreadable), *messages(GOOD, first=1))
    world.run()
    assert [(record.event, record.headers) for _, record in world.taken] == [
        (EVENT, ()),
        (EVENT, (("trace", b"x"),)),
    ]
    assert unreadable.header_reads == 1


# Records that are too large


def test_a_record_over_the_limit_is_invalid_and_keeps_no_bytes() -> None:
    world = RegistryWorld(max_event_bytes=1_000)
    limit = FakeMessage(GOOD + b"x" * (999 - len(GOOD)), 0)
    over = FakeMessage(GOOD + b"x" * (1_000 - len(GOOD)), 1)
    world.take(only(limit), only(over))
    at_limit, too_large = (record for _, record in world.taken)
    assert reason_of(at_limit) is Reason.UNDECODABLE, "it is read"
    assert reason_of(too_large) is Reason.INVALID
    assert (too_large.value, too_large.key, too_large.truncated) == (None, b"v", True)
    detail = cast("DecodeFailure", too_large.event).detail
    assert "1001 bytes" in detail
    assert "kafka.max_event_bytes" in detail
    assert "flagpost-source" in detail


def test_a_record_over_the_limit_that_raises_keeps_no_bytes_either() -> None:
    world = RegistryWorld()
    bad = FakeMessage(GOOD + bytes(450_000), 0)
    bad.raises["timestamp"] = [ValueError() for _ in range(9)]
    world.take(only(bad))
    record = world.taken[0][1]
    assert (record.key, record.value, record.truncated) == (b"v", None, True)
    assert world.quarantined == 1


def test_a_key_over_the_limit_is_left_out_too() -> None:
    world = RegistryWorld()
    world.take(only(FakeMessage(GOOD, 0, key=b"k" * 100_000)))
    record = world.taken[0][1]
    assert (record.key, record.value, record.truncated) == (None, None, True)


@pytest.mark.parametrize("held", [False, True])
def test_headers_over_the_limit_are_left_out(held: bool) -> None:
    world = RegistryWorld(lambda _id, _now: SCHEMA)
    value = confluent(7) if held else GOOD
    world.take(only(FakeMessage(value, 0).with_headers([("n" * 40_000, b"v" * 40_000)])))
    world.run()
    record = world.taken[0][1]
    assert reason_of(record) is Reason.INVALID
    assert (record.headers, record.value, record.truncated) == ((), value, False)
    assert "80000 bytes" in cast("DecodeFailure", record.event).detail


@pytest.mark.parametrize("waiting", [False, True])
def test_600_records_of_450_kb_hold_next_to_nothing(waiting: bool) -> None:
    """Before the fix, they took 541 MB."""
    world = RegistryWorld(lambda _id, _now: None)
    if waiting:
        world.take(*messages(confluent(7)))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for offset in range(1, 601):
        value = (confluent(9) if offset % 2 else GOOD) + bytes(450_000)
        world.take(only(FakeMessage(value, offset)))
        del value
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2_000_000
    assert len(world.taken) == (0 if waiting else 600)

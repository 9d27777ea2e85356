"""The compiled readers of bodies return the same as fastavro, or return nothing, so that fastavro is asked."""

import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flagpost_schemas import (
    EVENT_TYPES,
    LEDGER_SCHEMA,
    DecisionEvent,
    DecodeError,
    Event,
    Gap,
    LedgerEntry,
    Settlements,
    Source,
    TrackEvent,
    UndecodableRecord,
    VisitorMetadata,
    decode_outcomes,
    decode_settlements,
    encode_body,
    encode_settlements,
    schema_of,
)
from flagpost_schemas.decode import read_body
from flagpost_schemas.quick_reading import compile_reading
from property.test_ledger_bytes import records
from property.test_schemas_bytes import damage, events

READERS = {
    event_type: compile_reading(event_type, schema_of(event_type).parsed) for event_type in EVENT_TYPES
}
TRACK = TrackEvent(event_id="e", occurred_at=1, visitor_id="v", event="x", properties={"n": float("nan")})


def as_told(event: Event) -> str:
    """The fields as a text, with their types: True differs from 1, and nan equals nan."""
    told = asdict(event)
    if "group" in told:
        told["group"] = told["group"].value
    return repr(told)


def by_fastavro(event_type: type[Event], body: bytes) -> str | None:
    try:
        return repr(read_body(event_type.__name__, schema_of(event_type).parsed, None, body, 0))
    except DecodeError:
        return None


@given(events)
@example(TRACK)
def test_an_event_that_was_written_is_read(event: Event) -> None:
    event_type, body = type(event), encode_body(event)
    found = READERS[event_type](body, 0)
    assert found is not None
    assert as_told(found) == as_told(event) == by_fastavro(event_type, body)
    assert type(found) is event_type


@given(events, st.randoms(use_true_random=False))
def test_a_damaged_event_is_read_as_fastavro_reads_it_or_left_to_it(
    event: Event, source: random.Random
) -> None:
    event_type, body = type(event), damage(encode_body(event), source)
    found = READERS[event_type](body, 0)
    if found is not None:
        assert as_told(found) == by_fastavro(event_type, body)


@given(st.sampled_from(EVENT_TYPES), st.binary(max_size=60))
def test_any_bytes_are_read_as_fastavro_reads_them_or_left_to_it(
    event_type: type[Event], body: bytes
) -> None:
    found = READERS[event_type](body, 0)
    if found is not None:
        assert as_told(found) == by_fastavro(event_type, body)


def test_maps_in_blocks_of_known_size_are_left_to_fastavro() -> None:
    head = encode_body(VisitorMetadata(event_id="e", occurred_at=1, visitor_id="v"))[:-1]
    in_one = head + b"\x02\x02a\x00\x00"
    with_size = head + b"\x01\x06\x02a\x00\x00"
    read = READERS[VisitorMetadata]
    told = by_fastavro(VisitorMetadata, in_one)
    assert told is not None
    assert told == by_fastavro(VisitorMetadata, with_size)
    assert read(in_one, 0) is not None
    assert read(with_size, 0) is None


def test_events_that_are_read_are_frozen_and_whole() -> None:
    event = DecisionEvent(
        event_id="e",
        occurred_at=1,
        visitor_id="v",
        flag_key="f",
        enabled=True,
        decision_event_dispatched=False,
    )
    found = READERS[DecisionEvent](b"head" + encode_body(event), 4)
    assert found == event
    with pytest.raises(FrozenInstanceError):
        found.event_id = "other"  # type: ignore[misc]


def ledger_by_fastavro(body: bytes) -> Settlements | None:
    try:
        told = read_body("Settlements", LEDGER_SCHEMA.parsed, None, body, 0)
    except DecodeError:
        return None
    entries = [LedgerEntry(**entry) for entry in told["entries"]]
    return Settlements(**{**told, "entries": entries, "gaps": [Gap(**gap) for gap in told["gaps"]]})


read_settlements = compile_reading(Settlements, LEDGER_SCHEMA.parsed, {"Settlement": LedgerEntry, "Gap": Gap})


@given(records)
def test_a_ledger_record_that_was_written_is_read(record: Settlements) -> None:
    body = encode_settlements(record)[10:]
    assert read_settlements(body, 0) == record == ledger_by_fastavro(body)


@given(records, st.randoms(use_true_random=False))
def test_a_damaged_ledger_record_is_read_as_fastavro_reads_it_or_left_to_it(
    record: Settlements, source: random.Random
) -> None:
    body = damage(encode_settlements(record)[10:], source)
    found = read_settlements(body, 0)
    if found is not None:
        assert repr(found) == repr(ledger_by_fastavro(body))


@given(st.binary(max_size=80))
def test_any_bytes_of_a_ledger_are_read_as_fastavro_reads_them_or_left_to_it(body: bytes) -> None:
    found = read_settlements(body, 0)
    if found is not None:
        assert repr(found) == repr(ledger_by_fastavro(body))


def outcomes_of(settlements: Settlements) -> Settlements:
    """The record without the fields that `decode_outcomes` skips."""
    entries = [
        LedgerEntry(*entry[:4], duplicate_of=entry.duplicate_of, unseen=entry.unseen)
        for entry in settlements.entries
    ]
    return replace(settlements, entries=entries)


def read_or_damaged(read: Callable[[bytes], Settlements], value: bytes) -> Settlements | None:
    try:
        return read(value)
    except UndecodableRecord:
        return None


@given(records)
def test_outcomes_are_those_of_the_whole_record(record: Settlements) -> None:
    assert decode_outcomes(encode_settlements(record)) == outcomes_of(record)


@given(records, st.randoms(use_true_random=False))
def test_outcomes_can_be_read_exactly_if_the_whole_record_can(
    record: Settlements, source: random.Random
) -> None:
    value = encode_settlements(record)
    value = value[:10] + damage(value[10:], source)
    whole = read_or_damaged(decode_settlements, value)
    found = read_or_damaged(decode_outcomes, value)
    assert found == (None if whole is None else outcomes_of(whole))


@pytest.mark.parametrize("length", [1, 63, 64, 200, 20_000])
def test_a_text_that_is_skipped_has_to_be_valid(length: int) -> None:
    entry = LedgerEntry(7, "track", "delivered", "ok", event_id="e", visitor_id="v" * length, event="x")
    record = Settlements(group="g", member="m", settled_at=1, entries=[entry], gaps=[])
    value = encode_settlements(record)
    assert decode_outcomes(value) == outcomes_of(record)
    with pytest.raises(UndecodableRecord):
        decode_outcomes(value.replace(b"v" * length, b"v" * (length - 1) + b"\xff"))


@given(st.lists(events, max_size=5))
def test_sources_that_recur_are_read_as_those_that_do_not(several: list[Event]) -> None:
    for event in (*several, *several):
        found = READERS[type(event)](encode_body(event), 0)
        assert found is not None
        assert as_told(found) == as_told(event)


def test_a_source_that_recurs_is_one_object() -> None:
    body = encode_body(replace(TRACK, source=Source(service="a")))
    first, second = READERS[TrackEvent](body, 0), READERS[TrackEvent](body, 0)
    assert first is not None
    assert second is not None
    assert first.source == Source(service="a")
    assert first.source is second.source


@pytest.mark.parametrize("byte", [b"\x00", b"\x02", b"\xff"])
def test_a_new_reader_reads_bytes_that_are_no_source_as_fastavro_does_or_leaves_them_to_it(
    byte: bytes,
) -> None:
    read = compile_reading(TrackEvent, schema_of(TrackEvent).parsed)
    whole = encode_body(replace(TRACK, source=Source(service="service")))
    before = whole[: whole.index(b"\x0eservice") - 1]
    body = before + byte * 64
    found = read(body, 0)
    assert found is None or as_told(found) == by_fastavro(TrackEvent, body)

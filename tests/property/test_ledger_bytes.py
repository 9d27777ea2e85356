"""Ledger records are encoded as Avro and decoded unchanged; any other bytes are a record or raise a typed error."""

import io
from dataclasses import asdict, fields
from typing import Any

import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.adapters.ledger.entries import LedgerPart, read_part
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_schemas import (
    LEDGER_SCHEMA,
    DecodeError,
    Gap,
    LedgerEntry,
    Settlements,
    UndecodableRecord,
    UnknownSchema,
    decode_settlements,
    encode_settlements,
)

optional_texts = st.none() | st.text(max_size=150)
longs = st.integers(-(2**63), 2**63 - 1)
ints = st.integers(-(2**31), 2**31 - 1)
entries = st.builds(
    LedgerEntry,
    offset=longs,
    kind=st.sampled_from([kind.value for kind in Kind]),
    outcome=st.sampled_from([outcome.value for outcome in Outcome]),
    reason=st.sampled_from([reason.value for reason in Reason]),
    event_id=optional_texts,
    visitor_id=optional_texts,
    account_id=optional_texts,
    event=optional_texts,
    flag_key=optional_texts,
    variation_key=optional_texts,
    dedupe_key=st.none() | st.binary(min_size=16, max_size=16),
    duplicate_of=st.none() | longs,
    occurred_at=st.none() | longs,
    attempts=ints,
    unseen=ints,
    status=st.none() | ints,
)
records = st.builds(
    Settlements,
    group=st.text(),
    topic_id=optional_texts,
    member=st.text(),
    settled_at=longs,
    entries=st.lists(entries, max_size=4),
    gaps=st.lists(st.builds(Gap, from_offset=longs, to_offset=longs), max_size=2),
)


@given(records)
def test_the_bytes_are_avros_and_are_decoded_unchanged(record: Settlements) -> None:
    value = encode_settlements(record)

    avros = io.BytesIO()
    plain = asdict(record) | {"entries": [entry._asdict() for entry in record.entries]}
    schemaless_writer(avros, LEDGER_SCHEMA.parsed, plain)
    assert value[10:] == avros.getvalue()
    assert decode_settlements(value) == record


@given(records, st.data())
def test_damaged_bytes_are_a_record_or_raise_one_typed_error(
    record: Settlements, data: st.DataObject
) -> None:
    value = bytearray(encode_settlements(record))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(value)))

    for damaged in (bytes(value), bytes(value[:cut])):
        try:
            decode_settlements(damaged)
        except DecodeError as error:
            assert str(error)  # noqa: PT017 - a record may come out as well


def test_every_kind_outcome_and_reason_can_be_written() -> None:
    base = {"offset": 1, "kind": "track", "outcome": "delivered", "reason": "ok"}
    for field, words in (("kind", Kind), ("outcome", Outcome), ("reason", Reason)):
        for word in words:
            entry = LedgerEntry(**{**base, field: word.value})  # type: ignore[arg-type]
            record = Settlements(group="g", member="m", settled_at=0, entries=[entry], gaps=[])
            assert decode_settlements(encode_settlements(record)) == record


def test_a_record_of_a_later_release_is_distinguished_from_a_damaged_one() -> None:
    with pytest.raises(UnknownSchema, match="upgrade Flagpost"):
        decode_settlements(b"\xc3\x01" + bytes(8))
    for value in (None, b"", b"\xc3\x01", b"junk", b"\x00\x00\x00\x00\x01x"):
        with pytest.raises(UndecodableRecord):
            decode_settlements(value)


def as_part(record: Settlements) -> LedgerPart:
    """The part of a record that a restart needs, taken from the whole record."""
    words = {outcome.value: outcome for outcome in Outcome}
    settled = [
        (entry.offset, Kind(entry.kind), words.get(entry.outcome), entry.dedupe_key, entry.occurred_at)
        for entry in record.entries
    ]
    gaps = [(gap.from_offset, gap.to_offset) for gap in record.gaps]
    return LedgerPart(record.group, record.topic_id, settled, gaps)


@given(records)
def test_a_restart_reads_what_was_written(record: Settlements) -> None:
    assert read_part(encode_settlements(record)) == as_part(record)


@given(records, st.data())
def test_a_restart_detects_the_same_damage_as_other_readers(record: Settlements, data: st.DataObject) -> None:
    """The quick reader decodes no text, so it may accept one that is not UTF-8; otherwise it agrees."""
    value = bytearray(encode_settlements(record))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(value), bytes(value[: data.draw(st.integers(0, len(value)))])):
        try:
            expected = as_part(decode_settlements(damaged))
        except DecodeError as error:
            if "UTF-8" not in str(error):
                with pytest.raises(type(error)):
                    read_part(damaged)
        else:
            assert read_part(damaged) == expected


@given(records)
def test_a_record_with_sized_blocks_is_read_too(record: Settlements) -> None:
    """Blocks with their size in front, which other writers may write, are Avro as well."""
    value = encode_settlements(Settlements(**{**plain(record), "gaps": []}))
    assert value.endswith(b"\x00")
    gap = b"\x01\x04\x02\x04\x00"  # one block of -1 items, 2 bytes: from 1 to 2
    assert read_part(value[:-1] + gap).gaps == [(1, 2)]


def plain(record: Settlements) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}

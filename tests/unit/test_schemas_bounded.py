"""Foreign schemas and values that make few bytes expensive are refused, or cost no more than their length.

Time is not measured: a refused schema is never used, and a test would hang on a value that is read for ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flagpost_schemas import Decoder, SchemaError, TrackEvent, UndecodableRecord, encode_body, schema_of
from flagpost_schemas.avro import AvroSchema
from flagpost_schemas.bounded import MAX_DEPTH, MAX_NODES, MAX_READS_PER_BYTE

EVENT = TrackEvent(event_id="e", occurred_at=1, visitor_id="v", event="Clicked", properties={})
HUGE_COUNT = b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"
"""2**62 as Avro writes a long."""


def record(name: str, *types: Any) -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": f"f{number}", "type": each} for number, each in enumerate(types)],
    }


def doubling(times: int) -> dict[str, Any]:
    """Return nested records that each contain the one before twice; a value of them takes no bytes."""
    innermost = record("R0")
    for number in range(1, times + 1):
        innermost = record(f"R{number}", innermost, f"R{number - 1}")
    return innermost


def nested(deep: int, wrap: Callable[[Any], Any]) -> Any:
    inner: Any = "string"
    for _ in range(deep):
        inner = wrap(inner)
    return inner


def with_field(field_type: Any) -> str:
    """Return the schema of TrackEvent with one more field, as a later release might write it."""
    schema = json.loads(schema_of(TrackEvent).text)
    schema["fields"].append({"name": "more", "type": field_type})
    return json.dumps(schema)


def refused(field_type: Any) -> str:
    with pytest.raises(SchemaError) as caught:
        Decoder([with_field(field_type)])
    return str(caught.value)


def test_records_that_double_are_refused_for_their_types() -> None:
    """Before the fix, they were used: a million reads, a third of a second, for each record of a few bytes."""
    with pytest.raises(SchemaError, match=f"more than {MAX_NODES} types"):
        AvroSchema.parse(json.dumps(doubling(20)))
    assert "types" in refused(doubling(20))
    decoder = Decoder()
    assert not decoder.add_schema(7, json.dumps(doubling(60)))


def test_records_from_the_field_that_double_are_refused_for_their_types() -> None:
    text = (Path(__file__).parents[1] / "cases" / "schema-doubling.avsc").read_text()
    with pytest.raises(SchemaError, match=f"more than {MAX_NODES} types"):
        AvroSchema.parse(text)


def test_a_schema_whose_types_double_is_refused_without_walking_through_them() -> None:
    """40 records are 10^12 types: walking through all of them would not end."""
    with pytest.raises(SchemaError, match=f"more than {MAX_NODES} types"):
        AvroSchema.parse(json.dumps(doubling(40)))


def test_schemas_with_types_up_to_the_limit_are_used() -> None:
    decoder = Decoder()
    assert decoder.add_schema(7, with_field(record("Wide", *["null"] * (MAX_NODES - 200))))
    assert decoder.decode(b"\x00\x00\x00\x00\x07" + encode_body(EVENT)) == EVENT
    assert not decoder.add_schema(8, with_field(record("Wide", *["null"] * MAX_NODES)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: {"type": "array", "items": inner},
        lambda inner: {"type": "map", "values": inner},
        lambda inner: ["null", {"type": "array", "items": inner}],
    ],
)
def test_nested_types_are_refused_beyond_a_depth(wrap: Callable[[Any], Any]) -> None:
    assert "nested" in refused(nested(MAX_DEPTH, wrap))
    assert "nested" in refused(nested(400, wrap))
    assert Decoder().add_schema(7, with_field(nested(10, wrap)))


def test_a_text_is_refused_for_its_length_before_it_is_parsed() -> None:
    with pytest.raises(SchemaError, match="100001 characters"):
        AvroSchema.parse("[" * 100_001)


@pytest.mark.parametrize(
    "items",
    [
        record("Nulls", "boolean", *["null"] * MAX_READS_PER_BYTE),
        record("Zero", {"type": "fixed", "name": "None", "size": 0}),
        record("Negative", {"type": "fixed", "name": "Less", "size": -1}),
    ],
)
def test_items_of_many_types_and_few_bytes_are_refused(items: Any) -> None:
    """Before the fix, 60,000 items of a boolean and 1,000 nulls each were 60 million reads."""
    assert refused({"type": "array", "items": items})


def test_schemas_like_real_ones_are_used() -> None:
    nullable = [["null", "string"]] * 30
    assert Decoder().add_schema(7, with_field({"type": "array", "items": record("Item", *nullable)}))
    assert Decoder().add_schema(
        7, with_field({"type": "map", "values": ["null", *[record(f"B{n}", "long") for n in range(40)]]})
    )


@pytest.mark.parametrize(
    "items", ["boolean", "float", "double", "long", "string", "bytes", record("Pair", "boolean", "boolean")]
)
@pytest.mark.parametrize("kind", ["array", "map"])
def test_a_count_beyond_the_end_of_a_record_is_cut_short(kind: str, items: Any) -> None:
    """Fields that our schema does not have are skipped; before the fix, skipping 2**62 booleans hung the process."""
    collection = {"type": kind, "items" if kind == "array" else "values": items}
    decoder = Decoder()
    assert decoder.add_schema(7, with_field(collection))
    with pytest.raises(UndecodableRecord, match="cut short"):
        decoder.decode(b"\x00\x00\x00\x00\x07" + encode_body(EVENT) + HUGE_COUNT)


@pytest.mark.parametrize("passed_over", ["double", "bytes", {"type": "fixed", "name": "Eight", "size": 8}])
def test_a_skipped_field_that_is_cut_short_is_undecodable(passed_over: Any) -> None:
    """Before the fix, it counted as complete, so a damaged record became an event."""
    decoder = Decoder()
    assert decoder.add_schema(7, with_field(passed_over))
    with pytest.raises(UndecodableRecord, match="cut short"):
        decoder.decode(b"\x00\x00\x00\x00\x07" + encode_body(EVENT) + b"\x0e")


def test_a_negative_length_is_refused() -> None:
    decoder = Decoder()
    assert decoder.add_schema(7, with_field("bytes"))
    with pytest.raises(UndecodableRecord, match="does not fit"):
        decoder.decode(b"\x00\x00\x00\x00\x07" + encode_body(EVENT) + b"\x01" + b"anything")


@pytest.mark.parametrize(
    "text", ['{"type":"record","name":"a.F","fields":[{"name":"f","type":{"type":"fixed","name":"G","size":"x"}}]}',
             '{"type":"record","name":"a.F","fields":[{"name":"f","type":{"type":{"type":"string"}}}]}',
             '{"type":"record","name":"a.F","fields":[{"name":"f","type":"error"}]}',
             '{"type":"record","name":"a.F","fields":5}', '{"type":"record"}',
             '{"type":"record","name":"a.F","fields":[{"name":"f","type":"int","default":' + "[" * 5_000],
)  # fmt: skip
def test_a_broken_schema_raises_nothing_but_a_schema_error(text: str) -> None:
    with pytest.raises(SchemaError):
        AvroSchema.parse(text)

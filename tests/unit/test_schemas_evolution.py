"""FULL_TRANSITIVE: every version of a record reads what every other one writes, also later, unknown versions."""

import io
import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer
from fastavro.utils import generate_one

from flagpost_schemas import (
    EVENT_TYPES,
    LEDGER_SCHEMA,
    LEDGER_VERSIONS,
    AvroSchema,
    DecisionEvent,
    Decoder,
    Event,
    MetadataGroup,
    TrackEvent,
    UnknownSchema,
    VisitorMetadata,
    confluent_header,
    encode_confluent,
    schema_of,
    single_object_header,
    versions_of,
)

SAMPLES = 200


def incompatibilities(one: AvroSchema, other: AvroSchema) -> list[str]:
    """Return why `one` and `other` are not FULL compatible; empty if they are."""
    found = list(_differences(json.loads(one.text), json.loads(other.text), ""))
    for writer, reader in ((one, other), (other, one)):
        found.extend(_unreadable(writer, reader))
    return found


def _unreadable(writer: AvroSchema, reader: AvroSchema) -> Iterator[str]:
    for _ in range(SAMPLES):
        body = io.BytesIO()
        schemaless_writer(body, writer.parsed, generate_one(writer.parsed))
        body.seek(0)
        try:
            schemaless_reader(body, writer.parsed, reader.parsed)
        except Exception as error:  # noqa: BLE001 - any failure is the finding
            yield f"cannot be read: {type(error).__name__}: {error}"
            return


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if type(one) is not type(other):
        yield f"{path}: another kind of type"
    elif isinstance(one, list):
        yield from _union_differences(one, other, path)
    elif isinstance(one, dict):
        yield from _type_differences(one, other, path)
    elif one != other:
        yield f"{path}: {one} against {other}"


def _union_differences(one: list[Any], other: list[Any], path: str) -> Iterator[str]:
    if len(one) != len(other):
        yield f"{path}: other branches"
    for ours, theirs in zip(one, other, strict=False):
        yield from _differences(ours, theirs, path)


def _type_differences(one: dict[str, Any], other: dict[str, Any], path: str) -> Iterator[str]:
    for key in ("type", "name", "namespace", "items", "values", "logicalType"):
        yield from _differences(one.get(key), other.get(key), f"{path}.{key}")
    if (
        one["type"] == "enum"
        and one["symbols"] != other["symbols"]
        and None in (one.get("default"), other.get("default"))
    ):
        yield f"{path}: symbols differ without a default"
    ours, theirs = ({field["name"]: field for field in each.get("fields", [])} for each in (one, other))
    for name in ours.keys() ^ theirs.keys():
        if "default" not in (ours | theirs)[name]:
            yield f"{path}.{name}: added or removed without a default"
    for name in ours.keys() & theirs.keys():
        yield from _differences(ours[name]["type"], theirs[name]["type"], f"{path}.{name}")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(20_261_101)  # fastavro makes its samples with the global generator


ALL_VERSIONS = {each.__name__: versions_of(each) for each in EVENT_TYPES} | {"Settlements": LEDGER_VERSIONS}


@pytest.mark.parametrize("record", ALL_VERSIONS)
def test_all_versions_are_fully_compatible(record: str) -> None:
    versions = ALL_VERSIONS[record]

    assert versions
    for one, other in itertools.combinations_with_replacement(versions, 2):
        assert incompatibilities(one, other) == []


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_the_schema_that_is_written_is_a_kept_version(event_type: type[Event]) -> None:
    assert schema_of(event_type) in versions_of(event_type), (
        f"{event_type.__name__}.avsc was changed: add it to schemas/avro/versions/ under the next number, "
        "release that, and write it one release later"
    )


def test_the_schema_that_the_ledger_is_written_with_is_a_kept_version() -> None:
    assert LEDGER_SCHEMA in LEDGER_VERSIONS, "Settlements.avsc was changed: see the events' schemas"


def _changed(event_type: type[Event], change: Callable[[dict[str, Any]], object]) -> AvroSchema:
    schema = json.loads(schema_of(event_type).text)
    change(schema)
    return AvroSchema.parse(json.dumps(schema))


def _field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return next(field for field in schema["fields"] if field["name"] == name)


BREAKING: dict[str, Callable[[dict[str, Any]], object]] = {
    "added without default": lambda schema: schema["fields"].append({"name": "new", "type": "string"}),
    "removed without default": lambda schema: schema["fields"].remove(_field(schema, "visitor_id")),
    "another type": lambda schema: _field(schema, "visitor_id").update(type="long"),
    "one way only": lambda schema: _field(schema, "occurred_at").update(type="double"),
    "made nullable": lambda schema: _field(schema, "visitor_id").update(type=["null", "string"]),
    "a new branch": lambda schema: _field(schema, "values")["type"]["values"].append("bytes"),
    "renamed": lambda schema: schema.update(name="Visitor"),
    "another namespace": lambda schema: schema.update(namespace="io.flagpost.v2"),
    "enum without default": lambda schema: _field(schema, "group").update(
        type={"type": "enum", "name": "MetadataGroup", "symbols": ["custom", "agent", "x"]}
    ),
    "other unit": lambda schema: _field(schema, "occurred_at").update(
        type={"type": "long", "logicalType": "timestamp-micros"}
    ),
}


@pytest.mark.parametrize("change", BREAKING)
def test_a_breaking_change_is_found(change: str) -> None:
    assert incompatibilities(schema_of(VisitorMetadata), _changed(VisitorMetadata, BREAKING[change]))


def _evolve(schema: dict[str, Any]) -> None:
    """Make each kind of change that FULL compatibility allows."""
    schema["fields"].insert(0, {"name": "score", "type": ["null", "double"], "default": None})
    schema["fields"].remove(_field(schema, "context"))
    _field(schema, "group")["type"]["symbols"].append("salesforce")


def test_an_allowed_change_is_not_reported() -> None:
    assert incompatibilities(schema_of(VisitorMetadata), _changed(VisitorMetadata, _evolve)) == []


def test_an_evolved_writer_is_read_in_both_formats() -> None:
    evolved = _changed(VisitorMetadata, _evolve)
    body = io.BytesIO()
    schemaless_writer(
        body,
        evolved.parsed,
        {
            "event_id": "e",
            "occurred_at": 5,
            "visitor_id": "v",
            "group": "salesforce",
            "values": {"a": 1},
            "score": 0.5,
        },
    )
    decoder = Decoder([evolved.text])
    decoder.add_schema(9, evolved.text)
    expected = VisitorMetadata(
        event_id="e", occurred_at=5, visitor_id="v", group=MetadataGroup.CUSTOM, values={"a": 1}
    )

    assert decoder.decode(single_object_header(evolved.fingerprint) + body.getvalue()) == expected
    assert decoder.decode(confluent_header(9) + body.getvalue()) == expected


@pytest.mark.parametrize("event_type", [DecisionEvent, TrackEvent])
def test_a_writer_without_a_required_field_is_an_unknown_schema(event_type: type[Event]) -> None:
    broken = _changed(event_type, lambda schema: schema["fields"].remove(_field(schema, "event_id")))
    body = io.BytesIO()
    schemaless_writer(body, broken.parsed, generate_one(broken.parsed))

    with pytest.raises(
        UnknownSchema, match=f"writer's {event_type.__name__} cannot be read as this release's"
    ):
        Decoder([broken.text]).decode(single_object_header(broken.fingerprint) + body.getvalue())


def test_other_languages_logical_types_do_not_matter() -> None:
    def uuid_typed(schema: dict[str, Any]) -> None:
        _field(schema, "event_id")["type"] = {"type": "string", "logicalType": "uuid"}

    decoder = Decoder()
    decoder.add_schema(2, _changed(TrackEvent, uuid_typed).text)
    event = TrackEvent(event_id="0199c2a4-7c00-7000-8000-000000000001", occurred_at=1, event="page")

    assert decoder.decode(encode_confluent(event, 2)) == event

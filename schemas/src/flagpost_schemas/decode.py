"""Decodes bytes to events, in either of the two wire formats.

In: a record's value from Kafka; the texts of other writer schemas. Out: an event, or a DecodeError, never another
exception, whatever the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from fastavro import schemaless_reader
from fastavro.read import SchemaResolutionError

from flagpost_schemas.avro import AvroSchema, schema_of, versions_of
from flagpost_schemas.errors import SchemaError, SchemaNeeded, UndecodableRecord, UnknownSchema
from flagpost_schemas.events import EVENT_TYPES, Context, Event, MetadataGroup, Source
from flagpost_schemas.quick_reading import compile_reading
from flagpost_schemas.wire import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MAGIC,
    MAX_SCHEMA_ID,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MAGIC,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MAX_SCHEMAS = 1_000
_MAX_SCHEMA_CHARACTERS = 4_000_000
"""Limit of the texts of all schemas that are remembered by id; in memory a schema takes about ten times its text."""
_MAX_REFUSED_IDS = 10_000
"""Hostile records can name two billion ids. Forgotten ones are asked for again."""
_MAX_REASON_CHARACTERS = 220
"""So that the text with it fits in a dead letter's detail of 300."""

_PROBLEMS: dict[type[Exception], str] = {
    EOFError: "the body is cut short",
    UnicodeDecodeError: "a string in the body is not valid UTF-8",
    IndexError: "the body has a branch or symbol that its schema does not have",
}


@dataclass(frozen=True, slots=True)
class _Reader:
    """How bodies with one writer schema become events; `reader` is None if the writer's schema is ours."""

    event_type: type[Event]
    writer: Any
    reader: Any
    characters: int
    """Of the writer's schema as JSON."""
    quick: Callable[[bytes, int], Event | None] | None
    """Reads the ordinary form of our own schema; None: the schema is another's."""


class Decoder:
    """Decodes values of the events topic.

    Single-object values are read with every version that this release knows, and with `extra_writer_schemas`, the
    JSON texts of others. Confluent values need `add_schema` or `refuse_schema` once for each id: until then `decode`
    raises SchemaNeeded. Not thread-safe.
    """

    def __init__(self, extra_writer_schemas: Iterable[str] = ()) -> None:
        """Raises SchemaError for an extra schema that is not Avro or whose record is not one of ours."""
        self._by_fingerprint: dict[bytes, _Reader] = {}
        self._by_id: dict[int, _Reader] = {}
        self._characters = 0
        """The size of the texts of the schemas in `_by_id`."""
        self._refused: dict[int, str] = {}
        known = [schema for event_type in EVENT_TYPES for schema in versions_of(event_type)]
        for schema in (*known, *map(AvroSchema.parse, extra_writer_schemas)):
            self._by_fingerprint[schema.fingerprint] = _reader_for(schema)

    def add_schema(self, schema_id: int, schema_json_text: str) -> bool:
        """Add the registry's answer for `schema_id`; returns whether its values can be read as one of ours.

        If they cannot, nothing is raised here, but when its values are decoded.
        """
        try:
            reader = _reader_for(AvroSchema.parse(schema_json_text))
        except SchemaError as error:
            self.refuse_schema(schema_id, str(error))
            return False
        self.forget_schema(schema_id)
        self._by_id[schema_id] = reader
        self._characters += reader.characters
        while len(self._by_id) > _MAX_SCHEMAS or self._characters > _MAX_SCHEMA_CHARACTERS:
            self.forget_schema(next(iter(self._by_id)))
        return True

    def refuse_schema(self, schema_id: int, why: str) -> None:
        """Let values with `schema_id` raise UnknownSchema with the reason `why`."""
        self.forget_schema(schema_id)
        self._refused[schema_id] = why[:_MAX_REASON_CHARACTERS]
        if len(self._refused) > _MAX_REFUSED_IDS:
            del self._refused[next(iter(self._refused))]

    def forget_schema(self, schema_id: int) -> None:
        """Forget what was added, or why it was refused: values with `schema_id` raise SchemaNeeded again."""
        self._refused.pop(schema_id, None)
        if (reader := self._by_id.pop(schema_id, None)) is not None:
            self._characters -= reader.characters

    def schema_needed(self, value: bytes | None) -> int | None:
        """The id for which `decode` would raise SchemaNeeded; None if it would not."""
        if value is None or not value.startswith(CONFLUENT_MAGIC) or len(value) < CONFLUENT_HEADER_BYTES:
            return None
        schema_id = _schema_id(value)
        known = schema_id > MAX_SCHEMA_ID or schema_id in self._by_id or schema_id in self._refused
        return None if known else schema_id

    def decode(self, value: bytes | None) -> Event:
        """The event in `value`.

        Raises UndecodableRecord, UnknownSchema or SchemaNeeded.
        """
        if value is None:
            raise UndecodableRecord("the record has no value (a tombstone)")
        if value.startswith(SINGLE_OBJECT_MAGIC):
            return _read(self._single_object_reader(value), value, SINGLE_OBJECT_HEADER_BYTES)
        if value.startswith(CONFLUENT_MAGIC):
            return _read(self._confluent_reader(value), value, CONFLUENT_HEADER_BYTES)
        raise UndecodableRecord(_not_ours(value))

    def _single_object_reader(self, value: bytes) -> _Reader:
        fingerprint = value[2:SINGLE_OBJECT_HEADER_BYTES]
        reader = self._by_fingerprint.get(fingerprint)
        if reader is not None:
            return reader
        if len(fingerprint) < 8:
            raise UndecodableRecord(f"the value is cut short: {len(value)} bytes, its header alone has 10")
        raise UnknownSchema(
            f"no schema with the fingerprint {fingerprint[::-1].hex()} is known to this release; "
            "upgrade Flagpost, then replay the dead letter"
        )

    def _confluent_reader(self, value: bytes) -> _Reader:
        if len(value) < CONFLUENT_HEADER_BYTES:
            raise UndecodableRecord(f"the value is cut short: {len(value)} bytes, its header alone has 5")
        schema_id = _schema_id(value)
        reader = self._by_id.get(schema_id)
        if reader is not None:
            return reader
        if schema_id > MAX_SCHEMA_ID:
            raise UnknownSchema(
                f"schema id {schema_id} is impossible: registries give none above {MAX_SCHEMA_ID}; "
                "look for what writes to this topic besides Flagpost's publisher and gateway"
            )
        if schema_id not in self._refused:
            raise SchemaNeeded(schema_id)
        raise UnknownSchema(
            f"schema id {schema_id}: {self._refused[schema_id]}; fix that, then replay the dead letter"
        )


def _schema_id(value: bytes) -> int:
    return int.from_bytes(value[1:CONFLUENT_HEADER_BYTES], "big")


def _reader_for(writer: AvroSchema) -> _Reader:
    for event_type in EVENT_TYPES:
        ours = schema_of(event_type)
        if ours.full_name == writer.full_name:
            if ours.fingerprint == writer.fingerprint:  # equal bytes: no schema resolution, which is slower
                return _Reader(event_type, ours.parsed, None, len(writer.text), _QUICK[event_type])
            return _Reader(event_type, writer.parsed, ours.parsed, len(writer.text), None)
    raise SchemaError(f"its record {writer.full_name[:200]} is not one of Flagpost's")


_QUICK: dict[type[Event], Callable[[bytes, int], Event | None]] = {
    event_type: compile_reading(event_type, schema_of(event_type).parsed) for event_type in EVENT_TYPES
}


def _read(reader: _Reader, value: bytes, start: int) -> Event:
    if reader.quick is not None and (event := reader.quick(value, start)) is not None:
        return event
    fields = read_body(reader.event_type.__name__, reader.writer, reader.reader, value, start)
    return _event(reader.event_type, fields)


class _Body(BytesIO):
    """The bytes of a record; reading past their end is an error.

    For fields that only the writer's schema has, fastavro 1.13 skips without checking the end: an array of 2**62
    booleans takes ten bytes and would be skipped for ever.
    """

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        if size is None or size < 0:
            raise ValueError("a length is negative")
        if len(found) < size:
            raise EOFError
        return found


def read_body(record: str, writer: Any, reader: Any, value: bytes, start: int) -> dict[str, Any]:  # noqa: ANN401 - fastavro's
    """The fields in `value` from `start` to its end, read with fastavro's forms of the schemas of `record`.

    `reader` is None if the writer's schema is ours. Raises UndecodableRecord or UnknownSchema.
    """
    body = BytesIO(value[start:]) if reader is None else _Body(value[start:])
    try:
        fields: Any = schemaless_reader(body, writer, reader)
    except SchemaResolutionError:
        raise UnknownSchema(
            f"the writer's {record} cannot be read as this release's: its schema breaks FULL_TRANSITIVE "
            "compatibility; publish with one that keeps it"
        ) from None
    except Exception as error:  # noqa: BLE001 - damaged bytes make fastavro raise all kinds
        problem = _PROBLEMS.get(type(error), f"the body does not fit its schema ({type(error).__name__})")
        raise UndecodableRecord(problem) from None
    if body.tell() < len(value) - start:
        raise UndecodableRecord("bytes are left after the body")
    return cast("dict[str, Any]", fields)


def _event(event_type: type[Event], fields: dict[str, Any]) -> Event:
    context, source = fields["context"], fields["source"]
    if context is not None:
        fields["context"] = Context(**context)
    if source is not None:
        fields["source"] = Source(**source)
    if "group" in fields:
        fields["group"] = MetadataGroup(fields["group"])
    return event_type(**fields)


def _not_ours(value: bytes) -> str:
    if not value:
        return "the value is empty"
    return (
        f"the value begins with {value[:2].hex(' ')}, which is neither Avro's single-object encoding (c3 01) "
        "nor Confluent's format (00)"
    )

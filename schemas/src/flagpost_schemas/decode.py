"""Bytes to events, whichever of the two wire formats they are in.

In: a record's value as Kafka gives it; the texts of other writer schemas. Out: an event, or a DecodeError,
never another exception, whatever the bytes.
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
from flagpost_schemas.wire import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MAGIC,
    SINGLE_OBJECT_HEADER_BYTES,
    SINGLE_OBJECT_MAGIC,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_SCHEMA_IDS = 1_000
"""Ids remembered; hostile records can name four billion. What is forgotten is asked for again."""

_PROBLEMS: dict[type[Exception], str] = {
    EOFError: "the body is cut short",
    UnicodeDecodeError: "a string in the body is not valid UTF-8",
    IndexError: "the body has a branch or symbol that its schema does not have",
}


@dataclass(frozen=True, slots=True)
class _Reader:
    """How bodies of one writer schema become events; `reader` is None where the writer's schema is ours."""

    event_type: type[Event]
    writer: Any
    reader: Any


class Decoder:
    """Decodes values of the events topic.

    Single-object values are read with every version this release knows, and `extra_writer_schemas`, the JSON
    texts of others. Confluent values need `add_schema` or `refuse_schema` once for each id: `decode` raises
    SchemaNeeded until then. Not to be shared by threads.
    """

    def __init__(self, extra_writer_schemas: Iterable[str] = ()) -> None:
        """Raises SchemaError for an extra schema that is not Avro or whose record is not one of ours."""
        self._by_fingerprint: dict[bytes, _Reader] = {}
        self._by_id: dict[int, _Reader | str] = {}
        known = [schema for event_type in EVENT_TYPES for schema in versions_of(event_type)]
        for schema in (*known, *map(AvroSchema.parse, extra_writer_schemas)):
            self._by_fingerprint[schema.fingerprint] = _reader_for(schema)

    def add_schema(self, schema_id: int, schema_json_text: str) -> None:
        """Take the registry's answer for `schema_id`.

        A text that cannot be read as one of ours raises nothing here: decoding its values does.
        """
        try:
            self._remember(schema_id, _reader_for(AvroSchema.parse(schema_json_text)))
        except SchemaError as error:
            self.refuse_schema(schema_id, str(error))

    def refuse_schema(self, schema_id: int, why: str) -> None:
        """Let values with `schema_id` raise UnknownSchema, because `why`."""
        self._remember(schema_id, why)

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
        schema_id = int.from_bytes(value[1:CONFLUENT_HEADER_BYTES], "big")
        reader = self._by_id.get(schema_id)
        if reader is None:
            raise SchemaNeeded(schema_id)
        if isinstance(reader, str):
            raise UnknownSchema(
                f"schema id {schema_id}: {reader}; mend that, restart Flagpost, then replay the dead letter"
            )
        return reader

    def _remember(self, schema_id: int, answer: _Reader | str) -> None:
        if len(self._by_id) >= _MAX_SCHEMA_IDS:
            del self._by_id[next(iter(self._by_id))]
        self._by_id[schema_id] = answer


def _reader_for(writer: AvroSchema) -> _Reader:
    for event_type in EVENT_TYPES:
        ours = schema_of(event_type)
        if ours.full_name == writer.full_name:
            if ours.fingerprint == writer.fingerprint:  # the same bytes: no resolution, which is slower
                return _Reader(event_type, ours.parsed, None)
            return _Reader(event_type, writer.parsed, ours.parsed)
    raise SchemaError(f"its record {writer.full_name[:200]} is not one of Flagpost's")


def _read(reader: _Reader, value: bytes, start: int) -> Event:
    fields = read_body(reader.event_type.__name__, reader.writer, reader.reader, value, start)
    return _event(reader.event_type, fields)


def read_body(record: str, writer: Any, reader: Any, value: bytes, start: int) -> dict[str, Any]:  # noqa: ANN401 - fastavro's
    """The fields in `value` from `start` to its end, read with fastavro's forms of the schemas of `record`.

    `reader` is None where the writer's schema is ours. Raises UndecodableRecord or UnknownSchema.
    """
    body = BytesIO(value[start:])
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
    if body.read(1):
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

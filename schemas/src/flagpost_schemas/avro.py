"""Avro schemas: those in `avro/*.avsc`, and others given as text.

In: JSON text. Out: `AvroSchema`: the text, its full name, its fingerprint and a form that fastavro reads fast. This
release writes `avro/<Record>.avsc`; it reads every version in `avro/versions/<Record>.<n>.avsc`: earlier ones, this
one, and any that only a later release will write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

from flagpost_schemas.bounded import require_bounded
from flagpost_schemas.errors import SchemaError
from flagpost_schemas.events import EVENT_TYPES, Event

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_AVRO = files("flagpost_schemas") / "avro"
_NOT_FOR_READING = frozenset({"doc", "logicalType"})
MAX_TEXT_CHARACTERS = 100_000
"""Limit of a schema's JSON; Flagpost's own have less than 5,000."""
MAX_TEXT_DEPTH = 300
"""Limit of nested JSON values; fastavro's parser has no such limit."""


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """One Avro schema.

    `text` is its JSON as written, `full_name` the record's name with namespace, `fingerprint` the 8 bytes of
    its CRC-64-AVRO, little-endian. `parsed` is for fastavro; logical types are left out of it: times stay
    epoch milliseconds (fastavro's datetimes are slow and lose precision).
    """

    text: str
    full_name: str
    fingerprint: bytes
    parsed: Any

    @classmethod
    def parse(cls, text: str) -> AvroSchema:
        """Read the schema of a record. Raises SchemaError with what is wrong with the text."""
        if len(text) > MAX_TEXT_CHARACTERS:
            raise SchemaError(f"it has {len(text)} characters; Flagpost reads at most {MAX_TEXT_CHARACTERS}")
        try:
            parsed = parse_schema(_readable(json.loads(text)), named_schemas={})
            require_bounded(parsed)
            crc = fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO")
        except SchemaError:
            raise
        except Exception as error:  # noqa: BLE001 - fastavro raises all kinds for a bad schema
            raise SchemaError(f"not an Avro schema ({type(error).__name__}: {str(error)[:200]})") from None
        if not isinstance(parsed, dict) or parsed.get("type") != "record":
            raise SchemaError("not the schema of an Avro record")
        return cls(text, parsed["name"], bytes.fromhex(crc), parsed)


def _readable(schema: object, depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    """`schema` without attributes that change how fastavro reads values, and without fastavro's own marks."""
    if depth > MAX_TEXT_DEPTH:
        raise SchemaError(f"its JSON is nested more than {MAX_TEXT_DEPTH} deep")
    if isinstance(schema, list):
        return [_readable(member, depth + 1) for member in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value if key == "default" else _readable(value, depth + 1)
        for key, value in schema.items()
        if key not in _NOT_FOR_READING and not key.startswith("__")
    }


def load_schema(record: str) -> AvroSchema:
    """The schema with which this release writes `record`."""
    return _load(_AVRO / f"{record}.avsc")


def load_versions(record: str) -> tuple[AvroSchema, ...]:
    """Every version of the schema of `record` that this release reads, the oldest first."""
    found = [file for file in (_AVRO / "versions").iterdir() if file.name.startswith(f"{record}.")]
    return tuple(_load(file) for file in sorted(found, key=lambda file: int(file.name.split(".")[1])))


def _load(file: Traversable) -> AvroSchema:
    return AvroSchema.parse(file.read_text(encoding="utf-8"))


_WRITTEN = {event_type: load_schema(event_type.__name__) for event_type in EVENT_TYPES}
_VERSIONS = {event_type: load_versions(event_type.__name__) for event_type in EVENT_TYPES}


def schema_of(event_type: type[Event]) -> AvroSchema:
    """The schema with which this release writes `event_type`."""
    return _WRITTEN[event_type]


def versions_of(event_type: type[Event]) -> tuple[AvroSchema, ...]:
    """Every version of `event_type`'s schema that this release reads, the oldest first."""
    return _VERSIONS[event_type]


def fingerprints() -> dict[bytes, type[Event]]:
    """From the fingerprint (8 bytes, little-endian) of every version that this release reads to its event class."""
    return {
        schema.fingerprint: event_type for event_type in EVENT_TYPES for schema in versions_of(event_type)
    }

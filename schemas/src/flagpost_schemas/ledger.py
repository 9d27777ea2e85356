"""The ledger's records: how deliveries ended, as the consumer writes them and everybody may read them.

In: a `Settlements` record, or bytes of the ledger topic. Out: single-object encoded bytes, or the record.
Times are epoch milliseconds. Kinds, outcomes and reasons are the words of CONTRACT section 8; one that only a
later release writes is read as `unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from flagpost_schemas.avro import AvroSchema, load_schema, load_versions
from flagpost_schemas.body import compile_body, nullable_string
from flagpost_schemas.decode import read_body
from flagpost_schemas.errors import UndecodableRecord, UnknownSchema
from flagpost_schemas.quick_reading import compile_reading
from flagpost_schemas.wire import SINGLE_OBJECT_HEADER_BYTES, SINGLE_OBJECT_MAGIC, single_object_header


class LedgerEntry(NamedTuple):
    """How one delivery ended; its identity is the source's partition, `offset` and `kind`."""

    offset: int
    kind: str
    outcome: str
    reason: str
    event_id: str | None = None
    visitor_id: str | None = None
    account_id: str | None = None
    event: str | None = None
    flag_key: str | None = None
    variation_key: str | None = None
    """As sent: `off` when the flag is not enabled."""
    dedupe_key: bytes | None = None
    """16 bytes."""
    duplicate_of: int | None = None
    occurred_at: int | None = None
    attempts: int = 0
    unseen: int = 0
    """Attempts whose answer was never seen."""
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Offsets that Kafka no longer had when they were to be read: from, and the first that was there again."""

    from_offset: int
    to_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlements:
    """One record of the ledger; the partition it is about is its own.

    `topic_id` is Kafka's id of the events topic, None where the broker does not tell it.
    """

    group: str
    topic_id: str | None = None
    member: str
    settled_at: int
    entries: list[LedgerEntry]
    gaps: list[Gap]


LEDGER_SCHEMA: AvroSchema = load_schema("Settlements")
"""What this release writes."""

LEDGER_VERSIONS: tuple[AvroSchema, ...] = load_versions("Settlements")
"""What it reads, the oldest first."""

_BY_FINGERPRINT = {schema.fingerprint: schema for schema in LEDGER_VERSIONS}
_HEADER = single_object_header(LEDGER_SCHEMA.fingerprint)
_RECURRING = frozenset({"kind", "outcome", "reason", "event", "flag_key", "variation_key"})
_write = compile_body(LEDGER_SCHEMA.parsed, _RECURRING)
_read_quickly = compile_reading(Settlements, LEDGER_SCHEMA.parsed, {"Settlement": LedgerEntry, "Gap": Gap})


def encode_settlements(settlements: Settlements) -> bytes:
    """`settlements` in Avro's single-object encoding. Raises EncodeError."""
    return _HEADER + _write(settlements)


def text_in_settlements(text: str) -> bytes:
    """The bytes by which a ledger record holds a text: where they are not, it is not."""
    return nullable_string(text)


def decode_settlements(value: bytes | None) -> Settlements:
    """The record in a value of the ledger topic.

    Raises UnknownSchema for what a later release wrote, UndecodableRecord for what is damaged.
    """
    if value is not None and value.startswith(_HEADER):
        quickly = _read_quickly(value, SINGLE_OBJECT_HEADER_BYTES)
        if quickly is not None:
            return quickly
    if value is None or not value.startswith(SINGLE_OBJECT_MAGIC) or len(value) < SINGLE_OBJECT_HEADER_BYTES:
        raise UndecodableRecord("the value is no ledger record: it has no single-object header (c3 01)")
    fingerprint = value[2:SINGLE_OBJECT_HEADER_BYTES]
    schema = _BY_FINGERPRINT.get(fingerprint)
    if schema is None:
        raise UnknownSchema(
            f"a ledger record has the schema {fingerprint[::-1].hex()}, which this release does not know: "
            "it was written by a later release; upgrade Flagpost"
        )
    reader = None if schema.fingerprint == LEDGER_SCHEMA.fingerprint else LEDGER_SCHEMA.parsed
    fields = read_body("Settlements", schema.parsed, reader, value, SINGLE_OBJECT_HEADER_BYTES)
    fields["entries"] = [LedgerEntry(**entry) for entry in fields["entries"]]
    fields["gaps"] = [Gap(**gap) for gap in fields["gaps"]]
    return Settlements(**fields)

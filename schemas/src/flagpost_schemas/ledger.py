"""The ledger's records: how deliveries ended, as the consumer writes them and anybody may read them.

In: a `Settlements` record, or bytes of the ledger topic. Out: single-object encoded bytes, or the record. Times are
epoch milliseconds. Kinds, outcomes and reasons are the words of docs/contract.md#outcomes; one that only a later
release writes is read as `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from flagpost_schemas.avro import AvroSchema, load_schema, load_versions
from flagpost_schemas.body import compile_body, nullable_string, write_long
from flagpost_schemas.decode import read_body
from flagpost_schemas.errors import UndecodableRecord, UnknownSchema
from flagpost_schemas.glance import Glance
from flagpost_schemas.quick_reading import compile_reading
from flagpost_schemas.wire import SINGLE_OBJECT_HEADER_BYTES, SINGLE_OBJECT_MAGIC, single_object_header


class LedgerEntry(NamedTuple):
    """How one delivery ended; it is identified by the source's partition, `offset` and `kind`."""

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
    """One record of the ledger; it is about the partition with its own number.

    `topic_id` is Kafka's id of the events topic, None if the broker does not tell it.
    """

    group: str
    topic_id: str | None = None
    member: str
    settled_at: int
    entries: list[LedgerEntry]
    gaps: list[Gap]


LEDGER_SCHEMA: AvroSchema = load_schema("Settlements")
"""The schema that this release writes."""

LEDGER_VERSIONS: tuple[AvroSchema, ...] = load_versions("Settlements")
"""The schemas that it reads, the oldest first."""

_BY_FINGERPRINT = {schema.fingerprint: schema for schema in LEDGER_VERSIONS}
_HEADER = single_object_header(LEDGER_SCHEMA.fingerprint)
_THERE = b"\x02"
"""The byte before a nullable value that is not null."""
_REPEATS_NONE = b"\x00\x00"
_NEVER_SENT = b"\x00\x00\x00"
"""No attempt, none unseen, no status."""
_RECURRING = frozenset({"kind", "outcome", "reason", "event", "flag_key", "variation_key"})
_RECORDS = {"Settlement": LedgerEntry, "Gap": Gap}
_FIELDS = LEDGER_SCHEMA.parsed["fields"]
_write_head = compile_body({**LEDGER_SCHEMA.parsed, "fields": _FIELDS[:4]})
_ENTRY_FIELDS = _FIELDS[4]["type"]["items"]["fields"]
_write_lists = compile_body({**LEDGER_SCHEMA.parsed, "fields": _FIELDS[4:]}, _RECURRING)
_ENDING = frozenset({"offset", "kind", "outcome", "reason", "duplicate_of", "unseen"})
_read_whole = compile_reading(Settlements, LEDGER_SCHEMA.parsed, _RECORDS)
_read_outcomes = compile_reading(
    Settlements, LEDGER_SCHEMA.parsed, _RECORDS, frozenset(LedgerEntry._fields) - _ENDING
)


def encode_settlements(settlements: Settlements, encoded: Sequence[bytes] = ()) -> bytes:
    """`settlements` in Avro's single-object encoding. Raises EncodeError.

    `encoded`: more entries, already as bytes (`EntryForm`); they come first, because Avro's arrays may have several
    blocks.
    """
    block = (write_long(len(encoded)), *encoded) if encoded else ()
    return b"".join((_HEADER, _write_head(settlements), *block, _write_lists(settlements)))


class EntryForm:
    """The common part of entries with the same ending, event, flag and variation, as bytes."""

    def __init__(self, entry: LedgerEntry) -> None:
        """`entry`: one of them."""
        self._ended = _bytes_of(entry, "kind", "outcome", "reason")
        self._told = _bytes_of(entry, "event", "flag_key", "variation_key")

    def encode(self, offset: int, event: Glance, repeats: bytes = _REPEATS_NONE) -> bytes:
        """An entry of a decision for which nothing was sent; `repeats`: from `repeats_of`."""
        return b"".join(
            (
                write_long(offset),
                self._ended,
                _THERE,
                event.event_id,
                _THERE,
                event.visitor_id,
                event.account_id,
                self._told,
                repeats,
                _THERE,
                event.occurred_at_bytes,
                _NEVER_SENT,
            )
        )


def repeats_of(dedupe_key: bytes, offset: int) -> bytes:
    """The part of an entry that says which one it duplicates."""
    return b"".join((_THERE, dedupe_key, _THERE, write_long(offset)))


def _bytes_of(entry: LedgerEntry, *names: str) -> bytes:
    fields = [field for field in _ENTRY_FIELDS if field["name"] in names]
    return compile_body({"type": "record", "name": "Settlement", "fields": fields})(entry)


def text_in_settlements(text: str) -> bytes:
    """The bytes of a text in a ledger record: a record without them does not contain it."""
    return nullable_string(text)


def decode_settlements(value: bytes | None) -> Settlements:
    """The record in a value of the ledger topic.

    Raises UnknownSchema if a later release wrote it, UndecodableRecord if it is damaged.
    """
    return _quickly(value, _read_whole) or _read(value)


def decode_outcomes(value: bytes | None) -> Settlements:
    """The same, in half the time, with only the place and the end of each entry.

    These are `offset`, `kind`, `outcome`, `reason`, `duplicate_of` and `unseen`; the others have their defaults.
    """
    quickly = _quickly(value, _read_outcomes)
    if quickly is not None:
        return quickly
    whole = _read(value)
    entries = [
        LedgerEntry(*entry[:4], duplicate_of=entry.duplicate_of, unseen=entry.unseen)
        for entry in whole.entries
    ]
    return replace(whole, entries=entries)


def _quickly(value: bytes | None, read: Callable[[bytes, int], Settlements | None]) -> Settlements | None:
    """A record that this release wrote, if it is in the ordinary form."""
    if value is None or not value.startswith(_HEADER):
        return None
    return read(value, SINGLE_OBJECT_HEADER_BYTES)


def _read(value: bytes | None) -> Settlements:
    if value is None or not value.startswith(SINGLE_OBJECT_MAGIC) or len(value) < SINGLE_OBJECT_HEADER_BYTES:
        raise UndecodableRecord("the value is not a ledger record: it has no single-object header (c3 01)")
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

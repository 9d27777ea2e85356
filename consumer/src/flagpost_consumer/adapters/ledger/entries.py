"""Reads quickly the few fields of ledger records that a restart needs.

In: a value of the ledger topic. Out: its group and topic, and what `Restoration` needs of each settlement. A restart
may have to read a million settlements, so records of this release's own schema are walked through here, and only
offset, kind, outcome, dedupe key and time become values; fastavro, which makes all 16 fields, takes three times as
long. Anything unusual is left to `decode_settlements`.
"""

from __future__ import annotations

from typing import NamedTuple

from flagpost_consumer.core.books.restoration import Settled
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_schemas import (
    LEDGER_SCHEMA,
    UndecodableRecord,
    decode_settlements,
    single_object_header,
)
from flagpost_schemas.zigzag import Unusual, read_long

HEADER = single_object_header(LEDGER_SCHEMA.fingerprint)
THERE = 2
"""The byte before a nullable value that is not null."""

TEXTS_IN_A_ROW = ("event_id", "visitor_id", "account_id", "event", "flag_key", "variation_key")


def _symbols(enum: str) -> list[str]:
    (entries,) = (field for field in LEDGER_SCHEMA.parsed["fields"] if field["name"] == "entries")
    (field,) = (field for field in entries["type"]["items"]["fields"] if field["name"] == enum)
    symbols: list[str] = field["type"]["symbols"]
    return symbols


_OUTCOMES: dict[str, Outcome | None] = {**{outcome.value: outcome for outcome in Outcome}, "unknown": None}
# An enum's index is written doubled (zigzag).
_KIND_BY_BYTE = {2 * index: Kind(symbol) for index, symbol in enumerate(_symbols("kind"))}
_REASON_BYTES = frozenset(2 * index for index in range(len(_symbols("reason"))))
_OUTCOME_BY_BYTE = {2 * index: _OUTCOMES[symbol] for index, symbol in enumerate(_symbols("outcome"))}


class LedgerPart(NamedTuple):
    """The part of one ledger record that a restart needs."""

    group: str
    topic_id: str | None
    settled: list[Settled]
    gaps: list[tuple[int, int]]
    """(from, to) of each."""


def read_part(value: bytes | None) -> LedgerPart:
    """Read one record. Raises UnknownSchema or UndecodableRecord as `decode_settlements` does."""
    if value is not None and value.startswith(HEADER):
        try:
            return _walk(value)
        except (IndexError, KeyError, UnicodeDecodeError, Unusual):
            pass  # the slow path reports what is wrong
    record = decode_settlements(value)
    return LedgerPart(
        record.group,
        record.topic_id,
        [
            (entry.offset, _kind(entry.kind), _OUTCOMES[entry.outcome], entry.dedupe_key, entry.occurred_at)
            for entry in record.entries
        ],
        [(gap.from_offset, gap.to_offset) for gap in record.gaps],
    )


def _kind(name: str) -> Kind:
    try:
        return Kind(name)
    except ValueError:
        raise UndecodableRecord(f"a settlement has the kind {name[:20]}, which does not exist") from None


def _walk(value: bytes) -> LedgerPart:
    group, at = _text(value, len(HEADER))
    topic_id = None
    if value[at] == THERE:
        topic_id, at = _text(value, at + 1)
    elif value[at]:
        raise Unusual
    else:
        at += 1
    _, at = _text(value, at)  # member
    _, at = read_long(value, at)  # settled_at
    count, at = read_long(value, at)
    settled: list[Settled] = []
    while count:
        if count < 0:
            raise Unusual
        at = _walk_block(value, at, count, settled)
        count, at = read_long(value, at)
    gaps: list[tuple[int, int]] = []
    count, at = read_long(value, at)
    while count:
        if count < 0:
            raise Unusual
        for _ in range(count):
            first, at = read_long(value, at)
            last, at = read_long(value, at)
            gaps.append((first, last))
        count, at = read_long(value, at)
    if at != len(value):
        raise Unusual
    return LedgerPart(group, topic_id, settled, gaps)


def _walk_block(value: bytes, at: int, count: int, settled: list[Settled]) -> int:  # noqa: C901, PLR0912 - one straight walk; calls would take longer than what they do
    """Walk through `count` settlements; returns where they end."""
    for _ in range(count):
        offset, at = read_long(value, at)
        kind, outcome = _KIND_BY_BYTE[value[at]], _OUTCOME_BY_BYTE[value[at + 1]]
        if value[at + 2] not in _REASON_BYTES:
            raise Unusual
        at += 3
        for _ in TEXTS_IN_A_ROW:
            there = value[at]
            if not there:
                at += 1
                continue
            size = value[at + 1]
            if there == THERE and size < 128 and not size & 1:
                at += 2 + (size >> 1)
            else:
                at = _skip_long_text(value, at)
        key = None
        if value[at] == THERE:
            key = value[at + 1 : at + 17]
            at += 17
        elif value[at]:
            raise Unusual
        else:
            at += 1
        at = at + 1 if not value[at] else _skip_number(value, at)  # duplicate_of
        occurred_at = None
        if value[at] == THERE:
            occurred_at, at = read_long(value, at + 1)
        elif value[at]:
            raise Unusual
        else:
            at += 1
        if value[at] > 127 or value[at + 1] > 127:  # attempts, unseen: seldom over 63
            _, at = read_long(value, at)
            _, at = read_long(value, at)
        else:
            at += 2
        if value[at] == THERE and value[at + 1] > 127 and value[at + 2] < 128:  # status: two bytes
            at += 3
        else:
            at = at + 1 if not value[at] else _skip_number(value, at)
        settled.append((offset, kind, outcome, key, occurred_at))
    return at


def _skip_number(value: bytes, at: int) -> int:
    """Skip a nullable number that is not null."""
    if value[at] != THERE:
        raise Unusual
    return read_long(value, at + 1)[1]


def _skip_long_text(value: bytes, at: int) -> int:
    """Skip a nullable text that is not null."""
    if value[at] != THERE:
        raise Unusual
    size, at = read_long(value, at + 1)
    if size < 0:
        raise Unusual
    return at + size


def _text(value: bytes, at: int) -> tuple[str, int]:
    size, at = read_long(value, at)
    if size < 0 or at + size > len(value):
        raise Unusual
    return value[at : at + size].decode(), at + size

"""How many bytes a pending record takes in memory, besides what every record takes.

In: a decoded event, a record's headers. Out: bytes. A few bytes of Avro can become many in memory: a metadata field
of five bytes takes more than a hundred times as much while it waits, and one non-Latin letter in a long text can make
each of the others take four bytes. `delivery.max_pending_bytes` bounds memory only if these are counted.

What every record takes (about 4 KB for a decision) is not counted here: `delivery.max_pending` bounds it.
"""

from __future__ import annotations

from collections.abc import Sequence

from flagpost_schemas import AccountMetadata, Context, DecisionEvent, Event, TrackEvent, VisitorMetadata

MAX_METADATA_FIELDS = 1_000
"""Limit for one event: a field of five bytes takes a hundred times as much memory, and time to handle."""
HEADER_BYTES = 176
"""One header: its tuple, and what its name and value take besides their characters."""
FIELD_BYTES = 512
"""One metadata field: while it waits, while it is in flight, and in the table of its order."""
LIST_ITEM_BYTES = 8
SHORT_RECORD_BYTES = 256
"""The texts of a shorter record are not measured: they are part of what every record takes."""
NOT_ASCII = 3
"""Factor for a text with non-ASCII characters. After sending, Python also keeps its UTF-8 form; both together take at
most this many times the original size.
"""


def headers_weight(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Bytes that a record's headers take in memory."""
    characters = sum([len(name) + (0 if content is None else len(content)) for name, content in headers])
    return characters + len(headers) * HEADER_BYTES


def event_weight(event: Event, record_bytes: int) -> int:
    """Bytes that an event takes in memory besides the record's own `record_bytes` bytes."""
    if isinstance(event, VisitorMetadata | AccountMetadata):
        return _metadata_weight(event, record_bytes)
    if record_bytes <= SHORT_RECORD_BYTES:
        return 0
    texts = _ids(event) + _context(event.context)
    if isinstance(event, DecisionEvent):
        # The name of the metadata field repeats the flag's key.
        return texts + 2 * _text(event.flag_key) + _text(event.variation_key)
    return texts + _text(event.event)


def _metadata_weight(event: VisitorMetadata | AccountMetadata, record_bytes: int) -> int:
    if len(event.values) > MAX_METADATA_FIELDS:
        return _ids(event)  # None of them is kept: the record is invalid.
    weight = len(event.values) * FIELD_BYTES
    if record_bytes <= SHORT_RECORD_BYTES:
        return weight
    return weight + _ids(event) + sum(_text(name) + _value(value) for name, value in event.values.items())


def _ids(event: Event) -> int:
    visitor_id = None if isinstance(event, AccountMetadata) else event.visitor_id
    anonymous_id = event.anonymous_id if isinstance(event, TrackEvent) else None
    return _text(visitor_id) + _text(anonymous_id) + _text(event.account_id)


def _context(context: Context | None) -> int:
    if context is None:
        return 0
    texts = (context.ip, context.user_agent, context.url, context.title, context.locale)
    return sum(map(_text, texts))


def _value(value: object) -> int:
    if isinstance(value, list | tuple):
        return value.__sizeof__() + sum([LIST_ITEM_BYTES + _text(item) for item in value])
    return _text(value)


def _text(text: object) -> int:
    if not isinstance(text, str):
        return 0
    return text.__sizeof__() if text.isascii() else NOT_ASCII * text.__sizeof__()

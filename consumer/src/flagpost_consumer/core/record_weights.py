"""What a record takes in memory while it is pending, besides what every record takes.

In: a decoded event, a record's headers. Out: bytes. A few bytes of Avro can become many in memory: a field of five
bytes takes more than a hundred times as much while it waits, and one letter of a long text may make each of the
others take four bytes. `delivery.max_pending_bytes` bounds memory only if these are counted.

What every record takes (about 4 KB for a decision) is not counted here: `delivery.max_pending` bounds it.
"""

from __future__ import annotations

from collections.abc import Sequence

from flagpost_consumer.core.plan import MAX_METADATA_FIELDS
from flagpost_schemas import AccountMetadata, Context, DecisionEvent, Event, TrackEvent, VisitorMetadata

HEADER_BYTES = 176
"""A header: its tuple, and what its name and its value take besides their characters."""
FIELD_BYTES = 512
"""A metadata field: as it waits, as it is on its way, and where its order is kept."""
LIST_ITEM_BYTES = 8
SHORT_RECORD_BYTES = 256
"""The texts of a shorter record are not looked at: they are part of what every record takes."""
NOT_ASCII = 3
"""A text with other characters is kept in UTF-8, too, once it has been sent; the two together are at most so many
times what it takes at first."""


def headers_weight(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Bytes of a record's headers in memory."""
    characters = sum([len(name) + (0 if content is None else len(content)) for name, content in headers])
    return characters + len(headers) * HEADER_BYTES


def event_weight(event: Event, record_bytes: int) -> int:
    """Bytes of what is kept of an event in memory, besides the record's own bytes, of which there are so many."""
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

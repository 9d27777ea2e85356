"""Requests of Segment's HTTP tracking API: reads a body message by message.

In: the parsed body of a POST to /v1/track, identify, group, page, screen or alias (one message), or to /v1/batch or
/v1/import (many, with members that all of them share). Out: events in order, and what was set aside by reason. What a
Segment library can send is never refused, because its libraries drop a refused batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from flagpost_publisher.gateway.exchange import Answer
from flagpost_publisher.gateway.fronts import (
    MAX_READING_BYTES,
    DocumentError,
    DocumentTooLarge,
    EventTooLarge,
    Front,
    Reading,
    becomes_too_much,
)
from flagpost_publisher.gateway.repairs import repaired
from flagpost_publisher.gateway.segment.mapping import KINDS, SetAside, map_message
from flagpost_publisher.gateway.segment.message import (
    NOTHING_SHARED,
    Message,
    MessageError,
    Shared,
    as_object,
    granted,
)
from flagpost_publisher.gateway.segment.times import Receipt, occurrence

MAX_MESSAGE_BYTES: Final = 32_768
MAX_BATCH_BYTES: Final = 512_000
"""Segment's own limits for JSON (https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/)."""
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def read_call(kind: str, document: object, reading: Reading) -> Iterator[None]:
    """Read one message; `kind` is the path's, whatever the body says. Raises DocumentError."""
    message = _object(document, "body")
    if not _is_short(message):
        raise DocumentTooLarge(None, "body", f"is a message of more than {MAX_MESSAGE_BYTES:,} bytes of JSON")
    _read(kind, message, reading, None, NOTHING_SHARED)
    yield


def read_batch(document: object, reading: Reading) -> Iterator[None]:
    """Read a batch. Raises DocumentError if it is not a batch; a bad message costs only itself."""
    body = _object(document, "body")
    batch = body.get("batch")
    if not isinstance(batch, list):
        raise DocumentError(None, "batch", "must be a list of messages")
    shared = _shared(body)
    if shared is not None and shared.size_bytes * len(batch) > MAX_READING_BYTES:
        raise becomes_too_much(None)
    for index, message in enumerate(batch):
        if shared is None or not isinstance(message, dict):
            reading.add(index, SetAside.MALFORMED)
        elif not _is_short(message):
            reading.add(index, SetAside.TOO_LARGE)
        else:
            _read(message.get("type"), message, reading, index, shared)
        yield


def _shared(body: Mapping[str, Any]) -> Shared | None:
    """What the messages of a batch share: repaired, and read once. None: it cannot be understood."""
    context, integrations = as_object(body.get("context")), as_object(body.get("integrations"))
    if context is None or integrations is None:
        return None
    context, integrations = repaired(context), repaired(integrations)
    return Shared(context, integrations, body.get("sentAt"), granted(context))


def _object(value: object, name: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise DocumentError(None, name, "must be a JSON object")


def _is_short(message: Mapping[str, Any]) -> bool:
    """Whether a message is within its length limit; one that nests too deep to be written is not."""
    try:
        return len(_JSON.encode(message).encode(errors="surrogatepass")) <= MAX_MESSAGE_BYTES
    except RecursionError:
        return False


def _read(
    kind: object, members: Mapping[str, Any], reading: Reading, index: int | None, shared: Shared
) -> None:
    """Add a message's event to `reading`. Raises DocumentTooLarge."""
    if not isinstance(kind, str):
        reading.add(index, SetAside.MALFORMED)
    elif kind not in KINDS:
        reading.add(index, SetAside.UNKNOWN_TYPE)
    elif kind not in reading.key.types:
        reading.add(index, SetAside.NOT_ALLOWED)
    else:
        _read_known(kind, members, reading, index, shared)


def _read_known(
    kind: str, members: Mapping[str, Any], reading: Reading, index: int | None, shared: Shared
) -> None:
    sent_at = members.get("sentAt")
    happened = occurrence(
        members,
        shared.sent_at if sent_at is None else sent_at,
        Receipt(reading.received_at, reading.max_future_ms),
    )
    try:
        reading.add(index, map_message(Message(kind, repaired(members), happened.at_ms, shared)))
    except EventTooLarge:
        if index is None:
            raise  # nothing else is lost with it
        reading.add(index, SetAside.TOO_LARGE)
    except DocumentTooLarge:
        raise
    except (MessageError, DocumentError):
        reading.add(index, SetAside.MALFORMED)
    else:
        reading.not_believed.update(happened.not_believed)


FRONTS: Mapping[str, Front] = {
    **{f"/v1/{path}": partial(read_call, kind) for kind in KINDS for path in (kind, kind[0])},
    **dict.fromkeys(("/v1/batch", "/v1/b", "/v1/import", "/v1/import/"), read_batch),
}
"""The front for each path; libraries of browsers and phones use the first letter, Java's a trailing slash."""


def answer(_reading: Reading) -> Answer:
    """Segment's answer, word for word; what was set aside is in the metrics."""
    return Answer(200, {"success": True})

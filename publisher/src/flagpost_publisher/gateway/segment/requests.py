"""Requests of Segment's HTTP tracking API: what a body holds, message by message.

In: the parsed body of a POST to /v1/track, identify, group, page, screen or alias (one message), or to /v1/batch or
/v1/import (many, with members that all of them share). Out: events in their order, and what was set aside by reason.
What a Segment library can send is never refused, as its libraries drop a batch that is.
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
from flagpost_publisher.gateway.mending import mend
from flagpost_publisher.gateway.segment.mapping import KINDS, SetAside, map_message
from flagpost_publisher.gateway.segment.message import NOTHING_SHARED, Message, MessageError, Shared, granted
from flagpost_schemas import Event

MAX_MESSAGE_BYTES: Final = 32_768
MAX_BATCH_BYTES: Final = 512_000
"""Segment's own limits (https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/), of JSON."""
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def read_call(kind: str, document: object, reading: Reading) -> Iterator[None]:
    """Read one message; `kind` is the path's, whatever the body says. Raises DocumentError."""
    message = _object(document, "body", None)
    if not _is_short(message, None):
        raise DocumentTooLarge(None, "body", f"is a message of more than {MAX_MESSAGE_BYTES:,} bytes of JSON")
    reading.add(None, _read(kind, message, reading.received_at, None))
    yield


def read_batch(document: object, reading: Reading) -> Iterator[None]:
    """Read a batch. Raises DocumentError for the first message that is none; nothing is to be produced then."""
    body = _object(document, "body", None)
    batch = body.get("batch")
    if not isinstance(batch, list):
        raise DocumentError(None, "batch", "must be a list of messages")
    shared = _shared(body)
    if shared.size_bytes * len(batch) > MAX_READING_BYTES:
        raise becomes_too_much(None)
    for index, each in enumerate(batch):
        try:
            reading.add(index, _of_batch(_object(each, "message", index), shared, reading.received_at, index))
        except EventTooLarge:
            reading.add(index, SetAside.TOO_LARGE)
        yield


def _shared(body: Mapping[str, Any]) -> Shared:
    """What the messages of a batch share: mended and read once."""
    context, integrations = _shared_object(body, "context"), _shared_object(body, "integrations")
    return Shared(context, integrations, body.get("sentAt"), granted(context))


def _shared_object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    mended: dict[str, Any] = {} if value is None else mend(_object(value, name, None))
    return mended


def _object(value: object, name: str, index: int | None) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise DocumentError(index, name, "must be a JSON object")


def _of_batch(message: Mapping[str, Any], shared: Shared, received_at: int, index: int) -> Event | SetAside:
    if not _is_short(message, index):
        return SetAside.TOO_LARGE
    return _read(message.get("type"), message, received_at, index, shared)


def _is_short(message: Mapping[str, Any], index: int | None) -> bool:
    try:
        return len(_JSON.encode(message).encode(errors="surrogatepass")) <= MAX_MESSAGE_BYTES
    except RecursionError:
        raise DocumentError(index, "message", "nests too deep; send flatter JSON") from None


def _read(
    kind: object,
    members: Mapping[str, Any],
    received_at: int,
    index: int | None,
    shared: Shared = NOTHING_SHARED,
) -> Event | SetAside:
    if not isinstance(kind, str):
        raise DocumentError(index, "type", f"must be one of {', '.join(KINDS)}")
    if kind not in KINDS:
        return SetAside.UNKNOWN_TYPE
    try:
        return map_message(Message(kind, mend(members), received_at, shared))
    except MessageError as error:
        raise DocumentError(index, error.field, error.problem) from None


FRONTS: Mapping[str, Front] = {
    **{f"/v1/{kind}": partial(read_call, kind) for kind in KINDS},
    "/v1/batch": read_batch,
    "/v1/import": read_batch,
}
"""What reads the documents of each path."""


def answer(_reading: Reading) -> Answer:
    """What Segment answers, word for word; what was set aside is in the metrics."""
    return Answer(200, {"success": True})

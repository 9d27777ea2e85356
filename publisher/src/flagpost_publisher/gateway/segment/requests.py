"""Requests of Segment's HTTP tracking API: what a body holds, message by message.

In: the parsed body of a POST to /v1/track, identify, group, page, screen or alias (one message), or to /v1/batch or
/v1/import (many, with members that all of them share). Out: events in their order, and what was set aside by reason.
What a Segment library can send is never refused, as its libraries drop a batch that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flagpost_publisher.gateway.exchange import Answer
from flagpost_publisher.gateway.fronts import DocumentError, Front, Reading
from flagpost_publisher.gateway.mending import mend
from flagpost_publisher.gateway.segment.mapping import KINDS, SetAside, map_message
from flagpost_publisher.gateway.segment.message import Message, MessageError, inner
from flagpost_schemas import Event


def read_call(kind: str, document: object, received_at: int) -> Reading:
    """Read one message; `kind` is the path's, whatever the body says. Raises DocumentError."""
    reading = Reading()
    reading.add(None, _read(kind, _object(document, "body", None), received_at, None))
    return reading


def read_batch(document: object, received_at: int) -> Reading:
    """Read a batch. Raises DocumentError for the first message that is none; nothing is to be produced then."""
    body = _object(document, "body", None)
    batch = body.get("batch")
    if not isinstance(batch, list):
        raise DocumentError(None, "batch", "must be a list of messages")
    reading = Reading()
    for index, each in enumerate(batch):
        message = _with_shared(_object(each, "message", index), body)
        reading.add(index, _read(message.get("type"), message, received_at, index))
    return reading


def _object(value: object, name: str, index: int | None) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise DocumentError(index, name, "must be a JSON object")


def _with_shared(message: Mapping[str, Any], body: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the messages of a batch share holds for each; objects are merged, the message's own members win."""
    merged = dict(message)
    for name in ("context", "integrations", "sentAt"):
        own = message.get(name)
        if own is None:
            merged[name] = body.get(name)
        elif isinstance(own, dict):
            merged[name] = {**inner(body, name), **own}
    return merged


def _read(kind: object, members: Mapping[str, Any], received_at: int, index: int | None) -> Event | SetAside:
    if not isinstance(kind, str):
        raise DocumentError(index, "type", f"must be one of {', '.join(KINDS)}")
    if kind not in KINDS:
        return SetAside.UNKNOWN_TYPE
    try:
        return map_message(Message(kind, mend(members), received_at))
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

"""Reads whole documents with one of the gateway's fronts, without a gateway.

In: a front, a document, when it was received. Out: the `Reading`; or the front's DocumentError.
"""

from __future__ import annotations

from flagpost_publisher.gateway.fronts import Front, Reading
from flagpost_publisher.gateway.key import Key
from flagpost_publisher.gateway.segment import requests

ANY_KEY = Key("any")
"""A key that may send every type."""


def read_by(front: Front, document: object, received_at: int = 0, key: Key = ANY_KEY) -> Reading:
    reading = Reading(received_at, key)
    for _ in front(document, reading):
        pass
    return reading


def read_call(kind: str, document: object, received_at: int) -> Reading:
    return read_by(lambda given, reading: requests.read_call(kind, given, reading), document, received_at)


def read_batch(document: object, received_at: int) -> Reading:
    return read_by(requests.read_batch, document, received_at)

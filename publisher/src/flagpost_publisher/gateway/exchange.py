"""What goes in and out of a route's handler.

In and out: an `Arrival`, the request as far as handlers need it; an `Answer`, which `server` writes as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from multidict import CIMultiDictProxy


class Shown(Enum):
    """What a request has shown by its headers, before its body is read."""

    KEY = "key"
    """A write key that is known here."""
    NOTHING = "nothing"
    """Its key may be in its body, or the body may be signed."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request whose body has been read."""

    body: bytes
    """After its content coding was undone; at most `gateway.max_body_bytes`."""
    headers: CIMultiDictProxy[str]
    received_at: int
    """Epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client is told."""

    status: int
    document: Mapping[str, object]

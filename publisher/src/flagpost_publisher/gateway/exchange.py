"""What goes in and out of a route's handler.

In and out: an `Arrival`, the request as far as handlers need it; an `Answer`, which `server` writes as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from multidict import CIMultiDictProxy

from flagpost_publisher.gateway.key import Key, is_stranger
from flagpost_publisher.gateway.refusals import NOTHING


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request whose body has been read."""

    body: bytes
    """After its content coding was undone; at most `gateway.max_body_bytes`."""
    headers: CIMultiDictProxy[str]
    received_at: int
    """Epoch milliseconds."""
    address: str
    """Of the client: an IPv4 address, or an IPv6 network of 64 bits."""
    key: Key | None
    """Who sends, so far as the headers say."""

    @property
    def sender(self) -> str:
        """Whose turn it is: the key's name, or the address of a stranger."""
        return self.address if is_stranger(self.key) or self.key is None else f"key {self.key.name}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client is told."""

    status: int
    document: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    key: Key | None = None
    """Whose request it was, where that was found in the body."""

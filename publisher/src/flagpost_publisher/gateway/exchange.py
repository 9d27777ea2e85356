"""The input and output of a route's handler: an `Arrival`, the part of the request that handlers need, and an
`Answer`, which `server` writes as JSON.
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
    """Decoded; at most `gateway.max_body_bytes`."""
    headers: CIMultiDictProxy[str]
    received_at: int
    """Epoch milliseconds."""
    address: str
    """The client's: an IPv4 address, or an IPv6 network of 64 bits."""
    key: Key | None
    """The key in the headers, if any."""

    @property
    def sender(self) -> str:
        """Whose turn it is: the key's name, or the address of a client without one."""
        return self.address if is_stranger(self.key) or self.key is None else f"key {self.key.name}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for the client."""

    status: int
    document: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    key: Key | None = None
    """The request's key, if it was found in the body."""

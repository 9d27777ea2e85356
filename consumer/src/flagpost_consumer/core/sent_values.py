"""The values that Pendo has, as far as we know: what makes a value unchanged, or superseded.

In: for each value that Pendo took, whose it is, its field, when it occurred and a digest. Out: the last one sent.
An id's values are kept side by side in one string of bytes: a million visitors with five fields would take 2 GB as
Python objects, and take a seventh of that so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

import orjson

from flagpost_schemas import MetadataValue

_DIGEST_BYTES = 8
_UNKNOWN = bytes(_DIGEST_BYTES)
"""No value's digest, but by a chance of one in 2 to the power of 64."""


class Sent(NamedTuple):
    """One value that was sent."""

    field: bytes
    occurred_at: int
    offset: int
    digest: bytes


_SENT = Struct(f"<{_DIGEST_BYTES}sqq{_DIGEST_BYTES}s")


def id_key(target: str, target_id: str) -> int:
    """Stands for one visitor or account; `target` tells which. In 16 bytes, no two are alike by chance."""
    return int.from_bytes(hashlib.blake2b(orjson.dumps((target, target_id)), digest_size=16).digest())


@lru_cache(maxsize=4096)
def field_key(group: str, name: str) -> bytes:
    """Stands for one field; an id has few."""
    return _digest((group, name))


def value_digest(value: MetadataValue) -> bytes:
    """Tells values apart, types included: 1, 1.0, true and "1" are four values."""
    return _digest(value)


def _digest(content: object) -> bytes:
    return hashlib.blake2b(orjson.dumps(content), digest_size=_DIGEST_BYTES).digest()


class SentValues:
    """The last value that Pendo took for each field, of one partition.

    Two generations: when event time has moved on by 2 ttl, the older one goes. So an id's values live at least
    2 ttl of event time, and nothing ever walks through all ids.
    """

    __slots__ = ("_current", "_previous", "_rotated_ms", "_ttl_ms")

    def __init__(self, ttl_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._current: dict[int, bytes] = {}
        self._previous: dict[int, bytes] = {}
        self._rotated_ms = 0

    def near(self, whose: int, field: bytes, occurred_at: int) -> Sent | None:
        """The last value sent for a field, if it occurred within one ttl of this moment."""
        found = next((sent for sent in self._of(whose) if sent.field == field), None)
        return found if found is not None and abs(found.occurred_at - occurred_at) < self._ttl_ms else None

    def doubt(self, whose: int, field: bytes) -> None:
        """It is not certain any more that this is what Pendo has; when it occurred still counts."""
        for generation in (self._current, self._previous):
            if whose in generation:
                generation[whose] = b"".join(
                    _SENT.pack(*(sent._replace(digest=_UNKNOWN) if sent.field == field else sent))
                    for sent in _unpacked(generation[whose])
                )

    def remember(self, whose: int, sent: Sent) -> None:
        """Note that Pendo took a value; the id's other values stay as long as they may matter."""
        if sent.occurred_at > self._rotated_ms + 2 * self._ttl_ms:
            self.forget_older()
            self._rotated_ms = sent.occurred_at
        oldest = sent.occurred_at - 2 * self._ttl_ms
        others = (
            other for other in self._of(whose) if other.field != sent.field and other.occurred_at > oldest
        )
        packed = b"".join(_SENT.pack(*each) for each in (*others, sent))
        self._previous.pop(whose, None)
        self._current[whose] = packed

    def forget_older(self) -> None:
        """Forget the older generation; the younger one is the older from now on."""
        self._previous, self._current = self._current, {}

    def __len__(self) -> int:
        """Of how many ids something is known."""
        return len(self._current) + len(self._previous)

    def _of(self, whose: int) -> Iterator[Sent]:
        return _unpacked(self._current.get(whose) or self._previous.get(whose) or b"")


def _unpacked(packed: bytes) -> Iterator[Sent]:
    return map(Sent._make, _SENT.iter_unpack(packed))

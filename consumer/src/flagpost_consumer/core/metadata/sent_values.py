"""The values that Pendo has, as far as we know: they decide what is unchanged or superseded.

In: for each value that Pendo accepted, whose it is, its field, when it occurred and a digest. Out: the last one sent.
Only digests are kept, in tables of bytes: a million visitors with five fields would take 2 GB as Python objects.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

import orjson

from flagpost_consumer.core.books.aged_table import KEY_BYTES, AgedTable, Oldest
from flagpost_schemas import MetadataValue

_DIGEST_BYTES = 8
_UNKNOWN = bytes(_DIGEST_BYTES)
"""No value has this digest, except with a probability of one in 2 to the power of 64."""
MAX_BYTES = 64 * 1024 * 1024
"""Limit of the memory for what is remembered."""
VALUE_BYTES = 64
"""What a value takes in memory, with its part of the table."""
LONG_NAME_CHARACTERS = 128
"""Longer field names are not cached: there may be thousands, of 64 KB each."""
_FORGOTTEN_AT_ONCE = 4
"""Outdated values are forgotten a few at a time, so that nothing ever walks through all of them."""
_LOOKED_AT_ONCE = 64
"""At the limit: values that were sent again move to the end of their queue, up to this many, until one is found that
was not.
"""
_REST = f"q{_DIGEST_BYTES}s"
"""What is kept of a value besides its key and its time: offset and digest."""


class Sent(NamedTuple):
    """One value that was sent."""

    occurred_at: int
    offset: int
    digest: bytes


def value_key(whose: int, field: int) -> bytes:
    """The key of one field of one visitor or account."""
    return (whose ^ field).to_bytes(KEY_BYTES)


def id_key(target: str, target_id: str) -> int:
    """The key of one visitor or account; `target` tells which. With 16 bytes, no two are equal by chance."""
    return int.from_bytes(hashlib.blake2b(orjson.dumps((target, target_id)), digest_size=KEY_BYTES).digest())


def field_key(group: str, name: str) -> int:
    """The key of one field, with as many bytes."""
    make = _field_key_of_short if len(name) <= LONG_NAME_CHARACTERS else _field_key
    return make(group, name)


def _field_key(group: str, name: str) -> int:
    encoded = orjson.dumps((group, name))
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=KEY_BYTES, person=b"metadata field").digest())


_field_key_of_short = lru_cache(maxsize=4096)(_field_key)


def json_digest(encoded: bytes) -> bytes:
    """A digest of a value's JSON, which includes its type: 1, 1.0, true and "1" are four values."""
    return hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).digest()


def value_digest(content: MetadataValue) -> bytes:
    """The same for a value that is not JSON yet."""
    if isinstance(content, str) and len(content) <= LONG_NAME_CHARACTERS:
        return _digest_of_short(content)
    return json_digest(orjson.dumps(content))


@lru_cache(maxsize=4096)
def _digest_of_short(content: str) -> bytes:
    return json_digest(orjson.dumps(content))


class _Partition:
    """What is remembered of one partition."""

    __slots__ = ("newest_ms", "values")

    def __init__(self) -> None:
        self.newest_ms = 0
        self.values = AgedTable(_REST)

    def __len__(self) -> int:
        return len(self.values)

    def age(self) -> tuple[int, int]:
        """The partition with the lowest value must forget an entry: the one with the oldest, then the one with the
        most.
        """
        return (self.values.oldest_ms, -len(self))


class SentValues:
    """The last value that Pendo accepted for each field of each id, for all partitions of one process.

    What is older than 2 ttl, in the event time of its partition, is forgotten little by little. At the limit the
    oldest is forgotten, whichever partition it belongs to.
    """

    def __init__(self, ttl_ms: int, max_values: int, max_bytes: int = MAX_BYTES) -> None:
        self._ttl_ms = ttl_ms
        self._max_values = min(max_values, max_bytes // VALUE_BYTES)
        self._count = 0
        self._partitions: dict[int, _Partition] = {}
        self._oldest: Oldest[_Partition] = Oldest(_Partition.age)

    def __len__(self) -> int:
        """How many values are remembered."""
        return self._count

    @property
    def size_bytes(self) -> int:
        """Bytes that they take in memory."""
        return self._count * VALUE_BYTES

    def near(self, partition: int, key: bytes, occurred_at: int) -> Sent | None:
        """The last value sent for a field, if it occurred within one ttl of this moment."""
        held = self._partitions.get(partition)
        found = None if held is None else held.values.get(key)
        if found is None or abs(found[1] - occurred_at) >= self._ttl_ms:
            return None
        return Sent(*found[1:])

    def doubt(self, partition: int, key: bytes) -> None:
        """It is no longer certain that Pendo has this value; its time is still used."""
        held = self._partitions.get(partition)
        found = None if held is None else held.values.get(key)
        if held is not None and found is not None:
            _, occurred_at, offset, _ = found
            held.values.put(key, occurred_at, offset, _UNKNOWN)

    def remember(self, partition: int, key: bytes, sent: Sent) -> None:
        """Note that Pendo accepted a value."""
        if not self._ttl_ms:
            return  # with a ttl of 0 no values are compared
        held = self._partitions.get(partition)
        if held is None:
            held = self._partitions[partition] = _Partition()
        held.newest_ms = max(held.newest_ms, sent.occurred_at)
        self._count += held.values.put(key, *sent)
        self._count -= held.values.forget_before(held.newest_ms - 2 * self._ttl_ms, _FORGOTTEN_AT_ONCE)
        if self._count > self._max_values:
            self._make_room()

    def forget_partition(self, partition: int) -> None:
        """Forget what was sent for a partition that is another member's."""
        held = self._partitions.pop(partition, None)
        if held is not None:
            self._count -= len(held.values)
            self._oldest.reset()

    def _make_room(self) -> None:
        for _ in range(_LOOKED_AT_ONCE):
            if self._count <= self._max_values:
                return
            self._count -= self._oldest.of(self._partitions.values()).values.forget_first()

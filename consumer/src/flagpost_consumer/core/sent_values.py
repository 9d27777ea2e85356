"""The values that Pendo has, as far as we know: what makes a value unchanged, or superseded.

In: for each value that Pendo took, whose it is, its field, when it occurred and a digest. Out: the last one sent.
An id's values are kept side by side in one string of bytes: a million visitors with five fields would take 2 GB as
Python objects, and take a seventh of that so.
"""

from __future__ import annotations

import hashlib
from collections import deque
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

import orjson

_DIGEST_BYTES = 8
_UNKNOWN = bytes(_DIGEST_BYTES)
"""No value's digest, but by a chance of one in 2 to the power of 64."""
MAX_FIELDS_OF_AN_ID = 256
"""Whoever sets more fields of one visitor or account may see a value sent again; what is known of one stays small."""
MAX_BYTES = 64 * 1024 * 1024
"""What is remembered takes no more of memory than this, be it of many ids with one field each or of few with many."""
_ID_BYTES = 192
"""What an id takes besides its values: two objects, and its place in a dict."""
LONG_NAME_CHARACTERS = 128
"""Longer names of fields are kept in no cache: thousands of them, of 64 KB each, would be."""
_SLICES = 8
"""Into how many parts of equal size what one process remembers is divided by age."""
_FORGOTTEN_AT_ONCE = 4
"""Ids whose values are too old to matter go a few at a time, so that nothing ever walks through all of them."""


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


def field_key(group: str, name: str) -> bytes:
    """Stands for one field; an id has few."""
    make = _field_key_of_short if len(name) <= LONG_NAME_CHARACTERS else _field_key
    return make(group, name)


def _field_key(group: str, name: str) -> bytes:
    return json_digest(orjson.dumps((group, name)))


_field_key_of_short = lru_cache(maxsize=4096)(_field_key)


def json_digest(encoded: bytes) -> bytes:
    """Tells values apart by their JSON, types included: 1, 1.0, true and "1" are four values."""
    return hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).digest()


class _Slice:
    """What was remembered of one partition in one stretch of time."""

    __slots__ = ("ids", "leaving", "newest_ms", "part", "partition", "since_ms", "values")

    def __init__(self, partition: int, part: int, since_ms: int) -> None:
        self.partition = partition
        self.part = part
        self.since_ms = since_ms
        self.newest_ms = since_ms
        self.ids: dict[int, bytes] = {}
        self.values = 0
        self.leaving: list[int] | None = None
        """Once it is being forgotten: its ids, the oldest last. Nothing is added to it any more."""

    def put(self, whose: int, packed: bytes) -> int:
        """Take the values of an id; gives how many."""
        self.ids[whose] = packed
        count = len(packed) // _SENT.size
        self.values += count
        return count

    def pop(self, whose: int) -> bytes:
        """Give the values of an id away."""
        packed = self.ids.pop(whose, b"")
        self.values -= len(packed) // _SENT.size
        return packed


class SentValues:
    """The last value that Pendo took for each field of each id, of all partitions of one process.

    Slices are opened one after another, for each partition by its event time and for all of them by the number of
    values. What is looked at again moves to the newest slice of its partition. At the limit the oldest is forgotten,
    whichever partition it is of; and what is older than 2 ttl, in the event time of its partition, goes by and by.
    """

    def __init__(self, ttl_ms: int, max_values: int, max_bytes: int = MAX_BYTES) -> None:
        self._ttl_ms = ttl_ms
        self._max_values = max_values
        self._max_bytes = max_bytes
        self._values = 0
        self._bytes = 0
        self._remembered = 0
        """How many values were ever added."""
        self._remembered_bytes = 0
        """How many bytes were: the two tell which part a slice is of."""
        self._slices: dict[_Slice, None] = {}
        """All slices in the order in which they were opened."""
        self._of_partition: dict[int, deque[_Slice]] = {}

    def __len__(self) -> int:
        """How many values are remembered."""
        return self._values

    @property
    def size_bytes(self) -> int:
        """What they take in memory."""
        return self._bytes

    def near(self, partition: int, whose: int, field: bytes, occurred_at: int) -> Sent | None:
        """The last value sent for a field, if it occurred within one ttl of this moment."""
        held = self._slice_of(partition, whose)
        if held is None:
            return None
        packed = held.ids[whose]
        at = _position(packed, field)
        if at is None:
            return None
        found = Sent._make(_SENT.unpack_from(packed, at))
        return found if abs(found.occurred_at - occurred_at) < self._ttl_ms else None

    def doubt(self, partition: int, whose: int, field: bytes) -> None:
        """It is not certain any more that this is what Pendo has; when it occurred still counts."""
        held = self._slice_of(partition, whose)
        if held is None:
            return
        packed = held.ids[whose]
        if (at := _position(packed, field)) is not None:
            end = at + _SENT.size
            held.ids[whose] = packed[: end - _DIGEST_BYTES] + _UNKNOWN + packed[end:]

    def remember(self, partition: int, whose: int, sent: Sent) -> None:
        """Note that Pendo took a value; the id's other values stay as long as they may matter."""
        if not self._ttl_ms:
            return  # No value is near another.
        current = self._current(partition, sent.occurred_at)
        held = self._slice_of(partition, whose)
        packed = b"" if held is None else self._pop(held, whose)
        packed = self._without(packed, sent) + _SENT.pack(*sent)
        self._values += current.put(whose, packed)
        size = _ID_BYTES + len(packed)
        self._bytes += size
        if held is not None and held is not current and not held.ids:
            self._drop(held)
        self._remembered += 1
        self._remembered_bytes += size if held is None else _SENT.size
        self._forget_outdated(partition)
        while self._values > self._max_values or self._bytes > self._max_bytes:
            self._forget_one(next(iter(self._slices)))

    def forget_partition(self, partition: int) -> None:
        """Forget what was sent for a partition that is another member's."""
        for held in self._of_partition.pop(partition, ()):
            del self._slices[held]
            self._values -= held.values
            self._bytes -= len(held.ids) * _ID_BYTES + held.values * _SENT.size

    def _slice_of(self, partition: int, whose: int) -> _Slice | None:
        """The slice that knows of an id."""
        for held in reversed(self._of_partition.get(partition, ())):
            if whose in held.ids:
                return held
        return None

    def _current(self, partition: int, occurred_at: int) -> _Slice:
        """The slice that takes what is remembered now."""
        slices = self._of_partition.setdefault(partition, deque())
        part = self._remembered // max(1, self._max_values // _SLICES)
        part += self._remembered_bytes // max(1, self._max_bytes // _SLICES)
        newest = slices[-1] if slices else None
        if (
            newest is None
            or newest.leaving is not None
            or newest.part != part
            or self._is_over(newest, occurred_at)
        ):
            newest = _Slice(partition, part, occurred_at)
            slices.append(newest)
            self._slices[newest] = None
        newest.newest_ms = max(newest.newest_ms, occurred_at)
        return newest

    def _is_over(self, held: _Slice, occurred_at: int) -> bool:
        return occurred_at > held.since_ms + self._ttl_ms

    def _without(self, packed: bytes, sent: Sent) -> bytes:
        """An id's values without the one that is replaced, and without those that are too old or too many."""
        if (at := _position(packed, sent.field)) is not None:
            packed = packed[:at] + packed[at + _SENT.size :]
        start = max(0, len(packed) - (MAX_FIELDS_OF_AN_ID - 1) * _SENT.size)
        oldest = sent.occurred_at - 2 * self._ttl_ms
        while start < len(packed) and _SENT.unpack_from(packed, start)[1] <= oldest:
            start += _SENT.size
        return packed[start:]

    def _forget_outdated(self, partition: int) -> None:
        slices = self._of_partition[partition]
        for _ in range(_FORGOTTEN_AT_ONCE):
            if len(slices) < 2 or slices[0].newest_ms >= slices[-1].newest_ms - 2 * self._ttl_ms:
                return
            self._forget_one(slices[0])

    def _forget_one(self, held: _Slice) -> None:
        """Forget the id of a slice that was looked at last the longest ago; or the slice, if none is left."""
        if held.leaving is None:
            held.leaving = list(reversed(held.ids))
        while held.leaving:
            if self._pop(held, held.leaving.pop()):
                return
        self._drop(held)

    def _pop(self, held: _Slice, whose: int) -> bytes:
        packed = held.pop(whose)
        if packed:
            self._values -= len(packed) // _SENT.size
            self._bytes -= _ID_BYTES + len(packed)
        return packed

    def _drop(self, held: _Slice) -> None:
        del self._slices[held]
        self._of_partition[held.partition].remove(held)


def _position(packed: bytes, field: bytes) -> int | None:
    """Where the value of a field begins."""
    at = packed.find(field)
    while at >= 0:
        if at % _SENT.size == 0:
            return at
        at = packed.find(field, at + 1)
    return None

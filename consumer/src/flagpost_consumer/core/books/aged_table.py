"""A compact table of entries by key and time, forgotten in the order in which they came: millions, without a pause.

In: 16-byte keys, each with a time and a few values of fixed size. Out: the entry of a key, or of a key near a moment.
An entry takes 55 to 70 bytes in all, where a dict of integers takes 95 to 160; and no operation walks through all
entries.

Entries lie side by side in buckets; each bucket is a byte string that is searched as a whole. The table grows by one
bucket at a time (linear hashing), so all of it is never moved at once. A queue of (time, hash) beside it keeps the
order in which entries came: the first entry of a bucket is the one that was queued first. Places in the queue whose
entry was removed meanwhile are skipped.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sized
from struct import Struct
from typing import Any, Generic, TypeVar

KEY_BYTES = 16
_HEAD = f"<{KEY_BYTES}sq"
"""What each entry begins with: its key and its time, epoch ms."""
_read_head = Struct(_HEAD).unpack_from
BUCKET_ENTRIES = 8
"""Average number of entries of a bucket at most: more take longer to search, fewer take more memory."""
_FIRST_BUCKETS = 4
_HASH = 0xFFFF_FFFF
_QUEUE_SLACK = 1024
"""The queue may have this many places more than twice the number of entries."""
_SHORTENED_AT_ONCE = 4
_CHOSEN_FOR = 64
"""After forgetting this many entries of one partition, look again which partition has the oldest."""
NEVER_MS = 2**63


class AgedTable:
    """The entries of one partition. A key may have several, at different times."""

    __slots__ = (
        "_buckets",
        "_entry",
        "_first",
        "_hashes",
        "_live",
        "_mask",
        "_pack",
        "_room",
        "_split",
        "_times",
    )

    def __init__(self, rest: str) -> None:
        """`rest`: the `struct` format of what an entry holds besides its key and its time."""
        self._entry = Struct(_HEAD + rest)
        self._pack = self._entry.pack
        self._buckets = [b""] * _FIRST_BUCKETS
        self._mask = _FIRST_BUCKETS - 1
        self._split = 0
        """Buckets below this one have already been split in two: they use one more bit of the hash."""
        self._room = _FIRST_BUCKETS * BUCKET_ENTRIES
        self._live = 0
        self._times = array("q")
        self._hashes = array("I")
        self._first = 0
        """Where the queue begins in its two arrays."""

    def __len__(self) -> int:
        """How many entries there are."""
        return self._live

    @property
    def oldest_ms(self) -> int:
        """The time of the entry that is forgotten next; `NEVER_MS` if there is none."""
        return self._times[self._first] if self._live else NEVER_MS

    def get(self, key: bytes) -> tuple[Any, ...] | None:
        """The entry of a key that has at most one: key, time and the rest."""
        bucket = self._buckets[self._number(hash(key))]
        place = bucket.find(key)
        if place > 0:  # It may begin within another entry.
            place = self._find(bucket, key)
        return None if place < 0 else self._entry.unpack_from(bucket, place)

    def near(self, key: bytes, at_ms: int, within_ms: int) -> tuple[Any, ...] | None:
        """The entry of a key less than `within_ms` from a moment."""
        bucket = self._buckets[self._number(hash(key))]
        place = bucket.find(key)
        return None if place < 0 else self._near(bucket, place, at_ms, within_ms)

    def claim(self, key: bytes, at_ms: int, within_ms: int, *rest: object) -> tuple[Any, ...] | None:
        """The entry of a key less than `within_ms` from a moment; if there is none, add one at that moment."""
        hashed = hash(key)
        number = hashed & self._mask
        if number < self._split:
            number = hashed & (2 * self._mask + 1)
        bucket = self._buckets[number]
        if (place := bucket.find(key)) >= 0:
            found = self._near(bucket, place, at_ms, within_ms)
            if found is not None:
                return found
        self._buckets[number] = bucket + self._pack(key, at_ms, *rest)
        self._times.append(at_ms)
        self._hashes.append(hashed & _HASH)
        self._live += 1
        if self._live > self._room:
            self._grow()
        return None

    def put(self, key: bytes, at_ms: int, *rest: object) -> bool:
        """Replace the entry of a key that has at most one, or add it; returns whether it was added."""
        number = self._number(hash(key))
        bucket = self._buckets[number]
        place = bucket.find(key)
        if place > 0:  # It may begin within another entry.
            place = self._find(bucket, key)
        if place < 0:
            return self.claim(key, at_ms, 0, *rest) is None
        entry = self._pack(key, at_ms, *rest)
        self._buckets[number] = bucket[:place] + entry + bucket[place + len(entry) :]
        return False

    def remove(self, key: bytes, at_ms: int, *rest: object) -> bool:
        """Remove exactly this entry; returns whether it was there."""
        number = self._number(hash(key))
        bucket, entry = self._buckets[number], self._pack(key, at_ms, *rest)
        place = self._find(bucket, entry)
        if place < 0:
            return False
        self._buckets[number] = bucket[:place] + bucket[place + len(entry) :]
        self._live -= 1
        self._shorten_queue()
        return True

    def forget_before(self, time_ms: int, at_most: int) -> int:
        """Forget the first entries of the queue while they are older; returns how many. Looks at `at_most` places.

        An entry that got a newer time since it was queued goes to the end of the queue instead.
        """
        times = self._times
        if self._first == len(times) or times[self._first] >= time_ms:
            return 0
        hashes, buckets = self._hashes, self._buckets
        mask, split, size = self._mask, self._split, self._entry.size
        forgotten, first = 0, self._first
        end = min(first + at_most, len(times))
        while first < end and times[first] < time_ms:
            number = hashes[first] & mask
            if number < split:
                number = hashes[first] & (2 * mask + 1)
            bucket = buckets[number]
            if bucket and _read_head(bucket)[1] < time_ms:
                buckets[number] = bucket[size:]
                forgotten += 1
            elif bucket:
                self._to_the_end(number, hashes[first])
            first += 1
        self._live -= forgotten
        self._move_to(first)
        return forgotten

    def forget_first(self) -> int:
        """Take the first place of the queue; returns how many entries were forgotten with it: one or none."""
        queued_ms, hashed = self._times[self._first], self._hashes[self._first]
        number = self._number(hashed)
        bucket = self._buckets[number]
        forgotten = 0
        if bucket and _read_head(bucket)[1] != queued_ms:
            self._to_the_end(number, hashed)
        elif bucket and hash(bucket[:KEY_BYTES]) & _HASH == hashed:
            self._buckets[number] = bucket[self._entry.size :]
            forgotten = 1
        self._live -= forgotten
        self._move_to(self._first + 1)
        return forgotten

    # Buckets

    def _number(self, hashed: int) -> int:
        number = hashed & self._mask
        return hashed & (2 * self._mask + 1) if number < self._split else number

    def _find(self, bucket: bytes, beginning: bytes) -> int:
        """Where the entry with this beginning lies; -1: nowhere."""
        place = bucket.find(beginning)
        while place >= 0 and place % self._entry.size:
            place = bucket.find(beginning, place + 1)
        return place

    def _near(self, bucket: bytes, place: int, at_ms: int, within_ms: int) -> tuple[Any, ...] | None:
        """Like `near`, among the entries of one key, whose first lies at `place`."""
        size = self._entry.size
        key = bucket[place : place + KEY_BYTES]
        while place >= 0:
            if place % size == 0:
                found = self._entry.unpack_from(bucket, place)
                if -within_ms < found[1] - at_ms < within_ms:
                    return found
            place = bucket.find(key, place + 1)
        return None

    def _grow(self) -> None:
        """Split the next bucket in two; the order of its entries stays."""
        bit = self._mask + 1
        size, bucket = self._entry.size, self._buckets[self._split]
        staying: list[bytes] = []
        leaving: list[bytes] = []
        for place in range(0, len(bucket), size):
            entry = bucket[place : place + size]
            (leaving if hash(entry[:KEY_BYTES]) & bit else staying).append(entry)
        self._buckets[self._split] = b"".join(staying)
        self._buckets.append(b"".join(leaving))
        self._room += BUCKET_ENTRIES
        self._split += 1
        if self._split == bit:
            self._mask, self._split = 2 * self._mask + 1, 0

    # The queue

    def _to_the_end(self, number: int, hashed: int) -> None:
        """Queue the first entry of a bucket again, unless the one that was queued is gone and this one came later."""
        bucket, size = self._buckets[number], self._entry.size
        key, time_ms = _read_head(bucket)
        if hash(key) & _HASH == hashed:
            self._buckets[number] = bucket[size:] + bucket[:size]
            self._times.append(time_ms)
            self._hashes.append(hashed)

    def _shorten_queue(self) -> None:
        """Keep the queue short although entries are added and removed again and again: move its first places to the
        end.
        """
        for _ in range(_SHORTENED_AT_ONCE):
            if len(self._times) - self._first <= 2 * self._live + _QUEUE_SLACK:
                return
            hashed = self._hashes[self._first]
            number = self._number(hashed)
            if self._buckets[number]:
                self._to_the_end(number, hashed)
            self._move_to(self._first + 1)

    def _move_to(self, first: int) -> None:
        """Let the queue begin at this place."""
        self._first = first
        if first >= _QUEUE_SLACK and 2 * first >= len(self._times):
            del self._times[:first], self._hashes[:first]
            self._first = 0


Holder = TypeVar("Holder", bound=Sized)


class Oldest(Generic[Holder]):
    """Chooses which of several tables must forget an entry, at the limit that they share."""

    def __init__(self, age: Callable[[Holder], Any]) -> None:
        """`age`: the table with the lowest value must forget an entry."""
        self._age = age
        self._chosen: Holder | None = None
        self._left = 0
        """How many entries it forgets before a table is chosen again."""

    def of(self, holders: Iterable[Holder]) -> Holder:
        """The table that must forget its first entry now; at least one must have entries."""
        if self._chosen is None or not self._left or not len(self._chosen):
            self._chosen, self._left = min(holders, key=self._age), _CHOSEN_FOR
        self._left -= 1
        return self._chosen

    def reset(self) -> None:
        """The tables have changed."""
        self._chosen = None

"""Which track deliveries repeat one that was sent, by event time.

In: keys with their `occurred_at`, in the order of their offsets. Out: the offset of the delivery that is
repeated, or a claim. Two events of one key repeat one another when their times are less than one ttl apart,
on either side; so the claims of a key stand at least one ttl apart.

Claims are kept in slices of event time, each one ttl wide. A slice can hold at most one claim of a key, so a
look-up touches three slices, and what is too old goes a slice at a time, a few entries at each step: no
operation walks through all entries.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

SWEEP_ENTRIES = 64
"""How many entries of outdated slices one claim frees at most: more than it adds, so that sweeping keeps up."""

Claim = tuple[int, int]
"""(occurred_at in epoch ms, offset)."""


@dataclass(slots=True)
class DedupeCounts:
    """What happened to the entries of one process, over all its partitions."""

    entries: int = 0
    late: int = 0
    """Events more than one ttl behind their partition's watermark: their judgement may miss a repeat."""
    evicted_early: int = 0
    """Claims forgotten before their time because `dedupe.max_entries` was reached."""


class Dedupe:
    """The claims of one partition."""

    def __init__(self, ttl_seconds: float, max_entries: int, counts: DedupeCounts) -> None:
        self._ttl_ms = int(ttl_seconds * 1000)
        self._max_entries = max_entries
        self._counts = counts
        self._slices: dict[int, dict[bytes, Claim]] = {}
        self._outdated: deque[dict[bytes, Claim]] = deque()
        self._watermark_ms = 0

    def claim(self, key: bytes, occurred_at: int, offset: int) -> int | None:
        """Claim a key at a time, or give the offset of the claim that this repeats.

        A ttl of 0 removes no duplicates.
        """
        if self._ttl_ms == 0:
            return None
        self._advance(occurred_at)
        number = occurred_at // self._ttl_ms
        repeated = self._repeated(key, occurred_at, number)
        if repeated is not None:
            return repeated
        self._slices.setdefault(number, {})[key] = (occurred_at, offset)
        self._counts.entries += 1
        self._sweep()
        self._make_room()
        return None

    def release(self, key: bytes, occurred_at: int, offset: int) -> None:
        """Free the claim of a delivery that ended undelivered, for later records."""
        if self._ttl_ms == 0:
            return
        claims = self._slices.get(occurred_at // self._ttl_ms)
        if claims is not None and claims.get(key) == (occurred_at, offset):
            del claims[key]
            self._counts.entries -= 1

    def forget(self) -> None:
        """Give up all entries: the partition is another member's."""
        held = sum(map(len, self._slices.values())) + sum(map(len, self._outdated))
        self._counts.entries -= held
        self._slices.clear()
        self._outdated.clear()

    def _repeated(self, key: bytes, occurred_at: int, number: int) -> int | None:
        for neighbour in (number, number - 1, number + 1):
            claims = self._slices.get(neighbour)
            if claims is None:
                continue
            claim = claims.get(key)
            if claim is not None and abs(claim[0] - occurred_at) < self._ttl_ms:
                return claim[1]
        return None

    def _advance(self, occurred_at: int) -> None:
        if occurred_at > self._watermark_ms:
            before = self._watermark_ms // self._ttl_ms
            self._watermark_ms = occurred_at
            if occurred_at // self._ttl_ms != before:
                self._outdate()
        elif occurred_at < self._watermark_ms - self._ttl_ms:
            self._counts.late += 1

    def _outdate(self) -> None:
        # An event one ttl late may repeat a claim that is another ttl older, not one older than that.
        oldest_needed = (self._watermark_ms - 2 * self._ttl_ms) // self._ttl_ms
        for number in [number for number in self._slices if number < oldest_needed]:
            self._outdated.append(self._slices.pop(number))

    def _sweep(self) -> None:
        for _ in range(SWEEP_ENTRIES):
            while self._outdated and not self._outdated[0]:
                self._outdated.popleft()
            if not self._outdated:
                return
            self._outdated[0].popitem()
            self._counts.entries -= 1

    def _make_room(self) -> None:
        while self._counts.entries > self._max_entries and self._slices:
            oldest = min(self._slices)
            if not self._slices[oldest]:
                del self._slices[oldest]
                continue
            self._slices[oldest].popitem()
            self._counts.entries -= 1
            self._counts.evicted_early += 1

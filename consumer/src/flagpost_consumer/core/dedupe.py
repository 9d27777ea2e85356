"""Which track deliveries repeat one that was sent, by event time.

In: keys with their `occurred_at`, in the order of their offsets. Out: the offset of the delivery that is
repeated, or a claim. Two events of one key repeat one another when their times are less than one ttl apart,
on either side; so the claims of a key stand at least one ttl apart.

Claims are kept in slices of event time, each one ttl wide. A slice can hold at most one claim of a key, so a
look-up touches three slices, and what is too old goes a slice at a time, a few entries at each step: no
operation walks through all entries. There may be millions, so a claim is two whole numbers: the key's 16 bytes,
and offset and time within the slice in one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

SWEEP_ENTRIES = 64
"""How many entries one claim frees at most: more than it adds, so that sweeping keeps up."""

NEVER_MS = 2**63

Slice = dict[int, int]


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
        self._slices: dict[int, Slice] = {}
        self._outdated: deque[Slice] = deque()
        self._watermark_ms = 0
        self._oldest_needed = -2
        """The number of the first slice that may still be asked for."""

    def claim(self, key: bytes, occurred_at: int, offset: int) -> int | None:
        """Claim a key at a time, or give the offset of the claim that this repeats.

        A ttl of 0 removes no duplicates.
        """
        if self._ttl_ms == 0:
            return None
        if occurred_at < self._watermark_ms - self._ttl_ms:
            self._counts.late += 1
        self._advance(occurred_at)
        wanted = int.from_bytes(key)
        number, place = divmod(occurred_at, self._ttl_ms)
        repeated = self._repeated(wanted, number, place)
        if repeated is not None:
            return repeated
        self._slices.setdefault(number, {})[wanted] = offset * self._ttl_ms + place
        self._counts.entries += 1
        self._sweep()
        self._make_room()
        return None

    def release(self, key: bytes, occurred_at: int, offset: int) -> None:
        """Free the claim of a delivery that ended undelivered, for later records."""
        if self._ttl_ms == 0:
            return
        number, place = divmod(occurred_at, self._ttl_ms)
        claims, wanted = self._slices.get(number), int.from_bytes(key)
        if claims is not None and claims.get(wanted) == offset * self._ttl_ms + place:
            del claims[wanted]
            self._counts.entries -= 1

    def restore(self, key: bytes, occurred_at: int, offset: int) -> None:
        """Take in the claim of a delivery that was sent before this process had the partition."""
        if self._ttl_ms == 0:
            return
        if occurred_at > self._watermark_ms:
            self.observe(occurred_at)
        number, place = divmod(occurred_at, self._ttl_ms)
        if number < self._oldest_needed:
            return
        claims, wanted = self._slices.setdefault(number, {}), int.from_bytes(key)
        if wanted not in claims:  # of two that a crash let be sent, either tells that the key was
            claims[wanted] = offset * self._ttl_ms + place
            self._counts.entries += 1
            if self._counts.entries > self._max_entries:
                self._make_room()

    def observe(self, occurred_at: int) -> None:
        """Note the time of a delivery that was judged before this process had the partition."""
        if self._ttl_ms:
            self._advance(occurred_at)
            self._counts.entries -= sum(map(len, self._outdated))
            self._outdated.clear()

    def count_in(self, counts: DedupeCounts) -> None:
        """Count in other books from now on, and move to them what was counted in these."""
        held = self._held
        self._counts.entries -= held
        counts.entries += held
        counts.evicted_early += self._counts.evicted_early
        self._counts.evicted_early = 0
        self._counts = counts

    def forget(self) -> None:
        """Give up all entries: the partition is another member's."""
        self._counts.entries -= self._held
        self._slices.clear()
        self._outdated.clear()

    @property
    def needed_from_ms(self) -> int:
        """Claims at or after this time, epoch ms, may still be repeated."""
        return self._oldest_needed * self._ttl_ms if self._ttl_ms else NEVER_MS

    @property
    def _held(self) -> int:
        return sum(map(len, self._slices.values())) + sum(map(len, self._outdated))

    def _repeated(self, wanted: int, number: int, place: int) -> int | None:
        for distance in (0, -1, 1):
            claims = self._slices.get(number + distance)
            claim = None if claims is None else claims.get(wanted)
            if claim is None:
                continue
            offset, claimed = divmod(claim, self._ttl_ms)
            if abs(claimed + distance * self._ttl_ms - place) < self._ttl_ms:
                return offset
        return None

    def _advance(self, occurred_at: int) -> None:
        if occurred_at > self._watermark_ms:
            self._watermark_ms = occurred_at
            # An event one ttl late may repeat a claim that is another ttl older, not one older than that.
            oldest_needed = occurred_at // self._ttl_ms - 2
            if oldest_needed != self._oldest_needed:
                self._outdate(oldest_needed)

    def _outdate(self, oldest_needed: int) -> None:
        self._oldest_needed = oldest_needed
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
        for _ in range(SWEEP_ENTRIES):
            if self._counts.entries <= self._max_entries or not self._slices:
                return
            oldest = min(self._slices)
            if not self._slices[oldest]:
                del self._slices[oldest]
                continue
            self._slices[oldest].popitem()
            self._counts.entries -= 1
            self._counts.evicted_early += 1

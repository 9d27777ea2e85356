"""Which track deliveries are duplicates of one that was sent, by event time.

In: keys with their `occurred_at`, in the order of their offsets. Out: the offset of the delivery that is repeated, or
a claim. Two events with the same key are duplicates when their times are less than one ttl apart, in either
direction; so the claims of a key are at least one ttl apart.

A claim is forgotten once the watermark, the latest time of all events, is two ttl past it: an event that is one ttl
late may be a duplicate of a claim that is another ttl older. There may be millions of claims, so a few are freed at
each step, in the order in which they came, and no operation walks through all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from flagpost_consumer.core.books.aged_table import NEVER_MS, AgedTable, Oldest

SWEEP_ENTRIES = 64
"""How many entries one claim frees at most: more than it adds, so that sweeping keeps up."""
SWEEPS_A_TTL = 64
"""How often outdated entries are swept in one ttl of event time: to sweep many at once takes less time."""
_OFFSET = "q"


@dataclass(slots=True)
class DedupeCounts:
    """What the partitions of one process remember together, and what happened to it.

    `dedupe.max_entries` applies to the whole process. At the limit the oldest claims by event time go first,
    whichever partition they belong to: yesterday's claims of a quiet partition make room for today's of a busy one.
    """

    entries: int = 0
    late: int = 0
    """Events more than one ttl behind their partition's watermark: a duplicate among them may be missed."""
    evicted_early: int = 0
    """Claims forgotten before their time because `dedupe.max_entries` was reached."""
    partitions: list[Dedupe] = field(default_factory=list, compare=False, repr=False)
    _oldest: Oldest[Dedupe] = field(default_factory=lambda: Oldest(Dedupe.age), compare=False, repr=False)

    def make_room(self, max_entries: int) -> None:
        """Forget what is over the limit, a few entries at each step."""
        for _ in range(SWEEP_ENTRIES):
            if self.entries <= max_entries or not self.partitions:
                return
            self._oldest.of(self.partitions).give_way()

    def leave(self, partition: Dedupe) -> None:
        """A partition counts elsewhere from now on, or is another member's."""
        self.partitions.remove(partition)
        self.entries -= len(partition)
        self._oldest.reset()


class Dedupe:
    """The claims of one partition."""

    def __init__(self, ttl_seconds: float, max_entries: int, counts: DedupeCounts) -> None:
        self._ttl_ms = int(ttl_seconds * 1000)
        self._max_entries = max_entries
        self._counts = counts
        counts.partitions.append(self)
        self._claims = AgedTable(_OFFSET)
        self._watermark_ms = 0
        self._sweep_at_ms = 0
        """The watermark at which there is something to sweep again."""

    def __len__(self) -> int:
        """How many claims there are."""
        return len(self._claims)

    def claim(self, key: bytes, occurred_at: int, offset: int) -> int | None:
        """Claim a key at a time; returns None, or the offset of the claim of which this is a duplicate.

        A ttl of 0 removes no duplicates.
        """
        if self._ttl_ms == 0:
            return None
        counts = self._counts
        self.judge(occurred_at)
        repeated = self._claims.claim(key, occurred_at, self._ttl_ms, offset)
        if repeated is not None:
            return cast("int", repeated[2])
        counts.entries += 1
        if self._watermark_ms >= self._sweep_at_ms:
            self._sweep()
        if counts.entries > self._max_entries:
            counts.make_room(self._max_entries)
        return None

    def judge(self, occurred_at: int) -> None:
        """Note the time of a record that claims a key or is a duplicate."""
        if occurred_at > self._watermark_ms:
            self._watermark_ms = occurred_at
        elif occurred_at < self._watermark_ms - self._ttl_ms:
            self._counts.late += 1

    def repeated(self, key: bytes, occurred_at: int) -> int | None:
        """The offset of the claim of which this key at this time would be a duplicate; changes nothing."""
        if self._ttl_ms == 0:
            return None
        found = self._claims.near(key, occurred_at, self._ttl_ms)
        return None if found is None else cast("int", found[2])

    def release(self, key: bytes, occurred_at: int, offset: int) -> None:
        """Free the claim of a delivery that ended undelivered, for later records."""
        if self._ttl_ms and self._claims.remove(key, occurred_at, offset):
            self._counts.entries -= 1

    def restore(self, key: bytes, occurred_at: int, offset: int) -> None:
        """Take in the claim of a delivery that was sent before this process had the partition."""
        if self._ttl_ms == 0:
            return
        if occurred_at > self._watermark_ms:
            self.observe(occurred_at)
        if occurred_at < self.needed_from_ms:
            return
        # Two deliveries of one key may have been sent because of a crash: either shows that the key was sent.
        if self._claims.claim(key, occurred_at, self._ttl_ms, offset) is None:
            self._counts.entries += 1
            if self._counts.entries > self._max_entries:
                self._counts.make_room(self._max_entries)

    def advance(self, occurred_at: int) -> None:
        """Note the time of a record that claims nothing: event time goes on without claims, too."""
        if self._ttl_ms and occurred_at > self._watermark_ms:
            self._watermark_ms = occurred_at

    def observe(self, occurred_at: int) -> None:
        """Note the time of a delivery that was judged before this process had the partition."""
        if self._ttl_ms and occurred_at > self._watermark_ms:
            self._watermark_ms = occurred_at
            self._counts.entries -= self._claims.forget_before(self.needed_from_ms, NEVER_MS)

    def count_in(self, counts: DedupeCounts) -> None:
        """Move this partition's counts to other books, and count there from now on."""
        self._counts.leave(self)
        counts.entries += len(self)
        counts.evicted_early += self._counts.evicted_early
        self._counts.evicted_early = 0
        self._counts = counts
        counts.partitions.append(self)

    def forget(self) -> None:
        """Drop all entries: the partition is another member's."""
        self._counts.leave(self)
        self._claims = AgedTable(_OFFSET)

    def age(self) -> tuple[bool, int, int]:
        """The partition with the lowest value must forget a claim: one with outdated claims, then the oldest, then
        the most.
        """
        oldest_ms = self._claims.oldest_ms
        return (oldest_ms >= self.needed_from_ms, oldest_ms, -len(self))

    def give_way(self) -> None:
        """Forget the entry that came first."""
        if outdated := self._claims.forget_before(self.needed_from_ms, 1):
            self._counts.entries -= outdated
        elif self._claims.forget_first():
            self._counts.entries -= 1
            self._counts.evicted_early += 1

    @property
    def needed_from_ms(self) -> int:
        """Claims at or after this time, epoch ms, may still have duplicates."""
        return self._watermark_ms - 2 * self._ttl_ms if self._ttl_ms else NEVER_MS

    def _sweep(self) -> None:
        """Free some outdated entries; if none is left, wait a while before the next sweep."""
        self._counts.entries -= self._claims.forget_before(self.needed_from_ms, SWEEP_ENTRIES)
        if self._claims.oldest_ms >= self.needed_from_ms:
            self._sweep_at_ms = self._watermark_ms + self._ttl_ms // SWEEPS_A_TTL

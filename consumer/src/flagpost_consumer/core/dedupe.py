"""Which track deliveries repeat one that was sent, by event time.

In: keys with their `occurred_at`, in the order of their offsets. Out: the offset of the delivery that is
repeated, or a claim. Two events of one key repeat one another when their times are less than one ttl apart,
on either side; so the claims of a key stand at least one ttl apart.

A claim is forgotten once the watermark, the latest time of all events, has passed it by two ttl: an event one ttl
late may repeat a claim that is another ttl older. There may be millions, so a few go at each step, in the order in
which they came, and no operation walks through all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from flagpost_consumer.core.aged_table import NEVER_MS, AgedTable, Oldest

SWEEP_ENTRIES = 64
"""How many entries one claim frees at most: more than it adds, so that sweeping keeps up."""
SWEEPS_A_TTL = 64
"""How often in one ttl, of event time, outdated entries are swept: many at once take less time."""
_OFFSET = "q"


@dataclass(slots=True)
class DedupeCounts:
    """What the partitions of one process remember together, and what happened to it.

    `dedupe.max_entries` is the process's, so what goes at the limit is what is oldest by event time, whichever
    partition it is of: a quiet partition's claims of yesterday make room for a busy one's of now.
    """

    entries: int = 0
    late: int = 0
    """Events more than one ttl behind their partition's watermark: their judgement may miss a repeat."""
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
        if partition in self.partitions:
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
        """Claim a key at a time, or give the offset of the claim that this repeats.

        A ttl of 0 removes no duplicates.
        """
        if self._ttl_ms == 0:
            return None
        counts = self._counts
        if occurred_at > self._watermark_ms:
            self._watermark_ms = occurred_at
        elif occurred_at < self._watermark_ms - self._ttl_ms:
            counts.late += 1
        repeated = self._claims.claim(key, occurred_at, self._ttl_ms, offset)
        if repeated is not None:
            return cast("int", repeated[2])
        counts.entries += 1
        if self._watermark_ms >= self._sweep_at_ms:
            self._sweep()
        if counts.entries > self._max_entries:
            counts.make_room(self._max_entries)
        return None

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
        # Of two that a crash let be sent, either tells that the key was.
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
        """Count in other books from now on, and move to them what was counted in these."""
        self._counts.leave(self)
        counts.entries += len(self)
        counts.evicted_early += self._counts.evicted_early
        self._counts.evicted_early = 0
        self._counts = counts
        counts.partitions.append(self)

    def forget(self) -> None:
        """Give up all entries: the partition is another member's."""
        self._counts.leave(self)
        self._claims = AgedTable(_OFFSET)

    def age(self) -> tuple[bool, int, int]:
        """The least first, it tells which partition gives way: what is outdated, then what is oldest, of the most."""
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
        """Claims at or after this time, epoch ms, may still be repeated."""
        return self._watermark_ms - 2 * self._ttl_ms if self._ttl_ms else NEVER_MS

    def _sweep(self) -> None:
        """Free some of what is outdated; once there is no more, a while passes until some is swept again."""
        self._counts.entries -= self._claims.forget_before(self.needed_from_ms, SWEEP_ENTRIES)
        if self._claims.oldest_ms >= self.needed_from_ms:
            self._sweep_at_ms = self._watermark_ms + self._ttl_ms // SWEEPS_A_TTL

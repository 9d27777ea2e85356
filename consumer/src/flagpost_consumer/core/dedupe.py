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
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

SWEEP_ENTRIES = 64
"""How many entries one claim frees at most: more than it adds, so that sweeping keeps up."""

VICTIMS_AT_ONCE = 16_384
"""How many entries are chosen at once to be forgotten at the limit: to find the first of a dict from which many have
gone takes a walk past all of these."""
NEVER_MS = 2**63

Slice = dict[int, int]


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
    _victims: _Victims | None = field(default=None, compare=False, repr=False)

    def make_room(self, max_entries: int) -> None:
        """Forget what is over the limit, a few entries at each step."""
        for _ in range(SWEEP_ENTRIES):
            if self.entries <= max_entries or not self._forget_one():
                return

    def forget_victims(self) -> None:
        """Slices are given up as a whole: what was chosen of them to be forgotten is gone."""
        self._victims = None

    def _forget_one(self) -> bool:
        """Forget the oldest entry; False where there is none."""
        while True:
            if self._victims is None or not self._victims.keys:
                self._victims = self._choose_victims()
            if self._victims is None:
                return False
            claims, keys, is_early = self._victims
            if claims.pop(keys.pop(), None) is not None:
                self.entries -= 1
                self.evicted_early += is_early
                return True

    def _choose_victims(self) -> _Victims | None:
        """The next entries to go: those that are outdated, else the first of the oldest slice."""
        for partition in self.partitions:
            if (outdated := partition.outdated) is not None:
                return _Victims.first_of(outdated, is_early=False)
        oldest = [slice_ for partition in self.partitions if (slice_ := partition.oldest) is not None]
        if not oldest:
            return None
        # Of slices that are equally old, the one with the most.
        number = min(number for number, _ in oldest)
        return _Victims.first_of(max((claims for n, claims in oldest if n == number), key=len), is_early=True)


class _Victims(NamedTuple):
    """Entries of one slice that are forgotten next."""

    claims: Slice
    keys: list[int]
    """The one that goes first is the last."""
    is_early: bool

    @classmethod
    def first_of(cls, claims: Slice, *, is_early: bool) -> _Victims:
        """The entries that were made first: a dict keeps the order of its insertions."""
        return cls(claims, list(islice(claims, VICTIMS_AT_ONCE))[::-1], is_early)


class Dedupe:
    """The claims of one partition."""

    def __init__(self, ttl_seconds: float, max_entries: int, counts: DedupeCounts) -> None:
        self._ttl_ms = int(ttl_seconds * 1000)
        self._max_entries = max_entries
        self._counts = counts
        counts.partitions.append(self)
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
        if self._counts.entries > self._max_entries:
            self._counts.make_room(self._max_entries)
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
                self._counts.make_room(self._max_entries)

    def advance(self, occurred_at: int) -> None:
        """Note the time of a record that claims nothing: event time goes on without claims, too."""
        if self._ttl_ms:
            self._advance(occurred_at)

    def observe(self, occurred_at: int) -> None:
        """Note the time of a delivery that was judged before this process had the partition."""
        if self._ttl_ms:
            self._advance(occurred_at)
            if self._outdated:
                self._counts.entries -= sum(map(len, self._outdated))
                self._counts.forget_victims()
                self._outdated.clear()

    def count_in(self, counts: DedupeCounts) -> None:
        """Count in other books from now on, and move to them what was counted in these."""
        held = self._held
        self._leave()
        counts.entries += held
        counts.evicted_early += self._counts.evicted_early
        self._counts.evicted_early = 0
        self._counts = counts
        counts.partitions.append(self)

    def forget(self) -> None:
        """Give up all entries: the partition is another member's."""
        self._leave()
        self._slices.clear()
        self._outdated.clear()

    def _leave(self) -> None:
        self._counts.entries -= self._held
        self._counts.forget_victims()
        if self in self._counts.partitions:
            self._counts.partitions.remove(self)

    @property
    def oldest(self) -> tuple[int, Slice] | None:
        """The oldest slice that holds anything, with its number."""
        for number in sorted(self._slices):
            if self._slices[number]:
                return number, self._slices[number]
        return None

    @property
    def outdated(self) -> Slice | None:
        """A slice that nothing can repeat any more."""
        return next((claims for claims in self._outdated if claims), None)

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

"""Counts visitors: how many were decided, how many were delivered at least once, and why the others were not.

In, in any order: published decisions, settlements, the group's commits, gaps. Out, at any time: for each group (a
flag and its variation; also a day or a service, if the caller wants) the visitors decided, delivered, and lost by
reason; or the state of one visitor. No I/O.

A lost visitor has one reason: among the ends of all its decisions, the one nearest to delivery. A duplicate counts
like the delivery that it duplicates: a visitor whose decision duplicates a delivered one is delivered.

Memory: for each visitor of a group about 150 bytes (a salted 64-bit digest instead of the id, and nine bytes of
state), for each offset that was published or settled nine bytes. `bytes_held` returns it.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypeVar

from flagpost_consumer.core.outcomes import (
    OFFSET_LOST,
    PENDING,
    STANDINGS,
    UNEXPLAINED,
    UNKNOWN,
    Kind,
    Outcome,
    Reason,
)
from flagpost_schemas import LedgerEntry

Group = TypeVar("Group", bound=Hashable)
"""The key by which visitors are counted."""

_RANK = {name: rank for rank, name in enumerate(STANDINGS)}
_DELIVERED = _RANK[Reason.OK]
_PENDING, _UNEXPLAINED = _RANK[PENDING], _RANK[UNEXPLAINED]
_DEDUPE, _UNKNOWN, _OFFSET_LOST = _RANK[Reason.DEDUPE], _RANK[UNKNOWN], _RANK[OFFSET_LOST]
_FURTHEST_BACK = 1 << 32
NO_END = 1 << 63
"""Behind every offset."""
_PAGE_BITS = 12
_PAGE_OFFSETS = 1 << _PAGE_BITS
_IN_PAGE = _PAGE_OFFSETS - 1
_ZEROS = array("I", bytes(4 * _PAGE_OFFSETS))
ENTRY_BYTES = 190
"""Bytes of a digest, the number of its entry, and a place in a table that has just doubled."""
GROUP_BYTES = 1_000
"""Bytes of a group, with its numbers by rank."""
PAGE_BYTES = 9 * _PAGE_OFFSETS + 600
REPEAT_BYTES = 250
UNEXPLAINED_BYTES = 150
OF_METADATA = frozenset({Kind.VISITOR_METADATA.value, Kind.ACCOUNT_METADATA.value})


@dataclass(frozen=True, slots=True)
class VisitorCounts:
    """The visitors of a group."""

    decided: int = 0
    delivered: int = 0
    """At least once."""
    by_reason: dict[str, int] = field(default_factory=dict)
    """Why the others were not, each by one reason: a reason of docs/contract.md#outcomes, `pending`, `unexplained`,
    `offset_lost`, `unknown`. They add up to `lost`.
    """

    @property
    def lost(self) -> int:
        """Visitors who were decided, and not delivered (so far)."""
        return self.decided - self.delivered


def standing_of(outcome: str, reason: str) -> str:
    """The state that a settlement gives its visitor. Its words are the ledger's."""
    return STANDINGS[_rank_of(outcome, reason)]


@lru_cache(maxsize=len(Outcome) * (len(Reason) + 1))
def _rank_of(outcome: str, reason: str) -> int:
    if outcome == Outcome.DELIVERED:
        return _DELIVERED
    rank = _RANK.get(reason, _UNKNOWN)
    return _UNKNOWN if rank >= _UNEXPLAINED else rank  # "ok" is only a reason for a delivery


class _Page:
    """What is known of a stretch of offsets; 0: nothing."""

    __slots__ = ("entry", "original", "settled")

    def __init__(self) -> None:
        self.settled = bytearray(_PAGE_OFFSETS)
        """The nearest rank that was settled, plus one."""
        self.entry = array("I", _ZEROS)
        """Whose decision it is, plus one."""
        self.original = array("I", _ZEROS)
        """For a duplicate: how far back the delivery is that it duplicates."""


class _Partition:
    """The offsets of one partition, in pages, so that they may begin anywhere and come in any order."""

    __slots__ = ("committed", "gaps", "pages", "repeats")

    def __init__(self) -> None:
        self.pages: dict[int, _Page] = {}
        self.committed = 0
        self.gaps: list[tuple[int, int]] = []
        self.repeats: dict[int, list[int]] = {}
        """For an offset, the entries of other groups with a duplicate of it, which wait for its end."""

    def page(self, offset: int) -> _Page:
        """The page of an offset."""
        number = offset >> _PAGE_BITS
        page = self.pages.get(number)
        if page is None:
            page = self.pages[number] = _Page()
        return page

    def is_lost(self, offset: int) -> bool:
        """Whether an offset lies in a gap."""
        return any(first <= offset < end for first, end in self.gaps)

    def open_entries(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """The decisions from `first` to before `end` that are not settled: offset and entry."""
        for number, page in self.pages.items():
            start = number << _PAGE_BITS
            for at in range(max(first - start, 0), min(end - start, _PAGE_OFFSETS)):
                if page.entry[at] and not page.settled[at]:
                    yield start + at, page.entry[at] - 1


class Visitors(Generic[Group]):
    """The visitors of some groups."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}
        self._groups: dict[Group, int] = {}
        self._counts: list[list[int]] = []
        """For each group the number of visitors by rank."""
        self._numbers: dict[int, int] = {}
        """From a digest of group and visitor to the number of their entry."""
        self._group_of = array("I")
        self._open = array("I")
        """For each entry, how many of its decisions are not settled."""
        self._best = bytearray()
        """For each entry the nearest rank that was settled, plus one; 0: nothing."""
        self._unexplained: dict[int, int] = {}
        """For an entry, how many of its open decisions are below the commit."""
        self._repeats = 0
        """Duplicates that wait for the end of other entries' offsets, in all partitions, at most."""

    def __len__(self) -> int:
        """The number of visitors, each once in every group."""
        return len(self._best)

    @property
    def group_count(self) -> int:
        """How many groups have visitors."""
        return len(self._groups)

    @property
    def bytes_held(self) -> int:
        """Bytes in memory, at most."""
        return (
            ENTRY_BYTES * len(self._best)
            + GROUP_BYTES * len(self._groups)
            + PAGE_BYTES * sum(len(place.pages) for place in self._partitions.values())
            + REPEAT_BYTES * self._repeats
            + UNEXPLAINED_BYTES * len(self._unexplained)
        )

    def counts(self) -> dict[Group, VisitorCounts]:
        """The present counts."""
        return {group: _as_counts(self._counts[number]) for group, number in self._groups.items()}

    def standing(self, group: Group, visitor_id: str) -> str | None:
        """The state of one visitor: a word of STANDINGS; None: never decided."""
        number = self._numbers.get(hash((group, visitor_id)))
        return None if number is None else STANDINGS[self._rank(number)]

    def publish(self, partition: int, offset: int, group: Group, visitor_id: str) -> None:
        """A decision is on the events topic; each offset once."""
        place = self._place(partition)
        page, at = place.page(offset), offset & _IN_PAGE
        number, before = self._entry(group, visitor_id)
        page.entry[at] = number + 1
        settled = page.settled[at]
        if not settled and place.gaps and place.is_lost(offset):
            settled = page.settled[at] = _OFFSET_LOST + 1
        if settled:
            self._come_to(number, settled)
        else:
            self._wait(number, is_unexplained=offset < place.committed)
        if page.original[at]:
            self._follow(place, offset - page.original[at], number)
        self._move(number, before)

    def settle(self, partition: int, entries: Iterable[LedgerEntry], end: int = NO_END) -> None:
        """Count settlements of the ledger; it may hold several of one delivery, if several members settled it.

        Args:
            partition: of the events topic.
            entries: of one or more ledger records.
            end: entries with this offset or a later one are left out.
        """
        place = self._place(partition)
        for entry in entries:
            offset, kind, outcome, reason = entry[:4]
            if kind in OF_METADATA or offset >= end:
                continue
            rank = _rank_of(outcome, reason)
            page, at = place.page(offset), offset & _IN_PAGE
            if rank == _DEDUPE and entry.duplicate_of is not None and not page.original[at]:
                self._repeat(place, page, offset, entry.duplicate_of)
            if page.settled[at] <= rank:
                self._end(place, page, offset, rank)

    def commit(self, partition: int, offset: int) -> None:
        """The group's position in a partition: what is not settled below it is unexplained, not pending."""
        place = self._place(partition)
        before, place.committed = place.committed, offset
        step = 1 if offset > before else -1
        first, end = min(before, offset), max(before, offset)
        for _, number in place.open_entries(first, end):
            rank = self._rank(number)
            self._unexplained[number] = self._unexplained.get(number, 0) + step
            self._move(number, rank)
        for original in (each for each in place.repeats if first <= each < end):
            if not place.page(original).settled[original & _IN_PAGE]:
                for number in place.repeats[original]:
                    rank = self._rank(number)
                    self._open[number] -= step
                    self._move(number, rank)

    def lose(self, partition: int, first: int, end: int) -> None:
        """The group could not read the offsets from `first` to before `end`: a gap of the ledger."""
        place = self._place(partition)
        place.gaps.append((first, end))
        for offset, _ in list(place.open_entries(first, end)):
            self._end(place, place.page(offset), offset, _OFFSET_LOST)

    def finish(self, partition: int) -> None:
        """Forget the offsets of a partition that is finished; its visitors keep their state."""
        self._partitions.pop(partition, None)

    def _place(self, partition: int) -> _Partition:
        place = self._partitions.get(partition)
        if place is None:
            place = self._partitions[partition] = _Partition()
        return place

    def _entry(self, group: Group, visitor_id: str) -> tuple[int, int | None]:
        """The number of a visitor's entry, and its rank; None: it is new."""
        digest = hash((group, visitor_id))
        number = self._numbers.get(digest)
        if number is not None:
            return number, self._rank(number)
        number = self._numbers[digest] = len(self._best)
        self._group_of.append(self._group_number(group))
        self._open.append(0)
        self._best.append(0)
        return number, None

    def _group_number(self, group: Group) -> int:
        number = self._groups.get(group)
        if number is None:
            number = self._groups[group] = len(self._counts)
            self._counts.append([0] * len(STANDINGS))
        return number

    def _end(self, place: _Partition, page: _Page, offset: int, rank: int) -> None:
        """A delivery has ended, or a settlement nearer to delivery was found."""
        at = offset & _IN_PAGE
        was_open, page.settled[at] = not page.settled[at], rank + 1
        if page.entry[at]:
            number = page.entry[at] - 1
            before = self._rank(number)
            if was_open:
                self._wait_no_more(number, is_unexplained=offset < place.committed)
            self._come_to(number, rank + 1)
            self._move(number, before)
        waited = was_open and offset >= place.committed
        for number in place.repeats.get(offset, ()):
            before = self._rank(number)
            self._open[number] -= waited
            self._come_to(number, rank + 1)
            self._move(number, before)

    def _repeat(self, place: _Partition, page: _Page, offset: int, original: int) -> None:
        """A delivery is a duplicate of an earlier one."""
        if not 0 < offset - original < _FURTHEST_BACK:
            return
        at = offset & _IN_PAGE
        page.original[at] = offset - original
        if page.entry[at]:
            number = page.entry[at] - 1
            before = self._rank(number)
            self._follow(place, original, number)
            self._move(number, before)

    def _follow(self, place: _Partition, original: int, number: int) -> None:
        """An entry has a duplicate of the delivery at `original`: it gets that one's state."""
        page, at = place.page(original), original & _IN_PAGE
        if page.entry[at] == number + 1:  # it has that state already
            return
        self._come_to(number, page.settled[at])
        if not page.settled[at] and original >= place.committed:
            self._open[number] += 1
        place.repeats.setdefault(original, []).append(number)
        self._repeats += 1

    def _come_to(self, number: int, settled: int) -> None:
        """A decision of an entry has ended; `settled` is its rank plus one."""
        self._best[number] = max(self._best[number], settled)

    def _wait(self, number: int, *, is_unexplained: bool) -> None:
        self._open[number] += 1
        if is_unexplained:
            self._unexplained[number] = self._unexplained.get(number, 0) + 1

    def _wait_no_more(self, number: int, *, is_unexplained: bool) -> None:
        self._open[number] -= 1
        if is_unexplained:
            self._unexplained[number] -= 1

    def _rank(self, number: int) -> int:
        best = self._best[number]
        if best == _DELIVERED + 1 or not self._open[number]:
            return best - 1
        return _PENDING if self._open[number] > self._unexplained.get(number, 0) else _UNEXPLAINED

    def _move(self, number: int, before: int | None) -> None:
        """Count an entry in its present state."""
        counts = self._counts[self._group_of[number]]
        if before is not None:
            counts[before] -= 1
        counts[self._rank(number)] += 1


def _as_counts(by_rank: list[int]) -> VisitorCounts:
    lost = {STANDINGS[rank]: count for rank, count in enumerate(by_rank) if count and rank != _DELIVERED}
    return VisitorCounts(sum(by_rank), by_rank[_DELIVERED], dict(reversed(lost.items())))

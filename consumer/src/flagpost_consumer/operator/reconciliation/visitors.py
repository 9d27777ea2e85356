"""Counts visitors: how many were decided, how many were delivered at least once, and why the others were not.

In, one after the other and in any order: published decisions, settlements, the group's commits, gaps. Out, at any
time: for each group (a flag and its variation; with a day or a service besides, if the caller wants) the visitors
decided, delivered, and lost by reason; or how one visitor stands. No I/O.

A visitor who was lost has one reason: of all that became of the visitor's decisions, the one nearest to delivery.
A duplicate stands for what it repeats: a visitor whose decision repeats a delivered one is delivered.

What it holds: for each visitor of a group about 150 bytes (a salted 64-bit digest instead of the id, and nine bytes
of state), for each offset that was published or settled nine bytes. `tests/unit/test_visitors.py` measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flagpost_consumer.core.outcomes import Kind, Outcome, Reason

Group = TypeVar("Group", bound=Hashable)
"""What visitors are counted by."""

PENDING = "pending"
UNEXPLAINED = "unexplained"
UNKNOWN = "unknown"
"""A reason that only a later release knows."""
OFFSET_LOST = "offset_lost"
"""The group could not read the decision: it lies in a gap that the ledger tells of."""

FURTHEST_FIRST = (
    OFFSET_LOST,
    Reason.UNDECODABLE,
    Reason.UNKNOWN_SCHEMA,
    UNKNOWN,
    Reason.INVALID,
    Reason.NO_VISITOR_ID,
    Reason.SUPPRESSED,
    Reason.NOT_SELECTED,
    Reason.NO_CONSENT,
    Reason.FLAG_FILTERED,
    Reason.NOT_DISPATCHED,
    Reason.FIELD_MISSING,
    Reason.SUPERSEDED,
    Reason.UNCHANGED,
    Reason.DEDUPE,
    Reason.VISITOR_BACKLOG,
    Reason.EXPIRED,
    Reason.ATTEMPTS_EXHAUSTED,
    Reason.REJECTED,
    UNEXPLAINED,
    PENDING,
    Reason.OK,
)
"""How near to delivery a decision came: the order of CONTRACT section 8's checks, then what Pendo was asked."""

STANDINGS = tuple(str(each) for each in FURTHEST_FIRST)
"""How a visitor can stand; the last one is delivered."""

_RANK = {name: rank for rank, name in enumerate(STANDINGS)}
_DELIVERED = _RANK[Reason.OK]
_PENDING, _UNEXPLAINED = _RANK[PENDING], _RANK[UNEXPLAINED]
_DEDUPE, _UNKNOWN, _OFFSET_LOST = _RANK[Reason.DEDUPE], _RANK[UNKNOWN], _RANK[OFFSET_LOST]
_FURTHEST_BACK = 1 << 32
_PAGE_BITS = 12
_PAGE_OFFSETS = 1 << _PAGE_BITS
_IN_PAGE = _PAGE_OFFSETS - 1
_ZEROS = array("I", bytes(4 * _PAGE_OFFSETS))
_METADATA = frozenset({Kind.VISITOR_METADATA.value, Kind.ACCOUNT_METADATA.value})


@dataclass(frozen=True, slots=True)
class VisitorCounts:
    """The visitors of a group."""

    decided: int = 0
    delivered: int = 0
    """At least once."""
    by_reason: dict[str, int] = field(default_factory=dict)
    """Why the others were not, each by one reason: a reason of CONTRACT section 8, `pending`, `unexplained`,
    `offset_lost`, `unknown`. They add up to `lost`."""

    @property
    def lost(self) -> int:
        """Those who were decided, and not delivered (so far)."""
        return self.decided - self.delivered


def standing_of(outcome: str, reason: str) -> str:
    """How a settlement lets its visitor stand. Its words are the ledger's."""
    return STANDINGS[_rank_of(outcome, reason)]


def _rank_of(outcome: str, reason: str) -> int:
    if outcome == Outcome.DELIVERED:
        return _DELIVERED
    rank = _RANK.get(reason, _UNKNOWN)
    return _UNKNOWN if rank >= _UNEXPLAINED else rank  # "ok" is no reason for anything but a delivery


class _Page:
    """What is known of a stretch of offsets; 0: nothing."""

    __slots__ = ("entry", "original", "settled")

    def __init__(self) -> None:
        self.settled = bytearray(_PAGE_OFFSETS)
        """The nearest rank that was settled, plus one."""
        self.entry = array("I", _ZEROS)
        """Whose decision it is, plus one."""
        self.original = array("I", _ZEROS)
        """Of a duplicate: how far back lies what it repeats."""


class _Partition:
    """The offsets of one partition, in pages, so that they may begin anywhere and come in any order."""

    __slots__ = ("committed", "gaps", "pages", "repeats")

    def __init__(self) -> None:
        self.pages: dict[int, _Page] = {}
        self.committed = 0
        self.gaps: list[tuple[int, int]] = []
        self.repeats: dict[int, list[int]] = {}
        """An offset to the entries of other groups with a duplicate of it: they wait for its end."""

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
        """A digest of group and visitor to the number of their entry."""
        self._group_of = array("I")
        self._open = array("I")
        """For each entry, how many of its decisions are not settled."""
        self._best = bytearray()
        """For each entry the nearest rank that was settled, plus one; 0: nothing."""
        self._unexplained: dict[int, int] = {}
        """Of an entry's open decisions, how many lie below the commit."""

    def __len__(self) -> int:
        """How many visitors are held, each once in every group."""
        return len(self._best)

    def counts(self) -> dict[Group, VisitorCounts]:
        """How it stands now."""
        return {group: _as_counts(self._counts[number]) for group, number in self._groups.items()}

    def standing(self, group: Group, visitor_id: str) -> str | None:
        """How one visitor stands: a word of STANDINGS; None: never decided."""
        number = self._numbers.get(hash((group, visitor_id)))
        return None if number is None else STANDINGS[self._rank(number)]

    def publish(self, partition: int, offset: int, group: Group, visitor_id: str) -> None:
        """A decision is on the events topic; each offset once."""
        place = self._place(partition)
        page, at = place.page(offset), offset & _IN_PAGE
        number, before = self._entry(group, visitor_id)
        page.entry[at] = number + 1
        if not page.settled[at] and place.gaps and place.is_lost(offset):
            page.settled[at] = _OFFSET_LOST + 1
        if page.settled[at]:
            self._best[number] = max(self._best[number], page.settled[at])
        else:
            self._wait(number, is_unexplained=offset < place.committed)
        if page.original[at]:
            self._follow(place, offset - page.original[at], number)
        self._move(number, before)

    def settle(
        self,
        partition: int,
        offset: int,
        kind: str,
        outcome: str,
        reason: str,
        duplicate_of: int | None = None,
    ) -> None:
        """The ledger settles a delivery; more than once, if several members did. Words are the ledger's."""
        if kind in _METADATA:
            return
        rank = _rank_of(outcome, reason)
        place = self._place(partition)
        page, at = place.page(offset), offset & _IN_PAGE
        if rank == _DEDUPE and duplicate_of is not None and not page.original[at]:
            self._repeat(place, page, offset, duplicate_of)
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
        """Forget the offsets of a partition of which nothing more comes; its visitors stay as they stand."""
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
        """A delivery has ended, or has come nearer than was known."""
        at = offset & _IN_PAGE
        was_open, page.settled[at] = not page.settled[at], rank + 1
        if page.entry[at]:
            number = page.entry[at] - 1
            before = self._rank(number)
            if was_open:
                self._wait_no_more(number, is_unexplained=offset < place.committed)
            self._best[number] = max(self._best[number], rank + 1)
            self._move(number, before)
        waited = was_open and offset >= place.committed
        for number in place.repeats.get(offset, ()):
            before = self._rank(number)
            self._open[number] -= waited
            self._best[number] = max(self._best[number], rank + 1)
            self._move(number, before)

    def _repeat(self, place: _Partition, page: _Page, offset: int, original: int) -> None:
        """A delivery is a duplicate of another, which lies before it."""
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
        """An entry has a duplicate of what lies at `original`: it stands as that does."""
        page, at = place.page(original), original & _IN_PAGE
        if page.entry[at] == number + 1:  # then it stands so already
            return
        self._best[number] = max(self._best[number], page.settled[at])
        if not page.settled[at] and original >= place.committed:
            self._open[number] += 1
        place.repeats.setdefault(original, []).append(number)

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
        """Count an entry where it stands now."""
        counts = self._counts[self._group_of[number]]
        if before is not None:
            counts[before] -= 1
        counts[self._rank(number)] += 1


def _as_counts(by_rank: list[int]) -> VisitorCounts:
    lost = {STANDINGS[rank]: count for rank, count in enumerate(by_rank) if count and rank != _DELIVERED}
    return VisitorCounts(sum(by_rank), by_rank[_DELIVERED], dict(reversed(lost.items())))

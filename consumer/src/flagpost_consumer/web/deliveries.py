"""Counts deliveries like `flagpost reconcile`, but one record at a time, in any order.

In: published records, settlements, the group's commits, gaps, replays. Out, at any time: the counts by flag and
variation that `reconcile.counting` makes of a whole window. No I/O. About nine bytes for each offset, in pages.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Final

from flagpost_consumer.commands.reconcile.counting import (
    Counts,
    Interval,
    Published,
    Row,
    kinds_given,
    sum_of,
)
from flagpost_consumer.commands.reconcile.settled import Delivered, Settled, ended
from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.core.outcomes import Kind, Outcome
from flagpost_schemas import LedgerEntry

PAGE_OFFSETS: Final = 4_096
PAGE_BYTES: Final = PAGE_OFFSETS * 9 + 1_500
REMARK_BYTES: Final = 400
"""Bytes of an offset with more information than how it ended."""
ROW_BYTES: Final = 3_000
"""Bytes of a flag and variation, including what two views hold of it, without its names."""
REPLAYED_BYTES: Final = 200
_BIT: Final = {kind: 1 << place for place, kind in enumerate(Kind)}
_KINDS: Final = tuple(tuple(kind for kind in Kind if mask & _BIT[kind]) for mask in range(1 << len(_BIT)))
"""The kinds for each bit mask."""
_METADATA: Final = (Kind.VISITOR_METADATA, Kind.ACCOUNT_METADATA)
_OTHER: Final = 1
"""The row of a record without a flag; 0: there is no record."""


class _Page:
    """A range of offsets."""

    __slots__ = ("planned", "row", "settled")

    def __init__(self, first: int) -> None:
        self.row = array("I", bytes(4 * PAGE_OFFSETS))
        self.planned = bytearray(PAGE_OFFSETS)
        """The planned kinds, as a bit mask."""
        self.settled = Settled(Span(first, first + PAGE_OFFSETS))


@dataclass(slots=True)
class _Partition:
    pages: dict[int, _Page] = field(default_factory=dict)
    committed: int = 0
    gaps: list[Interval] = field(default_factory=list)
    replayed: set[Delivered] = field(default_factory=set)

    def page(self, offset: int) -> _Page:
        """The page of an offset."""
        first = offset - offset % PAGE_OFFSETS
        page = self.pages.get(first)
        if page is None:
            page = self.pages[first] = _Page(first)
        return page

    def offsets(self, first: int, end: int) -> list[int]:
        """The offsets of a range that are on a page."""
        stretches = (range(max(first, start), min(end, start + PAGE_OFFSETS)) for start in self.pages)
        return [offset for stretch in stretches for offset in stretch]

    def is_lost(self, offset: int) -> bool:
        """Whether an offset is in a gap."""
        return any(first <= offset < end for first, end in self.gaps)


class Deliveries:
    """The deliveries of a window."""

    def __init__(self) -> None:
        self.rows: dict[Row, Counts] = {}
        self.other = Counts()
        """Track deliveries without a flag, and undecodable records."""
        self.metadata = Counts()
        self._partitions: defaultdict[int, _Partition] = defaultdict(_Partition)
        self._numbers: dict[Row, int] = {}
        self._by_number: list[Counts] = [Counts(), self.other]
        self._text_bytes = 0
        """Bytes of the rows' names: publishers decide their length."""

    @property
    def totals(self) -> Counts:
        """All track deliveries."""
        return sum_of((*self.rows.values(), self.other))

    @property
    def bytes_held(self) -> int:
        """Bytes in memory, at most."""
        places = self._partitions.values()
        pages = [page for place in places for page in place.pages.values()]
        return (
            PAGE_BYTES * len(pages)
            + REMARK_BYTES * sum(len(page.settled.remarked) for page in pages)
            + REPLAYED_BYTES * sum(len(place.replayed) for place in places)
            + ROW_BYTES * len(self.rows)
            + self._text_bytes
        )

    def outcome(self, partition: int, offset: int) -> Outcome | None:
        """How a record's track delivery ended; None: the ledger does not say."""
        how = ended(self._partitions[partition].page(offset).settled.endings(offset), Kind.TRACK)
        return None if how is None else how.outcome

    def publish(self, record: Published) -> None:
        """Count a record of the events topic. Call it once for each offset."""
        place = self._partitions[record.partition]
        page, at = place.page(record.offset), record.offset % PAGE_OFFSETS
        page.row[at] = self._number(record.row)
        page.planned[at] = sum(_BIT[kind] for kind in record.kinds)
        self._count(place, record.offset, 1)

    def settle(self, partition: int, entry: LedgerEntry) -> None:
        """Count a settlement. Raises LaterRelease."""
        place = self._partitions[partition]
        self._count(place, entry.offset, -1)
        place.page(entry.offset).settled.add((entry,))
        self._count(place, entry.offset, 1)

    def commit(self, partition: int, offset: int) -> None:
        """Note the group's position: what is unsettled below it is unexplained, not pending."""
        place = self._partitions[partition]
        moved = place.offsets(min(place.committed, offset), max(place.committed, offset))
        for each in moved:
            self._count(place, each, -1)
        place.committed = offset
        for each in moved:
            self._count(place, each, 1)

    def lose(self, partition: int, first: int, end: int) -> None:
        """Note offsets that the group could not read; those that are settled anyway are not lost."""
        place = self._partitions[partition]
        lost = place.offsets(first, end)
        for each in lost:
            self._count(place, each, -1)
        place.gaps.append((first, end))
        for each in lost:
            self._count(place, each, 1)

    def replay(self, partition: int, delivery: Delivered) -> None:
        """Note that a delivery's dead letter was put back on the events topic."""
        place, (offset, _) = self._partitions[partition], delivery
        self._count(place, offset, -1)
        place.replayed.add(delivery)
        self._count(place, offset, 1)

    def _number(self, row: Row | None) -> int:
        """The number of a row, from 1; 0 means that there is no record."""
        if row is None:
            return _OTHER
        number = self._numbers.get(row)
        if number is None:
            number = self._numbers[row] = len(self._by_number)
            self.rows[row] = Counts()
            self._text_bytes += sum(map(getsizeof, filter(None, row)))
            self._by_number.append(self.rows[row])
        return number

    def _count(self, place: _Partition, offset: int, step: int) -> None:
        """Count a record's deliveries in their present state; `step` -1: take them out of the counts."""
        page, at = place.page(offset), offset % PAGE_OFFSETS
        number, settled = page.row[at], page.settled
        if not number:
            return
        endings = settled.endings(offset)
        if not endings and place.is_lost(offset):
            return
        for kind in kinds_given(_KINDS[page.planned[at]], endings):
            counts = self.metadata if kind in _METADATA else self._by_number[number]
            counts.published += step
            if kind is Kind.TRACK:
                counts.unseen += step * settled.unseen(offset)
            how = ended(endings, kind)
            if how is not None:
                counts.end(how, step)
                counts.sent_again += step * settled.sent_again(offset, kind)
                if how.outcome is Outcome.DEAD_LETTERED and (offset, kind) in place.replayed:
                    counts.replayed += step
            elif offset >= place.committed:
                counts.pending += step
            else:
                counts.unexplained += step

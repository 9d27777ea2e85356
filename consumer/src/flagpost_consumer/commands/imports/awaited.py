"""The rows that Kafka has and the ledger has not settled yet, 17 bytes each: 17 MB for a million rows.

In: places in the events topic, as Kafka acknowledges them; places that the ledger settles. Out: the rows' lines.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple


class AwaitedRow(NamedTuple):
    """A row, and where its record is."""

    line: int
    partition: int
    offset: int


class _Partition:
    """The rows of one partition; Kafka acknowledges them in the order of their offsets."""

    def __init__(self) -> None:
        self.offsets = array("q")
        self.lines = array("q")
        self.ended = bytearray()

    def add(self, line: int, offset: int) -> None:
        place = len(self.offsets)
        if place and offset < self.offsets[-1]:
            place = bisect_left(self.offsets, offset)
        self.offsets.insert(place, offset)
        self.lines.insert(place, line)
        self.ended.insert(place, 0)

    def end(self, offset: int) -> int | None:
        place = bisect_left(self.offsets, offset)
        if place == len(self.offsets) or self.offsets[place] != offset or self.ended[place]:
            return None
        self.ended[place] = 1
        return self.lines[place]


class Awaited:
    """The rows of one import."""

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}
        self.total = 0
        self.left = 0
        """How many have not ended."""

    def add(self, line: int, partition: int, offset: int) -> None:
        """Kafka has a row."""
        self._partitions.setdefault(partition, _Partition()).add(line, offset)
        self.total += 1
        self.left += 1

    def end(self, partition: int, offset: int) -> int | None:
        """A place is settled; returns the row's line. None: it is not ours, or has ended before."""
        rows = self._partitions.get(partition)
        line = None if rows is None else rows.end(offset)
        self.left -= line is not None
        return line

    def rest(self) -> Iterator[AwaitedRow]:
        """Those that have not ended."""
        for number, rows in sorted(self._partitions.items()):
            for offset, line, ended in zip(rows.offsets, rows.lines, rows.ended, strict=True):
                if not ended:
                    yield AwaitedRow(line, number, offset)

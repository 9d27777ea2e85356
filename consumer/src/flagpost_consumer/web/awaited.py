"""Whose decisions have not been delivered yet, among those that count for sample ratios.

In: partitions and offsets of decisions, and the digests of their visitors. Out: the visitor of a decision. No I/O.
Eight bytes for each offset, in pages.
"""

from __future__ import annotations

from array import array
from typing import Final

PAGE_OFFSETS: Final = 4_096
PAGE_BYTES: Final = 8 * PAGE_OFFSETS + 500


class Awaited:
    """The decisions of one window."""

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], array[int]] = {}
        """By partition and number of the page: a digest for each offset; 0: none."""

    @property
    def bytes_held(self) -> int:
        """Bytes in memory, at most."""
        return PAGE_BYTES * len(self._pages)

    def add(self, partition: int, offset: int, visitor: int) -> None:
        """Note a visitor's decision at an offset. (The digest 0, one of 2**64, counts as none.)"""
        number, at = divmod(offset, PAGE_OFFSETS)
        page = self._pages.get((partition, number))
        if page is None:
            page = self._pages[partition, number] = array("q", bytes(8 * PAGE_OFFSETS))
        page[at] = visitor

    def of(self, partition: int, offset: int) -> int | None:
        """The visitor of the decision at an offset; None: none was noted."""
        number, at = divmod(offset, PAGE_OFFSETS)
        page = self._pages.get((partition, number))
        return None if page is None else page[at] or None

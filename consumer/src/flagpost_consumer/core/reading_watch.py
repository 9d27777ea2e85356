"""Which partitions have records to read, may be read, and are not.

In: how far each partition is read and where it ends, again and again; what is paused. Out: partitions that have stood
still for a minute. The reason is outside, or a defect of ours: nothing that we know of forbids the reading.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

STILL_SECONDS = 60.0


class ReadingWatch:
    """The partitions of one process."""

    def __init__(self) -> None:
        self._positions: dict[int, tuple[int, float]] = {}
        """The position of each partition that could be read and has something, and since when it has been there."""

    def note(self, unread: Mapping[int, tuple[int, int]], paused: Collection[int], now: float) -> None:
        """`unread`: position and end of each partition; `paused`: those that we do not want to read just now."""
        behind = {n: position for n, (position, end) in unread.items() if position < end and n not in paused}
        self._positions = {n: self._since(n, position, now) for n, position in behind.items()}

    def still(self, now: float) -> set[int]:
        """Partitions that have had something to read for a minute, at the same position."""
        return {n for n, (_, since) in self._positions.items() if now - since >= STILL_SECONDS}

    def _since(self, number: int, position: int, now: float) -> tuple[int, float]:
        known = self._positions.get(number)
        return known if known is not None and known[0] == position else (position, now)

"""Which partitions have records to read, may be read, and are not read.

In: how far each partition is read and where it ends, again and again; which are paused. Out: partitions that have
stood still for a minute. The cause is outside, or a defect of ours: nothing that we know of prevents reading.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

STILL_SECONDS = 60.0
AWAY_SECONDS = 60.0
"""A partition that comes back within this time, and is not read from a later position, has made no progress: Kafka's
client was replaced because of it.
"""


class ReadingWatch:
    """The partitions of one process."""

    def __init__(self) -> None:
        self._positions: dict[int, tuple[int, float]] = {}
        """The position of each partition that could be read and has records, and since when it has been there."""
        self._away: dict[int, tuple[int, float, float]] = {}
        """The same for partitions that are not ours now, and when they were last ours."""

    def note(self, unread: Mapping[int, tuple[int, int]], paused: Collection[int], now: float) -> None:
        """`unread`: position and end of each partition; `paused`: those that we do not want to read now."""
        behind = {n: position for n, (position, end) in unread.items() if position < end and n not in paused}
        gone = {n: (*known, now) for n, known in self._positions.items() if n not in unread}
        kept = {n: each for n, each in self._away.items() if now - each[2] < AWAY_SECONDS}
        self._positions = {n: self._since(n, position, now) for n, position in behind.items()}
        self._away = {n: each for n, each in {**kept, **gone}.items() if n not in unread}

    def still(self, now: float) -> set[int]:
        """Partitions that have had records to read for a minute, at the same position."""
        return {n for n, (_, since) in self._positions.items() if now - since >= STILL_SECONDS}

    def _since(self, number: int, position: int, now: float) -> tuple[int, float]:
        known = self._positions.get(number) or self._away.get(number)
        return position, known[1] if known is not None and position <= known[0] else now

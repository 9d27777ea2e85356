"""Partitions of which Kafka's client brings nothing although there is something to read.

In: again and again, how far each partition is read, and where Kafka says that it ends. Out: the partitions whose ends
are to be asked for, and those that have been silent for so long that the client is to be replaced. It does no I/O.

librdkafka keeps what it knows of a partition's leader for as long as it lives, and takes no older word of it. What it
has got wrong, a new client begins without. What a new client does not help is given more time each time: a log may
have a long stretch in which there is nothing for us, and Kafka may hold a client back.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

ASK_SECONDS = 5.0
"""After standing still for so long, a partition's end is asked for from beside: the client may not know of it."""
SILENT_SECONDS = 30.0
"""A partition that has something to read and brings nothing for so long is silent."""
MOST_SILENT_SECONDS = 960.0
"""The same, after clients have been replaced in vain; each time it is twice as long."""
UNNOTED_SECONDS = 5.0
"""What was not looked at for so long is looked at anew: the thread may have stood still, and not the partition."""


class ReadingSilence:
    """The partitions of one process."""

    def __init__(self) -> None:
        self._still: dict[int, tuple[int, float]] = {}
        """The position of each partition that may be read, and since when it has been there."""
        self._unread: dict[int, tuple[int, float]] = {}
        """The same of those whose end is known to be elsewhere."""
        self._noted_at = -inf
        self._replaced_at = -inf
        self._patience_seconds = SILENT_SECONDS

    def note(self, positions: Mapping[int, int], ends: Mapping[int, int], now: float) -> None:
        """`positions`: of the partitions that may be read just now; `ends`: what Kafka has just told of them.

        An end below the position counts too: the log is another one than the client thinks.
        """
        if now - self._noted_at > UNNOTED_SECONDS:
            self._still, self._unread = {}, {}
        self._noted_at = now
        unread = {n: position for n, position in positions.items() if ends.get(n, position) != position}
        self._still = _since(self._still, positions, now)
        self._unread = _since(self._unread, unread, now)
        if now - self._replaced_at > 3 * self._patience_seconds:
            self._patience_seconds = SILENT_SECONDS

    def asked(self, now: float) -> set[int]:
        """Partitions whose ends are to be asked for."""
        return {n for n, (_, since) in self._still.items() if now - since >= ASK_SECONDS}

    def silent(self, now: float) -> set[int]:
        """Partitions that make a new client necessary."""
        return {n for n, (_, since) in self._unread.items() if now - since >= self._patience_seconds}

    def replaced(self, now: float) -> None:
        """The client is replaced because of this silence."""
        self._still, self._unread = {}, {}
        self._replaced_at = now
        self._patience_seconds = min(2 * self._patience_seconds, MOST_SILENT_SECONDS)


def _since(
    before: Mapping[int, tuple[int, float]], positions: Mapping[int, int], now: float
) -> dict[int, tuple[int, float]]:
    """Since when each partition has been at its position."""
    return {
        n: known if (known := before.get(n)) is not None and known[0] == position else (position, now)
        for n, position in positions.items()
    }

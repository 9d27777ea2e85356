"""Partitions of which Kafka's client returns no records although there are some.

In: again and again, how far each partition is read, and where Kafka says that it ends. Out: the partitions whose ends
should be asked for, and those that have been silent for so long that the client must be replaced. It does no I/O.

librdkafka keeps what it knows of a partition's leader for as long as it lives, and ignores older information about
it. A new client begins without such errors. If a new client does not help, each further one is given more time: a log
may have a long stretch without records for us, and Kafka may throttle a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

ASK_SECONDS = 5.0
"""After standing still this long, a partition's end is asked for through another client: this one may not know it."""
SILENT_SECONDS = 30.0
"""A partition is silent if it has records and none is returned for this long."""
MOST_SILENT_SECONDS = 960.0
"""The upper limit of the same; it doubles each time a replaced client did not help."""
UNNOTED_SECONDS = 5.0
"""After this long without a look, waiting begins again: the thread may have stood still, and not the partition."""


class ReadingSilence:
    """The partitions of one process."""

    def __init__(self) -> None:
        self._still: dict[int, tuple[int, float]] = {}
        """The position of each partition that may be read, and since when it has been there."""
        self._unread: dict[int, tuple[int, float]] = {}
        """The same for those whose end is known to be another."""
        self._noted_at = -inf
        self._replaced_at = -inf
        self._patience_seconds = SILENT_SECONDS

    def note(self, positions: Mapping[int, int], ends: Mapping[int, int], now: float) -> None:
        """`positions`: of the partitions that may be read now; `ends`: what Kafka has just said of them.

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
        """Partitions whose ends should be asked for."""
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

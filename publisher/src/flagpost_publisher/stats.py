"""What became of the events, as numbers.

In: one call for each thing that happened, from any thread. Out: `PublisherStats`.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """Counts since the publisher began in this process; a forked child starts at 0.

    `accepted` were handed to Kafka (duplicates are not among them) and are now `delivered` (acknowledged by Kafka),
    `failed` or `queued`. `refused` were not accepted; `duplicates` did not need to be.
    """

    accepted: int = 0
    delivered: int = 0
    duplicates: int = 0
    refused: int = 0
    failed: int = 0
    queued: int = 0


class Tally:
    """Two counters that threads share."""

    def __init__(self) -> None:
        """Both begin at 0."""
        self._lock = RLock()  # re-entrant: a signal handler may call decide()
        self.duplicates = 0
        self.refused = 0

    def add_duplicate(self) -> None:
        """One event was suppressed."""
        with self._lock:
            self.duplicates += 1

    def add_refused(self) -> None:
        """One event was not accepted."""
        with self._lock:
            self.refused += 1

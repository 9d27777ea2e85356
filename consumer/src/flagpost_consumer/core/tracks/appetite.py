"""Whether records are wanted now, or should wait in Kafka's client.

In: how many visitors' next events could start at once, and the time. Out: whether more records are wanted. A record
that is taken in long before it can be sent costs a fifth more CPU: it is a dozen objects, which leave the processor's
caches, and which the garbage collector walks through. So while what is here starts within a moment, little more is
taken in (docs/decisions/0038).
"""

from __future__ import annotations

PATIENCE_SECONDS = 0.25
"""If enough records have waited this long, Kafka is faster than Pendo or than a limit. Then as many are taken in as
there is room for: all of them have their turn, and no visitor hides another.
"""


class Appetite:
    """How many records one process wants."""

    def __init__(self, enough: int) -> None:
        """`enough`: with this many sendable visitors, no more is wanted for a while."""
        self._enough = enough
        self._sated_at: float | None = None

    def wants(self, startable: int, now: float) -> bool:
        """Whether more is wanted while this many visitors' events could start; `now` in monotonic seconds."""
        if startable < self._enough:
            self._sated_at = None
            return True
        if self._sated_at is None:
            self._sated_at = now
        return now - self._sated_at >= PATIENCE_SECONDS

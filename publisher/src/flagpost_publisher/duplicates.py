"""The last decision of each visitor and flag, to publish it once while it stays the same.

In: decisions and the time. Out: whether a decision is news. Kept in an LRUCache with the time beside each
entry, not in a TTLCache: that one removes all expired entries at once (0.6 s for a million), inside decide().
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING

from cachetools import LRUCache

from flagpost_schemas import variation_as_sent

if TYPE_CHECKING:
    from flagpost_schemas import DecisionEvent


@dataclass(frozen=True, slots=True)
class _Last:
    variation: str | None
    enabled: bool
    dispatched: bool
    published_at: float


class Duplicates:
    """Remembers, per visitor and flag, the last (variation as sent, enabled, dispatched).

    Only an equal decision within `ttl_seconds` of the published one is a duplicate: A, B, A are three.
    Beyond `max_entries` the least recently seen is forgotten. Threads may share it.
    """

    def __init__(self, ttl_seconds: float, max_entries: int) -> None:
        """A ttl of 0 remembers nothing."""
        self._ttl_seconds = ttl_seconds
        self._lock = RLock()  # re-entrant: a signal handler may call decide()
        self._last: LRUCache[tuple[str, str], _Last] = LRUCache(max_entries)

    def claim(self, decision: DecisionEvent, now: float) -> bool:
        """Whether `decision` is to be published; from then on its equals are duplicates. `now`: seconds."""
        key = (decision.visitor_id, decision.flag_key)
        with self._lock:
            last = self._last.get(key)
            if last is not None and now - last.published_at < self._ttl_seconds and _same(last, decision):
                return False
            self._last[key] = _Last(
                variation_as_sent(decision), decision.enabled, decision.decision_event_dispatched, now
            )
            return True

    def forget(self, decision: DecisionEvent) -> None:
        """Kafka did not take `decision`: its equal is news again. What came after it is kept."""
        key = (decision.visitor_id, decision.flag_key)
        with self._lock:
            last = self._last.get(key)
            if last is not None and _same(last, decision):
                del self._last[key]


def _same(last: _Last, decision: DecisionEvent) -> bool:
    return (
        last.enabled == decision.enabled
        and last.dispatched == decision.decision_event_dispatched
        and last.variation == variation_as_sent(decision)
    )

"""The last decision of each visitor and flag, to publish it once while it stays the same.

In: what decisions say, and the time. Out: whether it is news. Kept in an LRUCache with the time beside each
entry, not in a TTLCache: that one removes all expired entries at once (0.6 s for a million), inside decide().
"""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING, NamedTuple

from cachetools import LRUCache

from flagpost_schemas import variation_as_sent

if TYPE_CHECKING:
    from flagpost_schemas import DecisionEvent


class Claim(NamedTuple):
    """What a decision says, as far as it makes a difference: equal claims are duplicates.

    `variation` is as sent: `off` when the flag is not enabled.
    """

    visitor_id: str
    flag_key: str
    variation: str | None
    enabled: bool
    dispatched: bool


def claim_of(decision: DecisionEvent) -> Claim:
    """The claim that `decision` makes."""
    return Claim(
        decision.visitor_id,
        decision.flag_key,
        variation_as_sent(decision),
        decision.enabled,
        decision.decision_event_dispatched,
    )


class Duplicates:
    """Remembers the last claim per visitor and flag. Threads may share it.

    Only an equal one within `ttl_seconds` of the published one is a duplicate: A, B, A are three.
    Beyond `max_entries` the least recently seen is forgotten.
    """

    def __init__(self, ttl_seconds: float, max_entries: int) -> None:
        """A ttl of 0 remembers nothing."""
        self._ttl_seconds = ttl_seconds
        self._lock = RLock()  # re-entrant: a signal handler may call decide()
        self._last: LRUCache[tuple[object, ...], tuple[tuple[object, ...], float]] = LRUCache(max_entries)

    def is_news(self, claim: Claim, now: float) -> bool:
        """Whether `claim` is to be published; if so, its equals are duplicates from `now` on (seconds)."""
        key, said = _split(claim)
        with self._lock:
            last = self._last.get(key)
            if last is not None and last[0] == said and now - last[1] < self._ttl_seconds:
                return False
            self._last[key] = (said, now)
            return True

    def forget(self, claim: Claim) -> None:
        """Kafka did not take `claim`: it is news again. What came after it is kept."""
        key, said = _split(claim)
        with self._lock:
            last = self._last.get(key)
            if last is not None and last[0] == said:
                del self._last[key]


def _split(claim: Claim) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """(visitor, flag) and what is said of them: plain tuples, which the garbage collector stops looking at."""
    return claim[:2], claim[2:]

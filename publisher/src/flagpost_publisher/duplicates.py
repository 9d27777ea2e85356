"""The last decision of each visitor and flag, to publish it once while it stays the same.

In: what decisions say, and the time. Out: whether it is news. Kept in an OrderedDict, which is written in C: decide()
waits 3 us for it, for cachetools.LRUCache 7 us and for its TTLCache 11 us, and when many entries expire for 50 ms
(docs/decisions/0005).
"""

from __future__ import annotations

from collections import OrderedDict
from threading import RLock
from typing import TYPE_CHECKING, TypeAlias

from flagpost_schemas import variation_as_sent

if TYPE_CHECKING:
    from flagpost_schemas import DecisionEvent

Subject: TypeAlias = tuple[str, str]
"""Visitor and flag."""

Said: TypeAlias = tuple[str | None, bool, bool]
"""Of a subject: the variation as sent (`off` when the flag is not enabled), enabled, dispatched."""

Claim: TypeAlias = tuple[Subject, Said]
"""What a decision says, as far as it makes a difference: equal claims are duplicates."""


def claim_of(decision: DecisionEvent) -> Claim:
    """The claim that `decision` makes."""
    return (
        (decision.visitor_id, decision.flag_key),
        (variation_as_sent(decision), decision.enabled, decision.decision_event_dispatched),
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
        self._max_entries = max_entries
        self._last: OrderedDict[Subject, tuple[Said, float]] = OrderedDict()  # the least recently seen first

    def is_news(self, claim: Claim, now: float) -> bool:
        """Whether `claim` is to be published; if so, its equals are duplicates from `now` on (seconds)."""
        subject, said = claim
        with self._lock:
            last = self._last.get(subject)
            if last is not None:
                self._last.move_to_end(subject)
                if last[0] == said and now - last[1] < self._ttl_seconds:
                    return False
            elif len(self._last) >= self._max_entries:
                self._last.popitem(last=False)
            self._last[subject] = (said, now)
            return True

    def forget(self, claim: Claim) -> None:
        """Kafka did not take `claim`: it is news again. What came after it is kept."""
        subject, said = claim
        with self._lock:
            last = self._last.get(subject)
            if last is not None and last[0] == said:
                del self._last[subject]

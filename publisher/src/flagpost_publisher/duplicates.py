"""The last decision of each visitor and flag, so that it is published only once while it stays the same.

In: the contents of decisions. Out: whether each is new. Kept in many small dicts instead of one, because growing a
large dict would delay a decide() for milliseconds (docs/decisions/0005).
"""

from __future__ import annotations

import hashlib
from itertools import islice
from math import ceil
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

from flagpost_schemas import variation_as_sent

if TYPE_CHECKING:
    from collections.abc import Callable

    from flagpost_schemas import DecisionEvent

Subject: TypeAlias = tuple[str, str]
"""Visitor and flag."""

Said: TypeAlias = tuple[str | None, bool, bool, str | None]
"""For a subject: the variation as sent (`off` when the flag is not enabled), enabled, and what the consumer may
filter by: dispatched, the type of the rule. If all are equal, the consumer treats both decisions alike.
"""

Claim: TypeAlias = tuple[Subject, Said]
"""The part of a decision that matters: decisions with equal claims are duplicates."""


def claim_of(decision: DecisionEvent) -> Claim:
    """The claim of `decision`."""
    return (
        (decision.visitor_id, decision.flag_key),
        (
            variation_as_sent(decision),
            decision.enabled,
            decision.decision_event_dispatched,
            decision.rule_type,
        ),
    )


MAX_REMEMBERED_CHARACTERS: Final = 256
"""Longer claims are remembered by a digest: an entry takes at most 1 KB, whatever the ids."""

ENTRIES_TOGETHER: Final = 512
"""The approximate number of entries of one dict: enlarging it takes about ten microseconds."""

_Known: TypeAlias = tuple[Said, float]
"""The last decision, and until when (in the timer's seconds) equal ones are duplicates."""


def _remembered(claim: Claim) -> Claim:
    """`claim`, or its digest if its texts are long."""
    (visitor_id, flag_key), (variation, enabled, dispatched, rule_type) = claim
    try:
        length = len(visitor_id) + len(flag_key) + len(variation or "") + len(rule_type or "")
        if length <= MAX_REMEMBERED_CHARACTERS:
            return claim
        said = _short(variation), enabled, dispatched, _short(rule_type)
        return (_digest(visitor_id), _digest(flag_key)), said
    except (TypeError, AttributeError):
        return claim  # an application gave something that is not text: encoding will say what


def _short(text: str | None) -> str | None:
    return None if text is None else _digest(text)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Duplicates:
    """Remembers the last claim of each visitor and flag. Threads may share it.

    Only an equal claim within `ttl_seconds` of the published one is a duplicate: A, B, A are three decisions. Beyond
    `max_entries` those that were not seen for longest are forgotten.
    """

    def __init__(self, ttl_seconds: float, max_entries: int, timer: Callable[[], float] = monotonic) -> None:
        """A ttl of 0 remembers nothing. `timer` returns seconds."""
        count = max(1, max_entries // ENTRIES_TOGETHER)
        self._caches: list[dict[Subject, _Known]] = [
            {} for _ in range(count)
        ]  # the last seen entry is at the end
        self._max_entries = ceil(max_entries / count)
        self._ttl_seconds = ttl_seconds
        self._timer = timer
        self._lock = RLock()  # re-entrant: a signal handler may call decide()

    def is_news(self, claim: Claim) -> bool:
        """Whether `claim` must be published; if so, equal claims are duplicates from now on."""
        subject, said = _remembered(claim)
        cache = self._caches[hash(subject) % len(self._caches)]
        now = self._timer()
        with self._lock:
            known = cache.pop(subject, None)
            if known is not None and known[0] == said and now < known[1]:
                cache[subject] = known
                return False
            cache[subject] = (said, now + self._ttl_seconds)
            self._drop_old(cache, now)
            return True

    def forget(self, claim: Claim) -> None:
        """Kafka did not accept `claim`: publish it if it comes again. A later claim of its subject is kept."""
        subject, said = _remembered(claim)
        cache = self._caches[hash(subject) % len(self._caches)]
        with self._lock:
            known = cache.get(subject)
            if known is not None and known[0] == said:
                cache.pop(subject, None)

    def _drop_old(self, cache: dict[Subject, _Known], now: float) -> None:
        """Drop the entries not seen for longest, at most two: one more than was added, so that expired ones
        disappear.
        """
        for oldest, known in list(islice(cache.items(), 2)):
            if now < known[1] and len(cache) <= self._max_entries:
                return
            cache.pop(oldest, None)

"""The last decision of each visitor and flag, to publish it once while it stays the same.

In: what decisions say. Out: whether it is news. Kept in many small dicts rather than one, whose growth would hold up
somebody's decide() for milliseconds (docs/decisions/0005).
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
"""Of a subject: the variation as sent (`off` when the flag is not enabled), enabled, and what the consumer may filter
by: dispatched, the type of the rule. Of two equal ones it would not send only the first."""

Claim: TypeAlias = tuple[Subject, Said]
"""What a decision says, as far as it makes a difference: equal claims are duplicates."""


def claim_of(decision: DecisionEvent) -> Claim:
    """The claim that `decision` makes."""
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
"""What is longer than this is remembered by its digest: an entry takes 1 KB at most, whatever the ids."""

ENTRIES_TOGETHER: Final = 512
"""About as many entries share a dict: to make it larger takes some ten microseconds."""

_Known: TypeAlias = tuple[Said, float]
"""What was said, and until when, in the timer's seconds, its equals are duplicates."""


def _remembered(claim: Claim) -> Claim:
    """`claim`, or where its texts are long, one that stands for it."""
    (visitor_id, flag_key), (variation, enabled, dispatched, rule_type) = claim
    try:
        length = len(visitor_id) + len(flag_key) + len(variation or "") + len(rule_type or "")
        if length <= MAX_REMEMBERED_CHARACTERS:
            return claim
        said = _short(variation), enabled, dispatched, _short(rule_type)
        return (_digest(visitor_id), _digest(flag_key)), said
    except (TypeError, AttributeError):
        return claim  # an application gave something else than text: encoding will say what


def _short(text: str | None) -> str | None:
    return None if text is None else _digest(text)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Duplicates:
    """Remembers the last claim per visitor and flag. Threads may share it.

    Only an equal one within `ttl_seconds` of the published one is a duplicate: A, B, A are three.
    Beyond `max_entries` what was not seen for long is forgotten.
    """

    def __init__(self, ttl_seconds: float, max_entries: int, timer: Callable[[], float] = monotonic) -> None:
        """A ttl of 0 remembers nothing. `timer` gives seconds."""
        count = max(1, max_entries // ENTRIES_TOGETHER)
        self._caches: list[dict[Subject, _Known]] = [{} for _ in range(count)]  # the latest seen is the last
        self._max_entries = ceil(max_entries / count)
        self._ttl_seconds = ttl_seconds
        self._timer = timer
        self._lock = RLock()  # re-entrant: a signal handler may call decide()

    def is_news(self, claim: Claim) -> bool:
        """Whether `claim` is to be published; if so, its equals are duplicates from now on."""
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
        """Kafka did not take `claim`: it is news again. What came after it is kept."""
        subject, said = _remembered(claim)
        cache = self._caches[hash(subject) % len(self._caches)]
        with self._lock:
            known = cache.get(subject)
            if known is not None and known[0] == said:
                cache.pop(subject, None)

    def _drop_old(self, cache: dict[Subject, _Known], now: float) -> None:
        """Drop what was not seen for longest, two at most: one more than came, so what has expired goes in time."""
        for oldest, known in list(islice(cache.items(), 2)):
            if now < known[1] and len(cache) <= self._max_entries:
                return
            cache.pop(oldest, None)

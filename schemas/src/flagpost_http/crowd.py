"""Which connections may be open at once.

In: connections as they open, show a key, and close. Out: those to drop for a new one: first connections without a
key, the oldest first, preferably of the same party; if those with a key leave no room for others, the least recently
used one of the key with the most. So every newcomer is heard, and nobody keeps others out with many idle connections.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

Each = TypeVar("Each", bound=Hashable)
Group = TypeVar("Group", bound=Hashable)

GRACE_SECONDS: Final = 1.0
"""How long a connection is left alone if there is room at all: services open many at once, and use each of them."""


@dataclass(frozen=True, slots=True)
class CrowdLimits:
    """How many may be open."""

    connections: int
    """All connections."""
    known: int
    """Connections that have shown a key; fewer than all, so that newcomers find a place to show theirs."""
    strangers_at_once: int
    """Connections that have shown no key."""
    strangers: int
    """The same, after the grace period."""
    strangers_a_party: int
    """The same from one party."""


class _Stranger(NamedTuple):
    party: str | None
    since: float


class Crowd(Generic[Each]):
    """The open connections."""

    def __init__(self, limits: CrowdLimits, timer: Callable[[], float] = time.monotonic) -> None:
        """No connection is open."""
        self._limits = limits
        self._timer = timer
        self._known: dict[Each, str] = {}
        self._of_key: defaultdict[str, OrderedDict[Each, None]] = defaultdict(OrderedDict)
        """Connections by key, the least recently used first."""
        self._strangers: OrderedDict[Each, _Stranger] = OrderedDict()
        """The oldest first."""
        self._of_party: defaultdict[str | None, OrderedDict[Each, None]] = defaultdict(OrderedDict)

    def __len__(self) -> int:
        """How many are open."""
        return len(self._known) + len(self._strangers)

    def opened(self, each: Each, party: str | None) -> list[Each]:
        """Add a connection; returns those that are dropped for it. `party` None: many share its address."""
        now = self._timer()
        self._strangers[each] = _Stranger(party, now)
        of_party = self._of_party[party]
        of_party[each] = None
        limits = self._limits
        dropped: list[Each] = []
        if party is not None:
            dropped += self._beyond(of_party, limits.strangers_a_party, now)
        dropped += self._beyond(self._strangers, limits.strangers, now)
        if len(self._strangers) > limits.strangers_at_once or len(self) > limits.connections:
            dropped.append(next(iter(self._strangers)))
            self.closed(dropped[-1])
        return dropped

    def known(self, each: Each, key: str) -> list[Each]:
        """A connection has shown a key of that name, and is not dropped for strangers any more. Returns those to
        drop.
        """
        if each not in self._strangers and each not in self._known:
            return []  # it was dropped meanwhile
        self.closed(each)
        self._known[each] = key
        self._of_key[key][each] = None
        if len(self._known) <= self._limits.known:
            return []
        of_greatest = max(self._of_key.values(), key=len)
        dropped = next(iter(of_greatest))
        self.closed(dropped)
        return [dropped]

    def closed(self, each: Each) -> None:
        """A connection is closed."""
        key = self._known.pop(each, None)
        if key is not None:
            _without(self._of_key, key, each)
        stranger = self._strangers.pop(each, None)
        if stranger is not None:
            _without(self._of_party, stranger.party, each)

    def _beyond(self, some: OrderedDict[Each, Any], most: int, now: float) -> Iterator[Each]:
        """Drop those over the grace period that are too many, the oldest first."""
        while len(some) > most:
            oldest = next(iter(some))
            if now - self._strangers[oldest].since < GRACE_SECONDS:
                return
            self.closed(oldest)
            yield oldest


def _without(groups: dict[Group, OrderedDict[Each, None]], group: Group, each: Each) -> None:
    """Remove `each` from its group, and the group if it is empty then."""
    del groups[group][each]
    if not groups[group]:
        del groups[group]

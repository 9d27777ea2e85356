"""Which connections may be open at once.

In: connections as they open, show a key, and close. Out: those to drop, so that a new one can be served: such as
have shown no key, the oldest first, and first of the same party; and where those that have shown one leave no room
for others, of the key that has the most the one that was used least lately. So whoever comes is heard, and nobody
keeps others out by doing nothing on many connections.
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
"""How long a connection is left alone, if there is room at all: services open many at once, and use each of them."""


@dataclass(frozen=True, slots=True)
class CrowdLimits:
    """How many may be open."""

    connections: int
    """In all."""
    known: int
    """Of those that have shown a key; fewer than in all, so that whoever comes finds a place to show theirs."""
    strangers_at_once: int
    """Of those that have shown no key."""
    strangers: int
    """Of those, once they are over the grace."""
    strangers_a_party: int
    """The same from one party."""


class _Stranger(NamedTuple):
    party: str | None
    since: float


class Crowd(Generic[Each]):
    """The open connections."""

    def __init__(self, limits: CrowdLimits, timer: Callable[[], float] = time.monotonic) -> None:
        """None is open."""
        self._limits = limits
        self._timer = timer
        self._known: dict[Each, str] = {}
        self._of_key: defaultdict[str, OrderedDict[Each, None]] = defaultdict(OrderedDict)
        """Those that have shown it, the one that was used least lately first."""
        self._strangers: OrderedDict[Each, _Stranger] = OrderedDict()
        """The oldest first."""
        self._of_party: defaultdict[str | None, OrderedDict[Each, None]] = defaultdict(OrderedDict)

    def __len__(self) -> int:
        """How many are open."""
        return len(self._known) + len(self._strangers)

    def opened(self, each: Each, party: str | None) -> list[Each]:
        """Take a connection in; gives those to drop, which are closed here. `party` None: many share its address."""
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
        """It has shown a key of that name, and is dropped for no stranger from now on. Gives those to drop."""
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
        """It is not there any more."""
        key = self._known.pop(each, None)
        if key is not None:
            _without(self._of_key, key, each)
        stranger = self._strangers.pop(each, None)
        if stranger is not None:
            _without(self._of_party, stranger.party, each)

    def _beyond(self, some: OrderedDict[Each, Any], most: int, now: float) -> Iterator[Each]:
        """Close those over the grace that are too many, the oldest first."""
        while len(some) > most:
            oldest = next(iter(some))
            if now - self._strangers[oldest].since < GRACE_SECONDS:
                return
            self.closed(oldest)
            yield oldest


def _without(groups: dict[Group, OrderedDict[Each, None]], group: Group, each: Each) -> None:
    """Take `each` out of its group, and the group out where nothing is left of it."""
    del groups[group][each]
    if not groups[group]:
        del groups[group]

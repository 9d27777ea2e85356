"""Which connections may be open at once.

In: connections as they open, show a key, and close. Out: those to drop, so that a new one can be served: always such
as have shown no key, the oldest first, and first of the same party. So whoever comes is heard, and nobody keeps
others out by doing nothing on many connections.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

Each = TypeVar("Each", bound=Hashable)

GRACE_SECONDS: Final = 1.0
"""How long a connection is left alone, if there is room at all: services open many at once, and use each of them."""


@dataclass(frozen=True, slots=True)
class CrowdLimits:
    """How many may be open."""

    connections: int
    """In all."""
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
        self._known: set[Each] = set()
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

    def known(self, each: Each) -> None:
        """It has shown a key; from now on it is never dropped for another."""
        if each in self._strangers:
            self.closed(each)
            self._known.add(each)

    def closed(self, each: Each) -> None:
        """It is not there any more."""
        self._known.discard(each)
        stranger = self._strangers.pop(each, None)
        if stranger is not None:
            of_party = self._of_party[stranger.party]
            del of_party[each]
            if not of_party:
                del self._of_party[stranger.party]

    def _beyond(self, some: OrderedDict[Each, Any], most: int, now: float) -> Iterator[Each]:
        """Close those over the grace that are too many, the oldest first."""
        while len(some) > most:
            oldest = next(iter(some))
            if now - self._strangers[oldest].since < GRACE_SECONDS:
                return
            self.closed(oldest)
            yield oldest

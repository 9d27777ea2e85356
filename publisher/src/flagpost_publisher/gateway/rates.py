"""How fast a key may send; for a public key, also how fast each address may.

In: a key, how many events came, the time. Out: nothing, or a Refusal (429) that says when to come again. Events are
counted, and their number is known only once a body has been read: so a sender above its rate is refused from then on,
until it is below again. A request is never refused for its own number of events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from cachetools import LRUCache

from flagpost_publisher.gateway.key import Key
from flagpost_publisher.gateway.refusals import Refusal

BURST_SECONDS: Final = 1.0
"""How much unused time may be made up for at once."""
ADDRESS_EVENTS_PER_SECOND: Final = 10.0
"""With a public key from one address, on average: a person clicks less often."""
ADDRESS_BURST_SECONDS: Final = 5.0
"""A page that opens sends many events at once, and an office may have one address."""
MAX_ADDRESSES: Final = 10_000
"""Addresses that are remembered; beyond it those that were quiet for longest are forgotten."""


class Rate:
    """One sender's events a second."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, per_second: float, burst_seconds: float, now: float) -> None:
        """Nothing was sent yet."""
        self._per_second = per_second
        self._burst = max(1.0, per_second * burst_seconds)
        self._left = self._burst
        self._at = now

    def wait_seconds(self, now: float) -> float:
        """How long to wait until more may be sent."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        return 0.0 if self._left >= 1 else (1 - self._left) / self._per_second

    def count(self, events: int) -> None:
        """Count this many events as sent."""
        self._left -= events


class Rates:
    """The rates of all keys, and of the addresses that use public ones."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        """Nothing was sent yet."""
        self._timer = timer
        self._keys: dict[str, Rate] = {}
        self._addresses: LRUCache[tuple[str, str], Rate] = LRUCache(MAX_ADDRESSES)

    def check(self, key: Key, address: str) -> None:
        """Raise Refusal (429) if `key`, or with a public key `address`, is above its rate."""
        now = self._timer()
        for rate, whose in self._of(key, address, now):
            wait_seconds = rate.wait_seconds(now)
            if wait_seconds > 0:
                raise Refusal(
                    429,
                    f"more events were sent {whose} than its rate allows",
                    fix="send the request again after the time in Retry-After; see gateway.keys",
                    headers={"retry-after": str(math.ceil(wait_seconds))},
                )

    def count(self, key: Key, address: str, events: int) -> None:
        """Count this many events. Raises Refusal (429) if others came meanwhile and no more are allowed."""
        self.check(key, address)
        for rate, _ in self._of(key, address, self._timer()):
            rate.count(events)

    def _of(self, key: Key, address: str, now: float) -> list[tuple[Rate, str]]:
        rates = []
        if key.events_per_second is not None:
            rate = self._keys.get(key.name)
            if rate is None:
                rate = self._keys[key.name] = Rate(key.events_per_second, BURST_SECONDS, now)
            rates.append((rate, "with this key"))
        if key.is_public:
            place = (key.name, address)
            rate = self._addresses.get(place)
            if rate is None:
                rate = Rate(ADDRESS_EVENTS_PER_SECOND, ADDRESS_BURST_SECONDS, now)
                self._addresses[place] = rate
            rates.append((rate, "from this address"))
        return rates

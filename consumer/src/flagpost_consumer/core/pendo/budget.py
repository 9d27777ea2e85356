"""An upper bound for the requests of a minute.

In: the group's limit, this process's share of the partitions, the time. Out: whether a request may start, and when
the next one may. It is a token bucket that starts empty and holds one second's worth, so that members that start
together do not burst together.
"""

from __future__ import annotations

from math import inf

BURST_SECONDS = 1.0


class Budget:
    """The requests that one process may start; without a limit it allows all."""

    def __init__(self, per_minute: float | None) -> None:
        self._per_minute = per_minute
        self._rate = 0.0
        self._tokens = 0.0
        self._at = 0.0

    def share(self, fraction: float, now: float) -> None:
        """Take a share of the group's limit: the number of partitions assigned here divided by all."""
        if self._per_minute is None:
            return
        self._refill(now)
        self._rate = self._per_minute / 60.0 * fraction
        self._tokens = min(self._tokens, self._capacity())

    @property
    def per_minute(self) -> float:
        """The process's share of the group's limit; infinite without a limit."""
        return inf if self._per_minute is None else self._rate * 60.0

    def opens_at(self, now: float) -> float | None:
        """When a request may start: `now` if at once, None while the share is 0."""
        if self._per_minute is None:
            return now
        self._refill(now)
        if self._tokens >= 1.0:
            return now
        return now + (1.0 - self._tokens) / self._rate if self._rate > 0 else None

    def available(self, now: float) -> float:
        """How many requests the budget lets start at once; infinite without a limit."""
        if self._per_minute is None:
            return inf
        self._refill(now)
        return float(int(self._tokens))

    def spend(self) -> None:
        """Note that a request starts; `opens_at` allowed it."""
        if self._per_minute is not None:
            self._tokens -= 1.0

    def _capacity(self) -> float:
        return max(1.0, self._rate * BURST_SECONDS)

    def _refill(self, now: float) -> None:
        # The sum of many refills may stay slightly below one token: the moment that `opens_at` returned must be
        # enough.
        gained = (now - self._at) * self._rate + 1e-9
        self._tokens = min(self._capacity(), self._tokens + gained) if self._rate > 0 else self._tokens
        self._at = now

"""How long to wait before a retry.

In: the number of failed attempts, and a random source. Out: seconds.
"""

from __future__ import annotations

from collections.abc import Callable

BASE_SECONDS = 1.0
CAP_SECONDS = 60.0
PROBE_CAP_SECONDS = 30.0

RandomSource = Callable[[], float]
"""Returns floats that are evenly distributed over [0, 1)."""


def retry_delay(failures: int, random: RandomSource) -> float:
    """The wait in seconds after the n-th failure (from 1): exponential with full jitter, at most 60 s.

    Full jitter spreads the retries of many visitors that failed together (AWS Architecture Blog, "Exponential Backoff
    And Jitter").
    """
    return random() * doubled(BASE_SECONDS, failures, CAP_SECONDS)


def doubled(first_seconds: float, times: int, cap_seconds: float) -> float:
    """A wait that is twice as long each time, up to a cap."""
    return min(cap_seconds, first_seconds * 2.0 ** min(times, 16))


def next_probe_delay(delay: float) -> float:
    """The wait before the next probe of an endpoint that is down: from 1 s, doubling to 30 s."""
    return min(PROBE_CAP_SECONDS, max(BASE_SECONDS, delay * 2))

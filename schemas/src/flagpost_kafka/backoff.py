"""How long to wait before something is retried.

In: how often it was tried in vain. Out: seconds: exponential, capped and jittered.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import Final

MAX_DOUBLINGS: Final = 32
"""Enough for any cap, and little enough that the power stays a small number."""


class Backoff:
    """The waits of one thing that is retried; each is on average twice as long as the one before."""

    def __init__(
        self, first_seconds: float, cap_seconds: float, random_source: Callable[[], float] = random
    ) -> None:
        """`random_source` returns floats that are evenly spread over [0, 1)."""
        self._first_seconds = first_seconds
        self._cap_seconds = cap_seconds
        self._random = random_source
        self._failures = 0

    def next_seconds(self) -> float:
        """The wait after one more failure: between half of the full wait and all of it."""
        full = min(self._cap_seconds, self._first_seconds * 2.0 ** min(self._failures, MAX_DOUBLINGS))
        self._failures += 1
        return full * (0.5 + self._random() / 2)

    def reset(self) -> None:
        """It succeeded."""
        self._failures = 0

"""How long a thread has made no progress.

In: a call from the thread at each step. Out: the time since the last one. Any thread may ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Beats:
    """The beats of one thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """The thread starts now."""
        self._monotonic = monotonic
        self._at = monotonic()

    def beat(self) -> None:
        """The thread makes progress."""
        self._at = self._monotonic()

    @property
    def still_seconds(self) -> float:
        """Seconds since the last progress."""
        return self._monotonic() - self._at

"""The time, as the engine is told it.

In: readings of the shell's clocks. Out: one value that carries both.
"""

from __future__ import annotations

from typing import NamedTuple


class Instant(NamedTuple):
    """One moment on both clocks."""

    monotonic: float
    """Seconds on a clock that never steps: what intervals, retries and time-outs are measured on."""
    wall_ms: int
    """Epoch milliseconds: what `occurred_at` is compared with."""

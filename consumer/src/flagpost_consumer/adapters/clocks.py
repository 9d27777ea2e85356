"""The process's clocks.

In: nothing. Out: the time now, on both clocks.
"""

from __future__ import annotations

import time

from flagpost_consumer.core.clock import Instant

# Linux stops CLOCK_MONOTONIC while a machine sleeps; the group's session goes on meanwhile
# (docs/architecture.md#the-fence).
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> Instant:
    """The time now; the monotonic one also runs while the process, or the machine, is frozen."""
    return Instant(steady_seconds(), time.time_ns() // 1_000_000)


def steady_seconds() -> float:
    """The time now on the monotonic clock alone."""
    return time.clock_gettime(_STEADY)

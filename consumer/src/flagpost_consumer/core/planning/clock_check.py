"""Whether the local wall clock can be trusted when an event would end because of its time.

In: Kafka's timestamps of records, and the local time at which they were read. Out: whether an `invalid` (too far
ahead) or an `expired` is to be held back. A reading is kept relative to the monotonic clock, so a local clock that is
corrected is trusted again at once, even while nothing new is read.
"""

from __future__ import annotations

from collections import deque
from math import inf
from statistics import median_low
from typing import NamedTuple

from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.records import Record, Undecoded

READINGS = 32
"""The median of this many readings counts: a service whose own clock is wrong must not outvote all others."""
OLD_SECONDS = 10.0
"""After this long without a new reading, the readings may come from a service whose clock has been set right."""
MIN_KEYS = 3
"""Fewer visitors than this prove nothing: all may belong to one service."""


class _Reading(NamedTuple):
    epoch_ms: float
    """The record's timestamp minus the monotonic time at which it was read."""
    key: bytes | None


class ClockCheck:
    """What the timestamps of records say about the local clock."""

    def __init__(self, allowance_seconds: float) -> None:
        """`allowance_seconds`: how far the two clocks may be apart: `delivery.max_future_seconds`."""
        self._allowance_ms = allowance_seconds * 1000
        self._all: deque[_Reading] = deque(maxlen=READINGS)
        self._fresh: deque[_Reading] = deque(maxlen=READINGS)
        self._noted_at = -inf

    def note(self, record: Record | Undecoded, now: Instant) -> None:
        """Take a reading of a record that has just been read."""
        if record.timestamp_ms <= 0:  # Kafka has none
            return
        self._noted_at = now.monotonic
        reading = _Reading(record.timestamp_ms - now.monotonic * 1000, record.key)
        self._all.append(reading)
        if record.fresh:
            self._fresh.append(reading)

    def is_old(self, now: Instant) -> bool:
        """Whether the verdict should be tried with new readings."""
        return now.monotonic - self._noted_at > OLD_SECONDS

    def doubts(self, ending: Ending | None, now: Instant) -> bool:
        """Whether an ending depends on the local clock and that clock is not to be trusted.

        A clock that is behind makes events look too far ahead, and any present record shows it. A clock that is ahead
        makes events look too old; only fresh records show it, because a backlog is old anyway. For the same reason a
        backlog must not hide what fresh records show of a clock that is behind.
        """
        if ending is None or not ending.by_clock:
            return False
        if ending.reason is Reason.EXPIRED:
            return self._ahead_of_local_ms(self._fresh, now) < -self._allowance_ms
        ahead_ms = max(self._ahead_of_local_ms(readings, now) for readings in (self._fresh, self._all))
        return ahead_ms > self._allowance_ms

    @staticmethod
    def _ahead_of_local_ms(readings: deque[_Reading], now: Instant) -> float:
        """How far Kafka's time is ahead of the local clock, in ms; 0 with too few readings to tell."""
        if len({reading.key for reading in readings}) < MIN_KEYS:
            return 0.0
        epoch_ms = median_low(reading.epoch_ms for reading in readings)
        return epoch_ms + now.monotonic * 1000 - now.wall_ms

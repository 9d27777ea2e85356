"""Whether the local wall clock can be believed when it condemns an event for its time.

In: the timestamps that Kafka has for records, and the local time at which they were read. Out: whether an `invalid`
(too far ahead) or an `expired` is to be held back. A reading is kept against the monotonic clock, so a local clock
that is set right is believed again at once, also while nothing new is read.
"""

from __future__ import annotations

from collections import deque
from statistics import median_low
from typing import NamedTuple

from flagpost_consumer.core.clock import Instant
from flagpost_consumer.core.outcomes import Ending, Reason
from flagpost_consumer.core.records import Record

READINGS = 32
"""The median of so many is looked at: a service whose own clock is wrong must not speak for all others."""
MIN_KEYS = 3
"""Fewer visitors than these prove nothing: they may all be one service's."""


class _Reading(NamedTuple):
    epoch_ms: float
    """The record's timestamp, less the monotonic time at which it was read."""
    key: bytes | None


class ClockCheck:
    """What records say of the local clock."""

    def __init__(self, allowance_seconds: float) -> None:
        """`allowance_seconds`: how far the two may be apart, `delivery.max_future_seconds`."""
        self._allowance_ms = allowance_seconds * 1000
        self._all: deque[_Reading] = deque(maxlen=READINGS)
        self._fresh: deque[_Reading] = deque(maxlen=READINGS)

    def note(self, record: Record, now: Instant) -> None:
        """Take a reading of a record that has just been read."""
        if record.timestamp_ms <= 0:  # Kafka has none
            return
        reading = _Reading(record.timestamp_ms - now.monotonic * 1000, record.key)
        self._all.append(reading)
        if record.fresh:
            self._fresh.append(reading)

    def doubts(self, ending: Ending | None, now: Instant) -> bool:
        """Whether an ending is the clock's word, and the clock is not to be believed.

        A clock that is behind makes events look too far ahead, and any record of the present shows it. A clock that
        is ahead makes events look too old; only fresh records show it, for a backlog is old by right. For the same
        reason a backlog must not hide what fresh records show of a clock that is behind.
        """
        if ending is None or not ending.by_clock:
            return False
        if ending.reason is Reason.EXPIRED:
            return self._ahead_of_local_ms(self._fresh, now) < -self._allowance_ms
        ahead_ms = max(self._ahead_of_local_ms(readings, now) for readings in (self._fresh, self._all))
        return ahead_ms > self._allowance_ms

    @staticmethod
    def _ahead_of_local_ms(readings: deque[_Reading], now: Instant) -> float:
        """How far Kafka's time is ahead of the local clock; 0 where there are too few readings to tell."""
        if len({reading.key for reading in readings}) < MIN_KEYS:
            return 0.0
        epoch_ms = median_low(reading.epoch_ms for reading in readings)
        return epoch_ms + now.monotonic * 1000 - now.wall_ms

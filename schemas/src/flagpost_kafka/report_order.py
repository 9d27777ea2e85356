"""Puts failed records back into the order in which they were handed over.

In: records as librdkafka reports them, each with when it was handed over, as far as that can be told. Out: the same
records, each partition's in order.

librdkafka reports a partition's records from several queues, one after the other, each in order, but not always the
oldest queue first. What tells them apart is the time at which a record was handed over: the report's time less the
latency that librdkafka measured just before it. It is right to a microsecond or two, unless the thread was held up
within just that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol, TypeVar

TOLERANCE_SECONDS: Final = 2e-6
"""How far the times of two records of one queue may contradict their order."""


class Reported(Protocol):
    """A record that was reported."""

    assigned: int
    """Its partition."""
    since: float
    """When it was handed over, seconds."""


Record = TypeVar("Record", bound=Reported)


def in_order(reported: Iterable[Record]) -> list[Record]:
    """The records of each partition in the order in which they were handed over."""
    partitions: dict[int, list[Record]] = {}
    for record in reported:
        partitions.setdefault(record.assigned, []).append(record)
    return [record for each in partitions.values() for record in _joined(each)]


def _joined(records: list[Record]) -> list[Record]:
    """The queues of one partition, merged by time; within a queue, the order of the reports is right."""
    return [record for _, record in sorted(_with_times(records), key=lambda timed: timed[0])]


def _with_times(records: list[Record]) -> Iterator[tuple[float, Record]]:
    """Each record with when it was handed over, which within a queue never goes back.

    Times err on the late side only: that of a record is no later than those after it.
    """
    for queue in _queues(records):
        timed: list[tuple[float, Record]] = []
        at = float("inf")
        for record in reversed(queue):
            at = min(at, record.since)
            timed.append((at, record))
        yield from reversed(timed)


def _queues(records: list[Record]) -> Iterator[list[Record]]:
    """A queue ends where the next record was handed over before the last two: one alone may just be late."""
    queue: list[Record] = []
    for record in records:
        if queue and record.since + TOLERANCE_SECONDS < min(each.since for each in queue[-2:]):
            yield queue
            queue = []
        queue.append(record)
    if queue:
        yield queue

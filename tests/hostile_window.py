"""What the page counts, with input that takes much memory: a program, with a memory limit of its own.

    python tests/hostile_window.py SHAPE BYTES

It counts until `Aggregates.bytes_held` is more than BYTES, and then once more from the beginning, as the page does
with a shorter window. It prints as JSON how many events that were and the most resident memory that the process
really took for them, after the first time and after the second. It may allocate no more than BYTES and `SLACK_BYTES`
in addition to what it has at the start: the system refuses more, and the program then fails.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from engine_world import decision
from flagpost_consumer.commands.reconcile.counting import Published
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.settings import Settings
from flagpost_consumer.web.aggregates import Aggregates
from flagpost_schemas import LedgerEntry, RuleType, Settlements, Source

SLACK_BYTES = 4_000_000
PARTITIONS = 4
NOW_MS = 1_800_000_000_000
WINDOW_MS = 48 * 3_600_000
KINDS = (Kind.TRACK, Kind.VISITOR_METADATA)
LONG = "x" * 200
VIEW_EVENTS = 10_000
"""A view is made after this many events, as the page does; the last two views are kept."""


class Told(NamedTuple):
    """A decision, and how its delivery ended."""

    visitor: str
    flag: str = "checkout"
    at: float = 0.0
    """Its position in the window, 0 to 1."""
    service: str | None = None
    outcome: str | None = "delivered"
    reason: str = "ok"
    duplicate_of: int | None = None


def twenty_flags(number: int) -> Told:
    return Told(f"{LONG}{number // 20}", f"flag-{number % 20}", number / 1e6 % 1)


def twenty_flags_unsettled(number: int) -> Told:
    return twenty_flags(number)._replace(outcome=None)


def a_flag_each(number: int) -> Told:
    return Told("someone", f"{LONG * 20}{number}")


def a_few_long_flags_at_all_times(number: int) -> Told:
    return Told(f"visitor-{number}", f"{LONG * 20}{number % 25}", number % 24 / 24)


def a_service_each(number: int) -> Told:
    return Told(f"visitor-{number}", service=f"{LONG}{number}")


def duplicates_of_what_lies_before(number: int) -> Told:
    return Told(f"visitor-{number}", outcome="duplicate", reason="dedupe", duplicate_of=number)


SHAPES: Mapping[str, Callable[[int], Told]] = {
    shape.__name__: shape
    for shape in (
        twenty_flags,
        twenty_flags_unsettled,
        a_flag_each,
        a_few_long_flags_at_all_times,
        a_service_each,
        duplicates_of_what_lies_before,
    )
}
FIRST_OFFSET = 50_000_000
"""The first offset of the window."""


def count(shape: Callable[[int], Told], max_bytes: int) -> int:
    """Count until `bytes_held` is more than `max_bytes`; returns the number of events."""
    aggregates = Aggregates(NOW_MS, NOW_MS + WINDOW_MS, Settings())
    views = [aggregates.view(NOW_MS)]
    for number, told in enumerate(map(shape, _numbers())):
        partition, offset = number % PARTITIONS, FIRST_OFFSET + number // PARTITIONS
        event = decision(
            told.visitor,
            told.flag,
            rule_type=RuleType.EXPERIMENT,
            source=None if told.service is None else Source(service=told.service),
        )
        row = "".join(told.flag), event.variation_key  # a new string, because each record has its own
        aggregates.publish(
            Published(partition, offset, KINDS, row, None, event), NOW_MS + int(told.at * WINDOW_MS)
        )
        if told.outcome is not None:
            aggregates.settle(partition, _settlements(offset, told))
        if number % VIEW_EVENTS == 0:
            aggregates.commit(partition, offset, FIRST_OFFSET)
            views = [*views[-1:], aggregates.view(NOW_MS)]
        if number % 500 == 0 and aggregates.bytes_held > max_bytes:
            return number
    raise AssertionError("never")


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _settlements(offset: int, told: Told) -> Settlements:
    entry = LedgerEntry(
        offset, Kind.TRACK.value, told.outcome or "", told.reason, duplicate_of=told.duplicate_of
    )
    return Settlements(group="g", member="m", settled_at=NOW_MS, entries=[entry], gaps=[])


def bytes_of(name: str) -> int:
    """A value that the system reports of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    shape, max_bytes = SHAPES[sys.argv[1]], int(sys.argv[2])
    before = bytes_of("VmRSS")
    limit = bytes_of("VmData") + max_bytes + SLACK_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    first = count(shape, max_bytes)
    taken = bytes_of("VmHWM") - before
    again = count(shape, max_bytes)
    found = {"events": [first, again], "taken": [taken, bytes_of("VmHWM") - before]}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()

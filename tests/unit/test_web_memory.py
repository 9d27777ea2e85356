"""The page's counts take no more memory than they report: `web.max_bytes` limits the reported number."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

import hostile_window
from engine_world import decision
from flagpost_consumer.commands.reconcile.counting import Published
from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.settings import Settings
from flagpost_consumer.web.aggregates import Aggregates
from flagpost_schemas import LedgerEntry, RuleType, Settlements

EVENTS = 7_500
PARTITIONS = 2
LIMIT_BYTES = 8_000_000
TESTS = Path(hostile_window.__file__).parent
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
WINDOW_HOURS = 48
EVENT_HOURS = 12
"""All events are in these hours, so that there are hundreds in each of the window's time steps that has some."""
KINDS = (Kind.TRACK, Kind.VISITOR_METADATA)


def taken(visitors: int, *, settled: bool) -> tuple[int, int]:
    """Return the bytes that are taken, and the bytes that are reported."""
    tracemalloc.start()
    aggregates = Aggregates(NOW_MS, NOW_MS + WINDOW_HOURS * HOUR_MS, Settings())
    for number in range(EVENTS):
        event = decision(
            f"visitor-{number % visitors}", variation=("a", "b")[number % 2], rule_type=RuleType.EXPERIMENT
        )
        partition, offset = number % PARTITIONS, number // PARTITIONS
        record = Published(partition, offset, KINDS, ("checkout", event.variation_key), None, event)
        aggregates.publish(record, NOW_MS + number * EVENT_HOURS * HOUR_MS // EVENTS)
        if settled:
            entries = [LedgerEntry(offset, kind.value, "delivered", "ok") for kind in KINDS]
            told = Settlements(group="g", member="m", settled_at=0, entries=entries, gaps=[])
            aggregates.settle(partition, told)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held, aggregates.bytes_held


@pytest.mark.thorough
def test_the_counts_take_no_more_memory_than_they_report() -> None:
    for visitors, settled in ((EVENTS, True), (EVENTS, False), (100, True)):
        held, said = taken(visitors, settled=settled)
        assert held <= said, (visitors, settled, held / EVENTS, said / EVENTS)
        assert said <= 2.5 * held, (visitors, settled, held / EVENTS, said / EVENTS)


@pytest.mark.thorough
@pytest.mark.parametrize("shape", hostile_window.SHAPES)
def test_a_process_takes_no_more_memory_than_the_page_reports_whatever_is_published(shape: str) -> None:
    """The process runs under a memory limit of the system; the second time, as many events fit as the first."""
    command = [sys.executable, hostile_window.__file__, shape, str(LIMIT_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, again = found["events"]
    assert first == again > 0
    assert max(found["taken"]) <= LIMIT_BYTES, found

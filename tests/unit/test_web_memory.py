"""What the page counts takes no more memory than it says: `web.max_bytes` is held by what it says."""

from __future__ import annotations

import tracemalloc

from flagpost_consumer.core.outcomes import Kind
from flagpost_consumer.operator.reconciliation.counting import Published
from flagpost_consumer.settings import Settings
from flagpost_consumer.web.aggregates import Aggregates
from flagpost_schemas import LedgerEntry, RuleType, Settlements
from simulation import decision

EVENTS = 30_000
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
KINDS = (Kind.TRACK, Kind.VISITOR_METADATA)


def taken(visitors: int, *, settled: bool) -> tuple[int, int]:
    """Bytes that are taken, and that it says are taken."""
    tracemalloc.start()
    aggregates = Aggregates(NOW_MS, NOW_MS + 48 * HOUR_MS, Settings())
    for number in range(EVENTS):
        event = decision(
            f"visitor-{number % visitors}", variation=("a", "b")[number % 2], rule_type=RuleType.EXPERIMENT
        )
        record = Published(number % 4, number // 4, KINDS, ("checkout", event.variation_key), None, event)
        aggregates.publish(record, NOW_MS + number * 48 * HOUR_MS // EVENTS)
        if settled:
            entries = [LedgerEntry(number // 4, kind.value, "delivered", "ok") for kind in KINDS]
            told = Settlements(group="g", member="m", settled_at=0, entries=entries, gaps=[])
            aggregates.settle(number % 4, told)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held, aggregates.bytes_held


def test_what_is_counted_takes_no_more_than_it_says() -> None:
    for visitors, settled in ((EVENTS, True), (EVENTS, False), (100, True)):
        held, said = taken(visitors, settled=settled)
        assert held <= said, (visitors, settled, held / EVENTS, said / EVENTS)
        assert said <= 2.5 * held, (visitors, settled, held / EVENTS, said / EVENTS)

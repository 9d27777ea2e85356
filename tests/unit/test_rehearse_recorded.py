"""The facts of the ledger that a rehearsal keeps."""

from __future__ import annotations

import pytest

from flagpost_consumer.commands.reconcile.settled import LaterRelease
from flagpost_consumer.commands.rehearse.recorded import PartitionLedger, Recorded
from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.core.outcomes import Kind, Reason
from flagpost_consumer.core.policy import DedupeSettings
from flagpost_schemas import LedgerEntry, Settlements
from ledger_writing import entry


def ledger_of(*batches: tuple[str, int, list[LedgerEntry]]) -> PartitionLedger:
    """Return a ledger that is read for the offsets from 10 to 19."""
    ledger = PartitionLedger(Span(10, 20), DedupeSettings())
    for offset, (member, settled_at, entries) in enumerate(batches):
        ledger.add(
            offset, Settlements(group="g", member=member, settled_at=settled_at, entries=entries, gaps=[])
        )
    return ledger


def test_each_delivery_has_its_settlement_its_time_and_its_members_stay() -> None:
    ledger = ledger_of(
        ("a", 5, [entry(10, reason="rejected", outcome="dead_lettered", attempts=1)]),
        ("b", 6, [entry(10, "visitor_metadata", attempts=2)]),
        ("a", 7, [entry(12, outcome="duplicate", reason="dedupe", duplicate_of=10)]),
    )
    assert ledger.of(10) == {
        Kind.TRACK: Recorded(Reason.REJECTED, 5, was_requested=True, stay=0),
        Kind.VISITOR_METADATA: Recorded(Reason.OK, 6, was_requested=True, was_retried=True, stay=1),
    }
    assert ledger.of(11) == {}
    assert ledger.of(12) == {Kind.TRACK: Recorded(Reason.DEDUPE, 7, duplicate_of=10, stay=2)}
    assert ledger.reaches == [10, 10, 12]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_delivered_wins_over_any_other_settlement(order: tuple[int, int]) -> None:
    ends = [entry(10), entry(10, outcome="dead_lettered", reason="rejected")]
    ledger = ledger_of(*(("m", number, [ends[number]]) for number in order))
    assert ledger.of(10)[Kind.TRACK].reason is Reason.OK


def test_only_the_claims_of_deliveries_before_the_stretch_are_kept() -> None:
    ledger = ledger_of(
        (
            "m",
            5,
            [
                entry(3, dedupe_key=b"k" * 16, occurred_at=1000),
                entry(4, outcome="dead_lettered", reason="rejected", dedupe_key=b"r" * 16, occurred_at=1000),
                entry(20, dedupe_key=b"x" * 16, occurred_at=1000),
            ],
        )
    )
    assert ledger.known_from == 3
    assert ledger.claims.claim(b"k" * 16, 1500, 11) == 3
    assert ledger.claims.claim(b"x" * 16, 1500, 12) is None
    assert [each.offset for each in ledger.undelivered] == [4]


def test_a_reason_of_a_later_release_ends_the_reading() -> None:
    with pytest.raises(LaterRelease, match=r"offset 10 .* upgrade Flagpost"):
        ledger_of(("m", 5, [entry(10, reason="unknown")]))

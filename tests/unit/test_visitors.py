"""The rules of counting visitors, one by one; `tests/property/test_visitors_any_order.py` tests them together."""

from __future__ import annotations

import tracemalloc

import pytest

from flagpost_consumer.commands.reconcile.visitors import VisitorCounts, Visitors
from flagpost_schemas import LedgerEntry

ROW = ("checkout", "treatment")
MOST_BYTES = 200
"""The most memory of a visitor with one decision in one group; docs/reconcile.md says about 150."""


def counts(visitors: Visitors[tuple[str, str]]) -> VisitorCounts:
    return visitors.counts()[ROW]


@pytest.fixture
def visitors() -> Visitors[tuple[str, str]]:
    """Return the books with two decisions of one visitor."""
    found: Visitors[tuple[str, str]] = Visitors()
    found.publish(0, 10, ROW, "v")
    found.publish(0, 12, ROW, "v")
    return found


def test_unsettled_decisions_are_pending_and_below_the_commit_unexplained(
    visitors: Visitors[tuple[str, str]],
) -> None:
    assert counts(visitors) == VisitorCounts(1, 0, {"pending": 1})
    visitors.commit(0, 11)
    assert counts(visitors).by_reason == {"pending": 1}  # the other one may still be delivered
    visitors.commit(0, 13)
    assert counts(visitors).by_reason == {"unexplained": 1}


def test_one_delivered_decision_is_enough(visitors: Visitors[tuple[str, str]]) -> None:
    visitors.settle(0, [LedgerEntry(10, "track", "delivered", "ok")])
    assert counts(visitors) == VisitorCounts(1, 1, {})
    visitors.settle(0, [LedgerEntry(12, "track", "dead_lettered", "rejected")])
    assert counts(visitors) == VisitorCounts(1, 1, {})


def test_the_reason_nearest_to_delivery_counts(visitors: Visitors[tuple[str, str]]) -> None:
    visitors.settle(0, [LedgerEntry(12, "track", "dead_lettered", "rejected")])
    visitors.settle(0, [LedgerEntry(10, "track", "dropped", "no_consent")])
    assert counts(visitors) == VisitorCounts(1, 0, {"rejected": 1})


def test_a_later_settlement_counts_if_it_is_nearer_to_delivery(visitors: Visitors[tuple[str, str]]) -> None:
    both = [LedgerEntry(offset, "track", "dead_lettered", "attempts_exhausted") for offset in (10, 12)]
    visitors.settle(0, both)
    visitors.settle(0, [LedgerEntry(12, "track", "delivered", "ok")])
    visitors.settle(0, [LedgerEntry(12, "track", "dropped", "no_consent")])
    assert counts(visitors) == VisitorCounts(1, 1, {})


def test_settlements_behind_the_end_are_left_out(visitors: Visitors[tuple[str, str]]) -> None:
    both = [LedgerEntry(offset, "track", "delivered", "ok") for offset in (12, 10)]
    visitors.settle(0, both, end=10)
    assert counts(visitors).by_reason == {"pending": 1}
    visitors.settle(0, both, end=12)
    assert counts(visitors) == VisitorCounts(1, 1, {})


def test_metadata_delivers_no_visitor(visitors: Visitors[tuple[str, str]]) -> None:
    visitors.settle(0, [LedgerEntry(10, "visitor_metadata", "delivered", "ok")])
    assert counts(visitors).by_reason == {"pending": 1}


def test_a_replayed_dead_letter_is_another_decision_of_its_visitor(
    visitors: Visitors[tuple[str, str]],
) -> None:
    visitors.settle(0, [LedgerEntry(offset, "track", "dead_lettered", "rejected") for offset in (10, 12)])
    visitors.publish(0, 90, ROW, "v")
    assert counts(visitors).by_reason == {"pending": 1}
    visitors.settle(0, [LedgerEntry(90, "track", "delivered", "ok")])
    assert counts(visitors) == VisitorCounts(1, 1, {})


@pytest.mark.parametrize(
    ("outcome", "reason", "expected"),
    [
        ("delivered", "ok", VisitorCounts(1, 1, {})),
        ("dead_lettered", "rejected", VisitorCounts(1, 0, {"rejected": 1})),
    ],
)
def test_a_duplicate_of_a_decision_before_the_window_ends_as_that_did(
    outcome: str, reason: str, expected: VisitorCounts
) -> None:
    visitors: Visitors[tuple[str, str]] = Visitors()
    visitors.publish(0, 10, ROW, "v")
    visitors.settle(0, [LedgerEntry(10, "track", "duplicate", "dedupe", duplicate_of=3)])
    assert counts(visitors).by_reason == {"pending": 1}  # the settlement of 3 is not known yet
    visitors.settle(0, [LedgerEntry(3, "track", outcome, reason)])
    assert counts(visitors) == expected


def test_a_duplicate_of_an_unknown_decision_is_lost_as_a_duplicate() -> None:
    visitors: Visitors[tuple[str, str]] = Visitors()
    visitors.commit(0, 11)
    visitors.publish(0, 10, ROW, "v")
    visitors.settle(0, [LedgerEntry(10, "track", "duplicate", "dedupe", duplicate_of=3)])
    assert counts(visitors).by_reason == {"dedupe": 1}


def test_a_duplicate_in_another_group_counts_as_delivered_with_the_one_it_duplicates() -> None:
    visitors: Visitors[str] = Visitors()
    visitors.publish(0, 3, "monday", "v")
    visitors.publish(0, 10, "tuesday", "v")
    visitors.settle(0, [LedgerEntry(10, "track", "duplicate", "dedupe", duplicate_of=3)])
    visitors.settle(0, [LedgerEntry(3, "track", "delivered", "ok")])
    assert visitors.counts() == {"monday": VisitorCounts(1, 1, {}), "tuesday": VisitorCounts(1, 1, {})}


def test_decisions_that_the_group_could_not_read_are_lost_as_such(
    visitors: Visitors[tuple[str, str]],
) -> None:
    visitors.lose(0, 5, 20)
    assert counts(visitors).by_reason == {"offset_lost": 1}
    visitors.publish(0, 15, ROW, "w")
    assert counts(visitors) == VisitorCounts(2, 0, {"offset_lost": 2})


def test_the_standing_of_one_visitor_is_returned(visitors: Visitors[tuple[str, str]]) -> None:
    visitors.settle(0, [LedgerEntry(12, "track", "dropped", "no_consent")])
    visitors.commit(0, 13)
    assert visitors.standing(ROW, "v") == "unexplained"
    assert visitors.standing(ROW, "w") is None
    assert visitors.standing(("search", "on"), "v") is None


def test_a_visitor_takes_little_more_memory_than_the_docs_say() -> None:
    many = 50_000
    ids = [f"visitor-{number:012d}" for number in range(many)]
    tracemalloc.start()
    try:
        visitors: Visitors[tuple[str, str]] = Visitors()
        for number, visitor_id in enumerate(ids):
            entry = LedgerEntry(number // 6, "track", "duplicate", "dedupe", duplicate_of=0)
            visitors.settle(number % 6, [entry])
            visitors.publish(number % 6, number // 6, ROW, visitor_id)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(visitors) == many
    assert held / many < MOST_BYTES, held / many

"""The demo's own table: its JSON has what `flagpost reconcile --json` has, and visitors with one reason each."""

from __future__ import annotations

from collections import Counter

from engine_world import decision
from flagpost_consumer.commands.reconcile.counting import Books
from flagpost_consumer.commands.reconcile.counting import Counts as ReconcileCounts
from flagpost_consumer.commands.reconcile.reading import Reconciliation
from flagpost_consumer.commands.reconcile.report import Report
from flagpost_consumer.commands.reconcile.visitors import VisitorCounts
from flagpost_consumer.core.outcomes import DELIVERED, Ending, Kind, Reason
from flagpost_consumer.demo.reconciliation import Published, reconcile

ROW = ("flag", "treatment")


def published(*visitors: str) -> list[Published]:
    """A decision of each visitor, at one offset after the other."""
    return [Published((0, at), decision(visitor, "flag", "treatment")) for at, visitor in enumerate(visitors)]


def test_its_json_has_every_field_of_reconcile() -> None:
    books = Books()
    books.rows[ROW] = ReconcileCounts(published=1)
    theirs = Report(Reconciliation(0, 1, books, {ROW: VisitorCounts(1)}), (), at_pendo={}).as_json()
    ours = reconcile(published("a"), {((0, 0), Kind.TRACK): DELIVERED}, {}).as_json()

    assert theirs.keys() - ours.keys() == {"sample_ratio", "warnings"}
    for part in ("other", "totals", "metadata"):
        assert ours[part].keys() == theirs[part].keys()
    (row,), (their_row,) = ours["rows"], theirs["rows"]
    assert their_row.keys() - row.keys() == {"pendo_visitors"}
    assert row["visitors"].keys() == their_row["visitors"].keys()
    assert row["pendo"].keys() == their_row["pendo"].keys()


def test_a_visitor_is_lost_for_the_reason_nearest_to_delivery() -> None:
    track = Kind.TRACK
    table = reconcile(
        published("a", "a", "b", "b", "c", "d", "e"),
        {
            ((0, 0), track): Ending(Reason.NO_CONSENT),
            ((0, 1), track): DELIVERED,
            ((0, 2), track): Ending(Reason.REJECTED),
            ((0, 3), track): Ending(Reason.EXPIRED),
            ((0, 4), track): Ending(Reason.DEDUPE),
        },
        {0: 6},
    )
    table.at_pendo = Counter({ROW: 1})
    (row,) = table.as_json()["rows"]

    assert row["visitors"] == {
        "decided": 5,
        "delivered": 1,
        "lost": 4,
        "by_reason": {"rejected": 1, "dedupe": 1, "unexplained": 1, "pending": 1},
    }
    assert row["reasons"] == {"no_consent": 1, "rejected": 1, "expired": 1, "dedupe": 1}
    assert table.as_json()["totals"]["reasons"] == row["reasons"]
    assert row["pendo"] == {"counted": 1, "expected_min": 1, "expected_max": 1}

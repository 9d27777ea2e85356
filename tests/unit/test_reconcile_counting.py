"""Rules of reconcile's counting that tests of whole histories do not show."""

from __future__ import annotations

import pytest

from flagpost_consumer.commands.reconcile.counting import Books, Counts, PartitionFacts, Published
from flagpost_consumer.commands.reconcile.settled import LaterRelease, Settled, ended, kinds_of
from flagpost_consumer.commands.sources.topic_reading import Span
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_schemas import LedgerEntry

BOTH = (Kind.TRACK, Kind.VISITOR_METADATA)
REASONS = {
    "delivered": "ok",
    "dead_lettered": "rejected",
    "duplicate": "dedupe",
    "dropped": "no_consent",
    "unknown": "ok",
}


def settled(*entries: tuple[int, Kind, str]) -> Settled:
    found = Settled(Span(100, 110))
    listed = [LedgerEntry(offset=o, kind=k.value, outcome=out, reason=REASONS[out]) for o, k, out in entries]
    found.add(listed)
    return found


def count(record: Published, ledger: Settled, committed: int = 110) -> Books:
    books = Books()
    books.count({3: PartitionFacts(ledger, committed)}, [record])
    return books


def test_a_record_that_was_undecodable_then_and_can_be_read_now_is_one_dead_letter() -> None:
    books = count(Published(3, 100, BOTH, ("f", "a")), settled((100, Kind.UNKNOWN, "dead_lettered")))
    assert (books.totals.published, books.totals.dead_lettered, books.metadata.published) == (1, 1, 0)
    assert books.unexplained == 0


def test_a_record_that_was_read_then_and_cannot_be_now_counts_as_it_was_settled() -> None:
    ledger = settled((100, Kind.TRACK, "delivered"), (100, Kind.VISITOR_METADATA, "duplicate"))
    books = count(Published(3, 100, (Kind.UNKNOWN,)), ledger)
    assert (books.other.published, books.other.delivered, books.metadata.duplicate) == (1, 1, 1)
    assert books.unexplained == 0


def test_metadata_that_was_sent_while_it_was_switched_on_counts() -> None:
    ledger = settled((100, Kind.TRACK, "delivered"), (100, Kind.VISITOR_METADATA, "delivered"))
    books = count(Published(3, 100, (Kind.TRACK,), ("f", "a")), ledger)
    assert (books.metadata.published, books.metadata.delivered) == (1, 1)


def test_the_unsettled_delivery_of_a_half_settled_record_below_the_commit_is_unexplained() -> None:
    books = count(Published(3, 100, BOTH, ("f", "a")), settled((100, Kind.TRACK, "delivered")))
    assert [str(example) for example in books.examples] == ["3/100/visitor_metadata"]


def test_a_gap_that_the_ledger_has_is_lost_and_not_unexplained_too() -> None:
    """A batch too large for the consumer can be read here; before the fix, it counted as lost and as unexplained."""
    facts = PartitionFacts(settled((104, Kind.TRACK, "delivered")), 110, gaps=[(101, 103), (104, 106)])
    books = Books()
    books.count({3: facts}, [Published(3, offset, (Kind.TRACK,), ("f", "a")) for offset in range(100, 107)])
    assert [str(example) for example in books.examples] == ["3/100/track", "3/103/track", "3/106/track"]
    assert (books.totals.published, books.totals.delivered) == (4, 1)


def test_unsettled_deliveries_are_pending_from_the_committed_offset_on() -> None:
    record = Published(3, 100, (Kind.TRACK,), ("f", "a"))
    assert count(record, settled(), committed=100).totals.pending == 1
    assert count(record, settled(), committed=101).totals.unexplained == 1


def test_settlements_outside_the_window_are_left_out() -> None:
    ledger = settled((99, Kind.TRACK, "delivered"), (110, Kind.TRACK, "delivered"))
    assert [kinds_of(ledger.endings(offset)) for offset in range(100, 110)] == [[]] * 10


def test_an_outcome_of_a_later_release_is_not_guessed_at() -> None:
    with pytest.raises(LaterRelease, match=r"offset 100 .* upgrade Flagpost"):
        settled((100, Kind.TRACK, "unknown"))


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_counted_under_its_name_in_the_ledger(reason: Reason) -> None:
    ledger = Settled(Span(100, 110))
    told = LedgerEntry(offset=100, kind="track", outcome=reason.outcome.value, reason=reason.value)
    ledger.add([told])
    counts = count(Published(3, 100, (Kind.TRACK,), ("f", "a")), ledger).rows["f", "a"]
    assert getattr(counts, reason.outcome.value) == 1
    assert counts.reasons == ({} if reason is Reason.OK else {reason.value: 1})


def test_a_reason_of_a_later_release_is_counted_and_shown_as_unknown() -> None:
    ledger = Settled(Span(100, 110))
    told = LedgerEntry(offset=100, kind="track", outcome="dropped", reason="unknown")
    ledger.add([told])
    counts = count(Published(3, 100, (Kind.TRACK,), ("f", "a")), ledger).rows["f", "a"]
    assert (counts.dropped, counts.reasons) == (1, {"unknown": 1})


def test_rows_are_split_by_parts_and_parts_add_up_to_their_row() -> None:
    ledger = settled((100, Kind.TRACK, "delivered"), (101, Kind.TRACK, "dropped"))
    books = Books()
    records = [Published(3, 100 + n, (Kind.TRACK,), ("f", "a"), day) for n, day in enumerate("abb")]
    books.count({3: PartitionFacts(ledger, 0)}, records)
    assert {part: each.published for (_, part), each in books.parts.items()} == {"a": 1, "b": 2}
    added = Counts()
    for each in books.parts.values():
        added.add(each)
    assert books.rows["f", "a"] == added


@pytest.mark.parametrize("kind", Kind)
def test_kinds_of_one_offset_are_counted_separately(kind: Kind) -> None:
    ledger = settled((100, kind, "dropped"), (100, kind, "delivered"), (100, kind, "delivered"))
    assert {other: ended(ledger.endings(100), other) for other in Kind} == {
        other: (Outcome.DELIVERED, "ok") if other is kind else None for other in Kind
    }
    assert {other: ledger.sent_again(100, other) for other in Kind} == {
        other: int(other is kind) for other in Kind
    }

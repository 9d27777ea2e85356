"""The accounts: each delivery is counted in exactly one place, from planning to settlement."""

from __future__ import annotations

from flagpost_consumer.core.books.accounts import Accounts
from flagpost_consumer.core.outcomes import Ending, Kind, Outcome, Reason


def test_a_delivery_is_pending_from_its_plan_to_its_acknowledged_end() -> None:
    books = Accounts()
    books.plan(Kind.TRACK)
    assert (books.planned[Kind.TRACK], books.pending[Kind.TRACK]) == (1, 1)
    assert books.difference(Kind.TRACK) == 0
    books.settle(Kind.TRACK, Ending(Reason.OK))
    assert (books.planned[Kind.TRACK], books.pending[Kind.TRACK]) == (1, 0)
    assert books.difference(Kind.TRACK) == 0


def test_a_returned_delivery_is_neither_pending_nor_settled() -> None:
    books = Accounts()
    books.plan(Kind.TRACK)
    books.hand_back(Kind.TRACK)
    assert (books.pending[Kind.TRACK], books.returned[Kind.TRACK]) == (0, 1)
    assert books.settled.total() == 0
    assert books.difference(Kind.TRACK) == 0


def test_kinds_are_counted_apart_and_outcomes_over_all_their_reasons() -> None:
    books = Accounts()
    for kind in (Kind.TRACK, Kind.UNKNOWN):
        for reason in Reason:
            books.plan(kind)
            books.settle(kind, Ending(reason))
    for outcome in Outcome:
        expected = sum(reason.outcome is outcome for reason in Reason)
        assert books.total(Kind.TRACK, outcome) == books.total(Kind.UNKNOWN, outcome) == expected > 0
        assert books.total(Kind.VISITOR_METADATA, outcome) == 0


def test_a_difference_in_the_accounts_is_reported_by_kind_and_sign() -> None:
    books = Accounts()
    books.planned[Kind.TRACK] = 3
    books.settled[Kind.UNKNOWN, Outcome.DROPPED, Reason.NO_CONSENT] = 2
    books.pending[Kind.VISITOR_METADATA] = 1
    books.returned[Kind.ACCOUNT_METADATA] = 4
    assert [books.difference(kind) for kind in (Kind.TRACK, Kind.UNKNOWN)] == [3, -2]
    assert [books.difference(kind) for kind in (Kind.VISITOR_METADATA, Kind.ACCOUNT_METADATA)] == [-1, -4]


def test_several_deliveries_at_once_add_up() -> None:
    accounts = Accounts()
    for count in (2, 3):
        accounts.plan(Kind.TRACK, 3 * count)
        accounts.settle(Kind.TRACK, Ending(Reason.OK), count)
        accounts.hand_back(Kind.TRACK, count)
    assert (accounts.planned[Kind.TRACK], accounts.pending[Kind.TRACK]) == (15, 5)
    assert accounts.settled[Kind.TRACK, Outcome.DELIVERED, Reason.OK] == 5
    assert accounts.returned[Kind.TRACK] == 5

"""Fair shares: no visitor that holds less than the share is cut, and no greater share would fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.core.books.shares import WHATEVER, Holding, Room, fair_share, is_hot
from flagpost_consumer.core.policy import DeliverySettings


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(-5, 120))
def test_a_share_is_the_greatest_that_fits(holdings: list[int], room: int) -> None:
    share = fair_share(holdings, room)
    assert share <= max(room, 0), "nobody may hold more than all may"
    if sum(holdings) > max(room, 0):
        fitting = [each for each in range(31) if sum(min(held, each) for held in holdings) <= max(room, 0)]
        assert share == max(fitting)
    else:
        assert share >= max(holdings, default=0)
        assert share >= 0


@pytest.mark.parametrize(("within_ms", "is_it"), [(19_999, True), (20_000, False)])
def test_a_visitor_that_publishes_faster_than_half_the_pace_is_hot(within_ms: int, is_it: bool) -> None:
    """Ten events of a second each take ten seconds: a visitor that publishes them in less than twenty is hot."""
    assert is_hot(10, within_ms, 1.0) is is_it
    assert is_hot(5, within_ms, 2.0) is is_it


@pytest.mark.parametrize(
    ("holding", "is_more"),
    [
        (Holding(3, 10), False),
        (Holding(4, 10), True),
        (Holding(3, 11), True),
        (Holding(0, 11), True),
        (Holding(0, 0), False),
    ],
)
def test_either_number_or_bytes_may_be_too_many(holding: Holding, is_more: bool) -> None:
    assert holding.exceeds(Holding(3, 10)) is is_more
    assert not holding.exceeds(WHATEVER)


def test_the_greater_number_and_the_greater_size_of_two_holdings_are_taken() -> None:
    assert Holding(1, 20).or_more(Holding(2, 10)) == Holding(2, 20)


def test_one_visitor_alone_is_not_cut_nor_are_two_that_fill_the_room_exactly() -> None:
    least = Holding(1, 1)
    room = Room(Holding(10, 100), least, least, least)
    assert room.share([Holding(99, 999)]) is None
    assert room.share([Holding(5, 50), Holding(5, 50)]) is None
    assert room.share([Holding(5, 50), Holding(6, 50)]) == Holding(5, 100)
    assert room.share([Holding(5, 50), Holding(5, 51)]) == Holding(10, 50)


@pytest.mark.parametrize(("per_visitor", "stuck"), [(9, 0), (10, 1), (19, 1), (20, 2)])
def test_a_visitor_whose_requests_fail_keeps_a_tenth_rounded_down(per_visitor: int, stuck: int) -> None:
    delivery = DeliverySettings(max_pending=100, max_pending_bytes=1_050, max_pending_per_visitor=per_visitor)
    assert Room.of(0.5, delivery).least_stuck == Holding(stuck, int(stuck * 10.5))


@pytest.mark.parametrize(("per_visitor", "metadata"), [(5, 4), (11, 10), (40, 10), (600, 60)])
def test_an_id_may_hold_as_much_metadata_as_goes_in_one_request(per_visitor: int, metadata: int) -> None:
    """Ten deliveries, or a tenth of what a visitor may hold if that is more; but fewer than a visitor may hold."""
    delivery = DeliverySettings(max_pending=100, max_pending_bytes=1_050, max_pending_per_visitor=per_visitor)
    assert Room.of(0.5, delivery).least_metadata == Holding(metadata, int(metadata * 10.5))
    assert Room.of(0.5, delivery).whole == Holding(50, 525)

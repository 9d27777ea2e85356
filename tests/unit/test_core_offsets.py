"""Which offset may be committed: with holes, gaps, and settlements in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.core.books.offsets import Offsets


def offsets(position: int | None = None) -> Offsets[str]:
    return Offsets(position)


def test_nothing_is_committed_before_a_position_is_known() -> None:
    assert offsets().committable() is None
    assert offsets(0).committable() == 0
    assert offsets(7).committable() == 7


def test_a_record_that_is_taken_in_holds_the_position_until_it_is_settled() -> None:
    subject = offsets(7)
    subject.take(7, "seven")
    assert (subject.position, subject.committable(), len(subject)) == (8, 7, 1)
    assert 7 in subject
    assert subject.entry(7) == "seven"
    subject.settle(7)
    assert (subject.position, subject.committable(), len(subject)) == (8, 8, 0)
    assert 7 not in subject


def test_the_lowest_unsettled_record_is_the_position_and_a_hole_holds_nothing() -> None:
    subject = offsets(0)
    for offset in (5, 6, 9):
        subject.take(offset, str(offset))
    subject.settle(6)
    assert subject.committable() == 5
    subject.settle(5)
    assert subject.committable() == 9
    subject.settle(9)
    assert subject.committable() == 10


def test_a_record_settled_before_it_was_read_moves_the_position_on() -> None:
    subject = offsets(5)
    subject.pass_over(5)
    assert subject.committable() == 6
    subject.take(6, "six")
    subject.pass_over(7)
    assert (subject.position, subject.committable()) == (8, 6)
    subject.settle(6)
    assert subject.committable() == 8


def test_a_gap_holds_the_position_at_its_beginning_until_it_is_settled() -> None:
    subject = offsets(5)
    subject.take(5, "five")
    subject.lose(6, 20, "gap")
    assert (subject.position, subject.committable()) == (20, 5)
    subject.settle(5)
    assert subject.committable() == 6
    subject.settle(6)
    assert subject.committable() == 20


def test_records_are_returned_in_the_order_of_their_offsets() -> None:
    subject = offsets(0)
    assert (subject.oldest(), subject.unsettled()) == (None, [])
    for offset in (1, 2, 3):
        subject.take(offset, str(offset))
    subject.settle(1)
    assert (subject.oldest(), subject.unsettled()) == ("2", ["2", "3"])
    subject.clear()
    assert (subject.oldest(), subject.unsettled(), len(subject)) == (None, [], 0)
    assert subject.committable() == 4


@given(st.lists(st.booleans(), max_size=40), st.randoms(use_true_random=False))
def test_all_below_the_position_is_settled_and_the_record_at_it_is_not(
    taken: list[bool], random: object
) -> None:
    subject = offsets(0)
    records = [offset for offset, is_there in enumerate(taken) if is_there]
    for offset in records:
        subject.take(offset, str(offset))
    left = list(records)
    random.shuffle(left)  # type: ignore[attr-defined]
    for done, offset in enumerate(left, 1):
        subject.settle(offset)
        unsettled = left[done:]
        assert subject.committable() == (min(unsettled) if unsettled else records[-1] + 1)

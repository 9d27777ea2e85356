"""Leader epochs: what the ledger stores of them, and how they show that a log has gone back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.core.books.leader_epochs import (
    MAX_EPOCHS,
    LeaderEpochs,
    is_of_another_log,
    read_epochs,
    write_epochs,
)
from flagpost_consumer.core.books.restoration import Restoration
from flagpost_consumer.core.policy import Policy


def epochs_of(*stretches: tuple[int, int]) -> LeaderEpochs:
    epochs = LeaderEpochs()
    for offset, epoch in stretches:
        epochs.begins(offset, epoch)
    return epochs


def test_the_last_offset_of_each_epoch_is_returned() -> None:
    epochs = epochs_of((10, 3), (12, 4), (20, 7))
    assert epochs.last_of_each([14, 11, 10, 12]) == {3: 11, 4: 14}
    assert epochs.last_of_each([25]) == {7: 25}
    assert epochs.last_of_each([]) == {}


def test_nothing_is_returned_for_offsets_before_the_first_stretch() -> None:
    assert epochs_of((10, 3)).last_of_each([9, 10]) == {3: 10}
    assert LeaderEpochs().last_of_each([9]) == {}


def test_a_stretch_without_a_record_does_not_hide_the_next_one() -> None:
    """A commit has the epoch of the record before it; the first record may be another leader's."""
    assert epochs_of((10, 3), (10, 4)).last_of_each([10, 11]) == {4: 11}


def test_no_more_changes_are_remembered_than_the_limit() -> None:
    epochs = epochs_of(*[(offset, offset) for offset in range(MAX_EPOCHS + 1)])
    assert epochs.last_of_each([0]) == {}
    assert epochs.last_of_each([1]) == {1: 1}


def test_the_epoch_of_the_record_before_is_known_from_the_first_stretch_on() -> None:
    epochs = epochs_of((10, 3), (13, 5))
    assert [epochs.before(offset) for offset in (10, 11, 13, 14)] == [None, 3, 3, 5]
    assert LeaderEpochs().before(14) is None


@pytest.mark.parametrize(
    ("offset", "epoch", "is_other"),
    [
        (12, 4, True),
        (14, 4, True),
        (15, 4, False),
        (12, 3, False),
        (9, 3, True),
        (10, 3, False),
        (12, 2, False),
    ],
)
def test_a_later_leaders_record_at_or_below_a_settled_offset_is_of_another_log(
    offset: int, epoch: int, is_other: bool
) -> None:
    assert is_of_another_log(offset, epoch, {2: 9, 3: 14}) is is_other


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.data(),
)
def test_records_of_one_log_are_not_taken_for_another_log(lengths: list[int], data: st.DataObject) -> None:
    """Whichever of its records are settled, and from whichever offsets it was read."""
    log = [epoch for epoch, length in enumerate(lengths) for _ in range(length)]
    settled: dict[int, int] = {}
    for first in data.draw(st.lists(st.sampled_from(range(len(log))), max_size=3)):
        begins = [place for place in range(first, len(log)) if place == first or log[place] != log[place - 1]]
        epochs = epochs_of(*[(place, log[place]) for place in begins])
        restoration = Restoration(0, Policy().dedupe)
        restoration.epochs = settled
        some = data.draw(st.sets(st.sampled_from(range(first, len(log)))))
        restoration.take_epochs(0, epochs.last_of_each(some))
    assert not any(is_of_another_log(offset, epoch, settled) for offset, epoch in enumerate(log))
    if settled:
        last = max(settled.values())
        assert is_of_another_log(last, len(lengths), settled), "it went back there, and a new leader wrote"


def test_epochs_are_read_as_they_were_written() -> None:
    assert write_epochs({7: 25, 3: 11}) == b"3:11,7:25"
    assert read_epochs(b"3:11,7:25") == {3: 11, 7: 25}


@pytest.mark.parametrize("text", [None, b"", b"3", b"3:x", b"3:1:2", b"\xff:1"])
def test_epochs_that_cannot_be_read_are_ignored(text: bytes | None) -> None:
    assert read_epochs(text) == {}


def test_epochs_written_before_the_log_went_back_are_ignored() -> None:
    restoration = Restoration(5, Policy().dedupe, settles_from=3)
    restoration.take_epochs(2, {1: 50})
    assert restoration.epochs == {}
    restoration.take_epochs(3, {2: 50, 1: 6})
    restoration.take_epochs(4, {2: 40, 1: 7})
    assert restoration.epochs == {1: 7, 2: 50}


def test_the_last_settled_offset_of_an_epoch_may_be_0() -> None:
    restoration = Restoration(0, Policy().dedupe)
    restoration.take_epochs(0, {3: 0})
    assert restoration.epochs == {3: 0}

"""Batches that wait to be sent again: which is due, and that those which no longer wait leave little behind."""

from __future__ import annotations

import pytest

from flagpost_consumer.core.metadata.retries import Batch, Retries


def batch(name: str = "a") -> Batch:
    return Batch("visitor", "custom", [name])


def test_a_batch_is_due_from_its_moment_on() -> None:
    retries, waiting = Retries(), batch()
    retries.push(3.0, waiting)
    assert retries.first_at() == 3.0
    assert retries.pop(2.9) is None
    assert retries.first(3.0) is waiting
    assert len(retries) == 1, "it goes on waiting"
    assert retries.pop(3.0) is waiting
    assert (len(retries), retries.first_at(), retries.pop(9.0)) == (0, None, None)


def test_the_first_due_goes_first_and_of_those_due_at_once_the_one_that_came_first() -> None:
    retries = Retries()
    late, early, same = batch("late"), batch("early"), batch("same")
    retries.push(5.0, late)
    retries.push(3.0, early)
    retries.push(3.0, same)
    assert [retries.pop(5.0) for _ in range(3)] == [early, same, late]


def test_once_they_are_hurried_all_are_due_in_the_order_in_which_they_came() -> None:
    retries = Retries()
    batches = [batch(name) for name in "abc"]
    for number, each in enumerate(batches):
        retries.push(100.0 - number, each)
    retries.hurry(2.0)
    assert retries.first_at() == 2.0
    assert [retries.pop(2.0) for _ in range(3)] == batches


@pytest.mark.parametrize("dropped", [27, 28])
def test_there_are_at_most_sixteen_places_more_than_twice_as_many_as_batches_wait(dropped: int) -> None:
    """They are looked through once for many batches: 37 or 38 places are left for 11 batches, and 10 for 10."""
    retries = Retries()
    waiting, gone = [batch() for _ in range(10)], [batch() for _ in range(dropped)]
    for number, each in enumerate([*gone, *waiting]):
        retries.push(float(100 - number), each)
    for each in gone[:-1]:
        retries.drop(each)
        assert len(retries._heap) == 10 + dropped
    retries.drop(gone[-1])
    assert len(retries._heap) == len(retries) == 10
    assert [retries.pop(100.0) for _ in range(10)] == waiting[::-1]

"""Batches that wait for a retry: which one is due, and how little is left of those that no longer wait."""

from __future__ import annotations

import pytest

from flagpost_consumer.core.metadata.retries import Batch, Retries


def batch(name: str = "a") -> Batch:
    return Batch("visitor", "custom", [name])


def pop(retries: Retries, now: float, *wanted: str) -> Batch | None:
    """Take the first batch that is due; of those of `wanted`, if given."""
    found = retries.pop(now, lambda each: each.who if not wanted or each.who in wanted else None)
    assert found is None or found[1] == found[0].who
    return None if found is None else found[0]


def test_a_batch_is_due_from_its_moment_on() -> None:
    retries, waiting = Retries(), batch()
    retries.push(3.0, waiting)
    assert retries.first_at() == 3.0
    assert pop(retries, 2.9) is None
    assert retries.first(3.0) is waiting
    assert len(retries) == 1, "it goes on waiting"
    assert pop(retries, 3.0) is waiting
    assert (len(retries), retries.first_at(), pop(retries, 9.0)) == (0, None, None)


def test_batches_are_sent_in_the_order_of_their_due_times_and_then_of_their_arrival() -> None:
    retries = Retries()
    late, early, same = batch("late"), batch("early"), batch("same")
    retries.push(5.0, late)
    retries.push(3.0, early)
    retries.push(3.0, same)
    assert [pop(retries, 5.0) for _ in range(3)] == [early, same, late]


def test_once_they_are_hurried_all_are_due_in_the_order_in_which_they_came() -> None:
    retries = Retries()
    batches = [batch(name) for name in "abc"]
    for number, each in enumerate(batches):
        retries.push(100.0 - number, each)
    retries.hurry(2.0)
    assert retries.first_at() == 2.0
    assert [pop(retries, 2.0) for _ in range(3)] == batches


def test_batches_that_are_not_wanted_go_on_waiting_in_their_order() -> None:
    retries = Retries()
    for at, name in enumerate("abcd"):
        retries.push(float(at), batch(name))
    taken = pop(retries, 9.0, "c")
    assert taken is not None
    assert taken.who == "c"
    assert pop(retries, 9.0, "c") is None
    assert pop(retries, 2.0, "d") is None, "it is not due yet"
    left = [pop(retries, 9.0) for _ in range(len(retries))]
    assert [each.who for each in left if each] == ["a", "b", "d"]


@pytest.mark.parametrize("dropped", [27, 28])
def test_the_heap_has_at_most_twice_as_many_places_as_batches_wait_and_sixteen_more(dropped: int) -> None:
    """The heap is cleaned once for many dropped batches: 37 or 38 places for 11 batches, then 10 for 10."""
    retries = Retries()
    waiting, gone = [batch() for _ in range(10)], [batch() for _ in range(dropped)]
    for number, each in enumerate([*gone, *waiting]):
        retries.push(float(100 - number), each)
    for each in gone[:-1]:
        retries.drop(each)
        assert len(retries._heap) == 10 + dropped
    retries.drop(gone[-1])
    assert len(retries._heap) == len(retries) == 10
    assert [pop(retries, 100.0) for _ in range(10)] == waiting[::-1]

"""Ids that wait to be batched: when the first of them are sent, and in which order."""

from __future__ import annotations

from flagpost_consumer.core.metadata.queues import Queue

NEVER_FULL = 1_000


def test_ids_linger_until_there_are_enough_for_a_request() -> None:
    queue = Queue(batch_size=3, batch_bytes=NEVER_FULL)
    queue.enter("a", 1, since=10.0)
    queue.enter("b", 1, since=11.0)
    assert queue.leaves_at(5.0) == 15.0
    queue.enter("c", 1, since=12.0)
    assert queue.leaves_at(5.0) == 10.0


def test_ids_linger_until_their_bytes_fill_a_request() -> None:
    queue = Queue(batch_size=NEVER_FULL, batch_bytes=10)
    queue.enter("a", 4, since=10.0)
    queue.enter("b", 5, since=11.0)
    assert queue.leaves_at(5.0) == 15.0
    queue.grow("b", 1)
    assert queue.leaves_at(5.0) == 10.0
    queue.grow("b", -1)
    assert queue.leaves_at(5.0) == 15.0


def test_bytes_of_an_id_that_does_not_wait_are_not_counted() -> None:
    queue = Queue(batch_size=NEVER_FULL, batch_bytes=10)
    queue.enter("a", 4, since=10.0)
    queue.grow("gone", 6)
    assert queue.leaves_at(5.0) == 15.0
    queue.leave("gone", 4)
    queue.grow("a", 5)
    assert queue.leaves_at(5.0) == 15.0, "nine bytes wait"


def test_an_id_that_already_waited_is_sent_before_all_others_and_at_once() -> None:
    queue = Queue(batch_size=NEVER_FULL, batch_bytes=NEVER_FULL)
    queue.enter("a", 1, since=10.0)
    queue.enter_first("b", 1)
    assert list(queue) == ["b", "a"]
    due = queue.leaves_at(5.0)
    assert due is not None
    assert due < 0.0


def test_an_empty_queue_is_never_due() -> None:
    queue = Queue(batch_size=1, batch_bytes=1)
    assert queue.leaves_at(0.0) is None
    queue.enter("a", 1, since=10.0)
    queue.leave("a", 1)
    assert queue.leaves_at(0.0) is None
    assert "a" not in queue

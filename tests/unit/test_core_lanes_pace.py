"""Each visitor's lane: in order, one at a time, paced exactly, and counted."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flagpost_consumer.core.books.shares import Holding
from flagpost_consumer.core.tracks.lanes import Lane, Lanes

INTERVAL = 1.0
CONNECTIONS = 100


@dataclass(eq=False)
class Item:
    """A delivery as lanes see it."""

    name: str
    turn: float = inf
    not_before: float = 0.0
    is_held: bool = False
    size_bytes: int = 10


def lanes(interval: float = INTERVAL) -> Lanes[Item]:
    return Lanes(interval)


def push(subject: Lanes[Item], visitor: str, *names: str, now: float = 0.0, **more: Any) -> None:
    for name in names:
        subject.push(visitor, Item(name, **more), now)


def take(subject: Lanes[Item], now: float) -> Lane[Item]:
    lane = subject.take(now, CONNECTIONS)
    assert lane is not None
    return lane


def due_at(subject: Lanes[Item], now: float) -> float | None:
    return subject.due_at(now, CONNECTIONS)


def may_take(subject: Lanes[Item], now: float) -> bool:
    return subject.take(now, CONNECTIONS) is not None


def names(lane: Lane[Item]) -> list[str]:
    return [item.name for item in lane.queue]


# Pace


def test_the_first_delivery_goes_at_once_and_the_next_one_an_interval_after_its_answer() -> None:
    subject = lanes()
    push(subject, "v", "first", "second", now=10.0)
    assert due_at(subject, 10.0) == 10.0
    lane = take(subject, 10.0)
    assert names(lane)[0] == "first"
    assert not may_take(subject, 500.0), "one at a time, however long the answer takes"
    assert due_at(subject, 500.0) is None
    subject.answered(lane, 20.0)
    assert due_at(subject, 20.0) == 21.0
    assert not may_take(subject, 20.999)
    assert names(take(subject, 21.0)) == ["second"]


def test_a_delivery_that_comes_while_its_visitor_rests_waits_for_the_end_of_the_rest() -> None:
    subject = lanes()
    push(subject, "v", "first")
    subject.answered(take(subject, 0.0), 5.0)
    push(subject, "v", "second", now=5.5)
    assert not may_take(subject, 5.999)
    assert names(take(subject, 6.0)) == ["second"]


def test_a_lane_that_is_empty_after_its_rest_is_forgotten() -> None:
    subject = lanes()
    push(subject, "v", "first")
    subject.answered(take(subject, 0.0), 5.0)
    subject.advance(5.999)
    assert len(subject) == 1
    subject.advance(6.0)
    assert (len(subject), subject.lane("v"), due_at(subject, 6.0)) == (0, None, None)


def test_without_an_interval_the_next_one_goes_at_the_moment_of_the_answer() -> None:
    subject = lanes(0.0)
    push(subject, "v", "first", "second")
    subject.answered(take(subject, 0.0), 5.0)
    subject.answered(take(subject, 5.0), 5.0)
    assert len(subject) == 0


def test_a_retry_waits_for_its_delay_and_never_less_than_the_pace() -> None:
    for delay, expected in ((0.0, 6.0), (0.5, 6.0), (1.0, 6.0), (1.5, 6.5), (300.0, 305.0)):
        subject = lanes()
        push(subject, "v", "first", "second")
        lane = take(subject, 0.0)
        subject.again(lane, 5.0, delay)
        assert due_at(subject, 5.0) == expected
        assert not may_take(subject, expected - 0.001)
        assert names(take(subject, expected)) == ["first", "second"]


def test_a_delivery_that_ends_without_a_request_costs_no_pace() -> None:
    subject = lanes()
    push(subject, "v", "expired", "next")
    subject.discard_first(take(subject, 3.0), 3.0)
    lane = take(subject, 3.0)
    assert names(lane) == ["next"]
    subject.discard_first(lane, 3.0)
    assert len(subject) == 0


def test_nothing_of_a_partition_goes_before_its_time() -> None:
    subject = lanes()
    push(subject, "new", "first", not_before=7.0)
    push(subject, "old", "first", now=6.9, not_before=7.0)
    assert due_at(subject, 0.0) == 7.0
    assert not may_take(subject, 6.999)
    assert {take(subject, 7.0).visitor_id, take(subject, 7.0).visitor_id} == {"new", "old"}
    push(subject, "at once", "first", now=7.0, not_before=7.0)
    assert take(subject, 7.0).visitor_id == "at once"


def test_the_next_delivery_of_a_lane_waits_for_its_own_partition_too() -> None:
    subject = lanes()
    push(subject, "v", "first")
    push(subject, "v", "second", not_before=60.0)
    subject.answered(take(subject, 0.0), 5.0)
    assert not may_take(subject, 6.0)
    assert due_at(subject, 6.0) == 60.0
    assert names(take(subject, 60.0)) == ["second"]


def test_a_lane_knows_how_long_pendo_took_for_its_latest_answer() -> None:
    subject = lanes()
    push(subject, "v", "first", now=3.0)
    lane = take(subject, 3.0)
    subject.again(lane, 5.0, 0.0)
    assert lane.took_seconds == 2.0
    subject.answered(take(subject, 6.0), 9.5)
    assert lane.took_seconds == 3.5


# Order


def test_the_lowest_turn_starts_first_and_among_equals_the_lane_that_was_ready_first() -> None:
    subject = lanes()
    push(subject, "later", "x", turn=30.0)
    push(subject, "first equal", "x", turn=20.0)
    push(subject, "second equal", "x", turn=20.0)
    push(subject, "nearest", "x", turn=10.0)
    order = [take(subject, 0.0).visitor_id for _ in range(4)]
    assert order == ["nearest", "first equal", "second equal", "later"]


# Shortening and removing


def shorten(subject: Lanes[Item], lane: Lane[Item], length: int, size_bytes: float = inf) -> list[str]:
    return [item.name for item in subject.shorten(lane, Holding(length, size_bytes))]


def test_a_lane_loses_its_newest_deliveries_beyond_what_may_wait_behind_the_first() -> None:
    subject = lanes()
    push(subject, "v", "1", "2", "3", "4")
    lane = subject.lane("v")
    assert lane is not None
    assert shorten(subject, lane, 3) == []
    assert shorten(subject, lane, 1) == ["4", "3"]
    assert (names(lane), subject.waiting) == (["1", "2"], 2)
    assert shorten(subject, lane, 0) == ["2"]
    assert (names(lane), subject.waiting) == (["1"], 1), "the first stays"


def test_a_lane_is_shortened_by_bytes_too() -> None:
    subject = lanes()
    push(subject, "v", "1", "2", "3", size_bytes=10)
    lane = subject.lane("v")
    assert lane is not None
    assert shorten(subject, lane, 3, 20) == []
    assert shorten(subject, lane, 3, 19.9) == ["3"]
    assert shorten(subject, lane, 3, 0) == ["2"]
    assert names(lane) == ["1"]


def test_the_delivery_in_flight_stays_in_a_lane_that_is_shortened() -> None:
    subject = lanes()
    push(subject, "v", "1", "2", "3")
    lane = take(subject, 0.0)
    assert shorten(subject, lane, 0) == ["3", "2"]
    assert (names(lane), subject.waiting) == (["1"], 0)
    subject.answered(lane, 0.0)
    subject.advance(INTERVAL)
    assert len(subject) == 0


def test_only_unwanted_waiting_deliveries_of_the_named_visitors_are_removed() -> None:
    subject = lanes()
    push(subject, "flying", "drop", "drop", "keep")
    flying = take(subject, 0.0)
    push(subject, "v", "keep", "drop", "keep too")
    push(subject, "other", "drop")
    subject.remove(["nobody", "v", "flying"], lambda item: item.name == "drop")
    left = {visitor: names(lane) for visitor in ("v", "flying", "other") if (lane := subject.lane(visitor))}
    assert left == {"v": ["keep", "keep too"], "flying": ["drop", "keep"], "other": ["drop"]}
    assert flying.in_flight
    assert subject.waiting == 4


def test_a_lane_whose_first_delivery_was_removed_waits_for_the_new_first() -> None:
    subject = lanes()
    push(subject, "v", "drop")
    push(subject, "v", "keep", not_before=9.0)
    subject.remove(["v"], lambda item: item.name == "drop")
    assert subject.ready(0.0) == 0
    assert not may_take(subject, 0.0)
    assert not may_take(subject, 8.999)
    assert names(take(subject, 9.0)) == ["keep"]


# Counts


def test_waiting_and_ready_deliveries_are_counted_separately() -> None:
    subject = lanes()
    push(subject, "a", "1", "2")
    push(subject, "b", "1", not_before=5.0)
    push(subject, "c", "1")
    assert (subject.waiting, subject.ready(0.0), len(subject)) == (4, 2, 3)
    assert dict(subject.lengths()) == {"a": 2, "b": 1, "c": 1}
    lane = take(subject, 0.0)
    assert (subject.waiting, subject.ready(0.0)) == (3, 1)
    assert subject.ready(5.0) == 2
    subject.answered(lane, 5.0)
    assert (subject.waiting, subject.ready(5.0)) == (3, 2)
    assert subject.ready(6.0) == 3


@given(st.integers(0, 2**32))
def test_whatever_happens_each_lane_keeps_its_order_its_pace_and_its_count(seed: int) -> None:
    random = Random(seed)
    subject = lanes()
    expected: dict[str, list[str]] = {visitor: [] for visitor in "abc"}
    free_at = dict.fromkeys("abc", 0.0)
    flying: list[Lane[Item]] = []
    now, number = 0.0, 0
    for _ in range(200):
        now += random.choice((0.0, 0.25, 1.0))
        step = random.random()
        if step < 0.4:
            number += 1
            visitor = random.choice("abc")
            expected[visitor].append(str(number))
            push(subject, visitor, str(number), now=now)
        elif step < 0.7 and (lane := subject.take(now, CONNECTIONS)) is not None:
            assert now >= free_at[lane.visitor_id]
            assert names(lane)[0] == expected[lane.visitor_id][0]
            flying.append(lane)
        elif flying:
            lane = flying.pop(random.randrange(len(flying)))
            free_at[lane.visitor_id] = now + INTERVAL
            if random.random() < 0.5:
                expected[lane.visitor_id].pop(0)
                subject.answered(lane, now)
            else:
                subject.again(lane, now, 0.0)
        assert subject.waiting == sum(map(len, expected.values())) - len(flying)
    for lane in flying:
        subject.again(lane, now, 0.0)
    while (due := due_at(subject, now)) is not None:
        now = due
        ready = subject.take(now, CONNECTIONS)
        if ready is not None:
            assert names(ready)[0] == expected[ready.visitor_id].pop(0)
            subject.answered(ready, now)
    assert (subject.waiting, len(subject), sum(map(len, expected.values()))) == (0, 0, 0)

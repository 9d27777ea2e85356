"""Failed records come back in the order in which they were handed over, whichever queue is reported first."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flagpost_kafka.report_order import in_order

MICROSECOND = 1e-6


@dataclass
class Record:
    number: int
    since: float
    assigned: int = 0


def reported(queues: list[range], random: Random, assigned: int = 0) -> list[Record]:
    """Records handed over 4 us after one another, reported queue by queue; the times are late by up to 1 us."""
    return [
        Record(number, (4.0 * number + random.random()) * MICROSECOND, assigned)
        for queue in queues
        for number in queue
    ]


@given(st.lists(st.integers(2, 50), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_queues_that_are_reported_in_any_order_come_back_in_theirs(
    lengths: list[int], random: Random
) -> None:
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    queues = [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    random.shuffle(queues)
    found = in_order(reported(queues, random))
    assert [record.number for record in found] == list(range(sum(lengths)))


def test_each_partition_has_an_order_of_its_own() -> None:
    random = Random(1)
    first = reported([range(10, 20), range(10)], random, assigned=0)
    second = reported([range(5), range(5, 9)], random, assigned=1)
    mixed = [record for pair in zip(first, second, strict=False) for record in pair] + first[9:]
    found = in_order(mixed)
    assert [record.number for record in found if record.assigned == 0] == list(range(20))
    assert [record.number for record in found if record.assigned == 1] == list(range(9))


def test_one_whose_time_was_told_late_stays_where_it_is() -> None:
    records = reported([range(20)], Random(1))
    records[7].since += 0.005  # the thread was held up between librdkafka's measuring and our clock
    assert [record.number for record in in_order(records)] == list(range(20))

"""The budget of requests per minute: the first request, bursts, shares, and when the next request may start."""

from __future__ import annotations

from math import inf

import pytest

from flagpost_consumer.core.pendo.budget import Budget

A_SECOND = 60.0
"""Requests per minute: one per second."""


def budget(per_minute: float | None, fraction: float = 1.0, now: float = 100.0) -> Budget:
    subject = Budget(per_minute)
    subject.share(fraction, now)
    return subject


def spend_all(subject: Budget, now: float) -> int:
    """Start requests until none may start; returns how many did."""
    started = 0
    while subject.opens_at(now) == now and started < 10_000:
        subject.spend()
        started += 1
    return started


def test_a_share_starts_empty() -> None:
    """Members that start together do not burst together."""
    assert budget(A_SECOND).opens_at(100.0) == pytest.approx(101.0)
    assert spend_all(budget(6_000.0), 100.0) == 0


def test_a_request_may_start_at_the_returned_moment() -> None:
    subject, now = budget(7.0), 100.0
    for _ in range(1_000):
        opens = subject.opens_at(now)
        assert opens is not None
        assert opens > now
        assert subject.opens_at(now + (opens - now) * 0.999) != now + (opens - now) * 0.999
        now = opens
        assert subject.opens_at(now) == now
        subject.spend()
    assert now - 100.0 == pytest.approx(1_000 * 60.0 / 7.0)


@pytest.mark.parametrize(
    ("per_minute", "burst"), [(600.0, 10), (A_SECOND, 1), (6.0, 1), (90.0, 1), (150.0, 2)]
)
def test_after_idle_time_a_second_s_requests_and_at_least_one_may_start_at_once(
    per_minute: float, burst: int
) -> None:
    subject = budget(per_minute)
    assert spend_all(subject, 100_000.0) == burst
    assert spend_all(subject, 200_000.0) == burst


@pytest.mark.parametrize("step", [0.001, 0.01, 0.37, 1.0, 5.0])
def test_no_minute_has_more_than_its_requests_and_one_burst(step: float) -> None:
    subject = budget(120.0, now=0.0)
    spent, now = 0, 0.0
    while now < 60.0:
        spent += spend_all(subject, now)
        now += step
    assert spent <= 120
    assert spent >= (118 if step <= 1.0 else 2 * 11)


def test_a_member_has_the_share_of_its_partitions() -> None:
    subject = budget(A_SECOND, fraction=0.25)
    assert subject.per_minute == 15.0
    assert subject.opens_at(100.0) == pytest.approx(104.0)
    subject.share(0.5, 100.0)
    assert subject.per_minute == 30.0
    assert subject.opens_at(100.0) == pytest.approx(102.0)


def test_budget_from_before_a_share_changed_was_gained_at_the_old_share() -> None:
    subject = budget(A_SECOND, fraction=0.25)
    subject.share(1.0, 102.0)
    assert subject.opens_at(102.0) == pytest.approx(102.5)


def test_a_smaller_share_keeps_no_more_than_its_own_burst() -> None:
    subject = budget(600.0)
    assert subject.opens_at(200.0) == 200.0
    subject.share(0.3, 200.0)
    assert spend_all(subject, 200.0) == 3


def test_without_partitions_nothing_starts_and_no_budget_is_gained() -> None:
    subject = budget(A_SECOND, fraction=0.0)
    assert subject.opens_at(1_000.0) is None
    assert subject.per_minute == 0.0
    subject.share(1.0, 2_000.0)
    assert subject.opens_at(2_000.0) == pytest.approx(2_001.0)


def test_gained_budget_is_kept_while_there_is_no_partition() -> None:
    subject = budget(A_SECOND)
    assert subject.opens_at(101.5) == 101.5
    subject.share(0.0, 101.5)
    assert spend_all(subject, 500.0) == 1
    assert subject.opens_at(500.0) is None


def test_a_burst_is_lost_with_the_last_partition() -> None:
    subject = budget(600.0)
    assert subject.opens_at(200.0) == 200.0, "ten are there"
    subject.share(0.0, 200.0)
    assert spend_all(subject, 200.0) == 1


def test_nothing_starts_before_a_share_is_known() -> None:
    subject = Budget(A_SECOND)
    assert (subject.per_minute, subject.opens_at(1_000.0)) == (0.0, None)


def test_without_a_limit_every_request_may_start() -> None:
    subject = budget(None)
    assert subject.per_minute == inf
    assert spend_all(subject, 100.0) == 10_000


def test_the_available_budget_is_counted_in_whole_requests() -> None:
    subject = budget(600.0)
    assert subject.available(100.0) == 0.0
    assert subject.available(100.25) == 2.0
    subject.spend()
    assert subject.available(100.25) == 1.0
    assert budget(None).available(100.0) == inf

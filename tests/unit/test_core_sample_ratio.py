"""The sequential sample ratio test: its formula, its error rate when it is repeated, and what it finds."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, product
from random import Random

import pytest

from flagpost_consumer.core.splits.sample_ratio import (
    ALPHA,
    CONCENTRATIONS,
    SKEWED_FROM,
    evidence,
    log_bayes_factor,
    p_value,
)

EVEN = {"control": 1.0, "treatment": 1.0}
STEPS = 1_000
VISITORS_A_STEP = 16
"""Visitors between two looks: a random 16-bit number has one bit for each of them."""


@pytest.mark.parametrize(
    ("counts", "shares", "concentration", "expected"),
    [
        # ssrm_test 0.1.5's own regression test (test_regression): a Bayes factor of 1.0017496120131435.
        ([2, 1, 7], [0.1, 0.5, 0.4], 10_000, math.log(1.0017496120131435)),
        # LOG_BAYES_FACTOR of its sequential_posteriors(), run with numpy 1.26 and scipy 1.17.
        ([20, 17, 9], [0.4, 0.4, 0.2], 3, -2.8915311367527465),
        ([5_050, 4_950], [0.5, 0.5], 10_000, -0.096572548020049),
        ([10_400, 9_600], [0.5, 0.5], 10_000, 10.1189641028177),
        ([10_400, 9_600], [0.5, 0.5], 1_000, 13.720009946031496),
        ([10_400, 9_600], [0.5, 0.5], 100, 13.271256716368953),
        ([45, 5], [0.5, 0.5], 100, 5.231900191949251),
        ([0, 100], [0.5, 0.5], 1_000, 4.508210401109011),
        ([480, 330, 190], [0.5, 0.3, 0.2], 1_000, 0.3700346770319811),
        ([900, 100, 3], [0.9, 0.0995, 0.0005], 10_000, 0.2082626530818743),
        ([100_000, 100_900], [0.5, 0.5], 10_000, 0.3959330157376826),
    ],
)
def test_the_bayes_factor_is_that_of_the_authors_package(
    counts: list[int], shares: list[float], concentration: float, expected: float
) -> None:
    cells = list(zip(counts, shares, strict=True))
    assert log_bayes_factor(cells, concentration) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    "shares", [{"a": 1.0, "b": 1.0}, {"a": 8.0, "b": 2.0}, {"a": 5.0, "b": 3.0, "c": 2.0}]
)
def test_a_fair_experiment_leaves_the_mean_of_the_bayes_factor_at_one(shares: Mapping[str, float]) -> None:
    """The bound on errors needs only that the Bayes factor is a martingale."""
    whole = sum(shares.values())
    for visitors in (1, 7, 30):
        outcomes = [
            dict(zip(shares, counts, strict=True))
            for counts in product(range(visitors + 1), repeat=len(shares))
            if sum(counts) == visitors
        ]
        means = math.fsum(
            math.exp(evidence(counts, shares) + _log_probability(counts, shares, whole))
            for counts in outcomes
        )
        assert means == pytest.approx(1.0, rel=1e-9)


def _log_probability(counts: Mapping[str, int], shares: Mapping[str, float], whole: float) -> float:
    return math.lgamma(sum(counts.values()) + 1) + math.fsum(
        counts[each] * math.log(shares[each] / whole) - math.lgamma(counts[each] + 1) for each in shares
    )


def looks(random: Random, steps: int = STEPS) -> Iterator[int]:
    """How many visitors of a fair experiment are in treatment at each look."""
    return accumulate(map(int.bit_count, array("H", random.randbytes(2 * steps))))


def limits() -> Sequence[int]:
    """For each look, how many visitors may be in treatment before the test warns; the test is symmetric."""
    return [_limit(VISITORS_A_STEP * step) for step in range(1, STEPS + 1)]


def _limit(visitors: int) -> int:
    passes, warns = visitors // 2, visitors + 1
    while warns - passes > 1:
        between = (passes + warns) // 2
        if evidence({"control": visitors - between, "treatment": between}, EVEN) >= SKEWED_FROM:
            warns = between
        else:
            passes = between
    return passes


def test_at_most_one_in_a_hundred_fair_experiments_warns_if_each_is_tested_a_thousand_times() -> None:
    random, most = Random(13), limits()
    least = [VISITORS_A_STEP * step - limit for step, limit in enumerate(most, 1)]
    warned = 0
    for _ in range(10_000):
        path = list(looks(random))
        warned += any(map(int.__gt__, path, most)) or any(map(int.__lt__, path, least))
    assert 0 < warned <= 10_000 * ALPHA


def test_a_fixed_horizon_test_that_is_repeated_as_often_would_warn_many_times_as_often() -> None:
    """This is why it was replaced: each look has an error rate of 1 %, a thousand looks a much higher one."""
    random, critical = Random(13), 6.635  # of chi-square with one degree of freedom
    warned = 0
    for _ in range(500):
        warned += any(
            (2 * seen - VISITORS_A_STEP * step) ** 2 > critical * VISITORS_A_STEP * step
            for step, seen in enumerate(looks(random), 1)
        )
    assert warned > 500 * 8 * ALPHA


def test_unequal_shares_of_three_variations_are_as_safe() -> None:
    random, shares = Random(13), {"a": 0.7, "b": 0.28, "c": 0.02}
    warned = 0
    for _ in range(400):
        counts, largest = dict.fromkeys(shares, 0), 0.0
        for _ in range(40):
            for variation in random.choices(list(shares), list(shares.values()), k=25):
                counts[variation] += 1
            largest = max(largest, evidence(counts, shares))
        warned += largest >= SKEWED_FROM
    assert warned <= 400 * ALPHA


def test_fifty_two_to_forty_eight_of_twenty_thousand_visitors_warns() -> None:
    assert evidence({"control": 9_600, "treatment": 10_400}, EVEN) >= SKEWED_FROM
    random, most, warned = Random(13), limits(), 0
    for _ in range(50):
        draws = random.choices((1, 0), (52, 48), k=20_000)
        path = list(accumulate(draws))[VISITORS_A_STEP - 1 :: VISITORS_A_STEP]
        warned += (
            any(map(int.__gt__, path, most))
            or evidence({"control": 20_000 - sum(draws), "treatment": sum(draws)}, EVEN) >= SKEWED_FROM
        )
    assert warned >= 48


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ({"control": 45, "treatment": 5}, EVEN),
        ({"control": 60, "treatment": 20}, EVEN),
        ({"treatment": 30}, EVEN),
        ({"control": 502_500, "treatment": 497_500}, EVEN),
        ({"control": 900, "treatment": 100}, EVEN),
        ({"control": 500, "treatment": 500}, {"control": 9.0, "treatment": 1.0}),
    ],
)
def test_a_broken_split_is_seen_among_few_visitors_and_a_slight_one_among_many(
    counts: Mapping[str, int], shares: Mapping[str, float]
) -> None:
    assert evidence(counts, shares) >= SKEWED_FROM


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ({}, EVEN),
        ({"control": 1}, EVEN),
        ({"control": 9, "treatment": 0}, EVEN),
        ({"control": 5_050, "treatment": 4_950}, EVEN),
        ({"control": 500_500, "treatment": 499_500}, EVEN),
        ({"control": 90, "treatment": 10}, {"control": 9.0, "treatment": 1.0}),
        ({"control": 50, "treatment": 50, "forced": 900}, EVEN),
    ],
)
def test_a_difference_that_chance_explains_is_not_evidence(
    counts: Mapping[str, int], shares: Mapping[str, float]
) -> None:
    assert evidence(counts, shares) < SKEWED_FROM


def test_no_visitors_are_no_evidence() -> None:
    assert evidence({}, EVEN) == pytest.approx(0.0, abs=1e-9)
    assert p_value(evidence({}, EVEN)) == pytest.approx(1.0)


def test_only_the_proportions_of_shares_count() -> None:
    counts = {"control": 870, "treatment": 140}
    hundredths = evidence(counts, {"control": 87, "treatment": 13})
    assert evidence(counts, {"control": 8_700, "treatment": 1_300}) == pytest.approx(hundredths)


def test_the_p_value_of_a_great_deal_of_evidence_is_zero_and_of_none_is_one() -> None:
    assert p_value(-3.0) == 1.0
    assert p_value(SKEWED_FROM) == pytest.approx(ALPHA)
    assert p_value(evidence({"control": 900_000, "treatment": 100_000}, EVEN)) == 0.0


def test_there_is_a_prior_for_each_size_of_experiment() -> None:
    assert sorted(CONCENTRATIONS) == list(CONCENTRATIONS)
    assert max(CONCENTRATIONS) == 10_000, "ssrm-test's dirichlet_concentration"

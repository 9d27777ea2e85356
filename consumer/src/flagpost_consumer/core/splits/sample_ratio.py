"""Whether visitors are distributed over an experiment's variations as they should be: a test that may be looked at at
any time.

In: visitors by variation, and the expected shares. Out: the evidence against these shares, as the logarithm of a
Bayes factor. No I/O.

A fixed-horizon test (chi-square) is valid for one look that was planned before. People look every hour, and it
rejects any number of fair experiments if one looks often enough. This is the sequential multinomial test of Lindon
and Malek, "Anytime-Valid Inference For Multinomial Count Data" (NeurIPS 2022): the likelihood of the counts under a
Dirichlet prior around the expected shares, divided by their likelihood under the expected shares. While the shares
are as expected, that ratio is a martingale that begins at 1, visitor by visitor, in whatever order they arrive; so
the probability that it ever reaches 1/ALPHA is at most ALPHA (Ville's inequality), however often one looks.

Their package ssrm-test (PyPI, 2020) has the same formula and is no dependency: it needs numpy and scipy of before
2023. The tests compare this with its values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

ALPHA = 0.01
"""At most this part of fair experiments is ever reported as skewed."""
SKEWED_FROM = -math.log(ALPHA)
"""The evidence from which on a split is not explained by chance."""

CONCENTRATIONS = (10.0, 100.0, 1_000.0, 10_000.0)
"""How closely a prior keeps to the expected shares, in visitors; the last is ssrm-test's default.

The first sees that 80 visitors are split 60 to 20, the last that a million are split 50.25 to 49.75. A mean of
martingales is one too, so all of them are used.
"""

Counts = Mapping[str, int]
"""Visitors by variation."""
Shares = Mapping[str, float]
"""Variations and their shares, each above 0; only their proportions count."""


def evidence(counts: Counts, shares: Shares) -> float:
    """The logarithm of the Bayes factor against the expected shares: 0 says nothing; SKEWED_FROM and more is enough.

    Variations without a share are left out.
    """
    cells = [(counts.get(variation, 0), share) for variation, share in proportions(shares).items()]
    by_prior = [log_bayes_factor(cells, concentration) for concentration in CONCENTRATIONS]
    greatest = max(by_prior)
    return greatest + math.log(math.fsum(math.exp(each - greatest) for each in by_prior) / len(by_prior))


def proportions(shares: Shares) -> dict[str, float]:
    """Shares that sum to 1."""
    whole = sum(shares.values())
    return {variation: share / whole for variation, share in shares.items()}


def log_bayes_factor(cells: list[tuple[int, float]], concentration: float) -> float:
    """The logarithm for one prior: `cells` are counts and their expected probabilities, which sum to 1.

    The multinomial coefficients of both likelihoods are the same and cancel.
    """
    total = sum(count for count, _ in cells)
    return (
        math.lgamma(concentration)
        - math.lgamma(concentration + total)
        + math.fsum(
            math.lgamma(concentration * share + count)
            - math.lgamma(concentration * share)
            - count * math.log(share)
            for count, share in cells
        )
    )


def p_value(found: float) -> float:
    """The always-valid p-value of evidence: the probability that a fair experiment ever shows as much of it."""
    return min(1.0, math.exp(-found))

"""Whether visitors fall into an experiment's variations as they should: a test that may be looked at at any time.

In: visitors by variation, and the shares that are expected. Out: the evidence against these shares, as the logarithm
of a Bayes factor. No I/O.

A fixed-horizon test (chi-square) is right at one look that was planned before. People look every hour, and of fair
experiments looked at often enough it condemns as many as one likes. This is the sequential multinomial test of Lindon
and Malek, "Anytime-Valid Inference For Multinomial Count Data" (NeurIPS 2022): the likelihood of the counts under a
Dirichlet prior around the expected shares, over their likelihood under the expected shares. While the shares are as
expected, that ratio is a martingale that begins at 1, visitor by visitor, in whatever order they arrive; so the
probability that it ever reaches 1/ALPHA is at most ALPHA (Ville's inequality), however often one looks.

Their package ssrm-test (PyPI, 2020) has the same formula and is no dependency: it wants numpy and scipy of before
2023. The tests hold this against its values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

ALPHA = 0.01
"""At most so many fair experiments are ever taken for skewed."""
SKEWED_FROM = -math.log(ALPHA)
"""The evidence from which on chance does not explain a split."""

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
    """The logarithm of the Bayes factor against the expected shares: 0 says nothing, SKEWED_FROM and more is enough.

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
    """That of one prior: `cells` are counts and the probabilities expected of them, which sum to 1.

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
    """The always-valid p-value of evidence: how likely a fair experiment is to show as much of it, ever."""
    return min(1.0, math.exp(-found))

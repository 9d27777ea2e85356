"""Whether visitors fall into variations as they should: a sample ratio check.

In: distinct visitors by flag and variation, and the split that is expected of a flag (an even one where nothing
else is said). Out: for each flag the probability of a split at least as uneven by chance, and whether it is so
small that something is wrong: Pearson's chi-square test of goodness of fit, with the threshold of Kohavi, Tang and
Xu, "Trustworthy Online Controlled Experiments" (2020), chapter 21.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flagpost_consumer.operator.reconciliation.counting import Row

SKEWED_BELOW = 0.001
FEWEST_EXPECTED = 5.0
"""With fewer visitors expected in a variation, the chi-square distribution does not fit (Cochran's rule)."""

Shares = Mapping[str, float]
"""A variation to its share; only their proportions count."""


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """The check of one flag."""

    flag_key: str
    variations: dict[str, int]
    """Distinct visitors."""
    expected: dict[str, float]
    p_value: float | None
    """None: too few visitors to tell."""

    @property
    def skewed(self) -> bool:
        """Whether chance does not explain the split."""
        return self.p_value is not None and self.p_value < SKEWED_BELOW


def check_ratios(visitors: Mapping[Row, int], expected: Mapping[str, Shares]) -> Iterator[SampleRatio]:
    """Check every flag of which at least two variations are to be compared.

    Where shares are given, the variations that they name are compared and others are left out.
    """
    by_flag: dict[str, dict[str, int]] = {}
    for (flag, variation), count in visitors.items():
        if variation is not None:
            by_flag.setdefault(flag, {})[variation] = count
    for flag, counts in sorted(by_flag.items()):
        shares = expected[flag] if flag in expected else dict.fromkeys(sorted(counts), 1.0)
        if len(shares) > 1:
            yield _check(flag, {variation: counts.get(variation, 0) for variation in shares}, shares)


def _check(flag: str, counts: dict[str, int], shares: Shares) -> SampleRatio:
    visitors, whole = sum(counts.values()), sum(shares.values())
    expected = {variation: visitors * share / whole for variation, share in shares.items()}
    if min(expected.values()) < FEWEST_EXPECTED:
        return SampleRatio(flag, counts, expected, None)
    statistic = sum((counts[each] - expected[each]) ** 2 / expected[each] for each in counts)
    return SampleRatio(flag, counts, expected, chi_square_tail(statistic, len(counts) - 1))


def chi_square_tail(statistic: float, degrees: int) -> float:
    """The probability that a chi-square variable of `degrees` degrees of freedom is at least `statistic`.

    That is Q(degrees/2, statistic/2), the regularized upper incomplete gamma function. From Q(1/2, x) = erfc(√x)
    or Q(1, x) = e^-x, the recurrence Q(a+1, x) = Q(a, x) + x^a e^-x / Γ(a+1) leads there (NIST DLMF 8.4.6, 8.4.8
    and 8.8.6).
    """
    if statistic <= 0:
        return 1.0
    x = statistic / 2
    a, tail = (0.5, math.erfc(math.sqrt(x))) if degrees % 2 else (1.0, math.exp(-x))
    while a < degrees / 2:
        tail += math.exp(a * math.log(x) - x - math.lgamma(a + 1))
        a += 1
    return min(tail, 1.0)

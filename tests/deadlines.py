"""How long tests wait for a condition before they fail: the seconds on a fast, quiet machine, times one factor.

The factor is how many times slower this machine is. The first process of a run measures it when it imports this
module; the others (the workers of pytest-xdist, programs of the tests) take it from the environment. You can also set
it: `TEST_DEADLINE_FACTOR=10 make test`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

VARIABLE = "TEST_DEADLINE_FACTOR"
ROUNDS = 1_000_000
REFERENCE_SECONDS = 0.09
"""How long the rounds take on the machine on which the deadlines were chosen, while nothing else runs there."""
LARGEST = 20.0


def _measured() -> float:
    """The rounds' wall time, divided by the reference: so the load of other programs counts too."""
    began, total = time.monotonic(), 0
    for number in range(ROUNDS):
        total += number * number % 7
    return min(max((time.monotonic() - began) / REFERENCE_SECONDS, 1.0), LARGEST)


def _factor() -> float:
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = f"{_measured():.2f}"
    return float(os.environ[VARIABLE])


FACTOR = _factor()
"""At least 1: a fast machine does not shorten a deadline."""


def await_until(reached: Callable[[], object], seconds: float) -> None:
    """Wait for a condition in a thread that may; fails if it does not hold in `seconds`, which are stretched."""
    deadline = time.monotonic() + stretched(seconds)
    while not reached():
        assert time.monotonic() < deadline, f"not reached in {seconds} s"
        time.sleep(0.01)


def stretched(seconds: float) -> float:
    """A deadline for this machine; `seconds`: enough on a fast and quiet one."""
    return seconds * FACTOR

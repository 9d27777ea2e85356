"""The simulation finds known defects: without a fix, one of the next seeds fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulation.defects import DEFECTS, Defect
from simulation.history import logging_into_histories
from simulation.surroundings import simulated
from simulation.world import World

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(600)]

WITHIN_SEEDS = 60
"""How many seeds are tried, from the one at which the defect was found when the table was written."""


@pytest.fixture(autouse=True)
def simulation() -> Iterator[None]:
    """The product uses the simulated clock, threads and clients."""
    with simulated(), logging_into_histories():
        yield


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: f"{defect.told_in}: {defect.name}")
def test_a_planted_defect_is_found(defect: Defect) -> None:
    for seed in range(defect.first_seed, defect.first_seed + WITHIN_SEEDS):
        with defect.planted():
            complaints = World(seed, defect.kinds).run().complaints
        if any(defect.finds in complaint for complaint in complaints):
            assert not World(seed, defect.kinds).run().complaints, f"seed {seed} fails without the defect too"
            return
    pytest.fail(f"not found in {WITHIN_SEEDS} seeds from {defect.first_seed} on")

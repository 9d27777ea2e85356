"""The whole consumer in simulated minutes: whatever goes wrong, nothing is lost, and a seed has one history."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deadlines import stretched
from simulation.history import logging_into_histories
from simulation.surroundings import simulated
from simulation.world import World

ROOT = Path(__file__).parents[2]
SEEDS = 100
QUICK_SEEDS = 30
"""How many of them `make test` runs."""
SEEDS_A_TEST = 10
REPLAYED_SEED = 83
"""A seed with a hand-over, a freeze and an outage."""


@pytest.fixture(autouse=True)
def simulation() -> Iterator[None]:
    """The product uses the simulated clock, threads and clients."""
    with simulated(), logging_into_histories():
        yield


@pytest.mark.parametrize(
    "first",
    [
        *range(0, QUICK_SEEDS, SEEDS_A_TEST),
        *(
            pytest.param(first, marks=pytest.mark.thorough)
            for first in range(QUICK_SEEDS, SEEDS, SEEDS_A_TEST)
        ),
    ],
)
def test_nothing_is_lost_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        outcome = World(seed).run()
        assert not outcome.complaints, "\n".join(
            [*outcome.history, *outcome.complaints, f"replay: make simulate SEED={seed}"]
        )
        assert outcome.figures["published"] > 50
        assert outcome.figures["settlements"] > outcome.figures["published"]


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(first, marks=pytest.mark.thorough) for first in (10, 20, 30))]
)
def test_clients_that_lose_their_brokers_for_good_are_replaced(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        outcome = World(seed, ("lose_brokers",)).run()
        assert not outcome.complaints, "\n".join([*outcome.history, *outcome.complaints])


def test_a_seed_is_one_history_in_every_process() -> None:
    """It is the same byte for byte, even if Python orders its sets of strings differently."""
    replays = {
        subprocess.run(
            [sys.executable, "-m", "simulation", "--seed", str(REPLAYED_SEED)],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT / "tests"), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            timeout=stretched(120.0),
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(replays) == 1
    (history,) = replays
    assert b"TROUBLE" in history
    assert history.decode().splitlines()[:-1] == World(REPLAYED_SEED).run().history

"""Runs seeds, with a process for each core.

`python -m simulation [--seeds N] [--first SEED] [--seed SEED]` prints the history of the first seed that fails, and
with `--seed` the history of that seed. Exit code 1 if one fails.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack

from simulation.history import logging_into_histories
from simulation.surroundings import simulated
from simulation.world import Outcome, World

PROGRESS_SEEDS = 500
CHUNK_SEEDS = 10
"""How many seeds a process runs at a time."""


def main() -> int:
    """Run the seeds of the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m simulation", description="Runs the consumer in simulated minutes."
    )
    parser.add_argument("--seeds", type=int, default=10_000, help="how many seeds (10000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="run this one alone, and print its history")
    asked = parser.parse_args()
    if asked.seed is None:
        return run(range(asked.first, asked.first + asked.seeds))
    with simulated(), logging_into_histories():
        outcome = World(asked.seed).run()
    say("\n".join(outcome.history))
    say(f"seed {outcome.seed}: {outcome.figures}")
    return 1 if outcome.complaints else 0


def run(seeds: range) -> int:
    """Run seeds, and print the history of the first that fails."""
    began = time.monotonic()
    failed: list[Outcome] = []
    with ProcessPoolExecutor(os.cpu_count(), initializer=_simulate) as processes:
        for done, outcome in enumerate(processes.map(_complaints_of, seeds, chunksize=CHUNK_SEEDS), start=1):
            if outcome is not None:
                failed.append(outcome)
                say(
                    f"seed {outcome.seed}: {outcome.complaints[0]}; replay: make simulate SEED={outcome.seed}"
                )
            if done % PROGRESS_SEEDS == 0:
                say(f"{done} of {len(seeds)} seeds, {len(failed)} failed")
    if failed:
        say("\n".join([*failed[0].history, *failed[0].complaints]))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    say(
        f"{len(seeds)} seeds, {len(failed)} failed; {time.monotonic() - began:.0f} s, "
        f"{(used.ru_utime + used.ru_stime) / len(seeds):.3f} s of CPU each"
    )
    return 1 if failed else 0


_surroundings = ExitStack()
"""What a process that runs seeds has replaced, until it ends."""


def _simulate() -> None:
    _surroundings.enter_context(simulated())
    _surroundings.enter_context(logging_into_histories())


def _complaints_of(seed: int) -> Outcome | None:
    """The outcome of a seed; None if it does not fail."""
    outcome = World(seed).run()
    return outcome if outcome.complaints else None


def say(text: str) -> None:
    """Print a text at once, without buffering it."""
    print(text, flush=True)  # noqa: T201 - for whoever runs it


if __name__ == "__main__":
    sys.exit(main())

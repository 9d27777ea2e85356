"""`flagpost plan` against real runs: the same load, simulated and delivered by the real consumer, in one run.

The costs are measured first, as `flagpost plan --calibrate` does. Then the rounds alternate between the real consumer
and its simulation, which is told how long the sink took for an answer in that very round, when one client more asked
it. What counts is how far the medians are apart: throughput, and CPU of the process a settlement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import side_by_side
from flagpost_consumer.commands.plan.calibration import ORDER_ALONE, TRACKS_ONLY, calibrate
from flagpost_consumer.commands.plan.costs import SHIPPED, Calibration
from flagpost_consumer.commands.plan.pod import Pendo
from flagpost_consumer.commands.plan.traffic import Load
from flagpost_consumer.commands.plan.trial import PARTITIONS, Trial, TrialGround, planned, trial_ground

UNPACED = {**TRACKS_ONLY, **ORDER_ALONE}
TRIALS = (
    Trial("uniform-5ms", Load(0.0, 5_000, 0.0, 10, PARTITIONS, 15_000), 0.0, 5.0, UNPACED),
    Trial("zipf-5ms", Load(0.0, 5_000, 1.1, 10, PARTITIONS, 10_000), 0.0, 5.0, UNPACED),
    Trial("paced-50ms", Load(100.0, 5_000, 0.0, 1_000, PARTITIONS), 16.0, 50.0, TRACKS_ONLY),
    Trial("duplicates", Load(0.0, 1_000, 0.0, 1, PARTITIONS, 20_000), 0.0, 5.0, TRACKS_ONLY),
)


class Round:
    """One trial, really and by the plan."""

    def __init__(self, ground: TrialGround, trial: Trial, calibration: Calibration) -> None:
        self._ground = ground
        self._trial = trial
        self._costs = calibration.costs
        self._pendo = Pendo(0.0)

    def real(self) -> Mapping[str, float]:
        took, self._pendo = self._ground.run(self._trial)
        return {
            "per_second": took.settlements / took.seconds,
            "cpu_us": 1e6 * took.cpu_seconds / took.settlements,
        }

    def plan(self) -> Mapping[str, float]:
        done = planned(self._trial, self._costs, self._pendo)
        return {"per_second": done.per_second, "cpu_us": done.cpu_us}


def compared(
    calibration: Calibration, trials: Sequence[Trial], rounds: int
) -> Iterator[side_by_side.Comparison]:
    print(calibration.model_dump_json(indent=2))
    with trial_ground(trials) as ground:
        for trial in trials:
            both = Round(ground, trial, calibration)
            sides = [side_by_side.Side("real", both.real), side_by_side.Side("plan", both.plan)]
            yield side_by_side.compare(f"{trial.name}: {_described(trial)}", sides, rounds)


def _told(what: str, trials: Sequence[Trial]) -> Iterator[Trial]:
    for trial in trials:
        print(f"{what}: {trial.name}", flush=True)
        yield trial


def _described(trial: Trial) -> str:
    return json.dumps({"latency_ms": trial.latency_ms, "skew": trial.load.skew})


def _small(trial: Trial) -> Trial:
    load = replace(trial.load, backlog=trial.load.backlog // 10)
    return replace(trial, load=load, seconds=trial.seconds / 8)


def main() -> None:
    given = side_by_side.arguments(__doc__).parse_args()
    json_file: Path | None = given.json
    if given.quick:
        comparisons = compared(SHIPPED, [_small(trial) for trial in TRIALS], 1)
    else:
        comparisons = compared(calibrate(partial(_told, "calibration")), TRIALS, given.rounds)
    side_by_side.report(comparisons, json_file)


if __name__ == "__main__":
    main()

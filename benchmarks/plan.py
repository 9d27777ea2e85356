"""`flagpost plan` against real runs: the same load, simulated and delivered by the real consumer, in one run.

Each round runs the trials of `flagpost plan --calibrate`, which tell what work costs, and these trials, so that both
find the machine at the same speed. Then these trials are planned with those costs; the plan is told how long the sink
took for an answer in each round, when one client more asked it. What counts is how far the medians are apart:
throughput, and CPU of the process a settlement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import side_by_side
from flagpost_consumer.commands.plan import calibration
from flagpost_consumer.commands.plan.calibration import ORDER_ALONE, TRACKS_ONLY
from flagpost_consumer.commands.plan.costs import SHIPPED
from flagpost_consumer.commands.plan.measured import Took
from flagpost_consumer.commands.plan.pod import Pendo
from flagpost_consumer.commands.plan.traffic import Load
from flagpost_consumer.commands.plan.trial import PARTITIONS, Done, Trial, planned, trial_ground

UNPACED = {**TRACKS_ONLY, **ORDER_ALONE}
TRIALS = (
    Trial("uniform-5ms", Load(0.0, 5_000, 0.0, 10, PARTITIONS, 30_000), 0.0, 5.0, UNPACED),
    Trial("zipf-5ms", Load(0.0, 5_000, 1.1, 10, PARTITIONS, 10_000), 0.0, 5.0, UNPACED),
    Trial("paced-50ms", Load(100.0, 5_000, 0.0, 1_000, PARTITIONS), 16.0, 50.0, TRACKS_ONLY),
    Trial("mostly-duplicates", Load(0.0, 1_000, 0.0, 1, PARTITIONS, 60_000), 0.0, 5.0, TRACKS_ONLY),
)


def compared(rounds: int, small: bool) -> Iterator[side_by_side.Comparison]:
    """Compare each trial's real runs with the plan; `small`: with little work, and the costs that are shipped."""
    trials = [_small(trial) for trial in TRIALS] if small else TRIALS
    measured = _measured(trials if small else (*calibration.TRIALS, *trials), rounds)
    calibrated = SHIPPED if small else calibration.calibration_of(measured)
    print(calibrated.model_dump_json(indent=2))
    for trial in trials:
        runs = measured[trial.name]
        real = (_real(took) for took, _ in runs)
        plan = (_plan(planned(trial, calibrated.costs, pendo)) for _, pendo in runs)
        sides = [
            side_by_side.Side("real", partial(next, real)),
            side_by_side.Side("plan", partial(next, plan)),
        ]
        yield side_by_side.compare(f"{trial.name}: {_described(trial)}", sides, len(runs))


def _measured(trials: Sequence[Trial], rounds: int) -> calibration.Measured:
    """Run all trials in turn, `rounds` times."""
    measured: dict[str, list[tuple[Took, Pendo]]] = {}
    with trial_ground(trials) as ground:
        for number in range(rounds):
            for trial in trials:
                print(f"round {number + 1} of {rounds}: {trial.name}", flush=True)
                measured.setdefault(trial.name, []).append(ground.run(trial))
    return measured


def _real(took: Took) -> Mapping[str, float]:
    return {
        "per_second": took.settlements / took.seconds,
        "cpu_us": 1e6 * took.cpu_seconds / took.settlements,
    }


def _plan(done: Done) -> Mapping[str, float]:
    return {"per_second": done.per_second, "cpu_us": done.cpu_us}


def _described(trial: Trial) -> str:
    return json.dumps({"latency_ms": trial.latency_ms, "skew": trial.load.skew})


def _small(trial: Trial) -> Trial:
    load = replace(trial.load, backlog=trial.load.backlog // 10)
    return replace(trial, load=load, seconds=trial.seconds / 8)


def main() -> None:
    given = side_by_side.arguments(__doc__).parse_args()
    json_file: Path | None = given.json
    side_by_side.report(compared(1 if given.quick else given.rounds, given.quick), json_file)


if __name__ == "__main__":
    main()

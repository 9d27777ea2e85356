"""Two or more ways to do the same work, measured in turn within one run; a figure means something as a ratio only.

A side runs the whole work once and returns its figures. The rounds alternate between the sides, so that a noisy
machine disturbs all of them alike; medians are compared, and the spread is told beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

TIME_OUT_SECONDS = 900
NOT_TO_BE_HAD = 3
"""The exit code of a benchmark that this machine lacks something for."""


@dataclass(frozen=True, slots=True)
class Side:
    """One way to do the work."""

    name: str
    run: Callable[[], Mapping[str, float]]
    """Does the work once; returns figures by name, with the unit in the name."""
    missing: str | None = None
    """Why it cannot be had on this machine; it is then left out, by name."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the rounds of each side measured."""

    title: str
    reference: str
    rounds: Mapping[str, Sequence[Mapping[str, float]]]
    """The figures of every round, by side."""
    missing: Mapping[str, str]

    def median(self, side: str, figure: str) -> float:
        """The median of a side's rounds."""
        return statistics.median(self._values(side, figure))

    def ratio(self, side: str, figure: str) -> float:
        """The median of a side as a multiple of the reference's; nan where the reference's is 0 or not measured."""
        if figure not in self.rounds[self.reference][0]:
            return float("nan")
        reference = self.median(self.reference, figure)
        return self.median(side, figure) / reference if reference else float("nan")

    def table(self) -> str:
        """A line for each side and figure: median, lowest and highest, ratio to the reference."""
        lines = [self.title]
        for side, rounds in self.rounds.items():
            for figure in rounds[0]:
                values = self._values(side, figure)
                lines.append(
                    f"  {side:<20} {figure:<34} {self.median(side, figure):12,.2f}"
                    f"   ({min(values):,.2f} to {max(values):,.2f})   x {self.ratio(side, figure):.2f}"
                )
        lines += [f"  {side:<20} left out: {why}" for side, why in self.missing.items()]
        lines.append(f"  (x: a multiple of {self.reference}, measured in the same run)")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same for a program; a ratio that there is not is null."""
        return {
            "title": self.title,
            "reference": self.reference,
            "sides": {
                side: {
                    figure: {
                        "median": self.median(side, figure),
                        "rounds": self._values(side, figure),
                        "ratio": None if math.isnan(ratio := self.ratio(side, figure)) else ratio,
                    }
                    for figure in rounds[0]
                }
                for side, rounds in self.rounds.items()
            },
            "missing": dict(self.missing),
        }

    def _values(self, side: str, figure: str) -> list[float]:
        return [figures[figure] for figures in self.rounds[side]]


def compare(title: str, sides: Sequence[Side], rounds: int) -> Comparison:
    """Run the sides in turn, `rounds` times; the first is the reference."""
    there = [side for side in sides if side.missing is None]
    measured: dict[str, list[Mapping[str, float]]] = {side.name: [] for side in there}
    for _ in range(rounds):
        for side in there:
            measured[side.name].append(side.run())
    missing = {side.name: side.missing for side in sides if side.missing is not None}
    return Comparison(title, sides[0].name, measured, missing)


def in_a_process(script: Path, *arguments: str) -> Callable[[], Mapping[str, float]]:
    """A side that is a Python process of its own; the last line that it prints is its figures as JSON."""
    return partial(run_process, [sys.executable, str(script), *arguments])


def run_process(command: Sequence[str]) -> Mapping[str, float]:
    """Run a command to its end; returns the figures of its last line.

    Raises:
        SystemExit: it failed; with what it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_OUT_SECONDS)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed."""
    rank = max(1, math.ceil(percent * len(values) / 100))
    return sorted(values)[rank - 1]


def cannot_be_had(what: str) -> NoReturn:
    """End a benchmark that needs something that this machine has not."""
    print(f"left out: it needs {what}", file=sys.stderr)
    raise SystemExit(NOT_TO_BE_HAD)


def arguments(description: str | None, rounds: int = 3) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each side runs")
    parser.add_argument("--json", type=Path, help="write the figures of all rounds here as well")
    parser.add_argument("--quick", action="store_true", help="little work: shows that it runs, not how fast")
    return parser


def report(comparisons: Iterable[Comparison], json_file: Path | None) -> None:
    """Print the tables as they become known, and write the JSON at the end."""
    known = []
    for comparison in comparisons:
        print(comparison.table(), flush=True)
        known.append(comparison.as_json())
    if json_file is not None:
        json_file.write_text(json.dumps(known, indent=2) + "\n")

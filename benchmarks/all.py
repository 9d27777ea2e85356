"""All benchmarks, one after the other: `make bench`, or `make bench ARGS="--quick"`.

    .venv/bin/python benchmarks/all.py [--rounds 3] [--only duplicates gateway] [--json benchmarks/results.json]

Each is a process of its own and has the options --rounds, --json and --quick; it prints its tables as they become
known. At the end all ratios come in one table, and all figures are in one JSON file. A benchmark that this machine
lacks something for, or that failed, is named with the reason; exit code 1 says that one failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from side_by_side import NOT_TO_BE_HAD, arguments

HERE = Path(__file__).parent
BENCHMARKS = (
    "deliver",
    "delivering",
    "post",
    "duplicates",
    "paced",
    "hot_visitor",
    "latency",
    "waiting",
    "memory",
    "plan",
    "restore",
    "analyst",
    "page",
    "reconcile",
    "publisher",
    "metadata",
    "import_rows",
    "awaited_import",
    "consumers",
    "gateway",
    "strangers",
    "start",
)
RESULTS = HERE / "results.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one benchmark."""

    name: str
    exit_code: int
    figures: Any = None
    """What it wrote: comparisons as `side_by_side.report` writes them, or a form of its own."""
    last_line: str = ""
    """Of its standard error, where it has no figures."""

    @property
    def failed(self) -> bool:
        return self.exit_code not in (0, NOT_TO_BE_HAD)


def run(name: str, options: list[str]) -> Outcome:
    """Run one benchmark; its tables are shown, and what it says of errors is kept."""
    print(f"\n== {name}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        figures = Path(directory) / "figures.json"
        command = [sys.executable, str(HERE / f"{name}.py"), *options, "--json", str(figures)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            return Outcome(name, 0, json.loads(figures.read_text()))
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    print("\n".join(lines[-20:]), flush=True)
    return Outcome(name, done.returncode, last_line=lines[-1])


def merged(outcomes: list[Outcome]) -> Mapping[str, Any]:
    """All figures by benchmark, and why others have none."""
    return {
        "benchmarks": {outcome.name: outcome.figures for outcome in outcomes if not outcome.exit_code},
        "without_figures": {
            outcome.name: {"failed": outcome.failed, "why": outcome.last_line}
            for outcome in outcomes
            if outcome.exit_code
        },
    }


def table(results: Mapping[str, Any]) -> str:
    """A line for each figure that has a reference, with the ratio to it."""
    lines = ["", "all ratios, each to a reference that was measured in the same run:"]
    for name, figures in results["benchmarks"].items():
        lines.append(f"== {name}")
        if not isinstance(figures, list):
            lines.append("its own table is above")
            continue
        for comparison in figures:
            lines.append(f"{comparison['title']}  (x: a multiple of {comparison['reference']})")
            lines += _lines(comparison)
    for name, outcome in results["without_figures"].items():
        lines += [f"== {name}", f"{'failed' if outcome['failed'] else 'not measured'}: {outcome['why']}"]
    return "\n".join(lines)


def _lines(comparison: Mapping[str, Any]) -> Iterator[str]:
    for side, figures in comparison["sides"].items():
        for figure, value in figures.items() if side != comparison["reference"] else ():
            ratio = "" if value["ratio"] is None else f"   x {value['ratio']:.2f}"
            yield f"  {side:<24} {figure:<28} {value['median']:12,.2f}{ratio}"
    for side, why in comparison["missing"].items():
        yield f"  {side:<24} left out: {why}"


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(json=RESULTS)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, help="these alone")
    given = parser.parse_args()
    options = ["--rounds", str(given.rounds), *(["--quick"] if given.quick else [])]
    outcomes = [run(name, options) for name in given.only]
    results = merged(outcomes)
    given.json.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    raise SystemExit(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    main()

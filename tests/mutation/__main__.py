"""Changes the core a little, one place at a time, and checks whether a test fails: `make mutation`.

Prints the score of each room and each mutant that survives. It fails if one survives without an explanation in
survivors.toml, if an explained one no longer survives, or if a score is below 92 %.
"""

from __future__ import annotations

import argparse
import sys

from mutation.explanations import read_explanations
from mutation.mutants import read_mutants
from mutation.rooms import modules, rooms
from mutation.score import Score, report
from mutation.workshop import Workshop


def main() -> int:
    """Run the rooms that were asked for; returns the exit code."""
    asked = _arguments()
    explanations = read_explanations()
    scores = []
    for room in asked.only or rooms():
        workshop = Workshop(room, modules(room))
        if not asked.report:
            workshop.prepare(afresh=not asked.again)
            if code := workshop.run(asked.children, again=asked.again):
                print(f"the trial ended with exit code {code} in {workshop.folder}", file=sys.stderr)
                return code
        scores.append(Score.of(room, list(read_mutants(workshop.folder, modules(room))), explanations))
    return report(scores)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutation", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=rooms(), help="a room of the core; may be repeated"
    )
    parser.add_argument("--children", type=int, default=2, help="how many mutants are tried at once")
    parser.add_argument("--again", action="store_true", help="try those again for which no test failed")
    parser.add_argument("--report", action="store_true", help="run nothing; say what the last run found")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

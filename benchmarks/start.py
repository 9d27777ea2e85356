"""How long each command takes to start: from the process's start until its options are read (`… COMMAND --help`).

Run it on a quiet machine: `.venv/bin/python benchmarks/start.py`. Exits 1 where one takes more than --most-seconds.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from flagpost_consumer.commands.cli import COMMANDS
from side_by_side import arguments

FLAGPOST = Path(sys.executable).parent / "flagpost"
MOST_SECONDS = 0.5
ROUNDS = 5


class Start(NamedTuple):
    """The quickest of several starts, which disturbances do not touch."""

    wall_seconds: float
    cpu_seconds: float


def start(command: list[str], rounds: int) -> Start:
    """Start a command so often, after once to warm the files up."""
    found = [_once(command) for _ in range(rounds + 1)][1:]
    return Start(min(each.wall_seconds for each in found), min(each.cpu_seconds for each in found))


def _once(command: list[str]) -> Start:
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([FLAGPOST, *command, "--help"], stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Start(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    """Tell how long each command takes to start."""
    parser = arguments(__doc__, ROUNDS)
    parser.add_argument("--most-seconds", type=float, default=MOST_SECONDS, help="more is a failure")
    given = parser.parse_args()
    rounds = 1 if given.quick else given.rounds
    starts: dict[str, Start] = {}
    for name in ("", *COMMANDS):
        found = starts[name or "flagpost"] = start([name] if name else [], rounds)
        print(
            f"{name or 'flagpost':<14} {found.wall_seconds:5.2f} s   {found.cpu_seconds:5.2f} s of CPU",
            flush=True,
        )
    if given.json is not None:
        given.json.write_text(
            json.dumps({name: each._asdict() for name, each in starts.items()}, indent=2) + "\n"
        )
    slow = [name for name, each in starts.items() if each.wall_seconds > given.most_seconds]
    if slow and not given.quick:
        sys.exit(f"slower than {given.most_seconds:g} s: {', '.join(slow)}")


if __name__ == "__main__":
    main()

"""What waiting for a million rows costs: `flagpost import --wait --report FILE`.

    .venv/bin/python benchmarks/awaited_import.py [--rounds 1] [--rows 1000000] [--json FILE] [--quick]

A real Apache Kafka, `flagpost consume` with its default limits (a thousand metadata requests a minute, so that a
million visitors take a minute at least), and the stand-in for Pendo as a process of its own. The report is held
against the file: every row once, each delivered, and as many values at the stand-in.

The reference is the same import without waiting, its time until the group has committed all rows. CPU time and
memory are those of the process that imports.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import orjson

from import_rows import HEADER, write_rows
from real_kafka.broker import KafkaBroker
from running import FLAGPOST, RunningConsumer, environment
from side_by_side import Comparison, Side, arguments, compare, report
from stage import await_committed, real_kafka

PARTITIONS = 24
RUNS = count()


@contextmanager
def stand_in() -> Iterator[str]:
    """Pendo's stand-in, which keeps counts only; gives its address."""
    command = [sys.executable, "-m", "flagpost_consumer.demo.pendo_stand_in", "--counters-only"]
    for column in HEADER[1:]:
        name = column.partition(":")[0]
        command += ["--visitor-field", f"{name}={name}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None  # noqa: S101 - narrows the type
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


def settings_of(kafka: KafkaBroker, pendo: str, run: str) -> dict[str, object]:
    """Topics and a group of a run's own."""
    topics = {name: f"{run}.{name}" for name in ("events", "ledger", "dead-letters")}
    kafka.create_topics(*topics.values(), partitions=PARTITIONS)
    return {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": run,
        "kafka.topic": topics["events"],
        "kafka.ledger_topic": topics["ledger"],
        "kafka.dead_letter_topic": topics["dead-letters"],
        "kafka.suppressions_topic": f"{run}.suppressions",
        "pendo.track_url": f"{pendo}/data/track",
        "pendo.api_url": pendo,
        "pendo.track_secret": "stand-in-track-secret",
        "pendo.integration_key": "stand-in-integration-key",
        "log.level": "error",
    }


def imported(kafka: KafkaBroker, pendo: str, path: Path, rows: int, *, waits: bool) -> Mapping[str, float]:
    """Import a file while a consumer delivers it; ends when all rows have."""
    run = f"import-{next(RUNS)}"
    settings = settings_of(kafka, pendo, run)
    stored = metadata_records(pendo)
    ends = path.with_name(f"{run}.csv")
    command = [str(FLAGPOST), "import", str(path), "--type", "visitor", "--yes"]
    if waits:
        command += ["--wait", "--report", str(ends)]
    with RunningConsumer(settings):
        began = time.monotonic()
        process = subprocess.Popen(command, env=environment(settings), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"flagpost import ended with exit code {process.returncode}")
        if not waits:
            await_committed(kafka, str(settings["kafka.topic"]), run, 900)
        seconds = time.monotonic() - began
    if waits:
        check_report(ends, rows)
    if metadata_records(pendo) - stored != rows:
        raise SystemExit(f"{metadata_records(pendo) - stored:,} values came to Pendo instead of {rows:,}")
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_mb": usage.ru_maxrss / 1e3,
    }


def metadata_records(pendo: str) -> int:
    """How many records the stand-in has stored."""
    with urllib.request.urlopen(f"{pendo}/_stand_in/counts", timeout=60) as answer:  # noqa: S310 - loopback
        return int(orjson.loads(answer.read())["metadata_records"])


def check_report(path: Path, rows: int) -> None:
    """Every row is in it once, and delivered."""
    with path.open(newline="") as file:
        ends = [(int(row["line"]), row["outcome"]) for row in csv.DictReader(file)]
    if sorted(ends) != [(line, "delivered") for line in range(2, rows + 2)]:
        raise SystemExit(f"{path} does not have each row as delivered once")


def compared(rows: int, rounds: int) -> Iterator[Comparison]:
    with (
        tempfile.TemporaryDirectory() as directory,
        real_kafka(partitions=PARTITIONS) as kafka,
        stand_in() as pendo,
    ):
        path = Path(directory) / f"{rows}.csv"
        write_rows(path, rows)
        run = partial(imported, kafka, pendo, path, rows)
        sides = [
            Side("import, until committed", partial(run, waits=False)),
            Side("import --wait --report", partial(run, waits=True)),
        ]
        yield compare(f"import: how {rows:,} visitors end", sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given: argparse.Namespace = parser.parse_args()
    rows, rounds = (10_000, 1) if given.quick else (given.rows, given.rounds)
    report(compared(rows, rounds), given.json)


if __name__ == "__main__":
    main()

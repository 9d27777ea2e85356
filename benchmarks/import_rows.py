"""How many rows `flagpost import` puts into Kafka in a second of CPU, and the most memory it takes.

    .venv/bin/python benchmarks/import_rows.py [--rounds 3] [--rows 100000 1000000] [--json FILE] [--quick]

A real Apache Kafka takes the rows: visitors with five columns, two of them typed. Start-up (about a second) is in
the time. Memory is the peak resident set: flat means that ten times the rows take no more of it.

The reference, on the same file, is a bare loop: csv.DictReader, orjson, produce(), and nothing checked, typed or
encoded in Avro. Both are processes of their own.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import orjson
from confluent_kafka import Producer

from running import FLAGPOST, environment
from side_by_side import Comparison, Side, arguments, compare, report
from stage import real_kafka

TOPIC = "flagpost.events"
PARTITIONS = 24
HEADER = ["visitor_id", "plan", "age:integer", "active:boolean", "city", "zip"]


def write_rows(path: Path, rows: int) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(HEADER)
        table.writerows(
            (f"visitor-{n:09}", ("free", "silver", "gold")[n % 3], n % 90, "true", "Bern", f"0{n % 9999:04}")
            for n in range(rows)
        )


def bare(path: str, bootstrap_servers: str) -> None:
    """The loop that one would write by hand."""
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "linger.ms": 20, "compression.type": "lz4", "acks": "all"}
    )
    with Path(path).open(newline="") as file:
        for row in csv.DictReader(file):
            while True:
                try:
                    producer.produce(TOPIC, orjson.dumps(row), row["visitor_id"])
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
    if producer.flush(60):
        raise SystemExit("Kafka did not take the rows")


def measured(command: list[str], bootstrap_servers: str, rows: int) -> Mapping[str, float]:
    """Run an import to its end."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environment({"kafka.bootstrap_servers": bootstrap_servers}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with exit code {process.returncode}")
    return {
        "rows_per_cpu_second": rows / (usage.ru_utime + usage.ru_stime),
        "rows_per_second": rows / (time.monotonic() - began),
        "peak_memory_mb": usage.ru_maxrss / 1e3,
    }


def compared(sizes: list[int], rounds: int) -> Iterator[Comparison]:
    with (
        tempfile.TemporaryDirectory() as directory,
        real_kafka(TOPIC, partitions=PARTITIONS) as kafka,
    ):
        for rows in sizes:
            path = Path(directory) / f"{rows}.csv"
            write_rows(path, rows)
            servers = kafka.bootstrap_servers
            by_hand = [sys.executable, __file__, "--bare", str(path), servers]
            ours = [str(FLAGPOST), "import", str(path), "--type", "visitor"]
            sides = [
                Side("bare loop", partial(measured, by_hand, servers, rows)),
                Side("flagpost import", partial(measured, ours, servers, rows)),
            ]
            yield compare(f"import: {rows:,} visitors", sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--bare", nargs=2, metavar=("FILE", "SERVERS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        bare(*given.bare)
        return
    sizes, rounds = ([10_000], 1) if given.quick else (given.rows, given.rounds)
    report(compared(sizes, rounds), given.json)


if __name__ == "__main__":
    main()

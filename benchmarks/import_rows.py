"""How many rows a second `flagpost import` puts into Kafka, and the most memory it takes.

    .venv/bin/python benchmarks/import_rows.py [--rows 100000 1000000] [--embedded] [--json]

A real Apache Kafka (Java 17 and Maven), or with --embedded librdkafka's mock cluster, takes the rows. Beside it, in
the same run and on the same file, a bare loop: csv.DictReader, orjson, produce(), and nothing checked, typed or
encoded in Avro. Both are processes of their own; their start is in the time. Memory is the peak resident set: flat
means that ten times the rows take no more of it. The ratio is of CPU time, which other work on the machine disturbs
less.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import orjson
from confluent_kafka import Producer

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from real_kafka.broker import KafkaBroker
from running import FLAGPOST, environment

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


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    cpu_seconds: float
    megabytes: float


def measured(command: list[str], bootstrap_servers: str) -> Cost:
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
    return Cost(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)


@contextmanager
def kafka(embedded: bool, directory: Path) -> Iterator[str]:
    if embedded:
        with EmbeddedKafka({TOPIC: PARTITIONS}) as cluster:
            yield cluster.bootstrap_servers
        return
    broker = KafkaBroker(directory)
    try:
        broker.create_topics(TOPIC, partitions=PARTITIONS)
        yield broker.bootstrap_servers
    finally:
        broker.stop()


def compare(rows: int, directory: Path, bootstrap_servers: str) -> dict[str, float]:
    path = directory / f"{rows}.csv"
    write_rows(path, rows)
    ours = [str(FLAGPOST), "import", str(path), "--type", "visitor"]
    by_hand = [sys.executable, __file__, "--bare", str(path), bootstrap_servers]
    cost, bare_cost = measured(ours, bootstrap_servers), measured(by_hand, bootstrap_servers)
    return {
        "rows": rows,
        "rows_per_second": rows / cost.seconds,
        "rows_per_cpu_second": rows / cost.cpu_seconds,
        "memory_mb": cost.megabytes,
        "bare_rows_per_second": rows / bare_cost.seconds,
        "bare_rows_per_cpu_second": rows / bare_cost.cpu_seconds,
        "bare_memory_mb": bare_cost.megabytes,
        "ratio": bare_cost.cpu_seconds / cost.cpu_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare", nargs=2, metavar=("FILE", "SERVERS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare(*arguments.bare)
        return
    with tempfile.TemporaryDirectory() as name, kafka(arguments.embedded, Path(name)) as bootstrap_servers:
        found = [compare(rows, Path(name), bootstrap_servers) for rows in arguments.rows]
    if arguments.json:
        print(json.dumps(found))
        return
    for figures in found:
        print(
            "   ".join(
                f"{name} {value:,.4g}" if value < 10 else f"{name} {value:,.0f}"
                for name, value in figures.items()
            )
        )


if __name__ == "__main__":
    main()

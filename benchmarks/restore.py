"""How long a restart takes by the settlements that it has to read: `restored` for every partition.

    .venv/bin/python benchmarks/restore.py [--rounds 3] [--settlements 100000 1000000] [--json FILE] [--quick]

A real Apache Kafka holds a ledger as a group leaves it behind that was killed: batches of 40 settlements on 24
partitions, all within the ttl, so that each one is a claim to be remembered. Then `flagpost consume` is started, and
asked until /status says that every partition is restored. `restore_seconds` is from the assignment on, without the
start of the process; so is the CPU time.

The reference reads the same records in a bare consumer that decodes them with fastavro and keeps nothing: what
reading alone takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from confluent_kafka import Consumer, Producer, TopicPartition

from bare_consumer import decoded, schema_of
from flagpost_schemas import LedgerEntry, Settlements, encode_settlements
from real_kafka.broker import KafkaBroker
from running import RunningConsumer
from side_by_side import Comparison, Side, arguments, compare, in_a_process, report
from stage import LOOK_SECONDS, NOWHERE, Meter, real_kafka, service

EVENTS = "events"
PARTITIONS = 24
BATCH = 40


def fill(kafka: KafkaBroker, group: str, settlements: int) -> None:
    """Write the ledger of a group."""
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 20, "compression.type": "lz4"}
    )
    now_ms = time.time_ns() // 1_000_000
    for first in range(0, settlements, BATCH):
        turn, partition = divmod(first // BATCH, PARTITIONS)
        size = min(BATCH, settlements - first)
        entries = [entry(first + number, turn * BATCH + number, now_ms) for number in range(size)]
        record = Settlements(group=group, member="killed", settled_at=now_ms, entries=entries, gaps=[])
        producer.produce(f"{group}.ledger", encode_settlements(record), partition=partition)
        producer.poll(0)
    if producer.flush(120):
        raise SystemExit("Kafka did not take the ledger")


def entry(number: int, offset: int, now_ms: int) -> LedgerEntry:
    return LedgerEntry(
        offset=offset,
        kind="track",
        outcome="delivered",
        reason="ok",
        event_id=f"0199c2a4-7c00-7000-8000-{number:012}",
        visitor_id=f"visitor-{number:024}",
        event="Experiment Viewed",
        flag_key="checkout",
        variation_key="treatment",
        dedupe_key=os.urandom(16),
        occurred_at=now_ms - number % 900_000,
        attempts=1,
        status=200,
    )


def rewind(kafka: KafkaBroker, group: str) -> None:
    """Commit that all of the ledger is still needed, from its beginning."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    begun = [TopicPartition(EVENTS, number, 0, "v1:0") for number in range(PARTITIONS)]
    consumer.commit(offsets=begun, asynchronous=False)
    consumer.close()


def flagpost(kafka: KafkaBroker, group: str, settlements: int) -> Mapping[str, float]:
    """A restart."""
    rewind(kafka, group)
    began = time.monotonic()
    with service(kafka, EVENTS, group, NOWHERE) as running:
        meter = Meter([running.process_id])
        while not is_restored(running):
            time.sleep(LOOK_SECONDS)
        took = time.monotonic() - began
        found = {
            **figures(settlements, meter.cpu_seconds, running.value("flagpost_ledger_restore_seconds")),
            "start_to_restored_seconds": took,
            "peak_memory_mb": running.peak_bytes / 1e6,
        }
        entries = running.value("flagpost_dedupe_entries")
        if entries != settlements:
            raise SystemExit(f"{entries:.0f} claims were restored, not {settlements}")
        asyncio.run(running.stop())  # a member that is killed would hold the group for its session
        return found


def is_restored(running: RunningConsumer) -> bool:
    assignment = running.status()["assignment"]
    return bool(assignment) and all(partition["restored"] for partition in assignment)


def bare(bootstrap_servers: str, ledger: str, settlements: int) -> Mapping[str, float]:
    """Read and decode."""
    schema = schema_of("Settlements")
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "bare"})
    consumer.assign([TopicPartition(ledger, number, 0) for number in range(PARTITIONS)])
    began, cpu, seen = time.monotonic(), time.process_time(), 0
    while seen < settlements:
        seen += sum(len(decoded(message, schema)["entries"]) for message in consumer.consume(200, 0.1))
    consumer.close()
    return figures(settlements, time.process_time() - cpu, time.monotonic() - began)


def figures(settlements: int, cpu_seconds: float, seconds: float) -> Mapping[str, float]:
    return {"restore_seconds": seconds, "cpu_us_per_settlement": 1e6 * cpu_seconds / settlements}


def compared(kafka: KafkaBroker, tails: list[int], rounds: int) -> Iterator[Comparison]:
    numbers = count()
    for settlements in tails:
        group = f"run-{next(numbers)}"
        kafka.create_topics(f"{group}.ledger", f"{group}.dead-letters", partitions=PARTITIONS)
        fill(kafka, group, settlements)
        reading = ["--bare", kafka.bootstrap_servers, f"{group}.ledger", str(settlements)]
        sides = [
            Side("bare reading", in_a_process(Path(__file__), *reading)),
            Side("flagpost", partial(flagpost, kafka, group, settlements)),
        ]
        yield compare(f"restart: {settlements:,} settlements to read", sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--settlements", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--bare", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        servers, ledger, settlements = given.bare
        print(json.dumps(bare(servers, ledger, int(settlements))))
        return
    tails, rounds = ([20_000], 1) if given.quick else (given.settlements, given.rounds)
    with real_kafka(EVENTS, partitions=PARTITIONS) as kafka:
        report(compared(kafka, tails, rounds), given.json)


if __name__ == "__main__":
    main()

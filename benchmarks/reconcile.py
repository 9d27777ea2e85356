"""How long `flagpost reconcile` takes by the settlements that it has to read.

    .venv/bin/python benchmarks/reconcile.py [--rounds 3] [--settlements 1000000] [--json FILE] [--quick]

A real Apache Kafka holds what a group leaves behind that has settled everything: decisions, each of another visitor,
on 24 partitions, and a ledger with two settlements of each (track event and metadata) in batches of 40. `seconds` is
the whole command, as a process of its own: its start, the reading of both topics, the document. One decision in
twenty is a duplicate, one in fifty was dropped.

The reference reads the same two topics in a bare consumer that decodes every record with fastavro and counts the
rows: what reading alone takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from bare_consumer import decoded, schema_of
from flagpost_schemas import (
    DecisionEvent,
    LedgerEntry,
    Settlements,
    Source,
    encode_settlements,
    encode_single_object,
    partition_key,
)
from real_kafka.broker import KafkaBroker
from running import FLAGPOST, environment
from side_by_side import Comparison, Side, arguments, compare, in_a_process, report
from stage import real_kafka

PARTITIONS = 24
BATCH = 40
PRODUCER = {"compression.type": "lz4", "linger.ms": 20, "queue.buffering.max.messages": 2_000_000}
SOURCE = Source(service="checkout", environment="production", sdk="python-sdk", sdk_version="5.2.0")


def fill(kafka: KafkaBroker, run: str, decisions: int) -> None:
    """Write the topics of a group; a decision's place is known from its number."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, **PRODUCER})
    now_ms = time.time_ns() // 1_000_000
    for number in range(decisions):
        event = decision(number, now_ms)
        value, key = encode_single_object(event), partition_key(event)
        producer.produce(f"{run}.events", value, key, partition=number % PARTITIONS)
        producer.poll(0)
    each = decisions // PARTITIONS
    for partition in range(PARTITIONS):
        for first in range(0, each, BATCH // 2):
            offsets = range(first, min(first + BATCH // 2, each))
            entries = [
                settlement(kind, offset, partition, now_ms)
                for offset in offsets
                for kind in ("track", "visitor_metadata")
            ]
            record = Settlements(group=run, member="m", settled_at=now_ms, entries=entries, gaps=[])
            producer.produce(f"{run}.ledger", encode_settlements(record), partition=partition)
            producer.poll(0)
    if producer.flush(300):
        raise SystemExit("Kafka did not take the records")
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": run})
    ends = [TopicPartition(f"{run}.events", number, each) for number in range(PARTITIONS)]
    consumer.commit(offsets=ends, asynchronous=False)
    consumer.close()


def visitor_of(number: int) -> str:
    return f"visitor-{number:024}"


def decision(number: int, now_ms: int) -> DecisionEvent:
    return DecisionEvent(
        event_id=f"0199c2a4-7c00-7000-8000-{number:012}",
        occurred_at=now_ms - number % 900_000,
        source=SOURCE,
        visitor_id=visitor_of(number),
        flag_key="checkout",
        enabled=True,
        variation_key=("control", "treatment")[number // PARTITIONS % 2],
        rule_key="checkout_test",
        decision_event_dispatched=True,
    )


def settlement(kind: str, offset: int, partition: int, now_ms: int) -> LedgerEntry:
    number = offset * PARTITIONS + partition
    outcome, reason, original = "delivered", "ok", None
    if kind == "track" and offset > 20:
        if offset % 20 == 0:
            outcome, reason, original = "duplicate", "dedupe", offset - 20
        elif offset % 50 == 7:
            outcome, reason = "dropped", "no_consent"
    return LedgerEntry(
        offset=offset,
        kind=kind,
        outcome=outcome,
        reason=reason,
        event_id=f"0199c2a4-7c00-7000-8000-{number:012}",
        visitor_id=visitor_of(number),
        event="Experiment Viewed" if kind == "track" else None,
        flag_key="checkout",
        variation_key=("control", "treatment")[offset % 2],
        dedupe_key=number.to_bytes(16, "big") if kind == "track" else None,
        duplicate_of=original,
        occurred_at=now_ms - number % 900_000,
        attempts=1,
        status=200,
    )


def flagpost(kafka: KafkaBroker, run: str, decisions: int) -> Mapping[str, float]:
    """The command, and whether it says what was written."""
    settings = environment(
        {
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "kafka.group_id": run,
            "kafka.topic": f"{run}.events",
            "kafka.ledger_topic": f"{run}.ledger",
            "kafka.dead_letter_topic": f"{run}.dead-letters",
        }
    )
    began = time.monotonic()
    process = psutil.Popen(
        [str(FLAGPOST), "reconcile", "--json"], env=settings, stdout=subprocess.PIPE, text=True
    )
    cpu_seconds, peak = 0.0, 0
    while process.status() != psutil.STATUS_ZOMBIE:
        peak = max(peak, process.memory_info().rss)
        times = process.cpu_times()
        cpu_seconds = times.user + times.system
        time.sleep(0.02)
    took = time.monotonic() - began
    found = json.loads(process.communicate()[0])
    published, decided = (
        found["totals"]["published"],
        sum(row["visitors"]["decided"] for row in found["rows"]),
    )
    if (process.returncode, found["unexplained"], published, decided) != (0, 0, decisions, decisions):
        raise SystemExit(f"{published} decisions of {decided} visitors were found, not {decisions}")
    return {
        "seconds": took,
        "cpu_us_per_settlement": 1e6 * cpu_seconds / (2 * decisions),
        "peak_mb": peak / 1e6,
    }


def bare(bootstrap_servers: str, run: str, decisions: int) -> Mapping[str, float]:
    """Read and decode."""
    began, cpu = time.monotonic(), time.process_time()
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "bare"})
    rows: Counter[tuple[str, str]] = Counter()
    for topic, record, wanted in (
        (f"{run}.events", "DecisionEvent", decisions),
        (f"{run}.ledger", "Settlements", 3 * decisions),
    ):
        schema = schema_of(record)
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        while rows.total() < wanted:
            for message in consumer.consume(200, 0.1):
                fields = decoded(message, schema)
                rows.update(
                    (each["flag_key"], each["variation_key"]) for each in fields.get("entries", [fields])
                )
    consumer.close()
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    peak = psutil.Process().memory_info().rss
    return {"seconds": took, "cpu_us_per_settlement": 1e6 * cpu / (2 * decisions), "peak_mb": peak / 1e6}


def compared(kafka: KafkaBroker, settlements: list[int], rounds: int) -> Iterator[Comparison]:
    numbers = count()
    for wanted in settlements:
        run, decisions = f"run-{next(numbers)}", wanted // 2 // PARTITIONS * PARTITIONS
        kafka.create_topics(f"{run}.events", f"{run}.ledger", f"{run}.dead-letters", partitions=PARTITIONS)
        fill(kafka, run, decisions)
        reading = ["--bare", kafka.bootstrap_servers, run, str(decisions)]
        sides = [
            Side("bare reading", in_a_process(Path(__file__), *reading)),
            Side("flagpost", partial(flagpost, kafka, run, decisions)),
        ]
        yield compare(f"reconcile: {2 * decisions:,} settlements", sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--settlements", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--bare", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        servers, run, decisions = given.bare
        print(json.dumps(bare(servers, run, int(decisions))))
        return
    settlements, rounds = ([20_000], 1) if given.quick else (given.settlements, given.rounds)
    with real_kafka() as kafka:
        report(compared(kafka, settlements, rounds), given.json)


if __name__ == "__main__":
    main()

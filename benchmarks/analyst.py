"""What an analyst's commands take of a ledger with a million settlements: `explain`, `export`, `sql`.

    .venv/bin/python benchmarks/analyst.py [--rounds 3] [--settlements 1000000] [--json FILE] [--quick]

A real Apache Kafka holds decisions of visitors with twenty each on 24 partitions, and the ledger of a group that
delivered all of them: batches of 40 settlements. Each command is a process of its own; its start is in the figures,
and so is its highest memory (at least what this program has itself, which a child begins with).

The reference of `explain` is a bare consumer that reads and decodes both topics and keeps what has the visitor's id;
that of `export` and `sql` is `flagpost tail --json`, which prints the same settlements.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from confluent_kafka import Consumer, Producer, TopicPartition

from bare_consumer import decoded, schema_of
from flagpost_consumer.core.planning.partitioner import partition_of
from flagpost_schemas import DecisionEvent, LedgerEntry, Settlements, encode_settlements, encode_single_object
from real_kafka.broker import KafkaBroker
from running import FLAGPOST, environment
from side_by_side import Comparison, Side, arguments, compare, in_a_process, report
from stage import NOWHERE, PRODUCER, real_kafka

PARTITIONS = 24
BATCH = 40
EVENTS_OF_A_VISITOR = 20
GROUP = "analyst"
TOPICS = (f"{GROUP}.events", f"{GROUP}.ledger", f"{GROUP}.dead-letters")


def visitor(number: int) -> str:
    return f"visitor-{number:024}"


def decision(number: int, visitor_id: str, now_ms: int) -> DecisionEvent:
    return DecisionEvent(
        event_id=f"0199c2a4-7c00-7000-8000-{number:012}",
        occurred_at=now_ms,
        visitor_id=visitor_id,
        flag_key=f"flag-{number % EVENTS_OF_A_VISITOR}",
        enabled=True,
        variation_key="treatment",
        rule_key="rule",
        decision_event_dispatched=True,
    )


def settled(event: DecisionEvent, offset: int) -> LedgerEntry:
    return LedgerEntry(
        offset=offset,
        kind="track",
        outcome="delivered",
        reason="ok",
        event_id=event.event_id,
        visitor_id=event.visitor_id,
        event="Experiment Viewed",
        flag_key=event.flag_key,
        variation_key=event.variation_key,
        dedupe_key=os.urandom(16),
        occurred_at=event.occurred_at,
        attempts=1,
        status=200,
    )


def fill(kafka: KafkaBroker, settlements: int) -> None:
    """Write the events, and how they ended."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, **PRODUCER})
    events, ledger, _ = TOPICS
    now_ms = time.time_ns() // 1_000_000
    waiting: dict[int, list[LedgerEntry]] = {number: [] for number in range(PARTITIONS)}
    ends = dict.fromkeys(range(PARTITIONS), 0)
    for number in range(settlements):
        event = decision(number, visitor(number // EVENTS_OF_A_VISITOR), now_ms)
        key = event.visitor_id.encode()
        partition = partition_of(key, PARTITIONS)
        put(producer, events, encode_single_object(event), partition, key)
        waiting[partition].append(settled(event, ends[partition]))
        ends[partition] += 1
        if len(waiting[partition]) == BATCH:
            settle(producer, ledger, partition, waiting[partition], now_ms)
    for partition, entries in waiting.items():
        settle(producer, ledger, partition, entries, now_ms)
    if producer.flush(120):
        raise SystemExit("Kafka did not take everything")
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": GROUP})
    consumer.commit(offsets=[TopicPartition(events, *end) for end in ends.items()], asynchronous=False)
    consumer.close()


def settle(producer: Producer, ledger: str, partition: int, entries: list[LedgerEntry], now_ms: int) -> None:
    record = Settlements(group=GROUP, member="m", settled_at=now_ms, entries=list(entries), gaps=[])
    put(producer, ledger, encode_settlements(record), partition, None)
    entries.clear()


def put(producer: Producer, topic: str, value: bytes, partition: int, key: bytes | None) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition=partition)
            break
        except BufferError:
            producer.poll(0.05)
    producer.poll(0)


def command(kafka: KafkaBroker, *options: str) -> Mapping[str, float]:
    """Run `flagpost` once."""
    settings = {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": GROUP,
        "kafka.topic": TOPICS[0],
        "kafka.ledger_topic": TOPICS[1],
        "kafka.dead_letter_topic": TOPICS[2],
        "kafka.suppressions_topic": f"{GROUP}.suppressions",
        "decisions.visitor_metadata": False,
        "pendo.api_url": NOWHERE,
    }
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [str(FLAGPOST), *options], env=environment(settings), stdout=output, stderr=subprocess.PIPE
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            assert process.stderr is not None  # noqa: S101 - narrows the type
            raise SystemExit(f"flagpost {' '.join(options)} failed: {process.stderr.read().decode()}")
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_mb": usage.ru_maxrss / 1e3,
    }


def explained(kafka: KafkaBroker, visitor_id: str) -> Mapping[str, float]:
    return command(kafka, "explain", visitor_id, "--json")


def bare(bootstrap_servers: str, visitor_id: str, settlements: int) -> Mapping[str, float]:
    """Read and decode both topics, and keep what is the visitor's."""
    began, cpu, found = time.monotonic(), time.process_time(), 0
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "bare"})
    for topic, name in zip(TOPICS, ("DecisionEvent", "Settlements"), strict=False):
        schema, seen = schema_of(name), 0
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        while seen < settlements:
            for message in consumer.consume(500, 0.1):
                record = decoded(message, schema)
                entries = record.get("entries", [record])
                seen += len(entries)
                found += sum(entry["visitor_id"] == visitor_id for entry in entries)
    consumer.close()
    if found != 2 * EVENTS_OF_A_VISITOR:
        raise SystemExit(f"{found} of the visitor's were found")
    return {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}


def compared(kafka: KafkaBroker, settlements: int, rounds: int) -> Iterator[Comparison]:
    someone = visitor(settlements // EVENTS_OF_A_VISITOR // 2)
    reading = ["--bare", kafka.bootstrap_servers, someone, str(settlements)]
    sides = [
        Side("bare reading", in_a_process(Path(__file__), *reading)),
        Side("flagpost explain", partial(explained, kafka, someone)),
    ]
    yield compare(f"explain: one visitor among {settlements:,} settlements", sides, rounds)
    with tempfile.TemporaryDirectory() as directory:
        sides = [
            Side("flagpost tail --json", partial(command, kafka, "tail", "--no-follow", "--json")),
            *(
                Side(f"export {form}", partial(command, kafka, "export", "--to", f"{directory}/all.{form}"))
                for form in ("jsonl", "csv", "parquet")
            ),
            Side("sql", partial(command, kafka, "sql", "select * from flags")),
            Side(
                "sql of parquet",
                partial(command, kafka, "sql", "from flags", "--from", f"{directory}/all.parquet"),
            ),
        ]
        yield compare(f"export and sql: {settlements:,} settlements", sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--settlements", type=int, default=1_000_000)
    parser.add_argument("--bare", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        servers, someone, settlements = given.bare
        print(json.dumps(bare(servers, someone, int(settlements))))
        return
    settlements, rounds = (20_000, 1) if given.quick else (given.settlements, given.rounds)
    with real_kafka(*TOPICS, partitions=PARTITIONS) as kafka:
        fill(kafka, settlements)
        report(compared(kafka, settlements, rounds), given.json)


if __name__ == "__main__":
    main()

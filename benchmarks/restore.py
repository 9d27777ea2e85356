"""How long a restart takes that has a million settlements to read: `restored` for every partition.

    .venv/bin/python benchmarks/restore.py [--settlements 1000000] [--partitions 24] [--batch 40] [--json]

A real Apache Kafka (Java 17 and Maven) holds a ledger as a group leaves it behind that was killed: batches of
settlements, all within the ttl, so that each one is a claim to be remembered. Then `flagpost consume` is started,
and asked until /status says that every partition is restored. Beside it, in the same run, the same records are
read by a bare consumer that decodes them with fastavro and keeps nothing: what reading alone takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from flagpost_schemas import LedgerEntry, Settlements, decode_settlements, encode_settlements
from real_kafka.broker import KafkaBroker
from running import RunningConsumer

EVENTS, LEDGER, DEAD_LETTERS, GROUP = (
    "flagpost.events",
    "flagpost.ledger",
    "flagpost.dead-letters",
    "flagpost",
)


def fill(kafka: KafkaBroker, settlements: int, partitions: int, batch: int) -> None:
    """Write the ledger, and commit its beginning as what is still needed."""
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 20, "compression.type": "lz4"}
    )
    now_ms = time.time_ns() // 1_000_000
    for first in range(0, settlements, batch):
        turn, partition = divmod(first // batch, partitions)
        size = min(batch, settlements - first)
        entries = [entry(first + number, turn * batch + number, now_ms) for number in range(size)]
        record = Settlements(group=GROUP, member="killed", settled_at=now_ms, entries=entries, gaps=[])
        producer.produce(LEDGER, encode_settlements(record), partition=partition)
        producer.poll(0)
    if producer.flush(120):
        raise SystemExit("Kafka did not take the ledger")
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": GROUP})
    begun = [TopicPartition(EVENTS, number, 0, "v1:0") for number in range(partitions)]
    consumer.commit(offsets=begun, asynchronous=False)
    consumer.close()


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


def measure_consumer(kafka: KafkaBroker) -> dict[str, float]:
    began = time.monotonic()
    settings = {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "pendo.track_url": "http://127.0.0.1:1/data/track",
        "pendo.api_url": "http://127.0.0.1:1",
        "pendo.track_secret": "secret",
        "decisions.visitor_metadata": False,
    }
    with RunningConsumer(settings) as consumer:
        while not is_restored(consumer):
            time.sleep(0.2)
        found = {
            "start_to_restored_seconds": time.monotonic() - began,
            "restore_seconds": consumer.value("flagpost_ledger_restore_seconds"),
            "dedupe_entries": consumer.value("flagpost_dedupe_entries"),
            "memory_mb": psutil.Process(consumer.process_id).memory_info().rss / 1e6,
        }
        asyncio.run(consumer.stop())
    return found


def is_restored(consumer: RunningConsumer) -> bool:
    assignment = consumer.status()["assignment"]
    return bool(assignment) and all(partition["restored"] for partition in assignment)


def measure_reading(kafka: KafkaBroker, settlements: int, partitions: int) -> float:
    """Seconds that a bare consumer takes for the same records."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "bare"})
    consumer.assign([TopicPartition(LEDGER, number, 0) for number in range(partitions)])
    began, seen = time.monotonic(), 0
    while seen < settlements:
        for message in consumer.consume(200, 0.1):
            seen += len(decode_settlements(message.value()).entries)
    consumer.close()
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settlements", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=24)
    parser.add_argument("--batch", type=int, default=40, help="settlements in a ledger record")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        kafka = KafkaBroker(Path(directory))
        try:
            kafka.create_topics(EVENTS, LEDGER, DEAD_LETTERS, partitions=arguments.partitions)
            fill(kafka, arguments.settlements, arguments.partitions, arguments.batch)
            found = measure_consumer(kafka)
            found["bare_reading_seconds"] = measure_reading(
                kafka, arguments.settlements, arguments.partitions
            )
        finally:
            kafka.stop()
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<28}{value:12,.2f}")


if __name__ == "__main__":
    main()

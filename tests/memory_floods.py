"""Floods of records that filled a consumer's memory before, and the bound that now holds in each.

In: a scene, how many records. Out: the records in the scene's topic; a check of a consumer's peak memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from deadlines import stretched
from flagpost_schemas import (
    Context,
    DecisionEvent,
    LedgerEntry,
    MetadataValue,
    Settlements,
    TrackEvent,
    VisitorMetadata,
    encode_confluent,
    encode_settlements,
    encode_single_object,
)
from running import RunningConsumer
from scenes import Scene

CHART_BYTES = 512 * 1024 * 1024
"""The chart's memory limit of a consumer: above it the kernel kills the process, and the same records come again."""
MOST_BYTES = 400 * 1024 * 1024
"""A consumer's peak memory must stay below this in every flood."""


BEYOND = 10_000_000
"""Higher than any offset of a test's topic."""


class Flood(NamedTuple):
    """One record of a flood."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def produce_all(scene: Scene, floods: Iterable[Flood], compression: str = "zstd") -> None:
    """Produce records to the topic; compressed, so that a flood of a gigabyte needs little space on the broker."""
    producer = Producer(
        {
            "bootstrap.servers": scene.kafka.bootstrap_servers,
            "partitioner": "murmur2_random",
            "compression.type": compression,
            "linger.ms": 50,
        }
    )
    failed: list[KafkaError] = []

    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    for flood in floods:
        while True:
            try:
                producer.produce(
                    scene.topic, flood.value, flood.key, headers=list(flood.headers), on_delivery=report
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(stretched(120)) == 0
    assert not failed, failed[0]


def large_tracks(count: int, size_bytes: int, url: str = "") -> Iterator[Flood]:
    """Events, each of another visitor, with a property of `size_bytes` and with `url` in the context."""
    for number in range(count):
        event = TrackEvent(
            event_id=f"large-{number}",
            occurred_at=now_ms(),
            visitor_id=f"v{number}",
            event="Step",
            properties={"text": "x" * size_bytes},
            context=Context(url=url) if url else None,
        )
        yield Flood(f"v{number}".encode(), encode_single_object(event))


def tiny_fields(count: int, fields: int) -> Iterator[Flood]:
    """Metadata, each of another visitor, with many fields of a few bytes."""
    values: dict[str, MetadataValue] = {f"{number:x}": True for number in range(fields)}
    for number in range(count):
        event = VisitorMetadata(
            event_id=f"tiny-{number}", occurred_at=now_ms(), visitor_id=f"v{number}", values=values
        )
        yield Flood(f"v{number}".encode(), encode_single_object(event))


def wide_letters(count: int) -> Iterator[Flood]:
    """Metadata whose text takes four bytes a character in memory, only because of its last character."""
    text = "x" * 60_000 + "\N{GRINNING FACE}"
    for number in range(count):
        event = VisitorMetadata(
            event_id=f"wide-{number}", occurred_at=now_ms(), visitor_id=f"v{number}", values={"text": text}
        )
        yield Flood(f"v{number}".encode(), encode_single_object(event))


def many_headers(count: int, headers: int) -> Iterator[Flood]:
    """Events with many headers of one byte."""
    some = tuple(("h", b"") for _ in range(headers))
    for number in range(count):
        event = TrackEvent(
            event_id=f"headers-{number}", occurred_at=now_ms(), visitor_id=f"v{number}", event="Step"
        )
        yield Flood(f"v{number}".encode(), encode_single_object(event), some)


def unknown_ids(count: int, size_bytes: int = 100) -> Iterator[Flood]:
    """Records in Confluent's wire format, each with another schema id."""
    text = "x" * size_bytes
    event = TrackEvent(
        event_id="u", occurred_at=now_ms(), visitor_id="v", event="Step", properties={"t": text}
    )
    body = encode_confluent(event, 0)[5:]
    for number in range(count):
        yield Flood(f"v{number}".encode(), b"\0" + (1_000 + number).to_bytes(4) + body)


def decisions(count: int, first: int = 0) -> Iterator[Flood]:
    """Decisions of visitors with ids of 36 characters."""
    for number in range(first, first + count):
        visitor = f"0199c2a4-7c00-7000-8000-{number:012}"
        event = DecisionEvent(
            event_id=f"0199c2a4-7c00-7000-9000-{number:012}",
            occurred_at=now_ms(),
            visitor_id=visitor,
            flag_key="checkout",
            enabled=True,
            variation_key="treatment",
            rule_key="rule",
            decision_event_dispatched=True,
        )
        yield Flood(visitor.encode(), encode_single_object(event))


def write_claims(scene: Scene, count: int, batch: int = 400) -> None:
    """Fill the ledger with `count` delivered decisions, which are claims within the ttl. They settle no record."""
    producer = Producer(
        {"bootstrap.servers": scene.kafka.bootstrap_servers, "linger.ms": 20, "compression.type": "lz4"}
    )
    group, at = str(scene.settings["kafka.group_id"]), now_ms()
    for turn, first in enumerate(range(0, count, batch)):
        entries = [
            LedgerEntry(
                offset=BEYOND + first + number,
                kind="track",
                outcome="delivered",
                reason="ok",
                event_id=f"0199c2a4-7c00-7000-9000-{first + number:012}",
                visitor_id=f"0199c2a4-7c00-7000-8000-{first + number:012}",
                event="Experiment Viewed",
                flag_key="checkout",
                variation_key="treatment",
                dedupe_key=os.urandom(16),
                occurred_at=at - number,
                attempts=1,
                status=200,
            )
            for number in range(batch)
        ]
        record = Settlements(group=group, member="m", settled_at=at, entries=entries, gaps=[])
        while True:
            try:
                producer.produce(scene.ledger, encode_settlements(record), partition=turn % scene.partitions)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(stretched(120)) == 0
    consumer = Consumer({"bootstrap.servers": scene.kafka.bootstrap_servers, "group.id": group})
    begun = [TopicPartition(scene.topic, number, 0, "v1:0") for number in range(scene.partitions)]
    consumer.commit(offsets=begun, asynchronous=False)
    consumer.close()


def check_memory(consumer: RunningConsumer, most_bytes: int = MOST_BYTES) -> None:
    """Check the process's peak memory."""
    peak = consumer.peak_bytes
    print(f"peak: {peak / 1024 / 1024:.0f} MiB")  # noqa: T201 - for whoever watches a long run
    assert peak < most_bytes, f"{peak / 1024 / 1024:.0f} MiB"

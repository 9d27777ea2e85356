"""What a benchmark of the service sets up: a real broker, records on its topics, a sink, the service as a process.

Nothing here is measured. The service is `flagpost consume` as it is deployed; what it used is read from the
operating system, and how far it is from what it committed to Kafka: asking it would cost what is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from flagpost_schemas import Event, TrackEvent, encode_single_object, partition_key
from real_kafka import parts
from real_kafka.broker import KafkaBroker, OwnBroker
from running import RunningConsumer
from side_by_side import cannot_be_had

PARTITIONS = 8
DEADLINE_SECONDS = 300.0
LOOK_SECONDS = 0.05
NOWHERE = "http://127.0.0.1:1"
PRODUCER = {"partitioner": "murmur2_random", "compression.type": "lz4", "linger.ms": 20}


@contextmanager
def real_kafka(*topics: str, partitions: int = PARTITIONS) -> Iterator[KafkaBroker]:
    """A real Apache Kafka with these topics; the benchmark ends here, by name, where there is none."""
    why = parts.missing()
    if why is not None:
        cannot_be_had(f"a real Apache Kafka: {why}")
    with tempfile.TemporaryDirectory() as directory:
        broker = OwnBroker(Path(directory))
        try:
            if topics:
                broker.create_topics(*topics, partitions=partitions)
            yield broker
        finally:
            broker.stop()


class Sink:
    """A server that answers 200 to everything (`recording_sink`), in a process that lives as long as the block."""

    def __init__(self, latency_ms: float = 0.0) -> None:
        program = str(Path(__file__).with_name("recording_sink.py"))
        command = [sys.executable, program, "--latency-ms", str(latency_ms)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None  # noqa: S101 - narrows the type
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"
        self.ages: Mapping[str, Mapping[str, float]] = {}
        """How old the events of each kind of visitor were; known after the block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ages = json.loads(self._process.communicate()[0])


def track(number: int, visitor_id: str) -> TrackEvent:
    """Something that a visitor did this moment."""
    now_us = time.time_ns() // 1000
    return TrackEvent(
        event_id=f"0192f5a0-0000-7000-8000-{number:012d}",
        occurred_at=now_us // 1000,
        visitor_id=visitor_id,
        event="Order Completed",
        properties={"sent_us": now_us, "plan": "gold", "items": 3, "total": 49.9, "currency": "CHF"},
    )


def produce_at(kafka: KafkaBroker, topic: str, rate: float, visitors: Iterable[str]) -> None:
    """An event for each of these visitors, so many a second, at even times whatever becomes of them."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, **PRODUCER, "linger.ms": 0})
    began = time.monotonic()
    for number, visitor_id in enumerate(visitors):
        early = began + number / rate - time.monotonic()
        if early > 0:
            time.sleep(early)
        event = track(number, visitor_id)
        producer.produce(topic, encode_single_object(event), partition_key(event))
        producer.poll(0)
    if producer.flush(60):
        raise SystemExit(f"Kafka did not take the records of {topic}")


def fill(kafka: KafkaBroker, topic: str, events: Iterable[Event]) -> None:
    """Produce events as the publisher would; Kafka has them all on return."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, **PRODUCER})
    for event in events:
        value, key = encode_single_object(event), partition_key(event)
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    if producer.flush(60):
        raise SystemExit(f"Kafka did not take the records of {topic}")


def service(
    kafka: KafkaBroker, events: str, run: str, pendo: str, settings: Mapping[str, object] | None = None
) -> RunningConsumer:
    """The service in a group of its own, with a ledger of its own, that reads `events` from the beginning."""
    ledger, dead_letters = f"{run}.ledger", f"{run}.dead-letters"
    partitions = len(kafka.admin().list_topics(events, timeout=20).topics[events].partitions)
    if ledger not in kafka.admin().list_topics(timeout=20).topics:
        kafka.create_topics(ledger, dead_letters, partitions=partitions)
    return RunningConsumer(
        {
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "kafka.topic": events,
            "kafka.ledger_topic": ledger,
            "kafka.dead_letter_topic": dead_letters,
            "kafka.group_id": run,
            "pendo.track_url": f"{pendo}/data/track",
            "pendo.api_url": NOWHERE,
            "pendo.track_secret": "secret",
            "decisions.visitor_metadata": False,
            "log.level": "error",
            **(settings or {}),
        }
    )


class Meter:
    """CPU time of processes, their threads and the system's work for them included, and the time, from now on."""

    def __init__(self, process_ids: Sequence[int]) -> None:
        self._processes = [psutil.Process(process_id) for process_id in process_ids]
        self._cpu, self._began = self._used(), time.monotonic()

    @property
    def cpu_seconds(self) -> float:
        return self._used() - self._cpu

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def _used(self) -> float:
        used = [process.cpu_times() for process in self._processes]
        return sum(times.user + times.system for times in used)


def await_committed(kafka: KafkaBroker, topic: str, group: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until a group has committed all that is on a topic."""
    watcher = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "log_level": 0})
    try:
        numbers = watcher.list_topics(topic, timeout=20).topics[topic].partitions
        ends = {number: watcher.get_watermark_offsets(TopicPartition(topic, number))[1] for number in numbers}
        wanted = [TopicPartition(topic, number) for number, end in ends.items() if end]
        deadline = time.monotonic() + seconds
        while any(part.offset < ends[part.partition] for part in watcher.committed(wanted, timeout=20)):
            if time.monotonic() > deadline:
                raise SystemExit(f"{group} did not commit all of {topic} within {seconds:g} s")
            time.sleep(LOOK_SECONDS)
    finally:
        watcher.close()


def await_assigned(services: Sequence[RunningConsumer], partitions: int) -> None:
    """Wait until a group's members hold all of so many partitions between them, restored, and each holds some."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        held = [member.status()["assignment"] for member in services]
        if (
            all(held)
            and sum(map(len, held)) == partitions
            and all(part["restored"] for of_member in held for part in of_member)
        ):
            return
        if time.monotonic() > deadline:
            raise SystemExit("the group did not come to hold its partitions")
        time.sleep(LOOK_SECONDS)

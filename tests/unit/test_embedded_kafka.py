"""The embedded broker is used like a real one: by confluent-kafka clients over TCP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from deadlines import stretched
from flagpost_consumer.demo import embedded_kafka
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka, EmbeddedKafkaError

DEADLINE_SECONDS = 20.0
PARTITIONS = 6


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({"plain": PARTITIONS, "shared": PARTITIONS, "committed": 1}) as broker:
        yield broker


def produce(kafka: EmbeddedKafka, topic: str, count: int) -> None:
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True, "log_level": 0}
    )
    for number in range(count):
        producer.produce(topic, b"value", key=f"key-{number}", headers={"number": str(number).encode()})
    assert producer.flush(stretched(DEADLINE_SECONDS)) == 0


@contextmanager
def consumer(kafka: EmbeddedKafka, group: str, topic: str) -> Iterator[Consumer]:
    member = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "partition.assignment.strategy": "cooperative-sticky",
            # A round of the mock's rebalance takes a session time-out less one second.
            "session.timeout.ms": 2000,
            "heartbeat.interval.ms": 100,
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    member.subscribe([topic])
    try:
        yield member
    finally:
        member.close()


def consume_until(condition: Callable[[list[Message]], bool], *members: Consumer) -> list[Message]:
    """Consume until the received records meet a condition; returns the records."""
    received: list[Message] = []
    deadline = time.monotonic() + stretched(DEADLINE_SECONDS)
    while not condition(received):
        assert time.monotonic() < deadline, f"only {len(received)} records came in time"
        received += [record for member in members for record in member.consume(100, 0.02)]
    return received


def test_it_carries_records_with_keys_headers_and_timestamps(kafka: EmbeddedKafka) -> None:
    before_ms = time.time_ns() // 1_000_000
    produce(kafka, "plain", 50)
    with consumer(kafka, "plain", "plain") as member:
        records = consume_until(lambda received: len(received) >= 50, member)

    assert {record.key() for record in records} == {f"key-{number}".encode() for number in range(50)}
    for record in records:
        assert record.value() == b"value"
        assert record.headers() == [("number", (record.key() or b"").removeprefix(b"key-"))]
        assert before_ms <= record.timestamp()[1] <= time.time_ns() // 1_000_000
    assert {record.partition() for record in records} == set(range(PARTITIONS))


def test_two_members_of_a_group_share_the_partitions(kafka: EmbeddedKafka) -> None:
    with consumer(kafka, "pair", "shared") as first:
        consume_until(lambda _: len(first.assignment()) == PARTITIONS, first)
        with consumer(kafka, "pair", "shared") as second:
            consume_until(
                lambda _: len(first.assignment()) == len(second.assignment()) == PARTITIONS // 2,
                first,
                second,
            )
            owned = {partition.partition for member in (first, second) for partition in member.assignment()}
            assert owned == set(range(PARTITIONS))

            produce(kafka, "shared", 60)
            records = consume_until(lambda received: len(received) >= 60, first, second)
            assert {record.partition() for record in records} == set(range(PARTITIONS))


def test_offsets_are_committed_with_their_metadata(kafka: EmbeddedKafka) -> None:
    produce(kafka, "committed", 5)
    with consumer(kafka, "committed", "committed") as member:
        consume_until(lambda received: len(received) == 5, member)
        member.commit(offsets=[TopicPartition("committed", 0, 3, "v1:42")], asynchronous=False)

    with consumer(kafka, "committed", "committed") as successor:
        (committed,) = successor.committed(
            [TopicPartition("committed", 0)], timeout=stretched(DEADLINE_SECONDS)
        )
        assert (committed.offset, committed.metadata) == (3, "v1:42")
        records = consume_until(lambda received: len(received) >= 2, successor)
        assert [record.offset() for record in records] == [3, 4]


def test_it_ends_with_its_block() -> None:
    with EmbeddedKafka({"t": 1}) as broker:
        child = psutil.Process(broker.process_id)
        assert child.is_running()
    assert not child.is_running()
    with pytest.raises(EmbeddedKafkaError, match="not running"):
        _ = broker.bootstrap_servers


def test_a_ctrl_c_in_the_terminal_does_not_reach_it(kafka: EmbeddedKafka) -> None:
    assert os.getpgid(kafka.process_id) != os.getpgid(0)


PARENT = """
import sys
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
with EmbeddedKafka({"t": 1}) as broker:
    print(broker.process_id, flush=True)
    sys.stdin.read()
"""


def test_it_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        parent.wait(stretched(DEADLINE_SECONDS))
        gone, _ = psutil.wait_procs([child], timeout=stretched(DEADLINE_SECONDS))
        assert gone == [child]


@pytest.mark.parametrize("topics", [{"t": 0}, {"": 1}, {"a=b": 1}])
def test_impossible_topics_are_refused(topics: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"topics: .* give each topic a name"):
        EmbeddedKafka(topics)


def test_a_build_without_its_own_library_says_what_to_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = ModuleSpec("confluent_kafka", None, origin=str(tmp_path / "confluent_kafka" / "__init__.py"))
    monkeypatch.setattr(embedded_kafka, "find_spec", lambda _name: spec)
    with pytest.raises(EmbeddedKafkaError, match="--bootstrap-servers"):
        embedded_kafka.library_path()


def test_the_library_is_found_as_the_macos_wheel_lays_it_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "confluent_kafka" / ".dylibs" / "librdkafka.1.dylib"
    library.parent.mkdir(parents=True)
    library.touch()
    spec = ModuleSpec("confluent_kafka", None, origin=str(tmp_path / "confluent_kafka" / "__init__.py"))
    monkeypatch.setattr(embedded_kafka, "find_spec", lambda _name: spec)
    assert embedded_kafka.library_path() == library


def test_a_child_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "confluent_kafka"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # shadows the real package in the child
    with pytest.raises(EmbeddedKafkaError, match=r"did not start: .* --bootstrap-servers"):
        EmbeddedKafka({"t": 1}).__enter__()

"""The tests' real broker: the properties that other tests rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from conftest import need_java
from deadlines import stretched
from real_kafka import shared
from real_kafka.broker import KafkaBroker, OwnBroker
from real_kafka.processes import listens
from running import eventually

pytestmark = pytest.mark.kafka

FreshName = Callable[[str], str]


def _produce(broker: KafkaBroker, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    producer.produce(topic, value, partition=0)
    assert producer.flush(stretched(20)) == 0


def _read(broker: KafkaBroker, topic: str, group: str) -> tuple[bytes, int]:
    """Read the group's next value and commit it; returns the value, and the offset that was committed before."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group})
    try:
        (committed,) = consumer.committed([TopicPartition(topic, 0)], timeout=stretched(20))
        consumer.assign([TopicPartition(topic, 0, max(0, committed.offset))])
        message = consumer.poll(stretched(20))
        assert message is not None
        assert message.error() is None
        consumer.commit(message=message, asynchronous=False)
        value = message.value()
        assert isinstance(value, bytes)
        return value, committed.offset
    finally:
        consumer.close()


@pytest.mark.kafka_core
def test_the_shared_broker_serves_topics_of_its_own_to_each_test(
    kafka: KafkaBroker, fresh_name: FreshName
) -> None:
    topic = fresh_name("served")
    kafka.create_topics(topic, partitions=3, config={"retention.ms": "1000000"})
    _produce(kafka, topic, b"here")
    assert _read(kafka, topic, fresh_name("group"))[0] == b"here"
    assert len(kafka.admin().list_topics(topic, timeout=stretched(20)).topics[topic].partitions) == 3


def test_a_broker_that_is_killed_comes_back_with_what_it_acknowledged(
    kafka_broker: OwnBroker, fresh_name: FreshName
) -> None:
    topic, group = fresh_name("killed"), fresh_name("group")
    kafka_broker.create_topics(topic)
    _produce(kafka_broker, topic, b"one")
    _read(kafka_broker, topic, group)
    kafka_broker.kill()
    kafka_broker.restart()
    _produce(kafka_broker, topic, b"two")
    assert _read(kafka_broker, topic, group) == (b"two", 1)


USER_OF_IT = f"""
import sys, pathlib
sys.path.insert(0, {str(shared.TESTS)!r})
from conftest import need_java
from real_kafka import shared
print(shared.ports_of(shared.BROKER, pathlib.Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def user_of_the_shared_one(run: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a process of a test run that needs the shared broker; returns it, and the broker's ports."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER_OF_IT, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


@pytest.mark.thorough
async def test_a_shared_broker_ends_with_the_last_process_that_needs_it_and_a_new_one_can_start(
    tmp_path: Path,
) -> None:
    need_java()
    first, ports = user_of_the_shared_one(tmp_path)
    second, same = user_of_the_shared_one(tmp_path)
    with second:
        with first:
            assert same == ports
            first.kill()
        assert KafkaBroker(*ports).admin().list_topics(timeout=stretched(20)).brokers
    await eventually(lambda: not listens(ports[0]), what="the broker is gone")
    third, _ = user_of_the_shared_one(tmp_path)
    with third:
        pass
    assert third.returncode == 0

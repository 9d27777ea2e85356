"""A Kafka client that returns no records although there are some, on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from confluent_kafka import Message, Producer

from deadlines import stretched
from flagpost_consumer.adapters.kafka import reading_silence, topic_watch
from flagpost_consumer.adapters.kafka.config import consumer_config
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.adapters.kafka.intake_handler import Lag
from flagpost_consumer.adapters.kafka.partition_reading import Start
from flagpost_consumer.adapters.kafka.topic_ids import TopicIds
from flagpost_consumer.adapters.kafka.topic_watch import TopicWatch
from flagpost_consumer.core.books.deliveries import Position
from flagpost_consumer.core.records import Gap
from flagpost_consumer.settings import Needs, load_settings
from real_kafka.broker import KafkaBroker, OwnBroker
from running import eventually

SECONDS = 90.0
PARTITIONS = 2


class Reader:
    """Reads every partition from its beginning, without knowing the ids of topics."""

    def __init__(self, kafka: KafkaBroker, topic: str) -> None:
        environment = {
            "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "FLAGPOST_KAFKA__GROUP_ID": topic,
            "FLAGPOST_KAFKA__TOPIC": topic,
        }
        settings = load_settings(None, environment, Needs.KAFKA).kafka
        self.values: list[bytes | None] = []
        self.lag: Mapping[int, Lag] = {}
        self.assignments = 0
        self.intake = KafkaIntake(consumer_config(settings), topic, self, asyncio.get_running_loop())
        self.ids = TopicIds(settings.client_properties(), [topic], lambda *_: None)
        self.watch = TopicWatch(settings.client_properties(), topic, self.ids, self.intake)

    def on_assigned(self, partitions: list[int], partition_count: int, assignment: int) -> None:
        assert partition_count == PARTITIONS
        self.assignments += bool(partitions)
        for number in partitions:
            self.intake.release(number, Start(0), assignment)

    async def on_revoked(self, partitions: list[int]) -> dict[int, Position]:
        del partitions
        return {}

    def on_lost(self, partitions: list[int]) -> None:
        raise AssertionError(partitions)

    def on_messages(self, messages: list[Message], done: Callable[[], None]) -> None:
        self.values += [message.value() for message in messages]
        done()

    def on_partition_count(self, count: int) -> None:
        assert count == PARTITIONS

    def on_epoch(self, partition: int, offset: int, epoch: int) -> None:
        pass

    def on_lag(self, lag: Mapping[int, Lag]) -> None:
        self.lag = lag

    async def on_began_anew(
        self, partitions: list[int], assignment: int, went_back: Mapping[int, Start]
    ) -> None:
        raise AssertionError((partitions, assignment, went_back))

    def on_gap(self, partition: int, gap: Gap) -> None:
        raise AssertionError((partition, gap))

    def on_commit_ended(self, began_at: float | None) -> None:
        raise AssertionError(began_at)


@contextmanager
def running(reader: Reader) -> Iterator[None]:
    reader.intake.start()
    reader.watch.start()
    try:
        yield
    finally:
        reader.watch.stop()
        reader.intake.stop()


def publish(kafka: KafkaBroker, topic: str, value: bytes, count: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(count):
        producer.produce(topic, value, partition=number % PARTITIONS)
    assert producer.flush(stretched(SECONDS)) == 0


@pytest.mark.parametrize("after", [20, 200], ids=["shorter", "longer"])
async def test_a_client_that_still_uses_a_leader_that_is_gone_is_replaced(
    kafka_broker: OwnBroker,
    fresh_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    """Before, nothing of a new topic whose leaders have lower epochs was read, and neither the lag nor anything else
    showed it. Here the topic's id is unknown, as with brokers before 3.1: only the silence shows it.
    """
    monkeypatch.setattr(reading_silence, "SILENT_SECONDS", 5.0)
    monkeypatch.setattr(topic_watch, "ENDS_SECONDS", 0.5)
    topic = fresh_name("silence")
    await asyncio.to_thread(kafka_broker.create_topics, topic, partitions=PARTITIONS)
    for _ in range(2):
        await asyncio.to_thread(kafka_broker.restart)
    reader = Reader(kafka_broker, topic)
    with running(reader):
        await asyncio.to_thread(publish, kafka_broker, topic, b"before", 100)
        await eventually(lambda: reader.values.count(b"before") == 100, SECONDS)
        assert reader.assignments == 1
        await asyncio.to_thread(kafka_broker.make_anew, topic, PARTITIONS)
        await asyncio.to_thread(publish, kafka_broker, topic, b"after", after)
        await eventually(lambda: reader.values.count(b"after") == after, SECONDS)
        assert reader.assignments == 2
        await eventually(lambda: [each.end for each in reader.lag.values()] == [after / 2] * 2, SECONDS)
    await asyncio.wait_for(asyncio.wrap_future(reader.intake.finished), stretched(SECONDS))

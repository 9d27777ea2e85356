"""Readers of a topic in their own thread ignore librdkafka's errors about the group, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flagpost_consumer.adapters.kafka import splits_reader, suppressions_reader
from flagpost_consumer.adapters.kafka.splits_reader import SplitsReader
from flagpost_consumer.adapters.kafka.suppressions_reader import SuppressionsReader
from flagpost_consumer.adapters.kafka.topic_thread import TopicThread
from flagpost_consumer.settings import KafkaSettings
from running import eventually

TOPIC = "topic"
REPORT = orjson.dumps(
    {"until": 7, "splits": [{"flag_key": "checkout", "rule_key": "r", "shares": {"a": 1, "b": 1}}]}
)


class Message:
    """A message, or an error in its place."""

    def __init__(self, error: int | None = None, value: bytes | None = None, offset: int = 0) -> None:
        self._error = None if error is None else KafkaError(error)
        self._value = value
        self._offset = offset

    def error(self) -> KafkaError | None:
        return self._error

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes:
        return b"somebody"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset


class Client:
    """A consumer that returns these messages, and then none."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)
        self.closed = 0

    def poll(self, _: float) -> Message | None:
        return self._messages.pop(0) if self._messages else None

    def consume(self, *_: object) -> list[Message]:
        found, self._messages = self._messages, []
        return found

    def list_topics(self, *_: object, **__: object) -> Any:
        led = type("Partition", (), {"leader": 1})
        topic = type("Topic", (), {"topic": TOPIC, "error": None, "partitions": {0: led}})
        return type("Cluster", (), {"topics": {TOPIC: topic}})

    def offsets_for_times(self, wanted: list[TopicPartition], **_: object) -> list[TopicPartition]:
        return wanted

    def assign(self, _: object) -> None:
        """Nothing to assign: all messages are returned."""

    def close(self) -> None:
        self.closed += 1


OF_GROUP = KafkaError.GROUP_AUTHORIZATION_FAILED
END = KafkaError._PARTITION_EOF


def came(*messages: Message) -> list[Message]:
    return cast("list[Message]", list(TopicThread._came(cast("Consumer", Client(*messages)), 0.0)))


def test_errors_about_the_group_are_ignored() -> None:
    first, end = Message(value=b"x"), Message(END)
    assert came(Message(OF_GROUP), first, Message(OF_GROUP), end) == [first, end]
    assert came(Message(OF_GROUP)) == []
    assert came() == []


def test_any_other_error_is_raised_after_the_messages_before_it() -> None:
    first = Message(value=b"x")
    coming = TopicThread._came(
        cast("Consumer", Client(first, Message(KafkaError.TOPIC_AUTHORIZATION_FAILED), Message())), 0.0
    )
    assert next(coming) is cast("Any", first)
    with pytest.raises(KafkaException):
        next(coming)


Start = Callable[[asyncio.AbstractEventLoop, list[object]], TopicThread]


def splits(loop: asyncio.AbstractEventLoop, told: list[object]) -> TopicThread:
    return SplitsReader(KafkaSettings(), TOPIC, loop, lambda *what: told.append(what))


class Handler:
    def __init__(self, told: list[object]) -> None:
        self.on_suppressions_known = told.append
        self.on_suppressions = told.append
        self.on_suppressions_followed = lambda trouble: told.append(trouble) if trouble else None


def suppressions(loop: asyncio.AbstractEventLoop, told: list[object]) -> TopicThread:
    return SuppressionsReader(KafkaSettings(suppressions_topic=TOPIC), cast("Any", Handler(told)), loop)


@pytest.mark.parametrize(("module", "start"), [(splits_reader, splits), (suppressions_reader, suppressions)])
async def test_each_reader_continues_without_the_right_to_see_the_group(
    module: Any, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(Message(OF_GROUP), Message(value=REPORT), Message(END, offset=1))
    made: list[Client] = []

    def consumer(*_: object, **__: object) -> Client:
        made.append(client)
        return client

    monkeypatch.setattr(module, "Consumer", consumer)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    told: list[object] = []
    reader = start(asyncio.get_running_loop(), told)
    reader.start()
    try:
        await eventually(lambda: told, what="what came behind the word about the group")
    finally:
        reader.stop()
        await asyncio.to_thread(reader.join)
    assert len(made) == 1
    assert not isinstance(told[0], str)

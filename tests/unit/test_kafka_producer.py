"""The producer of the event loop goes on polling for delivery reports, whatever happens in one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from flagpost_consumer.adapters.kafka import producer as kafka_producer
from flagpost_consumer.adapters.kafka.producer import SERVE_SECONDS, SILENT_SERVE_SECONDS, KafkaProducer
from running import eventually


class Raw:
    """A librdkafka producer that acknowledges records once `is_well` is set."""

    def __init__(self) -> None:
        self.is_well = False
        self._reports: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._reports)

    def produce(self, *_: object, on_delivery: Any, **__: object) -> None:
        offset = len(self._reports)
        message = type("Reported", (), {"offset": lambda _: offset, "partition": lambda _: 0})()
        self._reports.append(lambda: on_delivery(None, message))

    def poll(self, _: float) -> int:
        reports, self._reports = (self._reports, []) if self.is_well else ([], self._reports)
        for report in reports:
            report()
        return len(reports)


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Raw:
    raw = Raw()
    monkeypatch.setattr(kafka_producer, "Producer", lambda *_, **__: raw)
    return raw


async def test_a_report_that_raises_does_not_end_the_polling(raw: Raw) -> None:
    """Before the fix, polling ended, and the next write did not start it again: `_serving` stayed true."""
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
    producer = KafkaProducer({}, "topic", "tests")
    heard: list[int] = []

    def fail(_: KafkaError | None, __: int) -> None:
        raise MemoryError

    producer.produce(b"1", fail)
    producer.produce(b"2", lambda _, offset: heard.append(offset))
    raw.is_well = True
    await eventually(lambda: heard == [1])
    assert [type(error) for error in raised] == [MemoryError]
    producer.produce(b"3", lambda _, offset: heard.append(offset))
    await eventually(lambda: len(heard) == 2)


async def test_a_kafka_that_does_not_answer_is_polled_less_often(raw: Raw) -> None:
    """Before the fix, it was polled 500 times a second for as long as one partition had no leader."""
    producer = KafkaProducer({}, "topic", "tests")
    heard: list[int] = []
    producer.produce(b"1", lambda _, offset: heard.append(offset))
    assert producer._pause_seconds == SERVE_SECONDS
    await eventually(lambda: producer._pause_seconds == SILENT_SERVE_SECONDS)
    producer.produce(b"2", lambda _, offset: heard.append(offset))
    assert producer._pause_seconds == SERVE_SECONDS
    raw.is_well = True
    await eventually(lambda: len(heard) == 2)

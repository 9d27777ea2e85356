"""The page asks Kafka only a few questions at a time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from deadlines import stretched
from flagpost_consumer.commands.sources.kafka_admin import KafkaUnavailable
from flagpost_consumer.settings import Settings
from flagpost_consumer.web.asking import AT_ONCE, WAITING, Asking, NotAnswered


async def test_questions_wait_for_one_another_up_to_a_limit() -> None:
    asking, go_on, running = Asking(Settings()), threading.Event(), threading.Semaphore(0)

    def question() -> str:
        running.release()
        assert go_on.wait(stretched(30))
        return "answered"

    asked = [asyncio.create_task(asking.ask(question)) for _ in range(WAITING)]
    for _ in range(AT_ONCE):
        assert await asyncio.to_thread(running.acquire, timeout=stretched(30))
    assert not running.acquire(blocking=False)
    with pytest.raises(NotAnswered) as refused:
        await asking.ask(question)
    assert refused.value.status == 503
    go_on.set()
    assert await asyncio.gather(*asked) == ["answered"] * WAITING
    assert await asking.ask(question) == "answered"


async def test_an_unreachable_kafka_is_reported() -> None:
    def question() -> str:
        raise KafkaUnavailable("kafka:9092: no answer")

    with pytest.raises(NotAnswered, match="kafka:9092") as refused:
        await Asking(Settings()).ask(question)
    assert refused.value.status == 503

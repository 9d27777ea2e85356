"""Failures that were not reported before a review found them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from deadlines import stretched
from flagpost_consumer.adapters.http.client import HttpClient, Target
from flagpost_consumer.adapters.kafka.intake import KafkaIntake
from flagpost_consumer.adapters.kafka.intake_handler import IntakeHandler
from flagpost_consumer.adapters.pendo.address import PendoAddress
from flagpost_consumer.adapters.pendo.http import PendoHttp
from flagpost_consumer.core.pendo.attempts import Attempt
from flagpost_consumer.core.pendo.endpoint import EndpointName, Ticket
from flagpost_consumer.core.pendo.verdict import Answer, Failure


async def test_a_commit_that_failed_for_one_partition_is_reported_as_failed() -> None:
    told: list[float | None] = []
    handler = SimpleNamespace(on_commit_ended=told.append)
    intake = KafkaIntake(
        {"group.id": "flagpost"}, "events", cast("IntakeHandler", handler), asyncio.get_running_loop()
    )
    partitions = [
        SimpleNamespace(partition=0, error=None),
        SimpleNamespace(partition=1, error=KafkaError(KafkaError.NOT_COORDINATOR)),
    ]
    intake._commits.on_commit(None, cast("Any", partitions))
    await asyncio.sleep(0)
    assert told == [None], "it proves nothing"


async def test_an_attempt_has_an_answer_whatever_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: asyncio.Queue[Answer] = asyncio.Queue()
    address = PendoAddress("http://127.0.0.1:1", "http://127.0.0.1:1", "x-track", True, 5.0, 5.0)
    http = PendoHttp(address, lambda _, answer, __: answers.put_nowait(answer))
    http.open()
    http.set_secret(EndpointName.TRACK, "secret")

    def broken(*_: object) -> Target:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(HttpClient, "target", broken)
    http.start(Attempt(EndpointName.TRACK, b"{}", Ticket("v", 1)))
    answer = await asyncio.wait_for(answers.get(), stretched(5.0))
    await http.close()
    assert answer.failure is Failure.UNREACHABLE

"""The memory that a gateway's requests take, measured on a real process.

Before the fix, one request of 2 KB of gzip, within every limit, took hundreds of megabytes: what the messages of a
batch share was copied for each of them. The chart's memory limit of a gateway is 256 MiB.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from gateway_running import AUTHORIZED, RunningGateway, standing_still

pytestmark = [
    pytest.mark.usefixtures("cold_starts"),
    pytest.mark.thorough,
    pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc"),
]

MAY_TAKE_BYTES = 256 * 1024 * 1024
"""The memory of the whole process since its start: the chart's limit."""
EVENT = {"type": "track", "visitor_id": "v", "event": "E"}


def shared_by_a_batch() -> bytes:
    message = {"type": "track", "userId": "u", "event": "E"}
    return json.dumps({"batch": [message] * 8_000, "context": {"page": {"url": "x" * 60_000}}}).encode()


def names_repeated() -> bytes:
    inner: dict[str, object] = {f"m{number}": number for number in range(60)}
    for _ in range(20):
        inner = {"n" * 40: inner}
    return json.dumps([{**EVENT, "properties": inner}] * 300).encode()


def small_objects() -> bytes:
    return b"[" + b"[]," * 170_000 + b"0]"


def repaired_for_each_message() -> bytes:
    """57 KB of gzip that blocked the event loop for a minute before the fix."""
    message = {"type": "track", "userId": "u", "event": "E"}
    shared = {f"m{number}": {"t": "\ud800"} for number in range(8_000)}
    return json.dumps({"batch": [message] * 4_000, "context": shared}).encode()


def consent_of_a_batch() -> bytes:
    message = {"type": "x"}
    granted = {f"c{number}": True for number in range(10_000)}
    return json.dumps(
        {"batch": [message] * 10_000, "context": {"consent": {"categoryPreferences": granted}}}
    ).encode()


def zeros() -> bytes:
    return bytes(200_000_000)


GREEDY: list[tuple[str, Callable[[], bytes], int]] = [
    ("/v1/batch", shared_by_a_batch, 413),
    ("/v1/events", names_repeated, 413),
    ("/v1/events", small_objects, 400),
    ("/v1/events", zeros, 413),
    ("/v1/batch", repaired_for_each_message, 200),
    ("/v1/batch", consent_of_a_batch, 413),
]


async def post(gateway: RunningGateway, path: str, body: bytes) -> tuple[int, Any]:
    headers = {**AUTHORIZED, "content-type": "application/json", "content-encoding": "gzip"}
    status, answer, _ = await gateway.post(path, data=body, headers=headers)
    return status, answer


async def test_no_request_takes_more_than_the_chart_gives() -> None:
    with EmbeddedKafka({"flagpost.events": 4}) as kafka:
        settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers}
        async with RunningGateway(settings) as gateway:
            await gateway.ready()
            for path, document, status in GREEDY:
                body = gzip.compress(document())
                assert len(body) < 300_000
                answers = await asyncio.gather(*(post(gateway, path, body) for _ in range(8)))
                assert [each[0] for each in answers] == [status] * 8, answers[0]
            assert (await gateway.post("/v1/events", EVENT))[0] == 202
            assert gateway.peak_bytes < MAY_TAKE_BYTES
            assert await gateway.stop() == 0


async def test_requests_that_wait_for_kafka_take_no_more_either() -> None:
    """Hundreds of valid requests at once, with the smallest possible events, while Kafka does not answer."""
    body = gzip.compress(json.dumps([EVENT] * 9_000).encode())
    with EmbeddedKafka({"flagpost.events": 4}) as kafka:
        settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers}
        async with RunningGateway(settings) as gateway:
            await gateway.ready()
            async with standing_still(kafka):
                answers = await asyncio.gather(*(post(gateway, "/v1/events", body) for _ in range(200)))
                assert {each[0] for each in answers} == {503}
            assert gateway.peak_bytes < MAY_TAKE_BYTES

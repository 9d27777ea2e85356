"""The service on the embedded Kafka: answers that cannot be read, and answers that arrive while it is frozen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.adapters.pendo.http import SWEEP_SECONDS
from flagpost_consumer.core.outcomes import Kind, Outcome, Reason
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from flagpost_consumer.service.service import Service
from in_process import settings_for
from pendo_client import GENEROUS_SECONDS, Clock, read_request, server_in_thread, serving
from running import eventually
from traffic import publish

TOPIC = "flagpost.events"
VISITORS = 8
UNREADABLE = b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({TOPIC: 2, "flagpost.ledger": 2, "flagpost.dead-letters": 2}) as embedded:
        yield embedded


async def test_an_event_whose_answer_cannot_be_read_is_delivered_once(
    kafka: EmbeddedKafka,
) -> None:
    """Before the fix, each such event was sent eleven times and then dead-lettered if other events were accepted."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await read_request(reader)
                requests += 1
                writer.write(UNREADABLE)

    async with PendoStandIn() as pendo, serving(serve) as url:
        more = {
            "PENDO__TRACK_URL": url,
            "DECISIONS__VISITOR_METADATA": "false",
            "DELIVERY__VISITOR_INTERVAL_SECONDS": "0",
        }
        events = [
            decision(f"v{number}", occurred_at=time.time_ns() // 1_000_000) for number in range(VISITORS)
        ]
        publish(kafka.bootstrap_servers, TOPIC, events)
        service = Service(settings_for(kafka, pendo, **more))
        running = asyncio.ensure_future(service.run())
        settled = service.engine.accounts.settled
        await eventually(lambda: settled[Kind.TRACK, Outcome.DELIVERED, Reason.OK] == VISITORS, 60)
        assert service.metrics.observed.oldest_attempt_seconds() == 0.0
        service.stop()
        assert await running == 0
    assert requests == VISITORS


async def test_answers_that_come_while_the_service_is_frozen_are_read_and_nothing_is_sent_again(
    kafka: EmbeddedKafka,
) -> None:
    """Before the fix, every request in flight timed out after the freeze, its answer unread, and was sent again."""
    clock = Clock()
    async with PendoStandIn() as pendo:
        with server_in_thread(VISITORS, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as server:
            more = {
                "PENDO__TRACK_URL": server.url,
                "DECISIONS__VISITOR_METADATA": "false",
                "DELIVERY__VISITOR_INTERVAL_SECONDS": "0",
            }
            events = [
                decision(f"v{number}", occurred_at=time.time_ns() // 1_000_000) for number in range(VISITORS)
            ]
            publish(kafka.bootstrap_servers, TOPIC, events)
            service = Service(settings_for(kafka, pendo, **more))
            service.loop.http._now = clock
            running = asyncio.ensure_future(service.run())
            assert await asyncio.to_thread(server.received.wait, stretched(GENEROUS_SECONDS))
            clock.seconds += 11.0
            assert service.metrics.observed.oldest_attempt_seconds() == 11.0
            server.release()
            assert server.answered.wait(stretched(GENEROUS_SECONDS))
            time.sleep(2 * SWEEP_SECONDS)  # noqa: ASYNC251 - the freeze; the sweep is due
            settled = service.engine.accounts.settled
            await eventually(lambda: settled[Kind.TRACK, Outcome.DELIVERED, Reason.OK] == VISITORS, 60)
            service.stop()
            assert await running == 0
        assert server.count == VISITORS

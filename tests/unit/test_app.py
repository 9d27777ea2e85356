"""The service in this process, on the embedded Kafka: it shows no id or secret, and errors end it with code 1."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import aiohttp
import pytest

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.core.actions import Actions
from flagpost_consumer.core.clock import Instant
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from flagpost_consumer.service.service import Service
from in_process import settings_for
from traffic import publish

TOPIC = "flagpost.events"


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({TOPIC: 2, "flagpost.ledger": 2, "flagpost.dead-letters": 2}) as embedded:
        yield embedded


async def get(service: Service, path: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(service.admin_url + path) as answer:
        return await answer.text()


async def test_no_id_and_no_secret_is_in_logs_metrics_or_status(
    kafka: EmbeddedKafka, capfd: pytest.CaptureFixture[str]
) -> None:
    async with PendoStandIn() as pendo:
        pendo.faults.visitor("personal-visitor", 500, 400)
        settings = settings_for(kafka, pendo, METRICS__FLAGS='["checkout"]')
        events = [
            decision(
                "personal-visitor", account_id="personal-account", occurred_at=time.time_ns() // 1_000_000
            ),
            decision("", occurred_at=time.time_ns() // 1_000_000),
        ]
        publish(kafka.bootstrap_servers, TOPIC, events)
        service = Service(settings)
        running = asyncio.ensure_future(service.run())
        await pendo.received.until(lambda: len(pendo.received.of(Endpoint.TRACK)) == 1, 30)
        seen = [await get(service, "/metrics"), await get(service, "/status")]
        await pendo.received.until(lambda: len(pendo.received.of(Endpoint.TRACK)) == 2, 60)
        seen += [await get(service, "/metrics"), await get(service, "/status")]
        service.stop()
        assert await running == 0
    out, err = capfd.readouterr()
    assert '"hottest_visitors"' in seen[1]
    assert '"status": "500"' in seen[1]
    for text in (*seen, out, err, repr(settings), str(settings)):
        for hidden in (
            "personal-visitor",
            "personal-account",
            "stand-in-track-secret",
            "stand-in-integration-key",
        ):
            assert hidden not in text


async def test_a_defect_of_the_engine_ends_the_service_with_exit_code_1(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PendoStandIn() as pendo:
        service = Service(settings_for(kafka, pendo))
        running = asyncio.ensure_future(service.run())

        def broken(now: Instant) -> Actions:
            raise RuntimeError(f"at {now.monotonic}")

        monkeypatch.setattr(service.engine, "poll", broken)
        publish(kafka.bootstrap_servers, TOPIC, [decision("v")])
        assert await asyncio.wait_for(running, stretched(30)) == 1


async def test_a_taken_admin_port_ends_the_service_with_an_error_that_names_the_setting(
    kafka: EmbeddedKafka, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with PendoStandIn() as pendo:
            port = str(taken.getsockname()[1])
            assert await Service(settings_for(kafka, pendo, ADMIN__PORT=port)).run() == 1
    out, err = capfd.readouterr()
    assert "admin.port" in out + err + caplog.text, "by whichever way the tests before let programs log"

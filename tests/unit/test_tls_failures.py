"""Logs, /status, check and the registry's clients report why TLS fails (untrusted, expired, another name)."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pytest
import structlog
import uvloop

from certificates import Authority
from deadlines import stretched
from engine_world import decision
from flagpost_consumer.adapters.registry.errors import RegistryNotAnswering
from flagpost_consumer.adapters.registry.schema_registry import SchemaRegistry
from flagpost_consumer.commands.check.kafka import check_kafka
from flagpost_consumer.commands.check.pendo import check_pendo
from flagpost_consumer.commands.sources import kafka_admin
from flagpost_consumer.core.pendo.verdict import Answer, Failure
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from flagpost_consumer.service.service import Service
from flagpost_consumer.settings import SchemaRegistrySettings, Settings
from flagpost_publisher.errors import RegistryTrouble
from flagpost_publisher.registry import Registry
from flagpost_settings.outbound import Outbound
from flagpost_settings.tls_failures import tls_failure
from in_process import settings_for
from newest_sample import sample_read
from pendo_client import client, track_attempt
from running import eventually
from traffic import publish

SECONDS = 60.0
TOPIC = "flagpost.events"


@dataclass(frozen=True, slots=True)
class Wrong:
    """A server whose TLS is wrong, the CA file of its client, and the words that report the cause."""

    word: str
    context: ssl.SSLContext | None
    ca_file: str


WORDS = {
    "untrusted": "is untrusted",
    "expired": "has expired",
    "early": "is not valid yet",
    "other name": "is for another name",
    "no TLS": "TLS fails",
}


@pytest.fixture(params=list(WORDS))
def wrong(request: pytest.FixtureRequest, tmp_path: Path) -> Wrong:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "a stranger")
    contexts = {
        "untrusted": stranger.server_context("localhost"),
        "expired": authority.server_context("localhost", days=(-9, -2)),
        "early": authority.server_context("localhost", days=(2, 9)),
        "other name": authority.server_context("elsewhere.test"),
        "no TLS": None,
    }
    return Wrong(WORDS[request.param], contexts[request.param], str(authority.file))


@asynccontextmanager
async def server(wrong: Wrong) -> AsyncIterator[str]:
    """Start the server; without TLS it answers in plain HTTP."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=wrong.context, family=socket.AF_INET)
    async with listening:
        yield f"https://localhost:{listening.sockets[0].getsockname()[1]}"


async def answer_of(wrong: Wrong) -> Answer:
    async with (
        server(wrong) as url,
        client(url, outbound=Outbound("pendo", ca_file=wrong.ca_file)) as (http, answers),
    ):
        http.start(track_attempt())
        return await asyncio.wait_for(answers.get(), stretched(SECONDS))


async def test_the_answer_and_the_log_say_what_is_wrong(wrong: Wrong) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await answer_of(wrong)
    assert answer.failure is Failure.UNREACHABLE
    assert wrong.word in answer.detail
    (line,) = [line for line in lines if line["event"] == "Pendo cannot be reached"]
    assert line["reason"] == answer.detail


def test_uvloop_reports_the_same(wrong: Wrong) -> None:
    assert wrong.word in uvloop.run(answer_of(wrong)).detail


async def test_check_says_what_is_wrong_with_pendo_and_the_registry(wrong: Wrong) -> None:
    async with server(wrong) as url:
        pendo = {"track_secret": "s", "integration_key": "k", "track_url": url, "api_url": url}
        settings = Settings.model_validate({"pendo": {**pendo, "ca_file": wrong.ca_file}})
        checks = {check.name: check for check in await check_pendo(settings, sample_read())}
        assert wrong.word in checks["pendo track endpoint"].detail
        assert wrong.word in checks["pendo integration key"].detail
        registry = SchemaRegistrySettings(url=url, ca_file=wrong.ca_file)
        async with SchemaRegistry(url, registry) as asked:
            with pytest.raises(RegistryNotAnswering, match=wrong.word):
                await asked.fetch(1)
        with pytest.raises(RegistryTrouble, match=wrong.word):
            await asyncio.to_thread(Registry(url, {}, registry.outbound).ids_for, "events")


def test_other_failures_are_not_reported_as_tls() -> None:
    assert tls_failure(OSError("no route to host")) is None
    assert tls_failure(ValueError()) is None


@pytest.fixture
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka({TOPIC: 1, "flagpost.ledger": 1, "flagpost.dead-letters": 1}) as embedded:
        yield embedded


async def test_status_says_what_is_wrong(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    wrong = Wrong("has expired", authority.server_context("localhost", days=(-9, -2)), str(authority.file))
    publish(kafka.bootstrap_servers, TOPIC, [decision("v", occurred_at=time.time_ns() // 1_000_000)])
    async with server(wrong) as url, PendoStandIn() as pendo:
        service = Service(settings_for(kafka, pendo, PENDO__TRACK_URL=url, PENDO__CA_FILE=wrong.ca_file))
        running = asyncio.ensure_future(service.run())
        errors: list[dict[str, str]] = []
        async with aiohttp.ClientSession() as session, asyncio.timeout(stretched(SECONDS)):
            await eventually(lambda: service.admin_url, SECONDS)
            while not errors:
                async with session.get(f"{service.admin_url}/status") as reply:
                    errors = orjson.loads(await reply.read())["last_errors"]
        service.stop()
        await running
    assert errors[0]["status"] == "connection"
    assert wrong.word in errors[0]["detail"]


async def test_check_says_that_a_brokers_certificate_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka reports no more than this, in several different texts."""
    monkeypatch.setattr(kafka_admin, "CALL_SECONDS", 2.0)
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "a stranger")
    async with server(Wrong("", stranger.server_context("localhost"), "")) as url:
        properties = {"security.protocol": "ssl", "ssl.ca.location": str(authority.file)}
        servers = {"bootstrap_servers": url.removeprefix("https://"), "properties": properties}
        (check,) = await asyncio.to_thread(check_kafka, Settings.model_validate({"kafka": servers}))
    assert "certificate verify failed" in check.detail

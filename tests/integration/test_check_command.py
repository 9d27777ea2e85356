"""`flagpost check` against a real Kafka, a real registry and the Pendo stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.sources import kafka_admin, topic_reading
from flagpost_consumer.commands.topics.rules import DAY_MS
from flagpost_consumer.demo.pendo_stand_in import Endpoint, Keys, PendoStandIn
from real_kafka.broker import KafkaBroker, OwnBroker
from real_kafka.registry import SchemaRegistry
from running import FLAGPOST, environment
from scenes import Scene

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretch the command's time-out for Kafka calls on a slow machine."""
    monkeypatch.setattr(kafka_admin, "CALL_SECONDS", stretched(kafka_admin.CALL_SECONDS))


SECRETS = (Keys().track_secret, Keys().integration_key)


async def _run(environ: dict[str, str], *arguments: str) -> Result:
    """Run the command in a thread, because the stand-in answers on this loop."""
    return await asyncio.to_thread(CliRunner().invoke, flagpost, list(arguments), env=environ)


def _environ(broker: KafkaBroker, pendo: PendoStandIn, fresh_name: Callable[[str], str]) -> dict[str, str]:
    return {
        "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "FLAGPOST_KAFKA__TOPIC": fresh_name("events"),
        "FLAGPOST_KAFKA__LEDGER_TOPIC": fresh_name("ledger"),
        "FLAGPOST_KAFKA__DEAD_LETTER_TOPIC": fresh_name("dead-letters"),
        "FLAGPOST_GATEWAY__WEBHOOK_TOPIC": fresh_name("webhooks"),
        "FLAGPOST_ADMIN__PORT": "0",
        "FLAGPOST_PENDO__TRACK_URL": pendo.track_url,
        "FLAGPOST_PENDO__API_URL": pendo.api_url,
        "FLAGPOST_PENDO__TRACK_SECRET": Keys().track_secret,
        "FLAGPOST_PENDO__INTEGRATION_KEY": Keys().integration_key,
    }


def _statuses(result: Result) -> dict[str, str]:
    return {check["name"]: check["status"] for check in _document(result)["checks"]}


def _document(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    assert set(document) == {"ok", "checks"}
    assert all(set(check) == {"name", "status", "detail", "fix"} for check in document["checks"])
    return document


async def test_after_topics_create_all_is_well(
    kafka: KafkaBroker, schema_registry: SchemaRegistry, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        environ = _environ(kafka, pendo, fresh_name)
        environ["FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL"] = schema_registry.url
        created = await _run(environ, "topics", "create", "--partitions", "3", "--replication", "1")
        assert created.exit_code == 0, created.output
        result = await _run(environ, "check", "--json")
        lines = await _run(environ, "check")
    assert result.exit_code == 0, result.output
    assert _document(result)["ok"] is True
    statuses = _statuses(result)
    assert statuses.pop("pendo track secret") == "warn"
    assert set(statuses.values()) == {"ok"}
    assert {"settings", "kafka", "schema registry"} <= set(statuses)
    assert lines.exit_code == 0, lines.output
    words = [line[:4].strip() for line in lines.stdout.splitlines()]
    assert sorted(words) == ["", *["ok"] * len(statuses), "warn"]
    assert not any(secret in result.output + lines.output for secret in SECRETS)


async def test_a_test_event_is_sent_once_and_never_for_a_suppressed_visitor(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        environ = _environ(kafka, pendo, fresh_name)
        environ["FLAGPOST_KAFKA__SUPPRESSIONS_TOPIC"] = fresh_name("suppressions")
        created = await _run(environ, "topics", "create", "--partitions", "1", "--replication", "1")
        assert created.exit_code == 0, created.output
        result = await _run(environ, "check", "--json", "--send-test-event", "tester")
        assert (result.exit_code, _statuses(result)["pendo track secret"]) == (0, "ok")
        assert [each.visitor_id for each in pendo.received.of(Endpoint.TRACK)] == ["tester"]
        assert pendo.received.violations == []

        assert (await _run(environ, "suppress", "tester")).exit_code == 0
        refused = await _run(environ, "check", "--send-test-event", "tester")
        assert refused.exit_code == 1, refused.output
        assert "no event was sent: the visitor is suppressed" in refused.output
        environ["FLAGPOST_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
        unknown = await _run(environ, "check", "--send-test-event", "tester")
        assert unknown.exit_code == 1, unknown.output
        assert "no event was sent, because it is not known who is suppressed" in unknown.output
        assert len(pendo.received.of(Endpoint.TRACK)) == 1
        nobody = await _run(environ, "check", "--send-test-event", "")
        assert nobody.exit_code == 2, nobody.output


async def test_a_running_consumer_is_asked_how_pendo_answers(scene: Scene) -> None:
    with scene.consume() as consumer:
        await asyncio.to_thread(scene.publish, [decision("v1", occurred_at=time.time_ns() // 1_000_000)])
        await consumer.caught_up(scene.partitions)
        port = consumer.admin_url.rpartition(":")[2]
        environ = environment({**scene.settings, "admin.host": "127.0.0.1", "admin.port": int(port)})
        result = await _run(environ, "check", "--json")
        assert await consumer.stop() == 0
    statuses = _statuses(result)
    assert statuses["pendo track secret"] == statuses["consumer, pendo track"] == "ok"


@pytest.mark.kafka_core
async def test_missing_topics_fail_except_the_gateways(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        environ = _environ(kafka, pendo, fresh_name)
        result = await _run(environ, "check", "--json")
    topics = {
        key.rpartition("__")[2]: f"topic {name}" for key, name in environ.items() if key.endswith("TOPIC")
    }
    statuses = _statuses(result)
    assert result.exit_code == 1, result.output
    assert {key: statuses[name] for key, name in topics.items()} == {
        "TOPIC": "fail",
        "LEDGER_TOPIC": "fail",
        "DEAD_LETTER_TOPIC": "fail",
        "WEBHOOK_TOPIC": "warn",
    }


@pytest.mark.kafka_core
async def test_a_topic_that_does_not_fit_fails_with_its_fix(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        environ = _environ(kafka, pendo, fresh_name)
        ledger = environ["FLAGPOST_KAFKA__LEDGER_TOPIC"]
        await asyncio.to_thread(
            kafka.create_topics, ledger, partitions=2, config={"retention.ms": str(DAY_MS)}
        )
        await _run(environ, "topics", "create", "--partitions", "3", "--replication", "1")
        result = await _run(environ, "check", "--json")
        lines = await _run(environ, "check")
    (check,) = (check for check in _document(result)["checks"] if check["name"] == f"topic {ledger}")
    assert result.exit_code == 1, result.output
    assert check["status"] == "fail"
    assert "2 partitions" in check["detail"]
    assert "keeps records 1 d" in check["detail"]
    assert "retention.ms=1209600000" in check["fix"]
    assert f"fail  topic {ledger}: " in lines.stdout
    assert "      to do: " in lines.stdout


async def test_a_topic_that_allows_batches_too_large_to_be_read_is_a_warning(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        environ = _environ(kafka, pendo, fresh_name)
        events, dead_letters = (environ[f"FLAGPOST_KAFKA__{name}TOPIC"] for name in ("", "DEAD_LETTER_"))
        for topic, largest_bytes in ((events, 5_000_000), (dead_letters, 5_100_000)):
            config = {
                "retention.ms": str(26 * DAY_MS),
                "segment.ms": str(DAY_MS),
                "max.message.bytes": str(largest_bytes),
            }
            await asyncio.to_thread(kafka.create_topics, topic, partitions=3, config=config)
        await _run(environ, "topics", "create", "--partitions", "3", "--replication", "1")
        result = await _run(environ, "check", "--json")
    assert result.exit_code == 0, result.output
    statuses = _statuses(result)
    assert statuses.pop(f"topic {events}") == statuses.pop("pendo track secret") == "warn"
    assert set(statuses.values()) == {"ok"}


async def test_pendo_and_registry_away_fail_and_kafka_stays_ok(
    kafka: KafkaBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        environ = _environ(kafka, pendo, fresh_name)
    environ["FLAGPOST_KAFKA__SCHEMA_REGISTRY__URL"] = "http://127.0.0.1:1"
    statuses = _statuses(await _run(environ, "check", "--json"))
    assert statuses["kafka"] == "ok"
    away = ("pendo track endpoint", "pendo integration key", "schema registry")
    assert [statuses[name] for name in away] == ["fail"] * 3


@pytest.mark.kafka_core
async def test_kafka_away_fails_and_pendo_stays_ok(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (kafka_admin, topic_reading):
        monkeypatch.setattr(module, "CALL_SECONDS", 0.5)
    async with PendoStandIn() as pendo:
        environ = _environ(kafka, pendo, fresh_name)
        environ["FLAGPOST_KAFKA__BOOTSTRAP_SERVERS"] = "127.0.0.1:1"
        result = await _run(environ, "check", "--json")
    assert result.exit_code == 1, result.output
    assert _statuses(result)["kafka"] == "fail"
    assert _statuses(result)["pendo integration key"] == "ok"


async def test_settings_that_cannot_be_used_are_a_document_too() -> None:
    result = await _run({"FLAGPOST_ADMIN__PORT": "-1"}, "check", "--json")
    assert result.exit_code == 2, result.output
    assert _document(result)["ok"] is False
    assert _statuses(result) == {"settings": "fail"}
    assert "admin.port" in result.stderr


@pytest.mark.thorough
async def test_check_and_import_create_no_topic_where_the_broker_would(
    tmp_path: Path, fresh_name: Callable[[str], str]
) -> None:
    """If a producer of librdkafka asks for an unknown topic by name, such a broker creates it with its defaults."""
    broker = OwnBroker(tmp_path, {"auto.create.topics.enable": "true"})
    try:
        async with PendoStandIn() as pendo:
            environ = _environ(broker, pendo, fresh_name)
            statuses = _statuses(await _run(environ, "check", "--json"))
        topics = {name for key, name in environ.items() if key.endswith("TOPIC")}
        assert {statuses[f"topic {name}"] for name in topics} == {"fail", "warn"}
        rows = tmp_path / "rows.csv"
        rows.write_text("visitor_id,plan\nv1,free\n")
        done = await asyncio.create_subprocess_exec(
            FLAGPOST, "import", str(rows), "--type", "visitor", env={**os.environ, **environ}
        )
        assert await done.wait() == 1
        assert not topics & broker.admin().list_topics(timeout=stretched(20)).topics.keys()
    finally:
        broker.stop()

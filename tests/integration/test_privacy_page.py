"""docs/privacy.md, word for word: its commands run in their order against a real Kafka, and do what the page says."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import textwrap
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.commands.sources.kafka_admin import KafkaAdmin
from flagpost_consumer.commands.topics.rules import DAY_MS, topic_specs
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from flagpost_consumer.settings import KafkaSettings, Settings
from flagpost_schemas import Event
from kafka_reading import read_topic
from real_kafka.broker import KafkaBroker, OwnBroker
from real_kafka.parts import kafka_jars
from running import FLAGPOST, RunningConsumer, environment, eventually, total
from traffic import publish, tracks

pytestmark = [pytest.mark.thorough, pytest.mark.kafka]

PAGE = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text()
SECONDS = 120.0
TOOL = """#!/bin/sh
exec java -XX:TieredStopAtLevel=1 -cp '{jars}/*' kafka.admin.ConfigCommand "$@"
"""


def blocks() -> list[str]:
    """The page's shell blocks, in order."""
    return [
        textwrap.dedent(block)
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    ]


class World:
    """A complete installation with the topics' default names, and a shell to paste into."""

    def __init__(self, kafka: KafkaBroker, pendo: PendoStandIn, tools: Path) -> None:
        self.kafka, self.pendo = kafka, pendo
        self.settings: dict[str, object] = {
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "pendo.track_url": pendo.track_url,
            "pendo.api_url": pendo.api_url,
            "pendo.track_secret": pendo.keys.track_secret,
            "pendo.integration_key": pendo.keys.integration_key,
            "decisions.visitor_metadata": False,
        }
        tool = tools / "kafka-configs.sh"
        tool.write_text(TOOL.format(jars=kafka_jars()))
        tool.chmod(0o755)
        self._path = f"{FLAGPOST.parent}:{tools}:{os.environ['PATH']}"

    async def paste(self, block: str) -> str:
        """Run a block in a shell that ends at the first error; returns what it printed."""
        environ = {**environment(self.settings), "PATH": self._path, "KAFKA": self.kafka.bootstrap_servers}
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-ec", block],
            env=environ,
            capture_output=True,
            text=True,
            timeout=stretched(180),
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def first_lines(self, count: int, *arguments: str) -> list[dict[str, Any]]:
        """Run a command that does not end by itself; returns the first JSON lines that it prints."""
        command = [str(FLAGPOST), *arguments]
        with subprocess.Popen(command, env=environment(self.settings), stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            lines = [orjson.loads(running.stdout.readline()) for _ in range(count)]
            running.kill()
        return lines

    async def publish(self, *visitors: str) -> None:
        now = time.time_ns() // 1_000_000
        events: list[Event] = [
            decision(visitor, f"flag-{n}", event_id=uuid.uuid4().hex, occurred_at=now)
            for n, visitor in enumerate(visitors)
        ]
        await asyncio.to_thread(publish, self.kafka.bootstrap_servers, "flagpost.events", events)

    async def deliver(self, *visitors: str) -> None:
        """Publish, and run a consumer until everything is settled."""
        await self.publish(*visitors)
        with RunningConsumer(self.settings) as consumer:
            await consumer.caught_up(4, SECONDS)
            await eventually(lambda: total(consumer.scrape(), "flagpost_deliveries_pending") == 0, SECONDS)
            assert await consumer.stop() == 0

    async def holdings(self, visitor: str, *options: str) -> dict[str, dict[str, Any]]:
        told = orjson.loads(await self.paste(f"flagpost erase {visitor} --json {' '.join(options)}"))
        return {each["topic"]: each for each in told["topics"]}


@pytest.fixture
async def world(kafka_broker: OwnBroker, tmp_path: Path) -> AsyncIterator[World]:
    async with PendoStandIn() as pendo:
        pendo.faults.outage(503, Endpoint.SCHEMA)
        made = World(kafka_broker, pendo, tmp_path)
        await made.paste("flagpost topics create --partitions 4 --replication 1")
        yield made


def test_the_table_says_what_topics_create_does() -> None:
    rows = re.findall(r"^\| `(flagpost\.[a-z-]+)` \| .+? \| (?:(\d+) d)?", PAGE, re.MULTILINE)
    assert {name: int(days) * DAY_MS if days else None for name, days in rows} == {
        spec.name: spec.retention_ms for spec in topic_specs(Settings())
    }
    assert all(int(spec.config(3)["segment.ms"]) <= DAY_MS for spec in topic_specs(Settings()))


async def test_every_command_of_the_page_does_what_it_says(world: World) -> None:
    suppress, undo, first, look, delete, last = blocks()
    world.pendo.faults.visitor("v1", 400)
    await world.deliver("v1", "v1", *(f"other{n}" for n in range(20)))
    sent = len(tracks(world.pendo.received))

    states = KafkaAdmin(KafkaSettings(bootstrap_servers=world.kafka.bootstrap_servers)).states(
        ["flagpost.ledger", "flagpost.dead-letters"]
    )
    assert {state.kept_ms for state in states.values()} == {27 * DAY_MS}, (
        "gone within 28 days, some hours of a wrong clock included"
    )

    assert "is suppressed" in await world.paste(suppress)
    await world.deliver("v1")
    assert len(tracks(world.pendo.received)) == sent
    assert "no longer suppressed" in await world.paste(undo)
    await world.deliver("v1")
    assert len(tracks(world.pendo.received)) == sent + 1
    assert "is suppressed" in await world.paste(first)

    told = await world.paste(look)
    assert "flagpost.events: 4 records" in told
    assert "flagpost.ledger: 4 settlements" in told
    assert "flagpost.dead-letters: 1 records" in told
    assert "gone by 20" in told
    assert "flagpost.pendo-webhooks: nothing" in told
    assert "rejected" in told, "the dead letter is listed"

    before = await world.holdings("v1", "--dry-run")
    others = await world.holdings("other1", "--dry-run")
    assert "deleted" in await world.paste(delete)
    left = orjson.loads(await world.paste(last))
    assert left["suppressed"]
    holdings = {each["topic"]: each for each in left["topics"]}
    assert holdings["flagpost.dead-letters"]["entries"] == 0, "it lay alone in its partition"
    for topic, each in holdings.items():
        assert each["entries"] == before[topic]["entries"] - before[topic]["removable"]
    assert await world.holdings("other1", "--dry-run") == others, "nothing of anybody else's is gone"
    newest_ms = holdings["flagpost.ledger"]["newest_at"]
    assert holdings["flagpost.ledger"]["gone_by"] == newest_ms + 27 * DAY_MS
    assert await world.paste("flagpost reconcile --json")


async def test_a_ledger_with_hashed_ids_is_usable_until_its_key_is_destroyed(
    world: World, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("first key " * 4)
    world.settings |= {"privacy.ledger_ids": "keyed_hash", "privacy.key_file": str(key)}
    await world.deliver("jane", "john")
    ledger = await asyncio.to_thread(read_topic, world.kafka.bootstrap_servers, "flagpost.ledger")
    written = b"".join(each.value or b"" for each in ledger)
    assert b"keyed:" in written
    assert b"jane" not in written
    # After a restart the ledger still counts: an event that was sent before is a duplicate.
    sent = len(tracks(world.pendo.received))
    await world.deliver("jane", "john")
    assert len(tracks(world.pendo.received)) == sent
    told = await asyncio.to_thread(
        world.first_lines, 2, "tail", "--since", "1h", "--visitor", "jane", "--json"
    )
    assert [each["outcome"] for each in told] == ["delivered", "duplicate"]
    assert orjson.loads(await world.paste("flagpost reconcile --json"))["unexplained"] == 0
    await world.paste("flagpost rehearse")
    assert (await world.holdings("jane", "--dry-run"))["flagpost.ledger"]["entries"] == 2
    key.write_text("second key " * 4)
    assert (await world.holdings("jane", "--dry-run"))["flagpost.ledger"]["entries"] == 0
    await world.deliver("jack")
    assert orjson.loads(await world.paste("flagpost reconcile --json"))["unexplained"] == 0

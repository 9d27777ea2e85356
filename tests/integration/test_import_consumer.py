"""`flagpost import`, the real consumer and Pendo: a second run sends nothing twice, however the first one ended."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flagpost_consumer.demo.pendo_stand_in import Endpoint, Group, Kind
from kafka_reading import read_topic
from real_kafka.broker import KafkaBroker
from running import FLAGPOST, RunningConsumer, environment, eventually, flagpost, total
from scenes import Scene
from traffic import tracks

pytestmark = [pytest.mark.kafka]

SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Done:
    """One import's exit code and the document that it printed."""

    code: int
    document: dict[str, Any]


async def import_file(scene: Scene, path: Path, type_name: str, *arguments: str) -> Done:
    """Run the command in a thread, because Pendo answers on this loop."""
    command = ["import", str(path), "--type", type_name, "--json", *arguments]
    done = await asyncio.to_thread(scene.flagpost, *command)
    assert done.stdout, done.stderr
    return Done(done.returncode, json.loads(done.stdout))


def fed_by_hand(scene: Scene) -> subprocess.Popen[str]:
    """Start an import of track events whose rows the test writes to its standard input."""
    return subprocess.Popen(
        [str(FLAGPOST), "import", "-", "--format", "csv", "--type", "track"],
        env=environment(scene.settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


async def settled(consumer: RunningConsumer, kind: str, count: int) -> None:
    """Wait until `count` deliveries of a kind are settled."""
    await eventually(
        lambda: total(consumer.scrape(), "flagpost_deliveries_total", kind=kind) == count,
        SECONDS,
        what=f"{count} deliveries of {kind}",
    )


def metadata_bodies(scene: Scene) -> list[bytes]:
    return [request.body for request in scene.pendo.received.of(Endpoint.METADATA)]


def test_rows_reach_a_topic_that_takes_only_small_batches(
    kafka: KafkaBroker, fresh_name: Callable[[str], str], tmp_path: Path
) -> None:
    """Before the fix, rows were refused: the Kafka client made a batch of them that was too large for the topic."""
    topic = fresh_name("narrow")
    kafka.create_topics(topic, partitions=1, config={"max.message.bytes": "70000"})
    path = tmp_path / "visitors.csv"
    path.write_text("visitor_id,plan\n" + "".join(f"v{n},{os.urandom(300).hex()}\n" for n in range(1000)))
    settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "kafka.topic": topic}
    done = flagpost(settings, "import", path, "--type", "visitor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr


async def test_visitors_and_a_second_run_that_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "visitors.csv"
    header = "visitorId;plan;age:integer;active:boolean;zip\n"
    path.write_text(
        header
        + "".join(f"v{n};{'gold' if n % 2 else ''};{n};{'true' if n % 3 else 'x'};0{n}\n" for n in range(900))
    )
    with scene.consume() as consumer:
        first = await import_file(scene, path, "visitor")
        assert first.code == 1
        assert [refused["line"] for refused in first.document["refused"]] == list(range(2, 902, 3))
        assert (first.document["rows"], first.document["imported"]) == (900, 600)
        await settled(consumer, "visitor_metadata", 600)
        values = scene.pendo.metadata.values
        assert values(Kind.VISITOR, "v1") == {"plan": "gold", "age": 1, "active": True, "zip": "01"}
        assert values(Kind.VISITOR, "v2") == {"age": 2, "active": True, "zip": "02"}
        assert values(Kind.VISITOR, "v3") == {}
        before = metadata_bodies(scene)
        again = await import_file(scene, path, "visitor")
        assert again == first
        await settled(consumer, "visitor_metadata", 1200)
        assert metadata_bodies(scene) == before
        unchanged = {"kind": "visitor_metadata", "outcome": "duplicate", "reason": "unchanged"}
        assert consumer.value("flagpost_deliveries_total", **unchanged) == 600
    assert not scene.pendo.received.violations


async def test_accounts_of_the_group_agent_and_an_empty_cell_that_clears(
    scene: Scene, tmp_path: Path
) -> None:
    path = tmp_path / "accounts.csv"
    path.write_text('accountId,name,arr:number,tags:list\nacme,"Acme, ""Inc""",1.5,a|b\nbeta,,,c\n')
    with scene.consume() as consumer:
        done = await import_file(scene, path, "account", "--group", "agent", "--empty", "clear")
        assert (done.code, done.document["imported"]) == (0, 2)
        await settled(consumer, "account_metadata", 2)
    values = scene.pendo.metadata.values
    acme = {"name": 'Acme, "Inc"', "arr": 1.5, "tags": ["a", "b"]}
    assert values(Kind.ACCOUNT, "acme", Group.AGENT) == acme
    assert values(Kind.ACCOUNT, "beta", Group.AGENT) == {"name": None, "arr": None, "tags": ["c"]}


async def test_track_events_and_a_second_run_that_sends_none(scene: Scene, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    events = [
        {
            "visitor_id": f"v{n}",
            "event": "Order Completed",
            "timestamp": now - n,
            "total": n,
            "accountId": "acme",
        }
        for n in range(40)
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in [*events, events[0]]))
    with scene.consume(delivery__visitor_interval_seconds=0.1) as consumer:
        first = await import_file(scene, path, "track")
        assert (first.code, first.document["imported"]) == (0, 41)
        await settled(consumer, "track", 41)
        sent = {request.visitor_id: json.loads(request.body) for request in tracks(scene.pendo.received)}
        assert len(sent) == len(tracks(scene.pendo.received)) == 40
        assert sent["v7"] == {
            "type": "track",
            "event": "purchase",
            "visitorId": "v7",
            "accountId": "acme",
            "timestamp": now - 7,
            "properties": {"revenue": 7, "total": 7},
            "context": {},
        }
        assert (await import_file(scene, path, "track")).code == 0
        await settled(consumer, "track", 82)
    assert scene.pendo.received.recorded() == 40
    assert not scene.pendo.received.violations


async def test_after_kill_9_a_second_run_brings_the_rest_and_repeats_nothing(
    scene: Scene, tmp_path: Path
) -> None:
    """The test writes the first run's rows, so that it is killed with some rows in Kafka and some not read."""
    now = time.time_ns() // 1_000_000
    rows = [f"v{n},Clicked,{now - n}\n" for n in range(400)]
    path = tmp_path / "events.csv"
    path.write_text("".join(["visitor_id,event,occurred_at\n", *rows]))
    killed = fed_by_hand(scene)
    with scene.consume(delivery__visitor_interval_seconds=0.1) as consumer:
        assert killed.stdin is not None
        killed.stdin.write(path.read_text()[: len("".join(rows)) // 2])
        killed.stdin.flush()
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() > 0, SECONDS)
        killed.send_signal(signal.SIGKILL)
        await asyncio.to_thread(killed.communicate)
        of_the_first = len(await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.topic))
        assert 0 < of_the_first < 400
        assert (await import_file(scene, path, "track")).document["imported"] == 400
        await settled(consumer, "track", of_the_first + 400)
    assert {request.visitor_id for request in tracks(scene.pendo.received)} == {f"v{n}" for n in range(400)}
    assert scene.pendo.received.recorded() == 400


async def test_a_row_that_kafka_refuses_is_named_and_the_others_are_imported(
    scene: Scene, tmp_path: Path
) -> None:
    letters = random.Random(7)
    large = ",".join("".join(chr(letters.randrange(0x4E00, 0x9FFF)) for _ in range(90_000)) for _ in range(5))
    header = "visitor_id," + ",".join(f"f{n}" for n in range(5)) + "\n"
    small = [f"v{n},a,b,c,d,e\n" for n in range(100)]
    path = tmp_path / "visitors.csv"
    path.write_text("".join([header, *small[:50], f"large,{large}\n", *small[50:]]))
    scene.settings["kafka.max_event_bytes"] = 2_000_000  # more than the topic accepts
    done = await import_file(scene, path, "visitor")
    assert (done.code, done.document["imported"], done.document["complete"]) == (1, 100, True)
    (refused,) = done.document["refused"]
    assert refused["line"] == 52
    assert "Kafka refuses the row: Broker: Message size too large" in refused["problem"]
    records = await asyncio.to_thread(read_topic, scene.kafka.bootstrap_servers, scene.topic)
    assert {record.key for record in records} == {f"v{n}".encode() for n in range(100)}

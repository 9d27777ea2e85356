"""`flagpost check` lists the fields that the traffic sets and Pendo lacks, also if the settings name no flag."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from click.testing import CliRunner, Result

from engine_world import decision
from flagpost_consumer.commands.check.fields import FIELDS
from flagpost_consumer.commands.cli import flagpost
from flagpost_consumer.commands.sources import newest_events
from flagpost_consumer.demo.pendo_stand_in import Endpoint, MetadataField
from flagpost_schemas import AccountMetadata, Event, VisitorMetadata
from running import environment
from scenes import Scene
from traffic import produce

CHECKOUT = MetadataField("optimizely_checkout", "[Optimizely] checkout")
BANNER = MetadataField("optimizely_banner", "[Optimizely] banner")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def traffic() -> list[Event]:
    return [
        decision("v1", "checkout", occurred_at=now_ms()),
        decision("v1", "banner", occurred_at=now_ms()),
        VisitorMetadata(event_id="m", occurred_at=now_ms(), visitor_id="v2", values={"seats": 3}),
        AccountMetadata(event_id="a", occurred_at=now_ms(), account_id="acme", values={"tier": "gold"}),
    ]


async def check(scene: Scene) -> dict[str, str]:
    """Run `flagpost check --json`; returns its check of the fields."""
    scene.pendo.faults.restore(Endpoint.SCHEMA)
    environ = {name: value for name, value in environment(scene.settings).items() if "FLAGPOST" in name}
    result: Result = await asyncio.to_thread(CliRunner().invoke, flagpost, ["check", "--json"], env=environ)
    found: dict[str, str]
    (found,) = (each for each in json.loads(result.stdout)["checks"] if each["name"] == FIELDS)
    return found


@pytest.mark.kafka_core
async def test_fields_of_the_newest_events_are_listed_with_what_to_create(scene: Scene) -> None:
    scene.pendo.metadata.declare([CHECKOUT])
    await asyncio.to_thread(scene.publish, traffic())
    await asyncio.to_thread(produce, scene.kafka.bootstrap_servers, scene.topic, b"k", b"no event")
    found = await check(scene)
    assert found["status"] == "warn"
    assert found["detail"] == "Pendo lacks 3 of 4 fields; their values are dropped"
    assert (
        'optimizely_banner of type text, then change its display name to "[Optimizely] banner"'
        in found["fix"]
    )
    assert "seats of type number" in found["fix"]
    assert "Account, Add Custom Field:\n  tier of type text" in found["fix"]
    scene.pendo.metadata.declare([BANNER])
    found = await check(scene)
    assert "banner" not in found["detail"] + found["fix"]


async def test_the_newest_events_are_read_and_no_more(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_events, "NEWEST", scene.partitions)
    visitors = [f"v{number}" for number in range(40)]
    older = [decision(visitor, "older", occurred_at=now_ms()) for visitor in visitors]
    newer = [decision(visitor, "newer", occurred_at=now_ms()) for visitor in visitors]
    await asyncio.to_thread(scene.publish, [*older, *newer])
    found = await check(scene)
    assert '"[Optimizely] newer"' in found["fix"]
    assert "older" not in found["fix"]

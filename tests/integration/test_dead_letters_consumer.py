"""Dead letters of the real consumer, replayed while it runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest

from engine_world import decision
from flagpost_consumer.demo.pendo_stand_in import Endpoint
from running import RunningConsumer, eventually, total
from scenes import Scene
from traffic import tracks

pytestmark = pytest.mark.kafka


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def dead_letters(scene: Scene, *arguments: str) -> str:
    """Run the command in a thread, because Pendo answers on this loop; returns its standard output."""
    done = await asyncio.to_thread(scene.flagpost, "dead-letters", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def replay(scene: Scene) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(await dead_letters(scene, "replay", "--json"))
    return document


async def listed(scene: Scene) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (await dead_letters(scene, "list", "--json")).splitlines()]


async def until_rejected(consumer: RunningConsumer, count: int) -> None:
    await eventually(
        lambda: total(consumer.scrape(), "flagpost_deliveries_total", reason="rejected") == count,
        what=f"{count} rejected",
    )


async def test_a_refused_track_goes_back_until_pendo_takes_it_and_its_metadata_is_not_sent_again(
    scene: Scene,
) -> None:
    received = scene.pendo.received
    scene.pendo.faults.visitor("v1", 422, 422)
    scene.publish([decision("v1", "checkout", "a", occurred_at=wall_ms())])
    with scene.consume(delivery__visitor_interval_seconds=0.1) as consumer:
        await until_rejected(consumer, 1)
        (first,) = await listed(scene)
        assert (first["kind"], first["reason"], first["status"]) == ("track", "rejected", 422)
        assert await replay(scene) == {"matched": 1, "replayed": 1, "skipped": 0, "dry_run": False}
        await until_rejected(consumer, 2)
        (second,) = await listed(scene)
        assert second["source"] != first["source"]
        headers = orjson.loads(
            await dead_letters(scene, "show", f"{second['partition']}/{second['offset']}", "--json")
        )["headers"]
        assert set(headers) == {
            f"flagpost-{name}" for name in ("reason", "detail", "kind", "source", "attempts", "status", "at")
        }
        assert await replay(scene) == {"matched": 1, "replayed": 1, "skipped": 0, "dry_run": False}
        await received.until(lambda: received.recorded() == 1, 30)
        await consumer.caught_up(scene.partitions)
        assert await listed(scene) == []
        assert (await replay(scene))["matched"] == 0
        assert await consumer.stop() == 0
    assert len(tracks(received)) == 3  # two were refused, one was accepted
    assert received.recorded(Endpoint.METADATA) == len(received.of(Endpoint.METADATA)) == 1
    assert received.violations == []


@pytest.mark.kafka_core
async def test_what_was_delivered_meanwhile_is_not_sent_again(scene: Scene) -> None:
    received = scene.pendo.received
    scene.pendo.faults.visitor("v1", 422)
    now = wall_ms()
    with scene.consume(delivery__visitor_interval_seconds=0.1) as consumer:
        scene.publish([decision("v1", "checkout", "a", occurred_at=now)])
        await until_rejected(consumer, 1)
        scene.publish([decision("v1", "checkout", "a", occurred_at=now + 5)])
        await received.until(lambda: received.recorded() == 1, 30)
        await consumer.caught_up(scene.partitions)
        said = await dead_letters(scene, "replay")
        assert await consumer.stop() == 0
    assert "0 of 1 dead letters were replayed" in said
    assert "skipped 1: a duplicate of it was delivered" in said
    assert received.recorded() == 1


async def test_after_a_time_of_refusals_every_visitor_is_delivered_once(scene: Scene) -> None:
    received, visitors = scene.pendo.received, [f"v{n}" for n in range(150)]
    scene.pendo.faults.outage(422, Endpoint.TRACK)
    scene.publish([decision(visitor, "checkout", "a", occurred_at=wall_ms()) for visitor in visitors])
    with scene.consume() as consumer:
        await until_rejected(consumer, len(visitors))
        scene.pendo.faults.restore()
        assert (await replay(scene))["replayed"] == len(visitors)
        await received.until(lambda: received.recorded() == len(visitors), 60)
        await consumer.caught_up(scene.partitions)
        assert (await replay(scene))["matched"] == 0
        assert await consumer.stop() == 0
    assert received.decisions["checkout", "a"] == len(visitors)
    assert received.violations == []

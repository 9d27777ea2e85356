"""The consumer's log and /status while its environment fails: the fields are plain, and losses are reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from dead_letter_topics import wall_ms
from engine_world import decision
from flagpost_consumer import __version__
from flagpost_consumer.demo.pendo_stand_in import PendoStandIn
from flagpost_schemas import Event
from real_kafka.broker import OwnBroker
from running import RunningConsumer, eventually
from scenes import Scene
from traffic import produce

pytestmark = [pytest.mark.kafka]

SECONDS = 120.0


def events(prefix: str, count: int, **more: Any) -> list[Event]:
    return [
        decision(f"{prefix}{n}", event_id=f"{prefix}-{n}", occurred_at=wall_ms(), **more)
        for n in range(count)
    ]


async def said(consumer: RunningConsumer, event: str, **fields: object) -> dict[str, Any]:
    """Wait for a log line of this event with these fields; returns the newest one."""

    def fitting() -> list[dict[str, Any]]:
        return [line for line in consumer.logged(event) if fields.items() <= line.items()]

    await eventually(fitting, SECONDS, what=f"{event} {fields}")
    return fitting()[-1]


async def test_each_change_of_state_is_in_the_log_in_plain_fields(
    kafka_broker: OwnBroker, fresh_name: Callable[[str], str]
) -> None:
    async with PendoStandIn() as pendo:
        scene = Scene(kafka_broker, pendo, fresh_name("log"))
        settings = {
            "delivery__visitor_interval_seconds": 0.1,
            "kafka__session_timeout_seconds": 21,
            "decisions__visitor_metadata": False,
        }
        with scene.consume(**settings) as consumer:
            start = await said(consumer, "starting", version=__version__, topic=scene.topic)
            assert "delivery.visitor_interval_seconds=0.1" in start["settings"]
            assert "pendo.track_secret=***" in start["settings"]
            assert start["pendo_track_host"] == "127.0.0.1"

            # Some are not delivered: no consent, duplicates, an undecodable record, an event that Pendo rejects.
            pendo.faults.visitor("bad0", 422)
            await asyncio.to_thread(
                scene.publish,
                [
                    *events("good", 3),
                    *events("good", 3),
                    *events("denied", 2, consent={"analytics": False}),
                    *events("bad", 1),
                ],
            )
            await asyncio.to_thread(produce, kafka_broker.bootstrap_servers, scene.topic, b"x", b"no avro")
            await consumer.caught_up(scene.partitions, SECONDS)
            totals = consumer.status()["totals"]
            assert totals["dropped"] == {"no_consent": 2}
            assert totals["dead_lettered"] == {"undecodable": 1, "rejected": 1}
            assert totals["duplicate"] == {"dedupe": 3}

            # Pendo's secret changes, and changes back.
            right = pendo.keys
            pendo.keys = replace(right, track_secret="another")
            await asyncio.to_thread(scene.publish, events("later", 30))
            refused = await said(consumer, "Pendo's state changed", endpoint="track", state="unauthorized")
            assert (refused["status"], "pendo.track_secret" in refused["to_do"]) == ("403", True)
            status = consumer.status()
            assert status["endpoints"]["track"]["to_do"] == refused["to_do"]
            for error in status["last_errors"]:
                assert datetime.fromisoformat(error["at"]).tzinfo is not None
            pendo.keys = right
            await said(consumer, "Pendo's state changed", endpoint="track", state="ok")

            # Another member joins the group and leaves it.
            with scene.consume(**settings) as second:
                await said(second, "assigned")
                await said(consumer, "revoked")
                assert await second.stop() == 0

            # Kafka is killed, and comes back.
            await asyncio.to_thread(kafka_broker.kill)
            await said(consumer, "waiting for Kafka")
            await asyncio.to_thread(kafka_broker.restart)
            back = await said(consumer, "Kafka is back")
            assert back["seconds"] > 0
            await asyncio.to_thread(scene.publish, events("last", 3))
            await eventually(
                lambda: pendo.received.recorded() >= 3 + 30 + 3, SECONDS, what="delivery goes on"
            )
            await consumer.caught_up(scene.partitions, SECONDS)
            assert await consumer.stop() == 0
            told = consumer.logged("summary")
            assert sum(line["consumed"] for line in told) >= 9 + 1 + 30 + 3
            assert sum(line.get("dropped_no_consent", 0) for line in told) == 2
            assert sum(line.get("dead_lettered_rejected", 0) for line in told) == 1
            assert sum(line.get("dead_lettered_undecodable", 0) for line in told) == 1

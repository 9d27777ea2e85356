"""A record on which the engine itself fails ends two engines but no process: a real Kafka, the real service."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.core.tracks.lanes import Lanes
from flagpost_consumer.service.process import serve
from flagpost_consumer.settings import Needs, load_settings
from running import environment, eventually
from scenes import Scene
from traffic import tracks

SECONDS = 30.0


async def test_a_record_on_which_the_engine_fails_is_quarantined_and_the_others_continue(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the process ended with code 1 and read the record again after each restart: its partition was stuck."""
    push, failures = Lanes.push, []

    def failing(lanes: Lanes[Any], visitor_id: str, *arguments: Any) -> None:
        if visitor_id == "strange":
            failures.append(visitor_id)
            raise KeyError(visitor_id)
        push(lanes, visitor_id, *arguments)

    monkeypatch.setattr(Lanes, "push", failing)
    scene.settings |= {"admin.host": "127.0.0.1", "admin.port": 0, "delivery.visitor_interval_seconds": 0.1}
    environ = {name: value for name, value in environment(scene.settings).items() if "FLAGPOST" in name}
    visitors = ["strange", *(f"v{number}" for number in range(20))]
    now_ms = time.time_ns() // 1_000_000
    await asyncio.to_thread(scene.publish, [decision(visitor, occurred_at=now_ms) for visitor in visitors])
    running = asyncio.create_task(serve(load_settings(None, environ, Needs.KAFKA | Needs.PENDO)))
    try:
        await eventually(lambda: len({each.visitor_id for each in tracks(scene.pendo.received)}) == 20)
        (letter,) = await asyncio.to_thread(scene.read_dead_letters, 1)
    finally:  # like a platform: Kafka's thread leaves the group while the loop still runs
        os.kill(os.getpid(), signal.SIGTERM)
        code = await asyncio.wait_for(running, stretched(SECONDS))
    assert code == 0
    assert len(failures) == 2
    assert letter["headers"]["flagpost-reason"] == "invalid"
    assert "a defect of Flagpost's: KeyError at " in letter["headers"]["flagpost-detail"]
    assert "strange" not in letter["headers"]["flagpost-detail"]

"""Runs `flagpost web` for an hour under load and broker restarts: its numbers must equal those of `reconcile`.

    make web-soak ARGS="--minutes 60 --rate 100 --seed 7"

It uses a real Apache Kafka, two consumers, the web page, and a stand-in for Pendo that refuses some visitors.
Decisions are published all the time, with visitors, flags and consents drawn from the seed; every five minutes the
broker is killed and started again. After each restart publishing pauses until everything is settled; then the page's
tables are compared with `flagpost reconcile --json`, and the page must have read no part of its window twice. Exit
code 1 at the first difference. Not run by CI; `tests/integration/test_web_numbers.py` has the short form.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine_world import decision
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from flagpost_schemas import DecisionEvent
from real_kafka.broker import OwnBroker
from scenes import Scene
from web_comparing import same_as_reconcile, settled
from web_running import READ_ANEW, RunningWeb

AROUND_RESTART_SECONDS = 15.0
"""The broker is killed this long before publishing pauses for a comparison."""
AWAY_SECONDS = 3.0
SETTLE_SECONDS = 300.0
VISITORS = 5_000
FLAGS = 7


@dataclass(frozen=True)
class Plan:
    """How long to run, how many decisions to publish a second, and how often to restart the broker."""

    minutes: float
    rate: float
    every_seconds: float
    seed: int


def decisions(chance: random.Random) -> Iterator[DecisionEvent]:
    """Yields decisions without end, which occur at the present time; about one in eleven is without consent."""
    number = 0
    while True:
        visitor = chance.randrange(VISITORS)
        yield decision(
            f"visitor-{visitor}",
            f"flag-{chance.randrange(FLAGS)}",
            ("control", "treatment")[visitor % 2],
            event_id=f"e-{number}",
            occurred_at=time.time_ns() // 1_000_000,
            rule_type="experiment",
            consent={"analytics": chance.randrange(11) != 0},
        )
        number += 1


async def load(scene: Scene, events: Iterator[DecisionEvent], rate: float, until: float) -> int:
    """Publish `rate` decisions a second until a monotonic time, and catch up if Kafka was down. Returns how many."""
    began, published = time.monotonic(), 0
    while time.monotonic() < until:
        due = round(rate * (time.monotonic() - began)) - published
        await asyncio.to_thread(scene.publish, list(islice(events, due)))
        published += due
        await asyncio.sleep(1.0)
    return published


async def soak(plan: Plan) -> None:
    """Run the soak."""
    with tempfile.TemporaryDirectory() as directory:
        kafka = OwnBroker(Path(directory))
        try:
            async with PendoStandIn() as pendo:
                pendo.faults.outage(503, Endpoint.SCHEMA)
                for number in range(0, VISITORS, 50):
                    pendo.faults.visitor(f"visitor-{number}", 422)
                await rounds(kafka, Scene(kafka, pendo, "soak"), plan)
        finally:
            kafka.stop()


async def rounds(kafka: OwnBroker, scene: Scene, plan: Plan) -> None:
    """In each round publish, restart the broker meanwhile, and compare, until the time is over."""
    events = decisions(random.Random(plan.seed))
    ends, total, restarts = time.monotonic() + 60 * plan.minutes, 0, 0
    quick = {"delivery__visitor_interval_seconds": 0.0, "dedupe__ttl_seconds": 60}
    with (
        scene.consume(**quick) as first,
        scene.consume(**quick) as second,
        RunningWeb(scene.settings) as page,
    ):
        while time.monotonic() < ends:
            until = min(ends, time.monotonic() + plan.every_seconds)
            loading = asyncio.create_task(load(scene, events, plan.rate, until))
            await asyncio.sleep(max(0.0, until - time.monotonic() - AROUND_RESTART_SECONDS))
            await asyncio.to_thread(kafka.kill)
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(kafka.restart)
            restarts += 1
            total += await loading
            await settled(page, scene, SETTLE_SECONDS)
            await asyncio.to_thread(same_as_reconcile, page, scene)
            assert page.logged(READ_ANEW) == []
            left = max(0.0, ends - time.monotonic()) / 60
            told = f"{total:,} published, {restarts} restarts: the page is as reconcile"
            took = f"at most {page.peak_bytes / 1e6:,.0f} MB, {page.cpu_seconds:,.0f} s of CPU"
            sys.stdout.write(f"{told}; {took}; {left:.0f} min left\n")
            sys.stdout.flush()
        for consumer in (first, second):
            assert await consumer.stop() == 0
        assert await page.stop() == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--every", type=float, default=300.0, help="Seconds from restart to restart.")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    asyncio.run(soak(Plan(given.minutes, given.rate, given.every, given.seed)))


if __name__ == "__main__":
    main()

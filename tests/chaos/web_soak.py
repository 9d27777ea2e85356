"""`flagpost web` for an hour under load and through restarts of the broker: its numbers are `reconcile`'s.

    .venv/bin/python tests/chaos/web_soak.py [--minutes 60] [--rate 100]

A real Apache Kafka, two consumers, the stand-in for Pendo, which refuses some visitors, and the page. Decisions are
published all the time; every five minutes the broker is killed and started again. After each restart publishing
pauses until all is settled, and then the page's tables are held against `flagpost reconcile --json`. Exit code 1 with
the first difference. Not run by CI; `tests/integration/test_web_numbers.py` has the short form.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn
from real_kafka.broker import KafkaBroker
from scenes import Scene
from simulation import decision
from web_comparing import same_as_reconcile, settled
from web_running import RunningWeb

BETWEEN_RESTARTS_SECONDS = 300.0
SETTLE_SECONDS = 300.0
VISITORS = 5_000


async def load(scene: Scene, numbers: count[int], rate: float, until: float) -> int:
    """Publish so many decisions a second until a moment; gives how many."""
    published = 0
    while time.monotonic() < until:
        now_ms = time.time_ns() // 1_000_000
        events = [
            decision(
                f"visitor-{number % VISITORS}",
                f"flag-{number % 7}",
                ("control", "treatment")[number % VISITORS % 2],
                event_id=f"e-{number}",
                occurred_at=now_ms,
                rule_type="experiment",
                consent={"analytics": number % 11 != 0},
            )
            for number, _ in zip(numbers, range(max(1, round(rate))), strict=False)
        ]
        await asyncio.to_thread(scene.publish, events)
        published += len(events)
        await asyncio.sleep(1.0)
    return published


async def soak(minutes: float, rate: float) -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as directory:
        kafka = KafkaBroker(Path(directory))
        try:
            async with PendoStandIn() as pendo:
                pendo.faults.outage(503, Endpoint.SCHEMA)
                for number in range(0, VISITORS, 50):
                    pendo.faults.visitor(f"visitor-{number}", 422)
                await rounds(Scene(kafka, pendo, "soak"), minutes, rate)
        finally:
            kafka.stop()


async def rounds(scene: Scene, minutes: float, rate: float) -> None:
    """Load, a restart in the middle of it, and a comparison; again and again."""
    ends, numbers, total = time.monotonic() + 60 * minutes, count(), 0
    quick = {"delivery__visitor_interval_seconds": 0.0, "dedupe__ttl_seconds": 60}
    with (
        scene.consume(**quick) as first,
        scene.consume(**quick) as second,
        RunningWeb(scene.settings) as page,
    ):
        while time.monotonic() < ends:
            middle = min(ends, time.monotonic() + BETWEEN_RESTARTS_SECONDS) - 5
            total += await load(scene, numbers, rate, middle)
            await asyncio.to_thread(scene.kafka.kill)
            await asyncio.to_thread(scene.kafka.restart)
            total += await load(scene, numbers, rate, time.monotonic() + 5)
            await settled(page, scene, SETTLE_SECONDS)
            await asyncio.to_thread(same_as_reconcile, page, scene)
            left = max(0.0, ends - time.monotonic()) / 60
            told = f"{total:,} published; the page is as reconcile; {page.peak_bytes / 1e6:,.0f} MB"
            sys.stdout.write(f"{told}; {left:.0f} min left\n")
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
    given = parser.parse_args()
    asyncio.run(soak(given.minutes, given.rate))


if __name__ == "__main__":
    main()

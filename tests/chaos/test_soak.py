"""A soak: troubles of all kinds, drawn at random, while consumers work; an oracle finds nothing wrong.

`make chaos` runs the long form, 30 minutes: `SOAK_MINUTES` makes it longer or shorter, `CHAOS_SEED` repeats the
troubles of a run and their moments. The short form makes a small, fixed set of troubles, and judges everything but
the durations.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.soak.oracle import judge, judge_records, recorded_steps, unseen_steps
from chaos.soak.registry import LyingRegistry
from chaos.soak.soak import BROKER, INTERVAL_SECONDS, Soak, deck, named
from chaos.soak.topics import Entry
from chaos.soak.troubles import PENDO_GRACE, Trouble
from chaos.soak.watch import DELIVERY_SECONDS, Watch
from chaos.storm import LONG, seed
from conftest import need_java
from deadlines import stretched
from flagpost_consumer.demo.pendo_stand_in import Endpoint, PendoStandIn, Received, StandInConfig
from real_kafka.broker import OwnBroker
from running import eventually

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
CHOSEN = os.environ.get("SOAK_TROUBLES", "")
"""Names of troubles, separated by commas: only these are drawn, to find out which one causes a failure."""
TROUBLES_A_ROUND = (3, 4, 5)
SETTLE_SECONDS = 300.0
START_SECONDS = 120.0
LATENCY_SECONDS = 0.02
CALM_SECONDS = PENDO_GRACE + DELIVERY_SECONDS + 5.0

SHORT: tuple[tuple[str, ...], ...] = (
    ("kill -9", "broker kill -9", "Pendo flapping", "registry behind"),
    (
        "short freeze",
        "topic made anew",  # after a restart: the leader epochs of the new topic are below the old one's
        "ledger not writable",
        "Pendo fails by share",
        "hot visitors",
        "big records",
        "bombs",
        "odd records",
    ),
)
"""The rounds of the short form."""

pytestmark = [pytest.mark.thorough, pytest.mark.kafka, pytest.mark.timeout(60 * MINUTES + 1800)]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[OwnBroker]:
    need_java()
    broker = OwnBroker(tmp_path, BROKER)
    yield broker
    broker.stop()


@pytest.fixture
async def soak(broker: OwnBroker, tmp_path: Path, fresh_name: Callable[[str], str]) -> AsyncIterator[Soak]:
    config = StandInConfig(visitor_interval_seconds=INTERVAL_SECONDS, latency_seconds=LATENCY_SECONDS)
    async with PendoStandIn(config) as pendo, LyingRegistry() as registry:
        soak = await asyncio.to_thread(
            Soak, broker, pendo, registry, fresh_name("soak"), seed(), logs_in(tmp_path)
        )
        print(f"\nCHAOS_SEED={soak.seed}, logs in {logs_in(tmp_path)}")  # noqa: T201 - so that a run can be repeated
        async with soak:
            await eventually(lambda: all(m.admin_url for m in soak.members.running.values()), START_SECONDS)
            yield soak


def logs_in(directory: Path) -> Path:
    """The directory for the members' logs, and for the reports of their states when deliveries were late."""
    chosen = Path(os.environ.get("SOAK_LOGS", directory / "logs"))
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


async def test_everything_goes_on_whatever_goes_wrong(soak: Soak, tmp_path: Path) -> None:
    watch = Watch(soak, logs_in(tmp_path))
    async with watching(watch):
        soak.traffic.start()
        if LONG:
            await suffer_at_random(soak)
        else:
            for names in SHORT:
                await soak.suffer(named(*names))
        await settle(soak)
    watch.end_minute()
    verdict = await asyncio.to_thread(judge, soak, watch if LONG else None)
    print(verdict.show())  # noqa: T201 - the figures are the point
    assert not verdict.complaints, verdict.show()
    check_that_the_oracle_sees(soak)


def check_that_the_oracle_sees(soak: Soak) -> None:
    """The oracle finds a settlement missing in the ledger, an event that Pendo did not get, and one sent again."""
    requests = soak.pendo.received.of(Endpoint.TRACK)
    # An event with an earlier attempt whose answer was lost may be sent again.
    excused = unseen_steps(soak)
    entry, request = next(
        (entry, request)
        for entry, request in once_recorded(soak, requests)
        if (entry.content.visitor, entry.content.step) not in excused
    )

    identity = (soak.published.topic_id, entry.partition, entry.offset)
    kinds = soak.ledger.kinds.pop(identity)
    assert_complains(soak, requests, "1 records are not settled")
    soak.ledger.kinds[identity] = kinds

    assert_complains(soak, [each for each in requests if each is not request], "1 events are lost")
    later = [replace(request, at_seconds=request.at_seconds + hours * 3600) for hours in (1, 2)]
    assert_complains(soak, [*requests, *later], "events were sent again without a reason")


def once_recorded(soak: Soak, requests: list[Received]) -> Iterator[tuple[Entry, Received]]:
    """Events that Pendo recorded exactly once."""
    recorded = recorded_steps(requests)
    for entry in soak.published.entries:
        sightings = recorded.get((entry.content.visitor, entry.content.step or 0), [])
        if len(sightings) == 1 and sightings[0].status == 200:
            yield entry, sightings[0]


def assert_complains(soak: Soak, requests: list[Received], what: str) -> None:
    complaints = judge_records(soak, requests).complaints
    assert any(what in complaint for complaint in complaints), (what, complaints)


@contextlib.asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[None]:
    """Run the watch during the block; if the watch itself fails, the test fails at once."""
    async with asyncio.TaskGroup() as together:
        task = together.create_task(watch.run())
        yield
        task.cancel()


async def suffer_at_random(soak: Soak) -> None:
    """Make rounds of troubles, each followed by a calm in which everything must continue; all kinds are drawn."""
    ends_at = time.monotonic() + 60 * MINUTES
    drawn: list[Trouble] = []
    while time.monotonic() < ends_at:
        while len(drawn) < max(TROUBLES_A_ROUND):
            drawn += [
                trouble for trouble in deck(soak.random) if not CHOSEN or trouble.name in CHOSEN.split(",")
            ]
        count = soak.random.choice(TROUBLES_A_ROUND)
        now, drawn = drawn[:count], drawn[count:]
        await soak.suffer(now)
        await asyncio.sleep(CALM_SECONDS)


async def settle(soak: Soak) -> None:
    """Stop publishing and heal Pendo; wait until all records are settled, at most SETTLE_SECONDS."""
    soak.heal()
    await asyncio.to_thread(soak.traffic.stop)
    await asyncio.to_thread(soak.published.tail.catch_up)
    published = soak.published
    left, deadline = published.entries, time.monotonic() + stretched(SETTLE_SECONDS)
    while left and time.monotonic() < deadline:
        await asyncio.sleep(1)
        left = [entry for entry in left if not soak.ledger.is_settled(published.topic_id, entry)]

"""Consumers, a broker and a Pendo that fail under load, and an oracle that finds nothing amiss.

`make chaos` runs the long form. The seed is printed; `CHAOS_SEED=… make chaos` repeats a run's traffic and moments.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from chaos.oracle import judge
from chaos.storm import INTERVAL_SECONDS, LONG, SESSION_SECONDS, Storm
from flagpost_consumer.demo.pendo_stand_in import (
    Endpoint,
    PendoStandIn,
    StandInConfig,
)
from real_kafka.broker import KafkaBroker

ROUNDS = 20 if LONG else 4
LATENCY_SECONDS = 0.02


@pytest.fixture
async def pendo() -> AsyncIterator[PendoStandIn]:
    async with PendoStandIn(StandInConfig(visitor_interval_seconds=INTERVAL_SECONDS)) as stand_in:
        # Without a schema, fields are sent under their configured names.
        stand_in.faults.outage(503, Endpoint.SCHEMA)
        stand_in.faults.latency_seconds = LATENCY_SECONDS
        yield stand_in


@pytest.mark.timeout(600)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_kill_9(
    kafka: KafkaBroker, pendo: PendoStandIn, fresh_name: Callable[[str], str], protocol: str
) -> None:
    """Two consumers, one of which is killed again and again at any moment."""
    async with Storm(kafka, pendo, fresh_name("kill"), kafka__group_protocol=protocol) as storm:
        await storm.start()
        await storm.start()
        await storm.share_the_work()
        storm.publish_on()
        for _ in range(ROUNDS):
            await asyncio.sleep(storm.random.uniform(0.5, SESSION_SECONDS + 2))
            await storm.kill(storm.random.choice(list(storm.consumers)))
            await storm.start()
        await storm.publish_no_more()
        await storm.nothing_pending()
        judge(storm)

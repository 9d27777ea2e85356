"""A consumer at the default settings, in floods that once killed it, stays far below the chart's memory limit.

The bounds are generous: they detect several times the memory, not a tenth more. `make chaos` runs the long forms.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from flagpost_consumer.demo.pendo_stand_in import Endpoint
from memory_floods import (
    check_memory,
    large_tracks,
    many_headers,
    produce_all,
    tiny_fields,
    unknown_ids,
    wide_letters,
)
from running import RunningConsumer, eventually, total
from scenes import Scene
from served import served

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300), pytest.mark.usefixtures("cold_starts")]

SECONDS = 120.0


@asynccontextmanager
async def registry_that_knows_nothing() -> AsyncIterator[str]:
    """A registry that answers 404 to every id; yields its URL."""

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"error_code": 40403, "message": "Schema not found"}, status=404)

    application = web.Application()
    application.router.add_get("/schemas/ids/{id}", refuse)
    async with served(application) as url:
        yield url


async def paused_for_memory(consumer: RunningConsumer) -> None:
    """Wait until intake has paused because the limit of pending records or bytes is reached."""
    await eventually(lambda: any("intake paused" in line for line in consumer.lines), SECONDS)
    # What the client had read ahead by then still takes memory.
    await asyncio.sleep(1.0)


async def settled(consumer: RunningConsumer, count: int, **labels: str) -> None:
    await eventually(
        lambda: total(consumer.scrape(), "flagpost_deliveries_total", **labels) == count,
        SECONDS,
        what=f"{count} deliveries of {labels}",
    )


async def test_records_of_450_kb(scene: Scene) -> None:
    """Before, 600 of them took 541 MB."""
    await asyncio.to_thread(produce_all, scene, large_tracks(600, 450_000))
    with scene.consume() as consumer:
        await settled(consumer, 600, reason="invalid")
        check_memory(consumer)


async def test_events_of_60_kb_while_pendo_is_down(scene: Scene) -> None:
    """Before, `delivery.max_pending` alone let in 20,000 of them, 1.2 GB."""
    scene.pendo.faults.outage(503, Endpoint.TRACK, Endpoint.METADATA)
    await asyncio.to_thread(produce_all, scene, large_tracks(5_000, 60_000))
    with scene.consume() as consumer:
        await paused_for_memory(consumer)
        check_memory(consumer)


async def test_metadata_of_a_thousand_tiny_fields_while_pendo_is_down(scene: Scene) -> None:
    """Each byte of such a record takes sixty in memory; before, `delivery.max_pending_bytes` let in 4 GB."""
    scene.pendo.faults.outage(503, Endpoint.TRACK, Endpoint.METADATA)
    await asyncio.to_thread(produce_all, scene, tiny_fields(5_000, 1_000))
    with scene.consume() as consumer:
        await paused_for_memory(consumer)
        check_memory(consumer)


async def test_metadata_of_too_many_tiny_fields(scene: Scene) -> None:
    """Before, a record of 64 KiB with 10,000 fields took 3.8 MB while it waited."""
    await asyncio.to_thread(produce_all, scene, tiny_fields(300, 10_000))
    with scene.consume() as consumer:
        await settled(consumer, 300, reason="invalid")
        check_memory(consumer)


async def test_texts_of_wide_letters_while_pendo_is_down(scene: Scene) -> None:
    """One wide letter in a text makes each of its letters take four bytes."""
    scene.pendo.faults.outage(503, Endpoint.TRACK, Endpoint.METADATA)
    await asyncio.to_thread(produce_all, scene, wide_letters(2_500))
    with scene.consume() as consumer:
        await paused_for_memory(consumer)
        check_memory(consumer)


async def test_events_with_many_headers_while_pendo_is_down(scene: Scene) -> None:
    """A header of two bytes takes a hundred bytes in memory."""
    scene.pendo.faults.outage(503, Endpoint.TRACK, Endpoint.METADATA)
    await asyncio.to_thread(produce_all, scene, many_headers(3_000, 5_000))
    with scene.consume() as consumer:
        await paused_for_memory(consumer)
        check_memory(consumer)


async def test_a_flood_of_unknown_schema_ids(scene: Scene) -> None:
    """The registry may know each id a minute later, so the records wait; what waits is bounded in memory."""
    async with registry_that_knows_nothing() as url:
        await asyncio.to_thread(produce_all, scene, unknown_ids(5_000, 40_000))
        with scene.consume(
            kafka__schema_registry__url=url, kafka__schema_registry__unknown_seconds=1
        ) as consumer:
            await eventually(
                lambda: total(consumer.scrape(), "flagpost_deliveries_total", reason="unknown_schema") > 200,
                SECONDS,
            )
            check_memory(consumer)

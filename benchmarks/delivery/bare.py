"""The bare loop: aiohttp's session as the book says, a limit of connections and a worker for each of them.

No Kafka, no order, no account of anything: the reference of delivering. Ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from delivery.events import Skew, track_events

HEADERS = {"x-pendo-integration-key": "secret"}


async def post_all(url: str, bodies: Iterator[dict[str, Any]], connections: int, authority: str = "") -> None:
    """Post each body; `authority` is the file of the CA that is trusted, if it is not the system's."""

    async def worker(session: aiohttp.ClientSession) -> None:
        for body in bodies:
            async with session.post(url, json=body) as response:
                await response.read()

    connector = aiohttp.TCPConnector(
        limit=connections, ssl=ssl.create_default_context(cafile=authority) if authority else True
    )
    async with aiohttp.ClientSession(
        connector=connector, headers=HEADERS, json_serialize=lambda value: orjson.dumps(value).decode()
    ) as session:
        await asyncio.gather(*(worker(session) for _ in range(connections)))


def bodies(skew: Skew, events: int) -> Iterator[dict[str, Any]]:
    for event in track_events(skew, events):
        yield {
            "type": "track",
            "event": event.event,
            "visitorId": event.visitor_id,
            "timestamp": event.occurred_at,
            "properties": event.properties,
            "context": {},
        }


async def main() -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    given = os.environ
    all_bodies = bodies(Skew(given["DELIVER_SKEW"]), int(given["DELIVER_EVENTS"]))
    await post_all(given["DELIVER_URL"], all_bodies, int(given["DELIVER_CONNECTIONS"]), given["DELIVER_CA"])
    await told.wait()


if __name__ == "__main__":
    uvloop.run(main())

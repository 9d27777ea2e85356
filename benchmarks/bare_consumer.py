"""The loop that one would write by hand: a consumer, a pool of workers, a POST for each event by aiohttp's session.

    python benchmarks/bare_consumer.py SERVERS TOPIC GROUP URL CONNECTIONS

When its standard input closes it posts what it has read, and ends. It keeps no order and no ledger, recognises no
duplicate, tries nothing again, and commits whatever was read once a second: a reference for what reading and posting
alone take.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from importlib.resources import files
from io import BytesIO
from threading import Thread
from typing import Any

import aiohttp
import orjson
import uvloop
from confluent_kafka import Consumer, Message
from fastavro import parse_schema, schemaless_reader

SCHEMAS = files("flagpost_schemas") / "avro"
HEADER_BYTES = 10
"""Of Avro's single-object encoding: a marker and the schema's fingerprint."""
COMMIT_MS = 1000


def consumer(bootstrap_servers: str, topic: str, group: str) -> Consumer:
    subscribed = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": COMMIT_MS,
        }
    )
    subscribed.subscribe([topic])
    return subscribed


def decoded(message: Message, schema: dict[str, Any]) -> Mapping[str, Any]:
    """The fields of a record's value, by plain fastavro."""
    value = message.value() or b""
    return schemaless_reader(BytesIO(value[HEADER_BYTES:]), schema)  # type: ignore[return-value]


def schema_of(record: str) -> dict[str, Any]:
    """A record's schema, parsed."""
    return parse_schema(orjson.loads((SCHEMAS / f"{record}.avsc").read_bytes()))  # type: ignore[return-value]


def body(event: Mapping[str, Any], timestamp_ms: int) -> bytes:
    """What is posted."""
    return orjson.dumps(
        {
            "type": "track",
            "event": event["event"],
            "visitorId": event["visitor_id"],
            "timestamp": timestamp_ms,
            "properties": event["properties"],
            "context": {},
        }
    )


class Loop:
    """One consumer thread, and as many workers as there may be connections."""

    def __init__(self, subscribed: Consumer, url: str, connections: int) -> None:
        self._subscribed, self._url, self._connections = subscribed, url, connections
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._end = asyncio.Event()
        self._schema = schema_of("TrackEvent")

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        Thread(target=self._read, args=(loop,), daemon=True).start()
        Thread(target=self._await_end, args=(loop,), daemon=True).start()
        headers = {"x-pendo-integration-key": "secret", "content-type": "application/json"}
        connector = aiohttp.TCPConnector(limit=self._connections)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            workers = [asyncio.create_task(self._work(session)) for _ in range(self._connections)]
            await self._end.wait()
            await self._queue.join()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._end.is_set():
            first = self._subscribed.poll(1.0)
            if first is not None:
                loop.call_soon_threadsafe(self._take, [first, *self._subscribed.consume(499, 0)])

    def _await_end(self, loop: asyncio.AbstractEventLoop) -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(self._end.set)

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            self._queue.put_nowait(message)

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            message = await self._queue.get()
            event = decoded(message, self._schema)
            timestamp_ms = int(event["occurred_at"].timestamp() * 1000)
            async with session.post(self._url, data=body(event, timestamp_ms)) as response:
                await response.read()
            self._queue.task_done()


if __name__ == "__main__":
    servers, events_topic, group_id, address, limit = sys.argv[1:]
    uvloop.run(Loop(consumer(servers, events_topic, group_id), address, int(limit)).run())

"""The gateway: events that a core takes in a second, one in a request and a hundred.

    .venv/bin/python benchmarks/gateway.py [--rounds 3] [--requests 30000] [--connections 32] [--json FILE] [--quick]

`flagpost-gateway` takes track events by HTTP, checks them, encodes them in Avro, and answers when a real Apache Kafka
has acknowledged them. The one who sends is a process of its own that does little for a request. CPU time of the
gateway while the requests come, after a tenth of them to warm up; it is one process and uses one core.

The reference is a bare aiohttp.web handler: it parses the JSON, produces each event as JSON to the same Kafka, and
answers when that has acknowledged them; it checks no key and no event, and knows no limits.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import orjson
import uvloop
from aiohttp import web
from confluent_kafka import KafkaError, Message, Producer

from gateway_running import RunningGateway
from real_kafka.broker import KafkaBroker
from side_by_side import Comparison, Side, arguments, compare, report
from stage import Meter, real_kafka

TOPIC = "flagpost.events"
TOPICS = (TOPIC, "flagpost.pendo-webhooks")
BATCHES = {1: 1, 100: 10}
"""Events in a request; of so many requests one is sent."""
WARM_UP = 10
"""Of the requests: one part in so many."""
EVENT = {
    "type": "track",
    "visitor_id": "visitor-0000000000000000000000000001",
    "event": "Order Completed",
    "properties": {"plan": "gold", "items": 3, "total": 49.9, "currency": "CHF", "first": False},
}

Server = Callable[[KafkaBroker], AbstractAsyncContextManager[tuple[str, int]]]
"""Runs while the block lasts; its address and its process id."""


class BareHandler:
    """Parse, produce, wait."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "linger.ms": 5,
                "acks": "all",
                "partitioner": "murmur2_random",
            }
        )
        threading.Thread(target=self._poll, daemon=True).start()

    async def post(self, request: web.Request) -> web.Response:
        """Take one event, or a list of them."""
        document = orjson.loads(await request.read())
        events = document if isinstance(document, list) else [document]
        loop = asyncio.get_running_loop()
        reported: asyncio.Future[None] = loop.create_future()
        left = len(events)

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                raise SystemExit(str(error))
            if left == 0:
                loop.call_soon_threadsafe(reported.set_result, None)

        for event in events:
            self._producer.produce(TOPIC, orjson.dumps(event), event["visitor_id"], on_delivery=on_delivery)
        await reported
        return web.Response(status=202)

    def _poll(self) -> None:
        while True:
            self._producer.poll(1.0)


async def bare(bootstrap_servers: str) -> None:
    """Serve until standard input closes; prints the port."""
    app = web.Application()
    app.router.add_post("/v1/events", BareHandler(bootstrap_servers).post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@asynccontextmanager
async def bare_server(kafka: KafkaBroker) -> AsyncIterator[tuple[str, int]]:
    command = [sys.executable, __file__, "--bare", kafka.bootstrap_servers]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None  # noqa: S101 - narrows the type
    port = (await process.stdout.readline()).decode().strip()
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        await process.communicate(b"")


@asynccontextmanager
async def gateway(kafka: KafkaBroker) -> AsyncIterator[tuple[str, int]]:
    settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "log.level": "error"}
    async with RunningGateway(settings) as running:
        await running.ready()
        yield running.url, running.process_id


async def measure(
    server: Server, kafka: KafkaBroker, requests: int, batch: int, connections: int
) -> Mapping[str, float]:
    """Send the requests; returns what they took."""
    body = orjson.dumps(EVENT if batch == 1 else [EVENT] * batch)
    async with server(kafka) as (url, process_id):
        await load(url, body, max(connections, requests // WARM_UP), connections)
        meter = Meter([process_id])
        await load(url, body, requests, connections)
        cpu, took = meter.cpu_seconds, meter.seconds
    events = requests * batch
    return {
        "events_per_cpu_second": events / cpu,
        "cpu_us_per_request": 1e6 * cpu / requests,
        "events_per_second": events / took,
    }


async def load(url: str, body: bytes, requests: int, connections: int) -> None:
    script = str(Path(__file__).with_name("http_load.py"))
    command = [sys.executable, script, f"{url}/v1/events", str(requests), str(connections)]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE)
    await process.communicate(body)
    if process.returncode != 0:
        raise SystemExit(f"not every request to {url} was answered with a 2xx")


def side(name: str, server: Server, kafka: KafkaBroker, requests: int, batch: int, connections: int) -> Side:
    return Side(name, lambda: asyncio.run(measure(server, kafka, requests, batch, connections)))


def compared(requests: int, connections: int, rounds: int) -> Iterator[Comparison]:
    with real_kafka(*TOPICS) as kafka:
        for batch, one_of in BATCHES.items():
            count = requests // one_of
            make = partial(side, kafka=kafka, requests=count, batch=batch, connections=connections)
            sides = [make("bare handler", bare_server), make("flagpost-gateway", gateway)]
            yield compare(f"gateway: {batch} to a request, {connections} connections", sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        uvloop.run(bare(given.bare))
        return
    rounds, requests = (1, 3_000) if given.quick else (given.rounds, given.requests)
    report(compared(requests, given.connections, rounds), given.json)


if __name__ == "__main__":
    main()

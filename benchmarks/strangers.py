"""Strangers: how long a valid request takes while 1,000 of their connections are open, and the memory that they take.

    .venv/bin/python benchmarks/strangers.py [--rounds 3] [--connections 1000] [--json FILE] [--quick]

`flagpost-gateway` takes one event after another from a client with a key. The strangers have none, and are a process
of their own: some hold connections (headers that do not end, bodies that do not come, answers that are not read),
some send again as soon as they are answered or dropped. All are on one machine: the strangers' own work counts too.

The reference is the same gateway without strangers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import psutil
import uvloop

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from gateway_running import RunningGateway
from hostile_clients import address, head, let_open
from side_by_side import Comparison, Side, arguments, compare, percentile, report

EVENT = {"type": "track", "visitor_id": "v", "event": "E"}
JSON = {"content_type": "application/json"}
BRACKETS = b'{"a":[' + b"[]," * 10_000 + b"0]}"
NOBODY = "nobody"
ENDLESS = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 200) for number in range(125))
HOLDING = {
    "headers": b"POST /v1/track HTTP/1.1\r\nhost: x\r\n" + ENDLESS,
    "bodies": head("POST", "/v1/track", content_length="32000", **JSON) + b" " * 30_000,
    "answers": head("GET", "/") * 3_000,
}
"""What is sent once, on connections that are held."""
SENDING = {
    "no HTTP": b"GET / HTTP/9.9\r\n\r\n",
    "wrong keys": head("POST", "/v1/events", content_length="2", authorization="Bearer no", **JSON) + b"{}",
    "no keys": head("POST", "/v1/track", content_length=str(len(BRACKETS)), **JSON) + BRACKETS,
}
"""What is sent again and again."""


async def send(url: str, sent: bytes) -> None:
    """Send again whenever there is an answer, on a new connection when that is closed."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(*address(url))
            writer.write(sent)
            while await reader.read(65_536):
                writer.write(sent)
            writer.close()


async def hold(url: str, sent: bytes) -> None:
    """Send once, and nothing more."""
    _, writer = await asyncio.open_connection(*address(url))
    writer.write(sent)
    await asyncio.Event().wait()


async def strangers(url: str, kind: str, count: int) -> None:
    """Until standard input closes; prints a line when all are there."""
    let_open(2 * count + 100)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # of connections that are dropped
    work = [hold(url, HOLDING[kind]) if kind in HOLDING else send(url, SENDING[kind]) for _ in range(count)]
    tasks = [asyncio.create_task(each) for each in work]
    await asyncio.sleep(1)
    print("there", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()


@asynccontextmanager
async def with_strangers(url: str, kind: str, count: int) -> AsyncIterator[None]:
    if kind == NOBODY:
        yield
        return
    command = [sys.executable, __file__, "--strangers", url, kind, "--connections", str(count)]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    assert process.stdout is not None  # noqa: S101 - narrows the type
    await process.stdout.readline()
    try:
        yield
    finally:
        await process.communicate(b"")


async def measure(kind: str, count: int, requests: int) -> Mapping[str, float]:
    with EmbeddedKafka({"flagpost.events": 4}) as kafka:
        settings = {"kafka.bootstrap_servers": kafka.bootstrap_servers, "log.level": "error"}
        async with RunningGateway(settings) as gateway:
            await gateway.ready()
            async with with_strangers(gateway.url, kind, count):
                events = [await timed(gateway.post("/v1/events", EVENT)) for _ in range(requests)]
                probes = [await timed(gateway.probe("/livez")) for _ in range(requests)]
            return {
                "request_ms_p50": percentile(events, 50),
                "request_ms_p99": percentile(events, 99),
                "livez_ms_max": max(probes),
                "memory_mib": psutil.Process(gateway.process_id).memory_info().rss / 2**20,
            }


async def timed(work: Awaitable[object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000


def compared(count: int, requests: int, rounds: int) -> Iterator[Comparison]:
    def side(kind: str) -> Side:
        return Side(kind, lambda: uvloop.run(measure(kind, count, requests)))

    yield compare(f"{count} strangers", [side(kind) for kind in (NOBODY, *HOLDING, *SENDING)], rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--strangers", nargs=2, metavar=("URL", "KIND"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.strangers:
        url, kind = given.strangers
        asyncio.run(strangers(url, kind, given.connections))
        return
    rounds, requests = (1, 20) if given.quick else (given.rounds, 200)
    report(compared(given.connections, requests, rounds), given.json)


if __name__ == "__main__":
    main()

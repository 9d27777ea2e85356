"""100,000 visitors, each with two events that must be told a second apart: what pace costs.

    .venv/bin/python benchmarks/paced.py [--rounds 3] [--visitors 100000] [--json FILE] [--quick]

A real Apache Kafka holds both events of a visitor one after the other, so that every second one waits for its
visitor's pace: all visitors' lanes are in memory at once (`delivery.max_pending` is raised for that). CPU time of
`flagpost consume` from its start to the commit of all, without its imports. Beside it the same events by the same
service without pace, which shows what pace alone costs.

The reference is a bare asyncio loop without Kafka: aiohttp's session, as many workers as connections, and a timer
for each visitor that puts its second event into their queue a second after the answer to the first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aiohttp
import uvloop

from bare_consumer import body
from real_kafka.broker import KafkaBroker
from side_by_side import Comparison, Side, arguments, compare, in_a_process, report
from stage import Meter, Sink, await_committed, fill, real_kafka, service, track

CONNECTIONS = 64
INTERVAL_SECONDS = 1.0
EACH = 2
TOPIC = "paced"


class BareLoop:
    """A timer a visitor."""

    def __init__(self, url: str, visitors: int) -> None:
        self._url = url
        self._left = visitors * EACH
        self._queue: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        for visitor in range(visitors):
            self._queue.put_nowait((visitor, EACH))

    async def run(self) -> None:
        headers = {"x-pendo-integration-key": "secret", "content-type": "application/json"}
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            await asyncio.gather(*(self._work(session) for _ in range(CONNECTIONS)))

    async def _work(self, session: aiohttp.ClientSession) -> None:
        later = asyncio.get_running_loop().call_later
        while self._left > 0:
            try:
                visitor, each = await asyncio.wait_for(self._queue.get(), INTERVAL_SECONDS)
            except TimeoutError:
                continue
            self._left -= 1
            async with session.post(self._url, data=event_body(visitor)) as response:
                await response.read()
            if each > 1:
                later(INTERVAL_SECONDS, self._queue.put_nowait, (visitor, each - 1))


def event_body(visitor: int) -> bytes:
    event = track(visitor, f"visitor-{visitor:028d}")
    fields = {field: getattr(event, field) for field in ("event", "visitor_id", "properties")}
    return body(fields, event.occurred_at)


def bare(url: str, visitors: int) -> Mapping[str, float]:
    began, cpu = time.monotonic(), time.process_time()
    uvloop.run(BareLoop(url, visitors).run())
    return figures(visitors, time.process_time() - cpu, time.monotonic() - began)


def bare_side(visitors: int) -> Mapping[str, float]:
    with Sink() as pendo:
        return in_a_process(Path(__file__), "--bare", pendo.url, str(visitors))()


def flagpost(
    kafka: KafkaBroker, visitors: int, interval_seconds: float, numbers: Iterator[int]
) -> Mapping[str, float]:
    """The service, from its start to the commit of all."""
    run = f"run-{next(numbers)}"
    settings = {
        "delivery.visitor_interval_seconds": interval_seconds,
        "delivery.max_pending": visitors * EACH,
        "delivery.max_pending_bytes": 1_000_000_000,
        "delivery.max_pending_per_visitor": 0,
        "pendo.max_connections": CONNECTIONS,
    }
    with Sink() as pendo, service(kafka, TOPIC, run, pendo.url, settings) as running:
        meter = Meter([running.process_id])
        await_committed(kafka, TOPIC, run)
        return figures(visitors, meter.cpu_seconds, meter.seconds)


def figures(visitors: int, cpu_seconds: float, seconds: float) -> Mapping[str, float]:
    events = visitors * EACH
    return {"cpu_us_per_event": 1e6 * cpu_seconds / events, "events_per_second": events / seconds}


def compared(visitors: int, rounds: int) -> Iterator[Comparison]:
    numbers = count()
    with real_kafka(TOPIC) as kafka:
        fill(kafka, TOPIC, (track(n, f"visitor-{n // EACH:028d}") for n in range(visitors * EACH)))
        sides = [
            Side("bare loop", partial(bare_side, visitors)),
            Side("flagpost", partial(flagpost, kafka, visitors, INTERVAL_SECONDS, numbers)),
            Side("flagpost, no pace", partial(flagpost, kafka, visitors, 0.0, numbers)),
        ]
        yield compare(f"paced: {visitors:,} visitors, {EACH} events each, a second apart", sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--visitors", type=int, default=100_000)
    parser.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        url, visitors = given.bare
        print(json.dumps(bare(url, int(visitors))))
        return
    visitors, rounds = (5_000, 1) if given.quick else (given.visitors, given.rounds)
    report(compared(visitors, rounds), given.json)


if __name__ == "__main__":
    main()

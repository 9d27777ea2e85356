"""What waiting costs: 100 deliveries a second to a Pendo that answers after 50 ms; and nothing at all to do.

    .venv/bin/python benchmarks/waiting.py [--rounds 3] [--seconds 15] [--json FILE] [--quick]

CPU time of `flagpost consume`, in 100 parts of one core; a real Apache Kafka with 8 partitions.
- Arriving: 100 events a second come from Kafka, each of another visitor, and are told at once.
- Paced: 100 visitors with a backlog, each told once a second; 5,000 events wait in memory.
- Idle: nothing comes.
The reference of the first two is a loop that sleeps and posts 100 times a second with aiohttp's session, without
Kafka; that of idle is a consumer that polls once a second, and finds nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aiohttp
import uvloop

from bare_consumer import consumer
from real_kafka.broker import KafkaBroker
from running import RunningConsumer
from side_by_side import Comparison, Side, arguments, compare, in_a_process, report
from stage import (
    PARTITIONS,
    Meter,
    Sink,
    await_assigned,
    fill,
    produce_at,
    real_kafka,
    service,
    track,
)

LATENCY_MS = 50.0
PER_SECOND = 100
BACKLOG_EACH = 50
SETTLE_SECONDS = 3.0
"""How long a process may still be busy with its start."""
BODY = (
    b'{"type":"track","event":"Order Completed","visitorId":"visitor-0000000000000000000000000001",'
    b'"timestamp":1800000000000,"properties":{"plan":"gold","items":3,"total":49.9,"currency":"CHF"},"context":{}}'
)

Prepare = Callable[[KafkaBroker, str], None]
Work = Callable[[KafkaBroker, str, float], None]
"""What a topic gets before the measurement, and for so many seconds in it; each takes its time."""


async def bare_posting(url: str, seconds: float) -> Mapping[str, float]:
    """A loop that posts so often, whatever the answers take."""
    headers = {"x-pendo-integration-key": "secret", "content-type": "application/json"}

    async def post(session: aiohttp.ClientSession) -> None:
        async with session.post(url, data=BODY) as response:
            await response.read()

    async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as posts:
        cpu, began = time.process_time(), time.monotonic()
        events = int(PER_SECOND * seconds)
        for number in range(events):
            await asyncio.sleep(began + number / PER_SECOND - time.monotonic())
            posts.create_task(post(session))
        return figures(events, time.process_time() - cpu, time.monotonic() - began)


def bare_idling(bootstrap_servers: str, seconds: float) -> Mapping[str, float]:
    """A consumer that gets nothing."""
    subscribed = consumer(bootstrap_servers, "idle", "idle")
    while not subscribed.assignment():
        subscribed.poll(0.1)
    time.sleep(SETTLE_SECONDS)
    cpu, began = time.process_time(), time.monotonic()
    while time.monotonic() < began + seconds:
        subscribed.poll(1.0)
    found = figures(0, time.process_time() - cpu, time.monotonic() - began)
    subscribed.close()
    return found


def settled(kafka: KafkaBroker, topic: str) -> None:
    """Nothing is there."""
    del kafka, topic
    time.sleep(SETTLE_SECONDS)


def backlog(kafka: KafkaBroker, topic: str) -> None:
    """Each of 100 visitors has many events waiting."""
    events = range(PER_SECOND * BACKLOG_EACH)
    fill(kafka, topic, (track(number, f"visitor-{number % PER_SECOND:028d}") for number in events))
    time.sleep(SETTLE_SECONDS)


def nothing_comes(kafka: KafkaBroker, topic: str, seconds: float) -> None:
    del kafka, topic
    time.sleep(seconds)


def events_come(kafka: KafkaBroker, topic: str, seconds: float) -> None:
    events = range(int(PER_SECOND * seconds))
    produce_at(kafka, topic, PER_SECOND, (f"visitor-{number:028d}" for number in events))


def flagpost(
    kafka: KafkaBroker, prepare: Prepare, work: Work, seconds: float, numbers: Iterator[int]
) -> Mapping[str, float]:
    """The service at work, once it has started and settled."""
    run = f"run-{next(numbers)}"
    kafka.create_topics(run, partitions=PARTITIONS)
    with Sink(LATENCY_MS) as pendo, service(kafka, run, run, pendo.url) as running:
        await_assigned([running], PARTITIONS)
        prepare(kafka, run)
        before = delivered(running)
        meter = Meter([running.process_id])
        work(kafka, run, seconds)
        cpu, took = meter.cpu_seconds, meter.seconds
        return figures(delivered(running) - before, cpu, took)


def delivered(running: RunningConsumer) -> float:
    return running.value("flagpost_deliveries_total", kind="track", outcome="delivered", reason="ok")


def figures(deliveries: float, cpu_seconds: float, seconds: float) -> Mapping[str, float]:
    return {
        "percent_of_a_core": 100 * cpu_seconds / seconds,
        "deliveries_per_second": deliveries / seconds,
    }


def bare_side(*given: str) -> Mapping[str, float]:
    """One of the references, in a process of its own."""
    return in_a_process(Path(__file__), *given)()


def posting_side(seconds: float) -> Mapping[str, float]:
    with Sink(LATENCY_MS) as pendo:
        return bare_side("--posting", pendo.url, str(seconds))


def compared(seconds: float, rounds: int) -> Iterator[Comparison]:
    numbers = count()
    with real_kafka("idle") as kafka:
        yield compare(
            f"waiting: {PER_SECOND} deliveries a second, {LATENCY_MS:g} ms of latency",
            [
                Side("bare loop", partial(posting_side, seconds)),
                Side("flagpost, arriving", partial(flagpost, kafka, settled, events_come, seconds, numbers)),
                Side("flagpost, paced", partial(flagpost, kafka, backlog, nothing_comes, seconds, numbers)),
            ],
            rounds,
        )
        yield compare(
            f"idle: {PARTITIONS} partitions on which nothing comes",
            [
                Side("bare consumer", partial(bare_side, "--idling", kafka.bootstrap_servers, str(seconds))),
                Side("flagpost", partial(flagpost, kafka, settled, nothing_comes, seconds, numbers)),
            ],
            rounds,
        )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--posting", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--idling", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.posting:
        url, seconds = given.posting
        print(json.dumps(uvloop.run(bare_posting(url, float(seconds)))))
    elif given.idling:
        servers, seconds = given.idling
        print(json.dumps(bare_idling(servers, float(seconds))))
    else:
        rounds, seconds = (1, 2.0) if given.quick else (given.rounds, given.seconds)
        report(compared(seconds, rounds), given.json)


if __name__ == "__main__":
    main()

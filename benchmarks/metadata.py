"""Metadata: changes told by one request, and what a change costs.

    .venv/bin/python benchmarks/metadata.py [--rounds 3] [--visitors 50000] [--json FILE] [--quick]

A real Apache Kafka holds three changes of two fields for each visitor, in three passes over all visitors.
`flagpost consume` tells Pendo the newest value only, of up to 1,000 visitors in a request. CPU time from its start to
the commit of all changes, without its imports; the linger of two seconds is in the time, not in the CPU time.

The reference is a bare consumer that decodes with fastavro and posts every 1,000 records as they come, one request
after the other, with aiohttp's session: no value is left out, none is compared, nothing is written down.
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
import orjson
import uvloop

from bare_consumer import consumer, decoded, schema_of
from flagpost_schemas import VisitorMetadata
from real_kafka.broker import KafkaBroker
from side_by_side import Side, arguments, compare, in_a_process, report
from stage import Meter, Sink, await_committed, fill, real_kafka, service

TOPIC = "metadata"
PASSES = 3
BATCH = 1_000
PATH = "/api/v1/metadata/visitor/custom/value?create=true"


def changes(visitors: int) -> Iterator[VisitorMetadata]:
    """Every pass changes one field of two."""
    now_ms = time.time_ns() // 1_000_000
    for number in range(visitors * PASSES):
        turn, visitor = divmod(number, visitors)
        yield VisitorMetadata(
            event_id=f"0192f5a0-0000-7000-8000-{number:012d}",
            occurred_at=now_ms + turn,
            visitor_id=f"visitor-{visitor:028d}",
            values={"plan": ("free", "silver", "gold")[turn], "city": "Bern"},
        )


async def bare(bootstrap_servers: str, group: str, url: str, records: int) -> Mapping[str, float]:
    """Read, decode, post a thousand at a time."""
    schema, subscribed = schema_of("VisitorMetadata"), consumer(bootstrap_servers, TOPIC, group)
    began, cpu = time.monotonic(), time.process_time()
    headers = {"x-pendo-integration-key": "key", "content-type": "application/json"}
    left, requests = records, 0
    async with aiohttp.ClientSession(headers=headers) as session:
        while left:
            messages = await asyncio.to_thread(subscribed.consume, min(BATCH, left), 1.0)
            if not messages:
                continue
            events = [decoded(message, schema) for message in messages]
            body = [{"visitorId": event["visitor_id"], "values": event["values"]} for event in events]
            async with session.post(url + PATH, data=orjson.dumps(body)) as response:
                await response.read()
            left -= len(messages)
            requests += 1
    found = figures(records, requests, time.process_time() - cpu, time.monotonic() - began)
    subscribed.close()
    return found


def bare_side(kafka: KafkaBroker, records: int, numbers: Iterator[int]) -> Mapping[str, float]:
    with Sink() as pendo:
        given = [kafka.bootstrap_servers, f"bare-{next(numbers)}", pendo.url, str(records)]
        return in_a_process(Path(__file__), "--bare", *given)()


def flagpost(kafka: KafkaBroker, records: int, numbers: Iterator[int]) -> Mapping[str, float]:
    """The service, from its start to the commit of all."""
    run = f"run-{next(numbers)}"
    with Sink() as pendo:
        settings = {
            "pendo.api_url": pendo.url,
            "pendo.integration_key": "key",
            "pendo.metadata_requests_per_minute": 60_000,
        }
        with service(kafka, TOPIC, run, pendo.url, settings) as running:
            meter = Meter([running.process_id])
            await_committed(kafka, TOPIC, run)
            cpu, took = meter.cpu_seconds, meter.seconds
            requests = running.value("flagpost_pendo_requests_total", endpoint="metadata", status="200")
    return figures(records, requests, cpu, took)


def figures(records: int, requests: float, cpu_seconds: float, seconds: float) -> Mapping[str, float]:
    return {
        "changes_per_request": records / requests,
        "cpu_us_per_change": 1e6 * cpu_seconds / records,
        "changes_per_second": records / seconds,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--visitors", type=int, default=50_000)
    parser.add_argument("--bare", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        servers, group, url, records = given.bare
        print(json.dumps(uvloop.run(bare(servers, group, url, int(records)))))
        return
    visitors, rounds = (5_000, 1) if given.quick else (given.visitors, given.rounds)
    records, numbers = visitors * PASSES, count()
    with real_kafka(TOPIC) as kafka:
        fill(kafka, TOPIC, changes(visitors))
        sides = [
            Side("bare loop", partial(bare_side, kafka, records, numbers)),
            Side("flagpost", partial(flagpost, kafka, records, numbers)),
        ]
        title = f"metadata: {records:,} changes of {visitors:,} visitors"
        report([compare(title, sides, rounds)], given.json)


if __name__ == "__main__":
    main()

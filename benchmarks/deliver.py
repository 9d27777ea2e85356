"""Delivering decisions: Flagpost from Kafka to settlement, against a bare aiohttp POST loop, without Java or Go.

    .venv/bin/python benchmarks/deliver.py --latency-ms 5 --connections 64 --events 20000

Both are processes of their own that send the same bodies to the same sink over the same number of connections;
what counts is events per second of CPU that the process uses from its first event to its last answer: Flagpost's
first record is taken in long before it is settled, and so the clock starts with it. The broker is librdkafka's own;
delivering.py has a real one, and peers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import structlog
import uvloop
from confluent_kafka import Producer

from delivery.bare import post_all
from delivery.receiving import IN_PYTHON, receiver
from flagpost_consumer.core.pendo.endpoint import EndpointName
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.service.service import Service
from flagpost_consumer.settings import Needs, load_settings
from flagpost_schemas import DecisionEvent, encode_single_object
from side_by_side import Comparison, Side, arguments, compare, in_a_process, report

HERE = Path(__file__)
TOPIC = "flagpost.events"
LEDGER = "flagpost.ledger"
PARTITIONS = 4
QUICK_EVENTS = 1_000
LOOK_SECONDS = 0.002
"""Between two looks whether the first record has come."""


def decision(number: int, visitor: int | None = None) -> DecisionEvent:
    """A decision of this moment; of a visitor of its own, unless one is named."""
    return DecisionEvent(
        event_id=f"0192f5a0-0000-7000-8000-{number:012d}",
        occurred_at=time.time_ns() // 1_000_000,
        visitor_id=f"visitor-{number if visitor is None else visitor:028d}",
        flag_key="checkout_redesign",
        enabled=True,
        variation_key="treatment",
        rule_key="checkout_experiment",
        decision_event_dispatched=True,
        experiment_id="9300001480444",
        variation_id="9300001480445",
    )


def bodies(events: int) -> Iterator[dict[str, Any]]:
    """What Flagpost makes of the decisions."""
    for number in range(events):
        event = decision(number)
        yield {
            "type": "track",
            "event": "Experiment Viewed",
            "visitorId": event.visitor_id,
            "timestamp": event.occurred_at,
            "properties": {
                "flag_key": event.flag_key,
                "variation_key": event.variation_key,
                "rule_key": event.rule_key,
                "enabled": event.enabled,
            },
            "context": {},
        }


def figures(events: int, cpu_seconds: float, wall_seconds: float) -> dict[str, float]:
    return {"events_per_cpu_second": events / cpu_seconds, "events_per_second": events / wall_seconds}


# The sides, each in a process of its own


async def bare(url: str, events: int, connections: int) -> dict[str, float]:
    cpu, wall = time.process_time(), time.monotonic()
    await post_all(url, bodies(events), connections)
    return figures(events, time.process_time() - cpu, time.monotonic() - wall)


async def flagpost(
    url: str, bootstrap_servers: str, group: str, events: int, connections: int
) -> dict[str, float]:
    """The service itself, in this process; the broker is a process of its own."""
    settings = load_settings(
        None,
        {
            "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
            "FLAGPOST_KAFKA__GROUP_ID": group,
            "FLAGPOST_KAFKA__PROPERTIES": '{"fetch.wait.max.ms": 20}',
            "FLAGPOST_PENDO__TRACK_URL": url,
            "FLAGPOST_PENDO__TRACK_SECRET": "secret",
            "FLAGPOST_PENDO__MAX_CONNECTIONS": str(connections),
            "FLAGPOST_DECISIONS__VISITOR_METADATA": "false",
            "FLAGPOST_ADMIN__HOST": "127.0.0.1",
            "FLAGPOST_ADMIN__PORT": "0",
            "FLAGPOST_LOG__LEVEL": "error",
        },
        Needs.KAFKA | Needs.PENDO,
    )
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settled = 0
    first: tuple[float, float] = (0.0, 0.0)
    measured: dict[str, float] = {}

    async def note_first() -> None:
        nonlocal first
        while not service.engine.accounts.records:
            first = time.process_time(), time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)

    def on_settled(_: object) -> None:
        nonlocal settled
        settled += 1
        if settled == events:
            measured.update(figures(events, time.process_time() - first[0], time.monotonic() - first[1]))
            service.stop()

    service = Service(settings, on_settled=on_settled)
    async with asyncio.TaskGroup() as together:
        together.create_task(note_first())
        await service.run()
    answered = service.metrics.observed.requests[EndpointName.TRACK, "200"]
    if answered != events:
        sys.exit(f"{answered} requests were answered 200, not {events}")
    return measured


def fill(bootstrap_servers: str, events: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2_random"})
    for number in range(events):
        event = decision(number)
        producer.produce(TOPIC, encode_single_object(event), event.visitor_id.encode())
        producer.poll(0)
    producer.flush()


# The comparison


def measure(given: argparse.Namespace, events: int) -> Comparison:
    common = [f"--events={events}", f"--connections={given.connections}"]
    with (
        receiver(IN_PYTHON, given.latency_ms) as sink,
        EmbeddedKafka({TOPIC: PARTITIONS, LEDGER: PARTITIONS}) as kafka,
    ):
        fill(kafka.bootstrap_servers, events)
        common.append(f"--url={sink.url}")
        sides = [
            Side("bare loop", in_a_process(HERE, "--side=bare", *common)),
            Side("Flagpost", in_new_groups("--side=flagpost", f"--kafka={kafka.bootstrap_servers}", *common)),
        ]
        title = f"delivering {events} decisions, {given.connections} connections, {given.latency_ms:g} ms"
        return compare(title, sides, given.rounds)


def in_new_groups(*options: str) -> Callable[[], Mapping[str, float]]:
    """A side that reads the topic from its beginning each time."""
    numbers = count()

    def run() -> Mapping[str, float]:
        return in_a_process(HERE, *options, f"--group=bench-{next(numbers)}")()

    return run


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--side", choices=("bare", "flagpost"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--kafka", help=argparse.SUPPRESS)
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    given = parser.parse_args()
    if given.side == "bare":
        print(json.dumps(uvloop.run(bare(given.url, given.events, given.connections))))
    elif given.side == "flagpost":
        work = flagpost(given.url, given.kafka, given.group, given.events, given.connections)
        print(json.dumps(uvloop.run(work)))
    else:
        given.rounds = 1 if given.quick else given.rounds
        report([measure(given, QUICK_EVENTS if given.quick else given.events)], given.json)


if __name__ == "__main__":
    main()

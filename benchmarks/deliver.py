"""Delivering: Flagpost from Kafka to settlement, against a bare aiohttp POST loop, side by side in one run.

Both are processes of their own that send the same bodies to the same sink over the same number of connections;
what counts is events per second of CPU that the process uses between its first and its last answer. The rounds
alternate, so that a noisy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import orjson
import structlog
import uvloop
from confluent_kafka import Producer

from flagpost_consumer.app import Service
from flagpost_consumer.core.records import EndpointName
from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_consumer.settings import Needs, load_settings
from flagpost_schemas import DecisionEvent, encode_single_object

HERE = Path(__file__)
TOPIC = "flagpost.events"
LEDGER = "flagpost.ledger"
PARTITIONS = 4


def decision(number: int) -> DecisionEvent:
    return DecisionEvent(
        event_id=f"0192f5a0-0000-7000-8000-{number:012d}",
        occurred_at=time.time_ns() // 1_000_000,
        visitor_id=f"visitor-{number:028d}",
        flag_key="checkout_redesign",
        enabled=True,
        variation_key="treatment",
        rule_key="checkout_experiment",
        decision_event_dispatched=True,
        experiment_id="9300001480444",
        variation_id="9300001480445",
    )


@contextmanager
def sink(latency_ms: float, *options: str) -> Iterator[str]:
    """Run a sink; gives its URL."""
    command = [sys.executable, str(HERE.with_name("sink.py")), "--latency-ms", str(latency_ms), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - narrows the type
        where = "https://localhost" if "--certificate" in options else "http://127.0.0.1"
        yield f"{where}:{process.stdout.readline().strip()}/data/track"
        assert process.stdin is not None  # noqa: S101
        process.stdin.close()


def report(name: str, events: int, cpu_seconds: float, wall_seconds: float) -> None:
    print(
        json.dumps(
            {"name": name, "per_cpu_second": events / cpu_seconds, "per_second": events / wall_seconds}
        )
    )


# The bare loop


async def bare(url: str, events: int, connections: int) -> None:
    """What the book says: a session, a limit of connections, a worker for each of them."""
    numbers = iter(range(events))

    async def worker(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            event = decision(number)
            body = {
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
            async with session.post(url, json=body) as response:
                await response.read()

    connector = aiohttp.TCPConnector(limit=connections)
    headers = {"x-pendo-integration-key": "secret"}
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, json_serialize=lambda value: orjson.dumps(value).decode()
    ) as session:
        cpu, wall = time.process_time(), time.monotonic()
        await asyncio.gather(*(worker(session) for _ in range(connections)))
        report("bare", events, time.process_time() - cpu, time.monotonic() - wall)


# Flagpost


async def flagpost(url: str, bootstrap_servers: str, group: str, events: int, connections: int) -> None:
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

    def on_settled(_: object) -> None:
        nonlocal settled, first
        settled += 1
        if settled == 1:
            first = time.process_time(), time.monotonic()
        if settled == events:
            report("flagpost", events, time.process_time() - first[0], time.monotonic() - first[1])
            service.stop()

    service = Service(settings, on_settled=on_settled)
    await service.run()
    answered = service.metrics.observed.requests[EndpointName.TRACK, "200"]
    if answered != events:
        sys.exit(f"{answered} requests were answered 200, not {events}")


def fill(bootstrap_servers: str, events: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2_random"})
    for number in range(events):
        event = decision(number)
        producer.produce(TOPIC, encode_single_object(event), event.visitor_id.encode())
        producer.poll(0)
    producer.flush()


# The comparison


def measure(arguments: list[str], script: Path = HERE) -> dict[str, float]:
    """Run one side of a benchmark in a process of its own; returns the figures that it printed last."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def compare(events: int, connections: int, latency_ms: float, rounds: int) -> None:
    figures: dict[str, list[float]] = {"bare": [], "flagpost": []}
    common = ["--events", str(events), "--connections", str(connections)]
    with sink(latency_ms) as url, EmbeddedKafka({TOPIC: PARTITIONS, LEDGER: PARTITIONS}) as kafka:
        fill(kafka.bootstrap_servers, events)
        for number in range(rounds):
            figures["bare"].append(measure(["--side", "bare", "--url", url, *common])["per_cpu_second"])
            side = ["--side", "flagpost", "--url", url, "--kafka", kafka.bootstrap_servers]
            figures["flagpost"].append(
                measure([*side, "--group", f"bench-{number}", *common])["per_cpu_second"]
            )
            print(
                f"round {number + 1}: "
                + ", ".join(f"{name} {values[-1]:,.0f}" for name, values in figures.items())
            )
    medians = {name: statistics.median(values) for name, values in figures.items()}
    print(f"delivering, {events} events, {connections} connections, {latency_ms:g} ms: events per CPU second")
    for name, value in medians.items():
        print(f"  {name:9} {value:10,.0f}")
    print(f"  ratio     {medians['flagpost'] / medians['bare']:10.2f}   (the aim is 1.00)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=("bare", "flagpost"))
    parser.add_argument("--url")
    parser.add_argument("--kafka")
    parser.add_argument("--group")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.side == "bare":
        uvloop.run(bare(given.url, given.events, given.connections))
    elif given.side == "flagpost":
        uvloop.run(flagpost(given.url, given.kafka, given.group, given.events, given.connections))
    else:
        compare(given.events, given.connections, given.latency_ms, given.rounds)


if __name__ == "__main__":
    main()

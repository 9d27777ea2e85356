"""How old an event is when Pendo gets it, at 10, 50 and 80 of 100 of the highest rate.

    .venv/bin/python benchmarks/latency.py [--rounds 3] [--seconds 8] [--connections 64] [--json FILE] [--quick]

The highest rate is what `flagpost consume` did in this run with 30,000 events that came as fast as they could be
produced, from the first of them to the commit of all. Then events are produced to a real Apache Kafka at even times,
whatever becomes of them, by 5,000 visitors in turns without pace; a sink that answers after 5 ms notes how long ago
each was produced. The first three seconds are not measured. The reference is a consumer with aiohttp's session
(`bare_consumer`) at the same rate: no order, no ledger. At the higher rates all of this needs more than two cores:
where there are no more, the tail tells of the machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from real_kafka.broker import KafkaBroker
from recording_sink import UNMEASURED
from side_by_side import Comparison, Side, arguments, compare, report
from stage import (
    LOOK_SECONDS,
    PARTITIONS,
    Sink,
    await_assigned,
    await_committed,
    fill,
    produce_at,
    real_kafka,
    service,
    track,
)

LATENCY_MS = 5.0
WARM_UP_SECONDS = 3.0
VISITORS = 5_000
BACKLOG = 30_000
SHARES = (10, 50, 80)

System = Callable[[KafkaBroker, str, str, int], AbstractContextManager[object]]
"""Runs what carries the events of a topic to an address, over so many connections, while the block lasts."""


@contextmanager
def flagpost(kafka: KafkaBroker, run: str, url: str, connections: int) -> Iterator[None]:
    settings = {"pendo.max_connections": connections, "delivery.visitor_interval_seconds": 0}
    with service(kafka, run, run, url, settings) as running:
        await_assigned([running], PARTITIONS)
        yield


@contextmanager
def bare(kafka: KafkaBroker, run: str, url: str, connections: int) -> Iterator[None]:
    script = str(Path(__file__).with_name("bare_consumer.py"))
    command = [sys.executable, script, kafka.bootstrap_servers, run, run, url, str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        await_member(kafka, run)
        yield
        process.communicate()


def await_member(kafka: KafkaBroker, group: str) -> None:
    """Wait until a group has a member that was assigned something."""
    admin = kafka.admin()
    while True:
        described = admin.describe_consumer_groups([group])[group].result(20)
        if any(member.assignment.topic_partitions for member in described.members):
            return
        time.sleep(LOOK_SECONDS)


def visitors(rate: float, seconds: float) -> Iterator[str]:
    unmeasured = int(WARM_UP_SECONDS * rate)
    for number in range(int((seconds + WARM_UP_SECONDS) * rate)):
        yield f"{UNMEASURED if number < unmeasured else 'visitor'}-{number % VISITORS:028d}"


def ages(
    system: System, kafka: KafkaBroker, rate: float, seconds: float, connections: int, numbers: Iterator[int]
) -> Mapping[str, float]:
    """The ages of the events at a rate."""
    run = f"run-{next(numbers)}"
    kafka.create_topics(run, partitions=PARTITIONS)
    with Sink(LATENCY_MS) as pendo, system(kafka, run, pendo.url, connections):
        produce_at(kafka, run, rate, visitors(rate, seconds))
        await_committed(kafka, run, run)
    return pendo.ages["visitor"]


def highest_rate(kafka: KafkaBroker, connections: int) -> float:
    """Events a second that the service settles when they come as fast as they can be produced."""
    run = "backlog"
    kafka.create_topics(run, partitions=PARTITIONS)
    with Sink(LATENCY_MS) as pendo, flagpost(kafka, run, pendo.url, connections):
        began = time.monotonic()
        fill(kafka, run, (track(number, f"visitor-{number % VISITORS:028d}") for number in range(BACKLOG)))
        await_committed(kafka, run, run)
        return BACKLOG / (time.monotonic() - began)


def compared(seconds: float, connections: int, rounds: int) -> Iterator[Comparison]:
    numbers = count()
    with real_kafka() as kafka:
        highest = highest_rate(kafka, connections)
        for share in SHARES:
            rate = highest * share / 100
            sides = [
                Side(name, partial(ages, system, kafka, rate, seconds, connections, numbers))
                for name, system in (("bare consumer", bare), ("flagpost", flagpost))
            ]
            title = f"latency: {rate:,.0f} events a second, {share} of 100 of the highest rate"
            yield compare(title, sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    rounds, seconds = (1, 1.0) if given.quick else (given.rounds, given.seconds)
    report(compared(seconds, given.connections, rounds), given.json)


if __name__ == "__main__":
    main()

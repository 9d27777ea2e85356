"""What the publisher adds to decide(): the real SDK beside a listener that only counts.

    .venv/bin/python benchmarks/publisher.py [--rounds 10] [--decisions 3000] [--json FILE]

With one thread and with sixteen; with Kafka up, down (a port where nothing listens), and down with a full queue. Each
decision is of another visitor, so none is a duplicate (but in that case), and the publishers remember fewer than a
round has, so that each new one displaces an old one, as in a service that has run for a while. Each case has a
process of its own, because a publisher's thread is part of what it costs. The cases take turns within every round, so
that the machine's noise falls on all of them alike: what is told is the median over the rounds of the difference
between a percentile of a case and that of the counting listener in the same round, and the least and the greatest.
Kafka is an embedded broker on this machine, which competes for its cores.

`produce()` is a listener that only hands ready bytes to confluent-kafka: no publisher in Python comes below it.
With sixteen threads that never rest a thread waits for the others' turns with the interpreter, 5 ms each: from about
the 99th percentile on, that is what is measured, in every case.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from timeit import repeat
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from confluent_kafka import Producer
from optimizely.helpers.enums import NotificationTypes
from optimizely.optimizely import Optimizely

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_publisher import Publisher
from flagpost_publisher.producer import LINGER_MS
from flagpost_publisher.stats import PublisherStats
from flagpost_schemas import DecisionEvent, Decoder, Source, encode_single_object
from optimizely_fixtures import optimizely_client, user_of
from side_by_side import arguments

COUNTING, PRODUCING, WITHOUT = "counting", "produce(), down", "no listener"
UP, DOWN, FULL, DUPLICATES = "kafka up", "kafka down", "queue full", "duplicates"
NOBODY = "127.0.0.1:1"
READY = bytes(193)
"""As long as a decision's record."""
THREADS = (1, 16)
REMEMBERED = 1_000
ROOMY, SCANT = 1_000_000, 100
"""Messages that a queue takes."""
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

Figures = Mapping[str, float]
"""Microseconds by percentile."""


@dataclass(frozen=True, slots=True)
class Case:
    """A client with a listener; `settle` is called after each of its turns, not to slow the next case."""

    client: Optimizely
    settle: Callable[[], object] = int
    stats: Callable[[], PublisherStats | None] = lambda: None
    distinct: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of every round of a case, and of the counting listener in the same rounds."""

    rounds: list[Figures]
    beside: list[Figures]

    def added(self, percentile: str) -> list[float]:
        """What the case added to the counting listener's, by round."""
        return [
            mine[percentile] - theirs[percentile]
            for mine, theirs in zip(self.rounds, self.beside, strict=True)
        ]


def decide(case: Case, visitors: range) -> list[int]:
    """Nanoseconds of a decide() for each of them."""
    users = [
        user_of(case.client, f"visitor-{number if case.distinct else 0:032d}", {"plan": "gold"})
        for number in visitors
    ]
    took = []
    clock = time.perf_counter_ns
    for user in users:
        start = clock()
        user.decide("checkout")
        took.append(clock() - start)
    return took


def decide_in_threads(case: Case, visitors: range, threads: int) -> list[int]:
    """The same, shared between threads that start together; their own making of users is not measured."""
    if threads == 1:
        return decide(case, visitors)
    took: list[int] = []
    start = threading.Barrier(threads)

    def share(number: int) -> None:
        start.wait()
        took.extend(decide(case, visitors[number::threads]))

    running = [threading.Thread(target=share, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return took


def figures(took: list[int]) -> Figures:
    cuts = quantiles(took, n=1000)
    return {name: cuts[round(share * 1000) - 1] / 1e3 for name, share in PERCENTILES.items()}


def case_of(name: str, bootstrap_servers: str) -> Case:
    client = optimizely_client()
    listeners = {COUNTING: counting, PRODUCING: producing}
    if name in listeners:
        client.notification_center.add_notification_listener(NotificationTypes.DECISION, listeners[name]())
    if name in (WITHOUT, *listeners):
        return Case(client)
    publisher = Publisher(
        bootstrap_servers=bootstrap_servers if name == UP else NOBODY,
        service="benchmark",
        dedupe_max_entries=REMEMBERED,
        queue_max_messages=SCANT if name == FULL else ROOMY,
    )
    publisher.attach(client)
    settle: Callable[[], object] = publisher.flush if name == UP else int
    return Case(client, settle, publisher.stats, distinct=name != DUPLICATES)


def take_turns(asking: Connection, name: str, bootstrap_servers: str) -> None:
    """A case's process: it decides for the visitors that it is asked for, and rests while others do."""
    case = case_of(name, bootstrap_servers)
    while (asked := asking.recv()) is not None:
        asking.send(decide_in_threads(case, *asked))
        case.settle()
    asking.send(case.stats())
    asking.recv()
    os._exit(0)  # what Kafka never took is not waited for


@contextmanager
def cases() -> Iterator[dict[str, Connection]]:
    """The processes of all cases: threads of one publisher would ask for the interpreter in another's turn."""
    spawning = get_context("spawn")
    with EmbeddedKafka({"flagpost.events": 24}) as kafka:
        found, started = {}, []
        for name in (WITHOUT, COUNTING, PRODUCING, UP, DOWN, FULL, DUPLICATES):
            found[name], theirs = spawning.Pipe()
            process = spawning.Process(target=take_turns, args=(theirs, name, kafka.bootstrap_servers))
            process.start()
            started.append(process)
        yield found
        for asking in found.values():
            asking.send(None)
        for process in started:
            process.join()


def counting() -> Callable[..., None]:
    numbers = count()

    def listener(_kind: str, _user_id: str, _attributes: object, _decision_info: object) -> None:
        next(numbers)

    return listener


def producing() -> Callable[..., None]:
    properties = {"bootstrap.servers": NOBODY, "log_level": 0, "linger.ms": LINGER_MS}
    produce = Producer({**properties, "queue.buffering.max.messages": ROOMY}).produce

    def listener(_kind: str, user_id: str, _attributes: object, _decision_info: object) -> None:
        produce("flagpost.events", READY, user_id)

    return listener


def measure(
    found: Mapping[str, Connection], rounds: int, decisions: int, threads: int
) -> dict[str, Measured]:
    measured: dict[str, list[Figures]] = {name: [] for name in found}
    for number in range(rounds + 1):  # round 0 warms up
        first = (threads * (rounds + 1) + number) * decisions
        for name, asking in found.items():
            asking.send((range(first, first + decisions), threads))
            took = asking.recv()
            if number:
                measured[name].append(figures(took))
    return {name: Measured(each, measured[COUNTING]) for name, each in measured.items()}


def table(threads: int, measured: Mapping[str, Measured]) -> str:
    reference = "  ".join(
        f"{name} {median(each[name] for each in measured[COUNTING].rounds):,.1f}" for name in PERCENTILES
    )
    lines = [
        f"{threads} thread(s): microseconds added beside a listener that only counts (its own decide(): {reference})",
        " " * 18 + "".join(f"{name:>28}" for name in PERCENTILES),
    ]
    for name, each in measured.items():
        if name != COUNTING:
            lines.append(f"  {name:<16}" + "".join(_cell(each.added(column)) for column in PERCENTILES))
    return "\n".join(lines)


def _cell(added: list[float]) -> str:
    spread = f"({min(added):,.0f} to {max(added):,.0f})"
    return f"{median(added):10,.1f} {spread:<17}"


def stats_of(asking: Connection) -> PublisherStats | None:
    """What a case's publisher has counted; its process ends after that."""
    asking.send(None)
    told: PublisherStats | None = asking.recv()
    return told


def as_json(threads: int, measured: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        "threads": threads,
        "reference": COUNTING,
        "cases": {
            name: {
                "decide_us": list(each.rounds),
                "added_us": {column: median(each.added(column)) for column in PERCENTILES},
                "added_us_rounds": {column: each.added(column) for column in PERCENTILES},
            }
            for name, each in measured.items()
        },
    }


def measure_codec() -> dict[str, float]:
    """Microseconds of encoding and of decoding one decision, and its size."""
    event = DecisionEvent(
        event_id="0199c2a4-7c00-7000-8000-000000000001",
        occurred_at=1_800_000_000_000,
        source=Source(service="benchmark", sdk="optimizely-sdk", sdk_version="5.7.0"),
        visitor_id="visitor-00000000000000000000000000000001",
        flag_key="checkout",
        enabled=True,
        variation_key="treatment",
        rule_key="checkout_test",
        decision_event_dispatched=True,
        experiment_id="100",
        variation_id="102",
        attributes={"plan": "gold"},
    )
    value, decoder = encode_single_object(event), Decoder()
    return {
        "encode_us": best(lambda: encode_single_object(event)),
        "decode_us": best(lambda: decoder.decode(value)),
        "bytes": len(value),
    }


def best(call: Callable[[], object], number: int = 10_000) -> float:
    """Microseconds of one call in the quickest of several repetitions."""
    return min(repeat(call, number=number, repeat=7)) / number * 1e6


def main() -> None:
    parser = arguments(__doc__, rounds=10)
    parser.add_argument("--decisions", type=int, default=3000, help="a round, of each case")
    given = parser.parse_args()

    known: dict[str, Any] = {"decide": []}
    with cases() as found:
        for threads in THREADS:
            measured = measure(found, given.rounds, given.decisions, threads)
            print(table(threads, measured), flush=True)
            known["decide"].append(as_json(threads, measured))
        known["counted"] = {
            name: asdict(told) for name in found if (told := stats_of(found[name])) is not None
        }
    known["codec"] = measure_codec()
    print("one decision: " + ", ".join(f"{name} {value:.1f}" for name, value in known["codec"].items()))
    print(f"counted: {known['counted']}")
    if given.json is not None:
        given.json.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()

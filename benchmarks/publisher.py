"""What the publisher adds to decide(): the real SDK side by side without it, with Kafka up and with Kafka down.

    .venv/bin/python benchmarks/publisher.py [--rounds 20] [--decisions 1000] [--json]

Each decision is of another visitor, so none is a duplicate (but in that case), and the publishers remember as many
as a round has, so that from the second round on each new one displaces an old one, as in a service that has run
for a while. The cases take turns within every round, on one thread, so that the machine's noise falls on all of
them alike. What is compared is each percentile of a case with the same percentile without the publisher. Kafka up
is an embedded broker on this machine, which competes for its cores; Kafka down is a port where nothing listens.

Two cases are the floor below which no publisher written in Python comes here: a listener that only counts shows how
far two equal percentiles are apart by the machine's noise, and one that only calls confluent-kafka's produce(), with
bytes that are ready, what a hand-over to librdkafka costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from itertools import count
from pathlib import Path
from statistics import fmean, quantiles
from timeit import repeat
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from confluent_kafka import Producer
from optimizely.helpers.enums import NotificationTypes
from optimizely.optimizely import Optimizely

from flagpost_consumer.demo.embedded_kafka import EmbeddedKafka
from flagpost_publisher import Publisher
from flagpost_publisher.producer import LINGER_MS
from flagpost_schemas import DecisionEvent, Decoder, Source, encode_single_object
from optimizely_fixtures import optimizely_client, user_of

WITHOUT, UP, DOWN, DUPLICATES = "without", "kafka up", "kafka down", "duplicates"
COUNTING, PRODUCING = "counting only", "produce() only, down"
NOBODY = "127.0.0.1:1"
READY = bytes(193)
"""As long as a decision's record."""

COLUMNS = ("p50", "p90", "p99", "p99.9", "mean")

Figures = dict[str, float]


def decide(client: Optimizely, decisions: int, first: int, step: int) -> list[int]:
    """Nanoseconds of each of so many decide() calls."""
    users = [
        user_of(client, f"visitor-{first + number * step:032d}", {"plan": "gold"})
        for number in range(decisions)
    ]
    took = []
    clock = time.perf_counter_ns
    for user in users:
        start = clock()
        user.decide("checkout")
        took.append(clock() - start)
    return took


def listening_clients(publishers: Mapping[str, Publisher]) -> dict[str, Optimizely]:
    """A client for each case."""
    clients = {name: optimizely_client() for name in (WITHOUT, COUNTING, PRODUCING, *publishers)}
    for name, publisher in publishers.items():
        publisher.attach(clients[name])
    for name, listener in ((COUNTING, counting()), (PRODUCING, producing())):
        clients[name].notification_center.add_notification_listener(NotificationTypes.DECISION, listener)
    return clients


def counting() -> Callable[..., None]:
    numbers = count()

    def listener(_kind: str, _user_id: str, _attributes: object, _decision_info: object) -> None:
        next(numbers)

    return listener


def producing() -> Callable[..., None]:
    produce = Producer({"bootstrap.servers": NOBODY, "log_level": 0, "linger.ms": LINGER_MS}).produce

    def listener(_kind: str, user_id: str, _attributes: object, _decision_info: object) -> None:
        produce("flagpost.events", READY, user_id)

    return listener


def measure_decide(rounds: int, decisions: int) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Nanoseconds of every call, and what the publishers counted, by case."""
    with ExitStack() as stack:
        kafka = stack.enter_context(EmbeddedKafka({"flagpost.events": 24}))
        publishers = {}
        for name, address in ((UP, kafka.bootstrap_servers), (DOWN, NOBODY), (DUPLICATES, NOBODY)):
            publishers[name] = Publisher(
                bootstrap_servers=address, service="benchmark", dedupe_max_entries=decisions
            )
            stack.callback(publishers[name].close, 0)
        clients = listening_clients(publishers)
        took: dict[str, list[int]] = {name: [] for name in clients}
        for number in range(rounds + 1):  # round 0 warms up
            for name, client in clients.items():
                times = decide(client, decisions, number * decisions, 0 if name == DUPLICATES else 1)
                took[name].extend(times if number else [])
                publishers[UP].flush()  # what is still being sent is not to slow the next case
        return took, {name: asdict(publisher.stats()) for name, publisher in publishers.items()}


def figures(took: list[int]) -> Figures:
    """Microseconds."""
    cuts = quantiles(took, n=1000)
    found = (cuts[499], cuts[899], cuts[989], cuts[998], fmean(took))
    return {name: value / 1e3 for name, value in zip(COLUMNS, found, strict=True)}


def measure_codec() -> Figures:
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
        "encode": best(lambda: encode_single_object(event)),
        "decode": best(lambda: decoder.decode(value)),
        "bytes": len(value),
    }


def best(call: Callable[[], object], number: int = 10_000) -> float:
    """Microseconds of one call in the quickest of several repetitions."""
    return min(repeat(call, number=number, repeat=7)) / number * 1e6


def table(rows: dict[str, Figures]) -> str:
    heading = " " * 24 + "".join(f"{name:>10}" for name in COLUMNS)
    return "\n".join(
        [
            heading,
            *(
                f"{name:<24}" + "".join(f"{row[each]:10.1f}" for each in COLUMNS)
                for name, row in rows.items()
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--decisions", type=int, default=1000, help="a round, of each case")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    took, stats = measure_decide(arguments.rounds, arguments.decisions)
    found = {name: figures(times) for name, times in took.items()}
    added = {
        name: {each: row[each] - found[WITHOUT][each] for each in COLUMNS}
        for name, row in found.items()
        if name != WITHOUT
    }
    codec = measure_codec()
    if arguments.json:
        print(json.dumps({"decide_us": found, "added_us": added, "codec_us": codec, "stats": stats}))
        return
    print("decide(), microseconds")
    print(table(found))
    print("added by the publisher, microseconds")
    print(table(added))
    print(
        f"one decision: encode {codec['encode']:.1f} us, decode {codec['decode']:.1f} us, {codec['bytes']} bytes"
    )
    print(f"counted: {stats}")


if __name__ == "__main__":
    main()

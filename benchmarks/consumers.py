"""One consumer, then two, then four (eight where there are the cores): how the cost of an event grows.

    .venv/bin/python benchmarks/consumers.py [--rounds 3] [--events 60000] [--json FILE] [--quick]

The members of one group share the partitions of a real Apache Kafka, and each sends to a sink of its own that
answers after 5 ms. They have started and hold their partitions when the events come, as fast as they can be
produced. CPU time is of all members together. Where there are fewer cores than members, what they do to one another
(caches, switches, smaller batches) is in it, and events a second tell of the machine alone.

The reference is one consumer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from real_kafka.broker import KafkaBroker
from side_by_side import Side, arguments, compare, report
from stage import PARTITIONS, Meter, Sink, await_assigned, await_committed, fill, real_kafka, service, track

LATENCY_MS = 5.0
ALWAYS, WITH_CORES = (1, 2, 4), 8


def measure(kafka: KafkaBroker, members: int, events: int, numbers: Iterator[int]) -> Mapping[str, float]:
    """A group with so many members, from the first event to the commit of all."""
    run = f"run-{next(numbers)}"
    kafka.create_topics(run, partitions=PARTITIONS)
    with ExitStack() as stack:
        group = []
        for _ in range(members):
            pendo = stack.enter_context(Sink(LATENCY_MS))
            group.append(stack.enter_context(service(kafka, run, run, pendo.url)))
        await_assigned(group, PARTITIONS)
        meter = Meter([member.process_id for member in group])
        fill(kafka, run, (track(number, f"visitor-{number:028d}") for number in range(events)))
        await_committed(kafka, run, run)
        return {
            "cpu_us_per_event": 1e6 * meter.cpu_seconds / events,
            "events_per_second": events / meter.seconds,
        }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    given = parser.parse_args()
    rounds, events = (1, 4_000) if given.quick else (given.rounds, given.events)
    cores = os.cpu_count() or 1
    numbers = count()
    with real_kafka() as kafka:
        sides = [
            Side(
                f"{members} consumer{'s' if members > 1 else ''}",
                partial(measure, kafka, members, events, numbers),
                None if members in ALWAYS or members <= cores else f"this machine has {cores} cores",
            )
            for members in (*ALWAYS, WITH_CORES)
        ]
        report([compare(f"consumers: {events:,} events, {cores} cores", sides, rounds)], given.json)


if __name__ == "__main__":
    main()

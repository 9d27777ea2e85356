"""A visitor that gets 30 of 100 events: how old the others' events are when Pendo gets them.

    .venv/bin/python benchmarks/hot_visitor.py [--rounds 3] [--rate 1000] [--seconds 15] [--json FILE] [--quick]

`flagpost consume` with its default settings (one request a visitor and second), a real Apache Kafka, and a sink that
answers after 5 ms and notes how long ago each event was produced. The hot visitor may be told only once a second, so
its events pile up; 5,000 others take turns with the rest, and none of them comes twice within a second.

The reference is the same load of the others, without the hot visitor. The first three seconds are not measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from real_kafka.broker import KafkaBroker
from recording_sink import UNMEASURED
from side_by_side import Side, arguments, compare, report
from stage import PARTITIONS, Sink, await_assigned, produce_at, real_kafka, service

LATENCY_MS = 5.0
WARM_UP_SECONDS = 3.0
HOT_OF_TEN = 3
OTHERS = 5_000


def visitors(rate: float, seconds: float, *, hot_of_ten: int) -> Iterator[str]:
    """Who does something, one after the other; the first of them are for warming up."""
    unmeasured = int(WARM_UP_SECONDS * rate)
    for number in range(int((seconds + WARM_UP_SECONDS) * rate)):
        if number % 10 < hot_of_ten:
            yield "hot-visitor"
        else:
            yield f"{UNMEASURED if number < unmeasured else 'other'}-{number % OTHERS:028d}"


def measure(
    kafka: KafkaBroker, rate: float, seconds: float, hot_of_ten: int, numbers: Iterator[int]
) -> Mapping[str, float]:
    """The ages of the others' events. The backlog of the hot visitor is left behind."""
    run = f"run-{next(numbers)}"
    kafka.create_topics(run, partitions=PARTITIONS)
    with Sink(LATENCY_MS) as pendo, service(kafka, run, run, pendo.url) as running:
        await_assigned([running], PARTITIONS)
        produce_at(kafka, run, rate, visitors(rate, seconds, hot_of_ten=hot_of_ten))
    return pendo.ages["other"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second, the hot visitor's too")
    parser.add_argument("--seconds", type=float, default=15.0)
    given = parser.parse_args()
    rounds, seconds = (1, 3.0) if given.quick else (given.rounds, given.seconds)
    others = given.rate * (10 - HOT_OF_TEN) / 10
    numbers = count()
    with real_kafka() as kafka:
        sides = [
            Side("without it", partial(measure, kafka, others, seconds, 0, numbers)),
            Side("with a hot visitor", partial(measure, kafka, given.rate, seconds, HOT_OF_TEN, numbers)),
        ]
        title = (
            f"hot visitor: the age of {others:,.0f} events a second of others, {LATENCY_MS:g} ms of latency"
        )
        report([compare(title, sides, rounds)], given.json)


if __name__ == "__main__":
    main()

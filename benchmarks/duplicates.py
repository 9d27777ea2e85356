"""Records that are duplicates, 95 of 100: how many are recognised, settled and committed in a second of CPU.

    .venv/bin/python benchmarks/duplicates.py [--rounds 3] [--records 300000] [--json FILE] [--quick]

A real Apache Kafka holds decisions of which each distinct one comes twenty times. `flagpost consume` reads all of
them, delivers each distinct one to a sink, and settles and commits the rest. Two more cases show what a duplicate
alone costs: so few distinct decisions that their delivery does not count, without and with the visitor metadata
(two deliveries a record, both settled).

The reference is a bare consumer of the same records: it decodes each with fastavro, looks it up in a
cachetools.TTLCache and commits once a second. It keeps no ledger and sends nothing. Both are processes of their
own; their imports are not measured.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cachetools import TTLCache

from bare_consumer import consumer, decoded, schema_of
from deliver import decision
from flagpost_schemas import DecisionEvent
from real_kafka.broker import KafkaBroker
from side_by_side import Comparison, Side, arguments, compare, in_a_process, report
from stage import PARTITIONS, Meter, Sink, await_committed, fill, real_kafka, service

TTL_SECONDS = 1800
FEWEST_DISTINCT = 1_000


@dataclass(frozen=True, slots=True)
class Case:
    """What the records are, and what the service is told."""

    name: str
    distinct: float
    """The share of records that are no duplicate."""
    settings: Mapping[str, object]


METADATA = {"decisions.visitor_metadata": True, "pendo.integration_key": "key"}
CASES = (
    Case("95 of 100 are duplicates", 0.05, {}),
    Case("all but 1,000 are duplicates", 0.0, {}),
    Case("all but 1,000 are duplicates, with visitor metadata", 0.0, METADATA),
)


def decisions(records: int, distinct: int) -> Iterator[DecisionEvent]:
    """Each distinct decision at first once, then all others shuffled."""
    chosen = random.Random(11)
    for number in range(records):
        visitor = number if number < distinct else chosen.randrange(distinct)
        yield decision(number, visitor)


def bare(bootstrap_servers: str, topic: str, group: str, records: int) -> None:
    """A consumer that recognises duplicates and does nothing else."""
    schema = schema_of("DecisionEvent")
    seen: TTLCache[tuple[str, str, str | None], None] = TTLCache(2_000_000, TTL_SECONDS)
    subscribed = consumer(bootstrap_servers, topic, group)
    began, cpu = time.monotonic(), time.process_time()
    read = 0
    while read < records:
        for message in subscribed.consume(500, 0.1):
            event = decoded(message, schema)
            key = (event["visitor_id"], event["flag_key"], event["variation_key"])
            if key not in seen:
                seen[key] = None
            read += 1
    print(json.dumps(figures(records, time.process_time() - cpu, time.monotonic() - began)))
    subscribed.close()


def bare_side(kafka: KafkaBroker, topic: str, records: int, numbers: Iterator[int]) -> Mapping[str, float]:
    given = [kafka.bootstrap_servers, topic, f"bare-{next(numbers)}", str(records)]
    return in_a_process(Path(__file__), "--bare", *given)()


def flagpost(
    kafka: KafkaBroker, topic: str, case: Case, records: int, numbers: Iterator[int]
) -> Mapping[str, float]:
    """The service, from when it has started to when all is committed."""
    run = f"{topic}-{next(numbers)}"
    with (
        Sink() as pendo,
        service(kafka, topic, run, pendo.url, {"pendo.api_url": pendo.url, **case.settings}) as running,
    ):
        meter = Meter([running.process_id])
        await_committed(kafka, topic, run)
        used, took = meter.cpu_seconds, meter.seconds
        settled = running.value("flagpost_records_consumed_total")
        if settled != records:
            raise SystemExit(f"{settled:.0f} records were consumed, not {records}")
    return figures(records, used, took)


def figures(records: int, cpu_seconds_used: float, seconds: float) -> Mapping[str, float]:
    return {
        "records_per_cpu_second": records / cpu_seconds_used,
        "cpu_us_per_record": 1e6 * cpu_seconds_used / records,
        "records_per_second": records / seconds,
    }


def compared(kafka: KafkaBroker, records: int, rounds: int) -> Iterator[Comparison]:
    numbers = count()
    for number, case in enumerate(CASES):
        topic = f"decisions-{number}"
        kafka.create_topics(topic, partitions=PARTITIONS)
        fill(kafka, topic, decisions(records, max(FEWEST_DISTINCT, int(records * case.distinct))))
        sides = [
            Side("bare consumer", partial(bare_side, kafka, topic, records, numbers)),
            Side("flagpost", partial(flagpost, kafka, topic, case, records, numbers)),
        ]
        yield compare(f"duplicates: {records:,} records, {case.name}", sides, rounds)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--bare", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        bootstrap_servers, topic, group, records = given.bare
        bare(bootstrap_servers, topic, group, int(records))
        return
    records, rounds = (20_000, 1) if given.quick else (given.records, given.rounds)
    with real_kafka() as kafka:
        report(compared(kafka, records, rounds), given.json)


if __name__ == "__main__":
    main()

"""Sends 100,000 broken and hostile records through the real consumer, and checks that each is accounted for.

    .venv/bin/python tests/chaos/fuzz_records.py --records 100000 --seed 1 [--real]

In: a seed. Out: a table of what was done to records and how they ended, and exit code 1 unless every record is
accounted for: planned = delivered + duplicate + dropped + dead-lettered; one dead letter for each delivery that is
dead-lettered and none besides, each with its record's own key, bytes and headers and a detail that a person
understands; one entry in the ledger for each delivery; and no request to Pendo that breaks its rules. Kafka is
librdkafka's mock cluster, or with `--real` Apache Kafka; a small schema registry and the Pendo stand-in run in this
process, beside the service.
"""

# ruff: noqa: T201 - a program that prints what it found
from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import structlog
import uvloop
from confluent_kafka import Producer

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # run as a program: the tests' shared modules are one folder up

from chaos.fuzz_books import Seen, TopicReader, as_read, judge
from chaos.fuzz_world import (
    DEAD_LETTERS,
    EVENTS,
    LEDGER,
    MAX_BYTES,
    SCHEMA_IDS,
    kafka,
    pendo,
    registry,
    settings_for,
)
from chaos.mutations import Mutant, Mutants
from chaos.raw_producer import RawProducer
from deadlines import stretched
from flagpost_consumer.core.outcomes import Outcome, Reason
from flagpost_consumer.service.service import Service

CHUNK_RECORDS = 1_000
CHUNK_BYTES = 1_500_000
"""The mock cluster keeps only the newest 5 MiB of a partition, so the unread records must be less than that."""
UNDER_WAY_RECORDS = 300
"""How many records may be unsettled when the next chunk is published: some wait for a retry."""
STUCK_SECONDS = 60.0
MAX_EXAMPLES = 20


class Fuzz:
    """One run."""

    def __init__(
        self, service: Service, seen: Seen, bootstrap_servers: str, mutants: Iterable[Mutant]
    ) -> None:
        self._service = service
        self._seen = seen
        self._bootstrap_servers = bootstrap_servers
        self._mutants = iter(mutants)
        self._readers = (
            TopicReader(bootstrap_servers, DEAD_LETTERS, seen.take_letter),
            TopicReader(bootstrap_servers, LEDGER, seen.take_ledger),
        )
        self._published = 0

    async def run(self, records: int) -> int:
        """Publish chunk by chunk while the service runs; returns the service's exit code."""
        asyncio.get_running_loop().set_exception_handler(self._note_exception)
        running = asyncio.create_task(self._service.run())
        while self._published < records and not running.done():
            await asyncio.to_thread(self._publish_chunk, min(CHUNK_RECORDS, records - self._published))
            await self._settled(running, all_but=UNDER_WAY_RECORDS)
            await asyncio.to_thread(self._read)
            print(f"\r{self._published:,} records", end="", file=sys.stderr)
        await self._settled(running, all_but=0)
        self._service.stop()
        code = await running
        await asyncio.to_thread(self._read)
        for reader in self._readers:
            reader.close()
        return code

    def _read(self) -> None:
        for reader in self._readers:
            reader.read()

    def _publish_chunk(self, count: int) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "message.max.bytes": MAX_BYTES,
            }
        )
        raw = RawProducer(self._bootstrap_servers)
        size = 0
        while count and size < CHUNK_BYTES:
            mutant = next(self._mutants)
            self._seen.publish(mutant)
            _produce(mutant, producer, raw)
            size += len(mutant.value or b"") + len(mutant.key or b"")
            count -= 1
            self._published += 1
        assert producer.flush(stretched(30)) == 0, "Kafka did not take the records"
        raw.close()

    async def _settled(self, running: asyncio.Task[int], all_but: int) -> None:
        """Wait until at most `all_but` records are unsettled; end the run if none is settled for STUCK_SECONDS."""
        before, deadline = -1, 0.0
        while (left := self._left()) > all_but and not running.done():
            if left != before:
                before, deadline = left, time.monotonic() + stretched(STUCK_SECONDS)
            if time.monotonic() > deadline:
                self._seen.wrong[f"stuck: {left} records are never settled"] += 1
                self._service.stop()
                return
            await asyncio.sleep(0.02)

    def _left(self) -> int:
        """How many records are not fully settled."""
        return max(self._published - len(self._seen.record), self._service.engine.pending_records)

    def _note_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._seen.wrong[f"an exception that nobody caught: {context.get('exception')!r}"] += 1


def _produce(mutant: Mutant, producer: Producer, raw: RawProducer) -> None:
    if as_read(mutant.headers) == mutant.headers:
        headers = cast("list[tuple[str, bytes | None]]", list(mutant.headers))
        producer.produce(EVENTS, mutant.value, mutant.key, headers=cast("Any", headers))
        producer.poll(0)
    else:
        names = [
            (name if isinstance(name, bytes) else name.encode(), data or b"") for name, data in mutant.headers
        ]
        raw.produce(EVENTS, mutant.key, mutant.value or b"", names)


def print_table(seen: Seen) -> None:
    """Print what was done to records, and how their deliveries ended."""
    rows: Counter[tuple[str, str, str, str]] = Counter()
    details: Counter[tuple[Reason, str]] = Counter()
    for place, endings in seen.ended.items():
        mutation = seen.mutation.get(seen.record[place], "?")
        for ended in endings:
            rows[mutation, ended.kind.value, ended.outcome.value, ended.reason.value] += 1
            if ended.outcome is Outcome.DEAD_LETTERED:
                details[ended.reason, ended.detail] += 1
    print(f"{'mutation':34} {'kind':17} {'outcome':14} {'reason':15} {'deliveries':>10}")
    for row, count in sorted(rows.items()):
        print(f"{row[0]:34} {row[1]:17} {row[2]:14} {row[3]:15} {count:10,}")
    print("\nDetails of dead letters, the most frequent of each reason:")
    for reason in dict.fromkeys(reason for reason, _ in sorted(details)):
        of_reason = Counter({text: count for (of, text), count in details.items() if of is reason})
        for text, count in of_reason.most_common(4):
            print(f"{count:8,} {reason.value}: {text}")
    totals = Counter(ended.outcome.value for endings in seen.ended.values() for ended in endings)
    summed = " + ".join(f"{totals[outcome.value]:,} {outcome.value}" for outcome in Outcome)
    print(f"\n{seen.published.total():,} records, {totals.total():,} deliveries = {summed}")
    print(
        f"{seen.letters.total():,} dead letters on the topic, {seen.ledger.total():,} settlements in the ledger"
    )


async def main(records: int, seed: int, bootstrap_servers: str) -> int:
    """Run the fuzz, judge it and print the result; returns the exit code."""
    seen, started = Seen(), time.monotonic()
    async with registry() as registry_url, pendo(seed) as stand_in:
        settings = settings_for(bootstrap_servers, registry_url, stand_in)
        service = Service(settings, on_settled=seen.settle, announce=False)
        mutants = Mutants(seed, time.time_ns() // 1_000_000, SCHEMA_IDS)
        code = await Fuzz(service, seen, bootstrap_servers, mutants).run(records)
        wrong = judge(seen, service, stand_in.received.violations, code)
        requests = stand_in.received.total
    print_table(seen)
    print(f"{requests:,} requests to Pendo; seed {seed}; {time.monotonic() - started:.0f} s")
    for line in wrong[:MAX_EXAMPLES]:
        print(f"WRONG: {line}")
    print(f"{len(wrong)} things are wrong" if wrong else "Every record is accounted for.")
    return 1 if wrong else 0


def parsed() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="Apache Kafka instead of the mock cluster.")
    return parser.parse_args()


if __name__ == "__main__":
    faulthandler.enable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    chosen = parsed()
    with kafka(real=chosen.real) as address:
        sys.exit(uvloop.run(main(chosen.records, chosen.seed, address)))

"""Memory and pauses: a million claims, and an import of a million visitors with five columns.

    .venv/bin/python benchmarks/memory.py [claims|restart|import] [--entries 1000000] [--rounds 3] [--json FILE]

`claims`: what removes duplicates, alone, in a process of its own: it is filled, goes on for as long again while the
oldest go, and is given up. Beside it `cachetools.TTLCache` and a dict of (offset, time), which forgets nothing.
`restart`: the whole service, which restores a million claims of a real ledger; beside it a bare consumer that decodes
the same records and keeps the keys in a TTLCache.
`import`: `flagpost import` of a million visitors, then the whole service, which sends them; beside it a bare consumer
that decodes them and posts the same batches.

A pause of the loop is told twice: by the clock, which other work on the machine makes longer, and as CPU time of the
loop's own thread between two of its turns. Memory is the peak resident set of the process. `restart` and `import`
need a real Apache Kafka (Java 17 and Maven).
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import aiohttp
import orjson
import structlog
import uvloop
from cachetools import TTLCache
from confluent_kafka import Consumer, TopicPartition

from flagpost_consumer.core.books.dedupe import Dedupe, DedupeCounts
from flagpost_consumer.core.engine import Engine
from flagpost_consumer.service.garbage import calm_collection
from flagpost_consumer.service.service import Service
from flagpost_consumer.settings import Needs, load_settings
from flagpost_schemas import Decoder, VisitorMetadata, decode_settlements
from real_kafka.parts import missing
from restore import fill
from running import FLAGPOST, environment
from side_by_side import Comparison, Side, arguments, compare, in_a_process, report
from stage import Sink, real_kafka

HERE = Path(__file__)
GROUP = "flagpost"
EVENTS, LEDGER, DEAD_LETTERS = f"{GROUP}.events", f"{GROUP}.ledger", f"{GROUP}.dead-letters"
QUICK_ENTRIES = 20_000
PARTITIONS = 24
TTL_SECONDS = 1800
BATCH = 1000
COLUMNS = ["visitor_id", "plan", "age:integer", "active:boolean", "city", "zip"]
SETTLEMENTS_A_RECORD = 40


def peak_mb() -> float:
    """The most that this process had in memory at once."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1e3


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Claims alone


Claim = Callable[[bytes, int, int], object]


def flagposts_claims(entries: int) -> tuple[Claim, Callable[[], int], Callable[[], None]]:
    counts = DedupeCounts()
    partitions = [Dedupe(TTL_SECONDS, 2 * entries, counts) for _ in range(PARTITIONS)]

    def claim(key: bytes, occurred_at: int, offset: int) -> object:
        return partitions[offset % PARTITIONS].claim(key, occurred_at, offset)

    def give_up() -> None:
        for partition in partitions:
            partition.forget()

    return claim, lambda: counts.entries, give_up


def ttl_caches_claims(entries: int) -> tuple[Claim, Callable[[], int], Callable[[], None]]:
    """Its clock is the events' time."""
    now_ms = 0
    cache: TTLCache[bytes, int] = TTLCache(2 * entries, 2 * TTL_SECONDS * 1000, timer=lambda: now_ms)

    def claim(key: bytes, occurred_at: int, offset: int) -> object:
        nonlocal now_ms
        now_ms = occurred_at
        return cache.setdefault(key, offset)

    return claim, lambda: len(cache), cache.clear


def dicts_claims(entries: int) -> tuple[Claim, Callable[[], int], Callable[[], None]]:
    """What is oldest goes only because a round ends: a plain dict does not know what is old."""
    del entries
    claims: dict[bytes, tuple[int, int]] = {}

    def claim(key: bytes, occurred_at: int, offset: int) -> object:
        return claims.setdefault(key, (offset, occurred_at))

    return claim, lambda: len(claims), claims.clear


CLAIMS = {"TTLCache": ttl_caches_claims, "dict": dicts_claims, "flagpost": flagposts_claims}


def claims_alone(side: str, entries: int) -> dict[str, float]:
    """Fill it with so many claims within two ttl, and go on for as long again; returns what that took."""
    calm_collection()
    claim, held, give_up = CLAIMS[side](entries)
    step_ms = 2 * TTL_SECONDS * 1000 / entries
    before = resident_bytes()
    began = time.process_time()
    longest_fill = _claim_all(claim, range(entries), step_ms)
    filled, filled_bytes = time.process_time(), resident_bytes() - before
    per_entry = filled_bytes / held()
    longest_turn = _claim_all(claim, range(entries, 2 * entries), step_ms)
    turned = time.process_time()
    later_per_entry = (resident_bytes() - before) / held()
    given_up = time.thread_time()
    give_up()
    return {
        "bytes_an_entry": per_entry,
        "bytes_an_entry_later": later_per_entry,
        "cpu_us_to_fill": (filled - began) / entries * 1e6,
        "cpu_us_to_go_on": (turned - filled) / entries * 1e6,
        "longest_claim_to_fill_ms": longest_fill * 1e3,
        "longest_claim_to_go_on_ms": longest_turn * 1e3,
        "giving_up_ms": (time.thread_time() - given_up) * 1e3,
    }


def _claim_all(claim: Claim, numbers: range, step_ms: float) -> float:
    """The longest single claim, in CPU seconds. The key's digest and the clock are in the time of all sides."""
    longest = 0.0
    for number in numbers:
        key = hashlib.blake2b(b"%d" % number, digest_size=16).digest()
        began = time.thread_time()
        claim(key, 1_780_000_000_000 + int(number * step_ms), 10**9 + number)
        longest = max(longest, time.thread_time() - began)
    return longest


# The whole service


class Pauses:
    """How long the loop did not come round."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self.longest_busy_ms = 0.0

    async def watch(self, engine: Engine) -> None:
        """Look every millisecond, from the first assignment on: what comes before is the start of the process."""
        while not engine.assigned:  # noqa: ASYNC110 - it is looked at from outside
            await asyncio.sleep(0.001)
        while True:
            clock, busy = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.001)
            self.longest_ms = max(self.longest_ms, (time.monotonic() - clock - 0.001) * 1e3)
            self.longest_busy_ms = max(self.longest_busy_ms, (time.thread_time() - busy) * 1e3)


async def run_service(given: dict[str, str], until: Callable[[Service, int], bool]) -> dict[str, float]:
    """Run the service with the chart's defaults until a condition holds, which is asked with what is settled."""
    quiet = {
        "ADMIN__HOST": "127.0.0.1",
        "ADMIN__PORT": "0",
        "LOG__LEVEL": "error",
        "PENDO__TRACK_SECRET": "secret",
    }
    variables = {f"FLAGPOST_{name}": value for name, value in {**quiet, **given}.items()}
    settings = load_settings(None, variables, Needs.KAFKA | Needs.PENDO)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settled = 0

    def on_settled(_: object) -> None:
        nonlocal settled
        settled += 1

    service = Service(settings, on_settled=on_settled, announce=False)
    pauses = Pauses()
    watching = asyncio.create_task(pauses.watch(service.engine))
    began, cpu = time.monotonic(), time.process_time()
    running = asyncio.create_task(service.run())
    while not running.done() and not until(service, settled):  # noqa: ASYNC110 - it is looked at from outside
        await asyncio.sleep(0.1)
    found = {
        "peak_mb": peak_mb(),
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu,
        "longest_pause_ms": pauses.longest_ms,
        "longest_pause_cpu_ms": pauses.longest_busy_ms,
    }
    watching.cancel()
    service.stop()
    await running
    return found


def restart(kafka: str, entries: int) -> dict[str, float]:
    given = {
        "KAFKA__BOOTSTRAP_SERVERS": kafka,
        "PENDO__TRACK_URL": "http://127.0.0.1:1/data/track",
        "DECISIONS__VISITOR_METADATA": "false",
    }
    return uvloop.run(run_service(given, lambda service, _: service.engine.dedupe_counts.entries >= entries))


def bare_restart(kafka: str, entries: int) -> dict[str, float]:
    """Read the same ledger, and keep what it says."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "bare"})
    consumer.assign([TopicPartition(LEDGER, number, 0) for number in range(PARTITIONS)])
    claims: TTLCache[bytes, int] = TTLCache(2 * entries, TTL_SECONDS)
    began, cpu = time.monotonic(), time.process_time()
    while len(claims) < entries:
        for message in consumer.consume(200, 0.1):
            for entry in decode_settlements(message.value()).entries:
                claims[entry.dedupe_key or b""] = entry.offset
    consumer.close()
    return _cost(began, cpu)


def _cost(began: float, cpu: float) -> dict[str, float]:
    return {
        "peak_mb": peak_mb(),
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu,
    }


def imported(kafka: str, url: str, group: str, rows: int) -> dict[str, float]:
    given = {
        "KAFKA__BOOTSTRAP_SERVERS": kafka,
        "KAFKA__GROUP_ID": group,
        "PENDO__TRACK_URL": f"{url}/data/track",
        "PENDO__API_URL": url,
        "PENDO__INTEGRATION_KEY": "key",
        "PENDO__METADATA_REQUESTS_PER_MINUTE": "100000",
    }
    return uvloop.run(run_service(given, lambda _, settled: settled >= rows))


async def bare_import(kafka: str, url: str, group: str, rows: int) -> dict[str, float]:
    """Decode, and post a thousand visitors at a time."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([EVENTS])
    decode = Decoder().decode
    began, cpu, sent = time.monotonic(), time.process_time(), 0
    async with aiohttp.ClientSession() as session:
        while sent < rows:
            events = [decode(message.value() or b"") for message in consumer.consume(BATCH, 1.0)]
            records = [
                {"visitorId": event.visitor_id, "values": dict(event.values)}
                for event in events
                if isinstance(event, VisitorMetadata)
            ]
            async with session.post(url, data=orjson.dumps(records)) as response:
                await response.read()
            sent += len(records)
            consumer.commit(asynchronous=True)
    consumer.close()
    return _cost(began, cpu)


# The comparisons


def compare_claims(entries: int, rounds: int) -> Comparison:
    common = ["claims", "--entries", str(entries)]
    sides = [Side(name, in_a_process(HERE, *common, "--side", name)) for name in CLAIMS]
    return compare(f"{entries:,} claims within two ttl, and as many again", sides, rounds)


def compare_restarts(entries: int, rounds: int) -> Comparison:
    with real_kafka(EVENTS, LEDGER, DEAD_LETTERS, partitions=PARTITIONS) as broker:
        fill(broker, GROUP, entries)
        common = ["restart", "--entries", str(entries), "--kafka", broker.bootstrap_servers]
        sides = [Side(name, in_a_process(HERE, *common, "--side", name)) for name in ("bare", "flagpost")]
        return compare(f"a restart that restores {entries:,} claims", sides, rounds)


def compare_imports(rows: int, rounds: int) -> Comparison:
    topics = (EVENTS, LEDGER, DEAD_LETTERS)
    with (
        tempfile.TemporaryDirectory() as directory,
        real_kafka(*topics, partitions=PARTITIONS) as broker,
        Sink() as sink,
    ):
        import_rows(broker.bootstrap_servers, rows, Path(directory) / "visitors.csv")
        turns = count()

        def side(name: str) -> Side:
            common = [
                "import",
                "--entries",
                str(rows),
                "--kafka",
                broker.bootstrap_servers,
                "--url",
                sink.url,
            ]

            def run() -> Mapping[str, float]:
                return in_a_process(HERE, *common, "--side", name, "--group", f"{name}-{next(turns)}")()

            return Side(name, run)

        return compare(
            f"an import of {rows:,} visitors with 5 columns", [side("bare"), side("flagpost")], rounds
        )


def import_rows(kafka: str, rows: int, path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(
            (f"visitor-{n:028}", ("free", "silver", "gold")[n % 3], n % 90, "true", "Bern", f"0{n % 9999:04}")
            for n in range(rows)
        )
    subprocess.run(
        [str(FLAGPOST), "import", str(path), "--type", "visitor"],
        env=environment({"kafka.bootstrap_servers": kafka}),
        check=True,
        capture_output=True,
    )


COMPARISONS = {"claims": compare_claims, "restart": compare_restarts, "import": compare_imports}


def run_side(given: argparse.Namespace) -> dict[str, float]:
    """One side, in this process."""
    if given.what == "claims":
        return claims_alone(given.side, given.entries)
    if given.what == "restart":
        return (bare_restart if given.side == "bare" else restart)(given.kafka, given.entries)
    if given.side == "bare":
        return asyncio.run(bare_import(given.kafka, given.url, given.group, given.entries))
    return imported(given.kafka, given.url, given.group, given.entries)


def comparisons(given: argparse.Namespace) -> Iterator[Comparison]:
    for name in [given.what] if given.what else COMPARISONS:
        why = None if name == "claims" else missing()
        if why is None:
            entries = QUICK_ENTRIES if given.quick else given.entries
            yield COMPARISONS[name](entries, 1 if given.quick else given.rounds)
        else:
            print(f"{name}: left out: {why}")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("what", nargs="?", choices=COMPARISONS, help="all of them, if it is not given")
    parser.add_argument("--entries", type=int, default=1_000_000)
    for name in ("--side", "--kafka", "--url", "--group"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(run_side(given)))
    else:
        report(comparisons(given), given.json)


if __name__ == "__main__":
    main()

"""The page over a million settlements: how long until it shows numbers, how soon it answers then, its memory.

    .venv/bin/python benchmarks/page.py [--rounds 3] [--settlements 1000000] [--json FILE] [--quick]

The topics are those of `analyst.py`: decisions of visitors with twenty each on 24 partitions, and the ledger of a
group that delivered all of them. Every visitor is in twenty flags: the most that a million settlements can ask of the
memory. `flagpost web` reads all of it; then pages are asked for, each for the first time. It is run once with room
for the whole window, and once with the default of `web.max_bytes`, where it may take no more than the chart gives it.
The reference is `flagpost reconcile --json`, which counts the same once.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from analyst import GROUP, PARTITIONS, TOPICS, command, fill
from flagpost_consumer.settings import WebSettings
from flagpost_consumer.web.pages import SHORTENED
from real_kafka.broker import KafkaBroker
from side_by_side import Side, arguments, compare, report
from stage import real_kafka
from web_running import RunningWeb

READ_SECONDS = 900.0
BESIDE_BYTES = 256 * 2**20
"""What the chart gives besides `web.max_bytes`."""


def served(kafka: KafkaBroker, settlements: int, max_bytes: int) -> Mapping[str, float]:
    """Run `flagpost web` once."""
    settings: dict[str, object] = {
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": GROUP,
        "kafka.topic": TOPICS[0],
        "kafka.ledger_topic": TOPICS[1],
        "kafka.dead_letter_topic": TOPICS[2],
        "decisions.visitor_metadata": False,
        "web.max_bytes": max_bytes,
    }
    began = time.monotonic()
    with RunningWeb(settings) as page:
        asyncio.run(page.until_read(READ_SECONDS))
        read = time.monotonic() - began
        figures = {"seconds": read}
        for name, path in (("first_page", "/"), ("flag_page", "/flag?key=flag-3"), ("csv", "/csv/flags")):
            asked = time.monotonic()
            if page.get(path).status != 200:
                raise SystemExit(f"{path} was not answered")
            figures[f"{name}_ms"] = 1e3 * (time.monotonic() - asked)
        totals, *_ = page.table("deliveries")
        is_shortened = SHORTENED in page.get("/").text
        if int(totals["Delivered"]) != settlements and not is_shortened:
            raise SystemExit(f"the page counts {totals['Delivered']} of {settlements}")
        figures["counted"] = int(totals["Delivered"])
        figures["peak_memory_mb"] = page.peak_bytes / 1e6
        if page.peak_bytes > max_bytes + BESIDE_BYTES:
            raise SystemExit(f"it has taken {page.peak_bytes:,} bytes")
    return figures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--settlements", type=int, default=1_000_000)
    given = parser.parse_args()
    settlements, rounds = (20_000, 1) if given.quick else (given.settlements, given.rounds)
    with real_kafka(*TOPICS, partitions=PARTITIONS) as kafka:
        fill(kafka, settlements)
        sides = [
            Side("flagpost reconcile", partial(command, kafka, "reconcile", "--json")),
            Side("flagpost web, all of it", partial(served, kafka, settlements, 4_000_000_000)),
            Side("flagpost web, 512 MiB", partial(served, kafka, settlements, WebSettings().max_bytes)),
        ]
        report([compare(f"the page: {settlements:,} settlements", sides, rounds)], given.json)


if __name__ == "__main__":
    main()

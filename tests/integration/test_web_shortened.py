"""A window that would take too much memory: what is shown, what the page reports, and how much the process takes."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from datetime import datetime

import pytest
from confluent_kafka import Producer

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.web.pages import SHORTENED
from flagpost_schemas import LedgerEntry, RuleType, Settlements, encode_settlements, encode_single_object
from scenes import Scene
from web_comparing import rows_of, same_as_reconcile
from web_running import READ_ANEW, RunningWeb

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("cold_starts")]

SPREAD_SECONDS = 7_200
"""The time over which the events are spread: a small part of the window, so that half of it would have them all."""
EVENTS = 80_000
FLAGS = 20
BATCH = 500
LEAST_BYTES = 33_554_432
"""The smallest value of `web.max_bytes`."""
BESIDE_BYTES = 256 * 2**20
"""The memory that the chart adds to `web.max_bytes`."""
SETTLED_PARTITIONS = (0, 1)
LONG = "x" * 200


def fill(scene: Scene) -> list[tuple[int, str, str]]:
    """Publish a decision of every visitor for each of twenty flags, with long ids, and settle half of the decisions.

    Returns the time of each decision (epoch ms), its flag and its visitor.
    """
    producer = Producer({"bootstrap.servers": scene.kafka.bootstrap_servers, "linger.ms": 20})
    begin_ms = (int(time.time()) - SPREAD_SECONDS) * 1000 + 60_000
    told, ended = [], defaultdict[int, list[LedgerEntry]](list)
    for number in range(EVENTS):
        at_ms = begin_ms + number * (SPREAD_SECONDS * 1000 - 120_000) // EVENTS
        visitor, flag = f"{LONG}{number // FLAGS}", f"flag-{number % FLAGS}"
        event = decision(visitor, flag, rule_type=RuleType.EXPERIMENT, occurred_at=at_ms)
        partition = number % scene.partitions
        producer.produce(scene.topic, encode_single_object(event), partition=partition, timestamp=at_ms)
        told.append((at_ms, flag, visitor))
        if partition in SETTLED_PARTITIONS:
            ended[partition].append(LedgerEntry(number // scene.partitions, "track", "delivered", "ok"))
        if number % BATCH == 0:
            producer.poll(0)
    for partition, entries in ended.items():
        for first in range(0, len(entries), BATCH):
            record = Settlements(
                group=str(scene.settings["kafka.group_id"]),
                member="m",
                settled_at=begin_ms,
                entries=entries[first : first + BATCH],
                gaps=[],
            )
            producer.produce(scene.ledger, encode_settlements(record), partition=partition)
    assert producer.flush(stretched(60)) == 0
    return told


def begins_at(page: RunningWeb) -> str:
    """The beginning of the window, from the page's attribute `datetime`."""
    first, *_ = re.findall(r'<time datetime="([^"]+)"', page.get("/").text)
    assert isinstance(first, str)
    return first


async def test_a_window_that_takes_too_much_is_shortened_and_right(scene: Scene) -> None:
    told = await asyncio.to_thread(fill, scene)
    scene.settings["decisions.visitor_metadata"] = False
    with RunningWeb({**scene.settings, "web.max_bytes": LEAST_BYTES}) as page:
        await page.until_read(300)
        assert SHORTENED in page.get("/").text
        assert SHORTENED in page.get("/flag?key=flag-3").text
        assert page.get("/readyz").status == 200
        begin = begins_at(page)
        begin_ms = datetime.fromisoformat(begin).timestamp() * 1000
        later = {(flag, visitor) for at_ms, flag, visitor in told if at_ms >= begin_ms}
        assert EVENTS / 5 < len(later) < EVENTS
        flags = await asyncio.to_thread(rows_of, page, "flags", "Flag")
        assert {flag: row["Decided"] for flag, row in flags.items()} == {
            flag: sum(each == flag for each, _ in later) for flag in {flag for flag, _ in later}
        }
        await asyncio.to_thread(same_as_reconcile, page, scene, "--since", begin)
        assert page.peak_bytes <= LEAST_BYTES + BESIDE_BYTES
        assert len(page.logged(READ_ANEW)) == 1


@pytest.mark.kafka_core
async def test_a_window_that_fits_is_not_reported_as_shortened(scene: Scene) -> None:
    with RunningWeb({**scene.settings, "web.max_bytes": LEAST_BYTES}) as page:
        await page.until_read(120)
        assert SHORTENED not in page.get("/").text

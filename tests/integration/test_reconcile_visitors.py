"""`reconcile` answers the analyst's question, on a real Kafka: which visitors did Pendo not get, and why?

Every number is compared with an independent count: of what was published, and of what the stand-in received.
"""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from engine_world import decision
from flagpost_consumer.demo.pendo_stand_in import Endpoint
from flagpost_consumer.demo.pendo_stand_in.received import Fate
from flagpost_schemas import DecisionEvent, Source, encode_single_object
from ledger_writing import History, entry
from running import eventually
from scenes import Scene

Variation = str
DAY_MS = 86_400_000


@pytest.fixture
def history(scene: Scene) -> History:
    return History(scene)


class Traffic:
    """Decisions of an experiment; some visitors must not reach Pendo, and `lost` has the reason of each of them."""

    def __init__(self) -> None:
        self.events: list[DecisionEvent] = []
        self.lost: dict[str, str] = {}
        self.refused: list[str] = []
        self._now_ms = time.time_ns() // 1_000_000
        for number in range(60):
            self._decide(f"v{number}", times=1 + number % 3)  # duplicates within the ttl
        for number in range(5):
            self._lose(f"denied{number}", "no_consent", consent={"analytics": False})
        for number in range(3):
            self._lose(f"late{number}", "expired", occurred_at=self._now_ms - 8 * DAY_MS)
        for number in range(4):
            self._lose(f"refused{number}", "rejected")
            self.refused.append(f"refused{number}")
        # A visitor who denied consent and then gave it is not lost, nor is one whose first decision was too late.
        self._decide("changed", consent={"analytics": False})
        self._decide("changed", consent={"analytics": True})
        self._decide("twice", occurred_at=self._now_ms - 8 * DAY_MS)
        self._decide("twice")
        # Of two reasons, the one nearest to delivery counts: here Pendo's refusal.
        self._decide("refused0", consent={"analytics": False})

    def _decide(self, visitor: str, times: int = 1, **fields: Any) -> None:
        service = ("shop", "checkout")[len(visitor) % 2]
        given = {"occurred_at": self._now_ms, "source": Source(service=service), **fields}
        for again in range(times):
            event_id = f"{visitor}-{len(self.events)}-{again}"
            self.events.append(
                decision(visitor, "checkout", self.variation(visitor), event_id=event_id, **given)
            )

    def _lose(self, visitor: str, reason: str, **fields: Any) -> None:
        self.lost[visitor] = reason
        self._decide(visitor, **fields)

    @staticmethod
    def variation(visitor: str) -> Variation:
        return "treatment" if int(visitor[-1], 36) % 2 else "control"

    def decided(self) -> Mapping[Variation, set[str]]:
        """The visitors with a decision, by variation."""
        found: dict[Variation, set[str]] = defaultdict(set)
        for event in self.events:
            found[event.variation_key or ""].add(event.visitor_id)
        return found

    def by_reason(self, variation: Variation) -> Mapping[str, int]:
        """The number of the variation's lost visitors, by reason."""
        reasons = [reason for visitor, reason in self.lost.items() if self.variation(visitor) == variation]
        return {reason: reasons.count(reason) for reason in set(reasons)}


def received(scene: Scene) -> Mapping[Variation, set[str]]:
    """The visitors of whom Pendo recorded a track event, by variation."""
    found: dict[Variation, set[str]] = defaultdict(set)
    for each in scene.pendo.received.of(Endpoint.TRACK):
        if each.fate is Fate.RECORDED:
            body: Any = each.parsed
            found[body["properties"]["variation_key"]].add(body["visitorId"])
    return found


async def test_each_visitor_whom_pendo_did_not_get_has_its_reason(history: History) -> None:
    scene, traffic = history.scene, Traffic()
    for visitor in traffic.refused:
        scene.pendo.faults.visitor(visitor, 422)
    scene.publish(traffic.events)
    with scene.consume(delivery__visitor_interval_seconds=0) as consumer:
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    found = await asyncio.to_thread(lambda: history.reconcile("--pendo"))
    decided, at_pendo = traffic.decided(), received(scene)
    assert len(found["rows"]) == 2
    for row in found["rows"]:
        variation, visitors = row["variation_key"], row["visitors"]
        assert visitors["decided"] == len(decided[variation])
        assert visitors["delivered"] == len(at_pendo[variation]) == row["pendo_visitors"]
        assert decided[variation] - at_pendo[variation] == {
            visitor for visitor in traffic.lost if traffic.variation(visitor) == variation
        }
        assert visitors["by_reason"] == traffic.by_reason(variation)
        assert visitors["lost"] == sum(visitors["by_reason"].values())
        assert row["published"] - row["delivered"] == sum(row["reasons"].values())
    await asyncio.to_thread(lambda: in_all_forms(history, found["rows"]))


def in_all_forms(history: History, rows: list[dict[str, Any]]) -> None:
    """Check that the numbers are the same as text, as CSV, and split by reason, day and source."""
    shown = history.run("reconcile", "--pendo")
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    by_reason = list(csv.DictReader(io.StringIO(history.run("reconcile", "--csv", "--by", "reason").stdout)))
    plain = list(csv.DictReader(io.StringIO(history.run("reconcile", "--csv").stdout)))
    days, sources = (history.reconcile("--by", by)["rows"] for by in ("day", "source"))
    for row, line, day_row, source_row in zip(rows, plain, days, sources, strict=True):
        visitors = row["visitors"]
        way = f"{visitors['decided']} visitors published → {visitors['delivered']} delivered"
        assert f"{way} → {visitors['delivered']} counted by Pendo" in shown.stdout
        assert int(line["visitors_lost"]) == visitors["lost"]
        reasons = {
            each["reason"]: int(each["visitors"])
            for each in by_reason
            if each["variation_key"] == row["variation_key"] and each["visitors"] != "0"
        }
        assert reasons == {"delivered": visitors["delivered"], **visitors["by_reason"]}
        for split in (day_row["parts"], source_row["parts"]):
            assert sum(part["published"] for part in split) == row["published"]
            assert sum(part["delivered"] for part in split) == row["delivered"]
        assert {part["service"] for part in source_row["parts"]} == {"shop", "checkout"}
        # Each visitor has one service, so these parts add up. By day they need not: a visitor may be in two parts.
        assert sum(part["visitors"]["decided"] for part in source_row["parts"]) == visitors["decided"]
        assert sum(part["visitors"]["lost"] for part in source_row["parts"]) == visitors["lost"]
        assert len(day_row["parts"]) >= 2


async def test_a_replay_and_what_waits_are_counted_separately(history: History) -> None:
    scene = history.scene
    now = time.time_ns() // 1_000_000
    for visitor in ("v", "w"):
        scene.pendo.faults.visitor(visitor, 422)
    scene.publish([decision(visitor, occurred_at=now) for visitor in "vw"])
    with scene.consume() as consumer:
        await eventually(
            lambda: (
                consumer.value(
                    "flagpost_deliveries_total", kind="track", outcome="dead_lettered", reason="rejected"
                )
                == 2
            )
        )
        done = await asyncio.to_thread(
            lambda: history.run("dead-letters", "replay", "--visitor", "v", "--json")
        )
        assert orjson.loads(done.stdout)["replayed"] == 1
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() == 1, 30)
        assert await consumer.stop() == 0
    scene.publish([decision("x", occurred_at=now)])
    found = await asyncio.to_thread(history.reconcile)
    assert found["rows"][0]["visitors"] == {
        "decided": 3,
        "delivered": 1,
        "lost": 2,
        "by_reason": {"pending": 1, "rejected": 1},
    }


@pytest.mark.kafka_core
def test_a_duplicate_of_a_delivery_before_the_window_counts_as_delivered(history: History) -> None:
    """The window has only the duplicate; the delivery that it duplicates was published and settled before."""
    now = time.time_ns() // 1_000_000
    value = encode_single_object(decision("v", occurred_at=now))
    first = history.put(history.scene.topic, 0, value, timestamp_ms=now - 20 * 60_000)
    again = history.put(history.scene.topic, 0, value, timestamp_ms=now - 60_000)
    history.write(0, [entry(first)], timestamp_ms=now - 20 * 60_000)
    history.write(0, [entry(again, "track", "duplicate", reason="dedupe", duplicate_of=first)])
    row = history.reconcile("--since", "10m")["rows"][0]
    assert (row["published"], row["duplicate"]) == (1, 1)
    assert row["visitors"] == {"decided": 1, "delivered": 1, "lost": 0, "by_reason": {}}


@dataclass(frozen=True, slots=True)
class Told:
    """One decision as the SDK reported it to Optimizely."""

    visitor_id: str
    variation_id: str
    client: str
    at_ms: int


def export_of(told: list[Told], file: Path) -> Path:
    """Write decisions to a Parquet file in the form of Optimizely's export; returns its path."""
    database = duckdb.connect(":memory:")
    database.execute(
        "create table decisions (uuid text, visitor_id text, experiment_id text, variation_id text, "
        "timestamp bigint, is_holdback boolean, client_engine text, client_version text)"
    )
    rows = [(str(n), each.visitor_id, "9300", each.variation_id, each.at_ms, False, each.client, "5.2.0")
            for n, each in enumerate(told)]  # fmt: skip
    database.executemany("insert into decisions values (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    database.execute(f"copy decisions to '{file}' (format parquet)")
    return file


async def test_three_ways_each_missing_visitor_has_its_cause(history: History, tmp_path: Path) -> None:
    """Optimizely loses 2 of 100; a service never attached the publisher; Pendo refuses some."""
    scene, now = history.scene, time.time_ns() // 1_000_000
    visitors = [f"v{number}" for number in range(100)]
    denied, refused, lost = visitors[:3], visitors[3:5], visitors[98:]
    silent = [f"silent{number}" for number in range(7)]
    for visitor in refused:
        scene.pendo.faults.visitor(visitor, 422)
    scene.publish(
        decision(
            visitor,
            "checkout",
            "treatment",
            occurred_at=now,
            experiment_id="9300",
            variation_id="1",
            consent={"analytics": visitor not in denied},
            source=Source(service="shop", sdk="optimizely-sdk", sdk_version="5.2.0"),
        )
        for visitor in visitors
    )
    with scene.consume(delivery__visitor_interval_seconds=0) as consumer:
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    told = [Told(visitor, "1", "python-sdk", now) for visitor in visitors if visitor not in lost]
    told += [Told(visitor, "1", "node-sdk", now) for visitor in silent]
    file = str(export_of(told, tmp_path / "part-0.parquet"))
    # The window is five minutes wider than the decisions on either side.
    since, until = (
        datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in (now - 300_000, now + 300_000)
    )
    window = ("--since", since, "--until", until)
    found = await asyncio.to_thread(lambda: history.reconcile(*window, "--optimizely", file))
    causes: dict[str, set[str]] = defaultdict(set)
    for each in found["optimizely"]["differences"]:
        causes[each["cause"]].add(each["visitor_id"])
    assert causes == {
        "consent": set(denied),
        "rejected": set(refused),
        "never_published": set(silent),
        "only_flagpost": set(lost),
    }
    (row,) = found["optimizely"]["rows"]
    at_optimizely, at_pendo = {each.visitor_id for each in told}, received(scene)["treatment"]
    assert row["decided"] == len(at_optimizely)
    assert row["published"] == len(at_optimizely & set(visitors))
    assert row["delivered"] == len(at_optimizely & at_pendo)
    unattached = {
        each["client"] for each in found["optimizely"]["differences"] if each["visitor_id"] in silent
    }
    assert unattached == {"node-sdk 5.2.0"}
    shown = await asyncio.to_thread(
        lambda: history.run("reconcile", *window, "--pendo", "--optimizely", file)
    )
    text = " ".join(shown.stdout.split())
    assert "105 visitors decided by Optimizely → 100 published → 95 delivered → 95 counted by Pendo" in text
    assert "7 never_published: silent0, silent1, silent2, silent3, silent4, … (decisions of this" in text
    lines = await asyncio.to_thread(lambda: history.run("reconcile", *window, "--csv", "--optimizely", file))
    assert (
        len(list(csv.DictReader(io.StringIO(lines.stdout)))) == len(found["optimizely"]["differences"]) == 14
    )


def test_files_without_the_option_are_refused(history: History, tmp_path: Path) -> None:
    file = export_of([Told("v", "1", "python-sdk", 0)], tmp_path / "a.parquet")
    done = history.run("reconcile", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert "give files with --optimizely" in done.stderr

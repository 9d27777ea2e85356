"""`flagpost reconcile` and `tail` after runs of the real consumer: crash, lost answers, dead letters, replay."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import orjson
import pytest

from deadlines import stretched
from engine_world import decision
from flagpost_consumer.demo.pendo_stand_in import CLOSE_AFTER_RECORDING, Endpoint
from flagpost_schemas import AccountMetadata, Event, TrackEvent
from ledger_writing import History
from running import eventually
from scenes import SHORT_SESSION, Scene
from traffic import produce


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def traffic() -> list[Event]:
    """Decisions for two variations, each twice, and for `off`; a track event, one without a visitor, an account."""
    now = wall_ms()
    shown: list[Event] = [
        decision(
            f"v{n}",
            "checkout",
            ("a", "b")[n % 2],
            occurred_at=now,
            event_id=f"{n}-{again}",
            rule_type="experiment",
        )
        for again in (0, 1)
        for n in range(40)
    ]
    off = [decision(f"o{n}", "checkout", "a", enabled=False, occurred_at=now) for n in range(3)]
    others: list[Event] = [
        TrackEvent(event_id="t1", occurred_at=now, visitor_id="v1", event="Clicked"),
        TrackEvent(event_id="t2", occurred_at=now, event="Clicked"),
        AccountMetadata(event_id="m1", occurred_at=now, account_id="acme", values={"plan": "pro"}),
    ]
    return [*shown, *off, *others]


async def reconciled(history: History, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run `reconcile` in a thread, because Pendo answers on this loop; returns the document."""
    return await asyncio.to_thread(lambda: history.reconcile(*arguments, code=code))


@pytest.fixture
def history(scene: Scene) -> History:
    return History(scene)


async def test_what_the_consumer_did_is_explained_to_the_last_delivery(history: History) -> None:
    scene = history.scene
    scene.pendo.faults.visitor("v3", 422)
    scene.pendo.faults.visitor("late", CLOSE_AFTER_RECORDING)
    scene.publish(traffic())
    produce(scene.kafka.bootstrap_servers, scene.topic, b"x", b"no avro")
    with scene.consume(delivery__visitor_interval_seconds=1.0, **SHORT_SESSION) as consumer:
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() >= 10, 30)
        half = await reconciled(history)
        assert half["unexplained"] == 0
        consumer.signal(signal.SIGKILL)
        await consumer.wait()
    # An answer lost before the crash would leave no trace; this one is lost afterwards and reaches the ledger.
    scene.publish([decision("late", "checkout", "a", occurred_at=wall_ms())])
    with scene.consume(**SHORT_SESSION) as consumer:
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    found = await reconciled(history, "--pendo")
    rows = {row["variation_key"]: row for row in found["rows"]}
    assert {name: row["published"] for name, row in rows.items()} == {"a": 41, "b": 40, "off": 3}
    assert (rows["a"]["delivered"], rows["a"]["duplicate"]) == (21, 20)
    assert rows["b"]["dead_lettered"] == 1
    assert (found["other"]["delivered"], found["other"]["dropped"]) == (1, 1)
    assert found["other"]["dead_lettered"] == 1
    assert found["metadata"]["published"] == 85
    assert (found["unexplained"], found["lost_offsets"], found["totals"]["pending"]) == (0, 0, 0)
    for row in rows.values():
        counted = row["pendo"]["counted"]
        assert counted == scene.pendo.received.decisions["checkout", row["variation_key"]]
        # What was sent again after the crash is not in the ledger (its first answer was lost with the process).
        assert row["pendo"]["expected_min"] == row["delivered"] <= counted
    assert rows["a"]["pendo"]["expected_max"] > rows["a"]["delivered"]  # the lost answer
    (ratio,) = found["sample_ratio"]
    assert (ratio["variations"], ratio["skewed"]) == ({"a": 20, "b": 20}, False)
    assert ratio["delivered"] == {"a": 20, "b": 19}


async def test_a_replayed_dead_letter_is_shown_with_its_first_settlement(history: History) -> None:
    scene = history.scene
    scene.pendo.faults.visitor("v", 422)
    scene.publish([decision("v", "checkout", "a", occurred_at=wall_ms())])
    with scene.consume() as consumer:
        await eventually(
            lambda: (
                consumer.value(
                    "flagpost_deliveries_total", kind="track", outcome="dead_lettered", reason="rejected"
                )
                == 1
            )
        )
        done = await asyncio.to_thread(lambda: history.run("dead-letters", "replay", "--json"))
        assert orjson.loads(done.stdout)["replayed"] == 1
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() == 1, 30)
        assert await consumer.stop() == 0
    found = await reconciled(history)
    (row,) = found["rows"]
    assert {name: row[name] for name in ("published", "delivered", "dead_lettered", "replayed")} == {
        "published": 2,
        "delivered": 1,
        "dead_lettered": 1,
        "replayed": 1,
    }
    assert (found["metadata"]["published"], found["unexplained"]) == (1, 0)


async def test_what_is_unexplained_is_delivered_after_the_groups_offsets_are_reset(history: History) -> None:
    """As docs/reconcile.md says; here the group's commits were moved past records that it had not read."""
    scene = history.scene
    first = scene.publish([decision(f"v{n}", "checkout", "a", occurred_at=wall_ms()) for n in range(8)])
    with scene.consume() as consumer:
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() == 8, 30)
        assert await consumer.stop() == 0
    scene.publish([decision(f"v{n}", "search", "a", occurred_at=wall_ms()) for n in range(8)])
    history.commit_all()
    found = await reconciled(history, code=1)
    assert (found["unexplained"], found["totals"]["unexplained"]) == (16, 8)
    history.commit({each.partition: 0 for each in first})
    with scene.consume() as consumer:
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() == 16, 30)
        assert await consumer.stop() == 0
    repaired = await reconciled(history, "--pendo")
    assert (repaired["unexplained"], repaired["totals"]["delivered"], repaired["totals"]["sent_again"]) == (
        0,
        16,
        0,
    )
    assert scene.pendo.received.decisions == {("checkout", "a"): 8, ("search", "a"): 8}


async def test_tail_shows_what_the_consumer_settles(history: History) -> None:
    scene = history.scene
    scene.publish([decision("v", "checkout", "a", occurred_at=wall_ms(), account_id="acme")])
    with scene.consume() as consumer:
        await consumer.caught_up(scene.partitions)
        assert await consumer.stop() == 0
    process = await asyncio.create_subprocess_exec(
        *history.command("tail", "--json", "--since", "1h"),
        env=history.environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [orjson.loads(await asyncio.wait_for(process.stdout.readline(), stretched(30))) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), stretched(30)) == 0
    assert {line["kind"]: line["outcome"] for line in lines} == {
        "track": "delivered",
        "visitor_metadata": "delivered",
    }
    (sent,) = (line for line in lines if line["kind"] == "track")
    assert (sent["visitor_id"], sent["account_id"], sent["event"]) == ("v", "acme", "Experiment Viewed")
    assert (sent["flag_key"], sent["variation_key"], sent["attempts"], sent["status"]) == (
        "checkout",
        "a",
        1,
        200,
    )


async def test_pendos_counts_are_compared_and_it_fails_without_them(history: History) -> None:
    scene = history.scene
    scene.publish([decision(f"v{n}", "checkout", "a", occurred_at=wall_ms()) for n in range(3)])
    with scene.consume() as consumer:
        await scene.pendo.received.until(lambda: scene.pendo.received.recorded() == 3, 30)
        assert await consumer.stop() == 0
    even = await reconciled(history, "--pendo")
    assert even["rows"][0]["pendo"] == {"counted": 3, "expected_min": 3, "expected_max": 3}
    assert even["warnings"] == []
    scene.pendo.reset()  # Pendo loses its counts
    fewer = await reconciled(history, "--pendo")
    assert fewer["rows"][0]["pendo"]["counted"] == 0
    assert fewer["warnings"][0] == "checkout, a: Pendo counts 0, but 3 are expected."
    assert len(fewer["warnings"]) == 2  # the other warning names possible explanations
    scene.pendo.faults.outage(403, Endpoint.AGGREGATION)
    refused = await asyncio.to_thread(lambda: history.run("reconcile", "--json", "--pendo"))
    assert refused.returncode == 1
    assert "pendo" not in orjson.loads(refused.stdout)["rows"][0]
    assert refused.stderr.startswith("Pendo's counts are not available: ")
    assert "Pendo refuses pendo.integration_key" in refused.stderr
    shown = await asyncio.to_thread(lambda: history.run("reconcile"))
    assert shown.returncode == 0
    assert "at Pendo" not in shown.stdout

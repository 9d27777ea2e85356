"""`flagpost import --wait` on a real Kafka: how each row ended, also without a consumer and after Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flagpost_consumer.demo.pendo_stand_in import MetadataField, PendoStandIn, StandInConfig
from real_kafka.broker import KafkaBroker
from running import FLAGPOST, environment, eventually
from scenes import Scene

pytestmark = [pytest.mark.kafka]

SECONDS = 120.0


async def run(scene: Scene, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a thread, because Pendo answers on this loop."""
    return await asyncio.to_thread(scene.flagpost, "import", *map(str, arguments))


def begin(scene: Scene, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(FLAGPOST), "import", *map(str, arguments)],
        env=environment(scene.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def report(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_each_row_is_reported_as_it_ended(scene: Scene, tmp_path: Path) -> None:
    path, ends = tmp_path / "events.csv", tmp_path / "ends.jsonl"
    scene.pendo.faults.visitor("bad", 422)
    path.write_text(
        "visitorId,event\n" + "".join(f"v{n},Seen\n" for n in range(40)) + "bad,Seen\n,Seen\nv1,Seen\n"
    )
    with scene.consume() as consumer:
        done = await run(scene, path, "--type", "track", "--wait", "--report", ends, "--json")
        assert await consumer.stop() == 0
    assert done.returncode == 1, "a row was refused by us, and one by Pendo"
    rows = report(ends)
    assert sorted(row["line"] for row in rows) == list(range(2, 45)), "each row once"
    assert Counter((row["outcome"], row["reason"]) for row in rows) == {
        ("delivered", "ok"): 40,
        ("dead_lettered", "rejected"): 1,
        ("duplicate", "dedupe"): 1,
        ("refused", None): 1,
    }
    (rejected,) = [row for row in rows if row["reason"] == "rejected"]
    assert (rejected["line"], rejected["status"]) == (42, 422)
    document = json.loads(done.stdout)
    assert document["ended"] == {
        "delivered": {"ok": 40},
        "dead_lettered": {"rejected": 1},
        "duplicate": {"dedupe": 1},
    }


async def test_the_exit_code_is_0_when_pendo_has_every_row_also_in_a_second_run(
    scene: Scene, tmp_path: Path
) -> None:
    path, ends = tmp_path / "visitors.csv", tmp_path / "ends.csv"
    path.write_text("visitorId,plan\n" + "".join(f"v{n},gold\n" for n in range(50)))
    with scene.consume() as consumer:
        first = await run(scene, path, "--type", "visitor", "--wait", "--report", ends)
        again = await run(scene, path, "--type", "visitor", "--wait", "--report", ends)
        assert await consumer.stop() == 0
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "how the imported rows ended: 50 delivered" in first.stdout
    assert "how the imported rows ended: 50 duplicate (unchanged)" in again.stdout
    assert ends.read_text().count(",duplicate,unchanged,") == 50


async def test_without_a_consumer_it_says_so_and_gives_up(scene: Scene, tmp_path: Path) -> None:
    path, ends = tmp_path / "events.csv", tmp_path / "ends.jsonl"
    path.write_text("visitorId,event\nv1,Seen\nv2,Seen\n")
    arguments = ("--type", "track", "--wait", "--wait-seconds", "7", "--report", ends)
    done = await run(scene, path, *arguments)
    assert done.returncode == 1
    assert "no consumer of group" in done.stderr
    assert "waiting" in done.stderr
    assert "no row has ended for 7 s" in done.stderr
    assert [(row["line"], row["outcome"], row["reason"]) for row in report(ends)] in (
        [(2, "pending", "no_consumer"), (3, "pending", "no_consumer")],
        [(3, "pending", "no_consumer"), (2, "pending", "no_consumer")],
    )


async def test_ctrl_c_ends_the_waiting_and_reports_the_rest(scene: Scene, tmp_path: Path) -> None:
    path, ends = tmp_path / "events.csv", tmp_path / "ends.jsonl"
    path.write_text("visitorId,event\nv1,Seen\nv2,Seen\n")
    waiting = begin(scene, path, "--type", "track", "--wait", "--report", ends)
    assert waiting.stderr is not None
    try:
        # The command reports that it is waiting once no row has ended for a while.
        line = await asyncio.to_thread(waiting.stderr.readline)
        while "waiting" not in line:
            assert line, "the command has ended"
            line = await asyncio.to_thread(waiting.stderr.readline)
        waiting.send_signal(signal.SIGINT)
        out, err = await asyncio.to_thread(waiting.communicate, None, SECONDS)
    finally:
        if waiting.poll() is None:
            waiting.kill()
            waiting.wait()
    assert (waiting.returncode, "Traceback" in err) == (1, False)
    assert "the rows are in Kafka" in err
    assert "2 pending (interrupted)" in out
    assert {row["reason"] for row in report(ends)} == {"interrupted"}


async def test_fields_that_pendo_lacks_are_reported_before_the_import_begins(
    kafka: KafkaBroker, fresh_name: Any, tmp_path: Path
) -> None:
    path, ends = tmp_path / "visitors.csv", tmp_path / "ends.jsonl"
    path.write_text("visitorId,plan,seats:integer\nv1,gold,\nv2,,3\n")
    lines = tmp_path / "visitors.jsonl"
    lines.write_text(
        '{"visitorId": "v3", "plan": "gold", "trial": true}\n{"visitor_id": "v4", "values": {"size": 1}}\n'
    )
    config = StandInConfig(fields=(MetadataField("plan", "Plan"),))
    async with PendoStandIn(config) as pendo:
        scene = Scene(kafka, pendo, fresh_name("fields"))
        with scene.consume() as consumer:
            await eventually(lambda: consumer.get("/readyz")[0] == 200, SECONDS)
            done = await run(scene, path, "--type", "visitor", "--wait", "--report", ends, "--json")
            dry = await run(scene, lines, "--type", "visitor", "--dry-run", "--json")
            assert await consumer.stop() == 0
    assert json.loads(done.stdout)["missing_fields"] == ["seats"]
    assert "Pendo lacks 1 of 2 fields" in done.stderr
    assert "Add Custom Field" in done.stderr
    assert {(row["line"], row["outcome"], row["reason"]) for row in report(ends)} == {
        (2, "delivered", "ok"),
        (3, "dropped", "field_missing"),
    }
    assert done.returncode == 1
    assert json.loads(dry.stdout)["missing_fields"] == ["trial", "size"]
    assert dry.returncode == 0, dry.stdout

"""`flagpost export` and `flagpost sql` as processes, on a real Kafka: they agree with the ledger and reconcile."""

from __future__ import annotations

import csv
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from deadlines import stretched
from engine_world import decision
from ledger_writing import History, entry
from scenes import Scene

pytestmark = [pytest.mark.kafka]

HOUR_MS = 3_600_000


@pytest.fixture
def history(scene: Scene) -> History:
    return History(scene)


def exported(history: History, file: Path, *arguments: str) -> list[dict[str, Any]]:
    """Export to a file; returns the file's rows."""
    done = history.run("export", "--to", str(file), *arguments)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    if file.suffix == ".jsonl":
        return [orjson.loads(line) for line in file.read_bytes().splitlines()]
    if file.suffix == ".csv":
        with file.open(newline="") as lines:
            return list(csv.DictReader(lines))
    return asked(history, 'select * from settlements order by "partition", "offset"', "--from", str(file))


def asked(history: History, query: str, *arguments: str) -> list[dict[str, Any]]:
    done = history.run("sql", query, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def offsets(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return sorted((int(row["partition"]), int(row["offset"])) for row in rows)


def test_every_format_has_all_settlements_or_those_that_the_filters_select(
    history: History, tmp_path: Path
) -> None:
    history.write(0, [entry(1, flag_key="f", visitor_id="v"), entry(2, flag_key="g")])
    history.write(2, [entry(3, "track", "dropped", reason="no_consent", flag_key="f"), entry(4)])
    history.write(2, [entry(9, flag_key="f")], group="another")
    history.put(history.ledger, 1, b"\xc3\x01broken")
    for ending in ("parquet", "csv", "jsonl"):
        file = tmp_path / f"all.{ending}"
        assert offsets(exported(history, file)) == [(0, 1), (0, 2), (2, 3), (2, 4)]
        arguments = ("--flag", "f", "--flag", "g", "--outcome", "delivered")
        assert offsets(exported(history, file, *arguments)) == [(0, 1), (0, 2)]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["all.csv", "all.jsonl", "all.parquet"]
    done = history.run("export", "--to", str(tmp_path / "all.csv"))
    assert done.stderr.splitlines() == [
        f"4 settlements written to {tmp_path / 'all.csv'}",
        "1 damaged records of the ledger are left out",
    ]


def test_the_window_selects_by_the_time_of_the_ledgers_records(history: History, tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    for offset, age_ms in ((1, 3 * HOUR_MS), (2, 2 * HOUR_MS), (3, 0)):
        history.write(0, [entry(offset)], timestamp_ms=now_ms - age_ms)
    file = tmp_path / "a.jsonl"
    assert offsets(exported(history, file, "--since", "150m")) == [(0, 2), (0, 3)]
    assert offsets(exported(history, file, "--until", "150m")) == [(0, 1)]
    assert offsets(exported(history, file, "--since", "150m", "--until", "1h")) == [(0, 2)]
    count = "select count(*) as n from settlements"
    assert asked(history, count, "--since", "150m") == [{"n": 2}]


def test_what_sql_says_of_flags_is_what_reconcile_counts(history: History) -> None:
    scene = history.scene
    decisions = [
        decision(f"v{n}", "checkout", "ab"[n % 2], event_id=f"{n}-{k}") for n in range(40) for k in (1, 2)
    ]
    delivered: dict[str | None, set[str]] = {"a": set(), "b": set()}
    for number, (event, each) in enumerate(zip(decisions, scene.publish(decisions), strict=True)):
        fields: dict[str, object] = {
            "visitor_id": event.visitor_id,
            "flag_key": event.flag_key,
            "variation_key": event.variation_key,
        }
        if number % 3:
            delivered[event.variation_key].add(event.visitor_id)
            history.write(each.partition, [entry(each.offset, "track", "delivered", **fields)])
        else:
            ended = entry(each.offset, "track", "dropped", reason="no_consent", **fields)
            history.write(each.partition, [ended])
    history.commit_all()
    counted = history.reconcile(code=1)  # the metadata deliveries have no settlements here
    rows = {row["variation_key"]: row for row in asked(history, "select * from flags")}
    assert rows.keys() == {"a", "b"}
    for row in counted["rows"]:
        told = rows[row["variation_key"]]
        names = ("delivered", "duplicate", "dropped", "dead_lettered")
        assert [told[name] for name in names] == [row[name] for name in names]
        people = delivered[row["variation_key"]]
        assert (told["visitors"], told["visitors_delivered"]) == (20, len(people))
    lost = asked(history, "select lost_reason, count(*) as n from visitors group by all order by 1")
    assert Counter({row["lost_reason"]: row["n"] for row in lost}).total() == 40


def test_a_file_that_cannot_be_written_is_reported_in_one_line(history: History) -> None:
    history.write(0, [entry(1)])
    done = history.run("export", "--to", "/proc/settlements.jsonl")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: /proc/settlements.jsonl cannot be written: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_kafka_nothing_is_left_behind(history: History, tmp_path: Path) -> None:
    done = history.run("export", "--to", str(tmp_path / "a.csv"), kafka__ledger_topic="nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert history.run("sql", "select 1", kafka__ledger_topic="nowhere").returncode == 1


def test_a_query_may_come_from_stdin(history: History) -> None:
    done = subprocess.run(
        history.command("sql", "-", "--csv"),
        input="select count(*) as n from settlements",
        env=history.environment(),
        capture_output=True,
        text=True,
        timeout=stretched(60),
        check=True,
    )
    assert done.stdout == "n\n0\n"

"""Optimizely's export: how its files are read, and how its visitors are held against what was published."""

from __future__ import annotations

# ruff: noqa: S608 - queries of our own words
from collections import Counter
from pathlib import Path

import click
import duckdb
import pytest

from flagpost_consumer.core.outcomes import Reason
from flagpost_consumer.operator.reconciliation.optimizely_files import read_exports
from flagpost_consumer.operator.reconciliation.three_way import (
    EDGE_MS,
    AtOptimizely,
    Cause,
    Exposure,
    ThreeWay,
)
from flagpost_consumer.operator.reconciliation.three_way_report import (
    compared,
    differences_csv,
    optimizely_json,
    sentences,
)
from flagpost_consumer.operator.reconciliation.visitors import STANDINGS
from flagpost_schemas import Source
from simulation import decision

NOW = 1_800_000_000_000
SINCE, UNTIL = NOW - 3_600_000, NOW + 3_600_000
SHOP = Source(service="shop", sdk="optimizely-sdk", sdk_version="5.2.0")
ROWS = (
    "select * from (values"
    f" ('u1', 'v', '111', '222', {NOW}, false, 'python-sdk', '5.2.0'),"
    f" ('u2', 'v', '111', '222', {NOW + 5}, false, 'python-sdk', '5.2.0'),"
    f" ('u3', 'held', '111', '223', {NOW}, true, 'node-sdk', '6.1.0'),"
    f" ('u4', null, '111', '222', {NOW}, false, 'python-sdk', '5.2.0')"
    ") as t(uuid, visitor_id, experiment_id, variation_id, timestamp, is_holdback, client_engine, client_version)"
)
READ = {
    Exposure("111", "222", "v"): AtOptimizely(NOW, False, "python-sdk 5.2.0"),
    Exposure("111", "223", "held"): AtOptimizely(NOW, True, "node-sdk 6.1.0"),
}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("decisions.parquet", "format parquet"),
        ("decisions.csv", "format csv, header"),
        ("decisions.csv.gz", "format csv, header, compression gzip"),
        ("decisions.jsonl", "format json"),
        ("part.snappy.parquet", "format parquet"),
    ],
)
def test_each_form_of_the_export_is_read(tmp_path: Path, name: str, form: str) -> None:
    file = tmp_path / name
    duckdb.sql(f"copy ({ROWS}) to '{file}' ({form})")
    assert read_exports([file]) == READ


def test_times_may_be_timestamps_and_columns_that_are_not_needed_may_be_missing(tmp_path: Path) -> None:
    file = tmp_path / "d.parquet"
    duckdb.sql(
        f"copy (select visitor_id, 111 as experiment_id, variation_id, epoch_ms({NOW}) as timestamp from ({ROWS})) "
        f"to '{file}' (format parquet)"
    )
    assert read_exports([file])[Exposure("111", "222", "v")] == AtOptimizely(NOW, is_held_back=False)


def test_several_files_are_one_export(tmp_path: Path) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.jsonl"
    duckdb.sql(f"copy (select * from ({ROWS}) where uuid <> 'u1') to '{first}' (format csv, header)")
    duckdb.sql(f"copy (select * from ({ROWS}) where uuid = 'u1') to '{second}' (format json)")
    assert read_exports([first, second]) == READ


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.parquet", "no parquet", "cannot be read as Optimizely's export"),
        ("a.csv", "visitor_id,timestamp\nv,1\n", "it has no column experiment_id, variation_id"),
        ("a.txt", "", "the name tells no kind of file"),
        ("a", "", "the name tells no kind of file"),
        ("a.jsonl", "{", "cannot be read"),
    ],
)
def test_what_is_no_export_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(click.ClickException, match=said) as told:
        read_exports([file])
    assert str(file) in told.value.message


def exported(*visitors: str, at_ms: int = NOW, held: bool = False) -> dict[Exposure, AtOptimizely]:
    return {Exposure("111", "222", v): AtOptimizely(at_ms, held, "python-sdk 5.2.0") for v in visitors}


def publish(three_way: ThreeWay, offset: int, visitor: str, reason: Reason | None, **fields: object) -> None:
    """A decision and how it ended, if it has."""
    given = {"experiment_id": "111", "variation_id": "222", "source": SHOP, **fields}
    three_way.publish(0, offset, decision(visitor, "checkout", "a", **given))
    if reason is not None:
        three_way.visitors.settle(0, offset, "track", reason.outcome.value, reason.value)


def test_everybody_who_is_in_one_and_not_in_the_other_has_a_cause() -> None:
    reasons = {
        "delivered": Reason.OK,
        "denied": Reason.NO_CONSENT,
        "filtered": Reason.FLAG_FILTERED,
        "late": Reason.EXPIRED,
        "refused": Reason.REJECTED,
        "repeat": Reason.DEDUPE,
        "broken": Reason.INVALID,
        "waits": None,
    }
    export = {**exported(*reasons, "lost"), **exported("held", held=True)}
    three_way = ThreeWay(export)
    for offset, (visitor, reason) in enumerate(reasons.items()):
        publish(three_way, offset, visitor, reason)
    publish(three_way, 100, "ours", Reason.OK)
    found = compared(three_way, SINCE, UNTIL)
    causes = {each.exposure.visitor_id: (each.cause.value, each.reason) for each in found.differences}
    assert causes == {
        "denied": ("consent", "no_consent"),
        "filtered": ("filtered", "flag_filtered"),
        "late": ("expired", "expired"),
        "refused": ("rejected", "rejected"),
        "repeat": ("duplicate", "dedupe"),
        "broken": ("other", "invalid"),
        "waits": ("pending", "pending"),
        "lost": ("never_published", None),
        "held": ("held_out", None),
        "ours": ("only_flagpost", "ok"),
    }
    (counts,) = found.counts.values()
    assert (counts.decided, counts.published, counts.delivered) == (10, 8, 1)
    assert counts.decided - counts.delivered == counts.by_cause.total() - counts.by_cause["only_flagpost"]
    assert found.decided(("checkout", "a")) == 10


def test_who_was_never_published_is_told_with_the_client_and_the_services_that_publish() -> None:
    three_way = ThreeWay(exported("lost"))
    publish(three_way, 0, "another", Reason.OK)
    (lost, _) = compared(three_way, SINCE, UNTIL).differences
    assert (lost.client, lost.services) == ("python-sdk 5.2.0", ("shop optimizely-sdk 5.2.0",))
    text = "\n".join(sentences(compared(three_way, SINCE, UNTIL)))
    assert "1 visitors decided by Optimizely → 0 published → 0 delivered" in text
    assert (
        "1 never_published: lost (decisions of this experiment come from shop optimizely-sdk 5.2.0; " in text
    )
    nobody = "\n".join(sentences(compared(ThreeWay(exported("lost")), SINCE, UNTIL)))
    assert "no service publishes decisions of this experiment" in nobody


def test_what_was_decided_outside_the_window_or_at_its_edge_is_left_out() -> None:
    export = {
        **exported("before", at_ms=SINCE + EDGE_MS - 1),
        **exported("after", at_ms=UNTIL - EDGE_MS),
        **exported("inside", at_ms=SINCE + EDGE_MS),
        **exported("here", at_ms=UNTIL),
    }
    three_way = ThreeWay(export)
    publish(three_way, 0, "here", Reason.OK)
    found = compared(three_way, SINCE, UNTIL)
    assert {each.exposure.visitor_id for each in found.differences} == {"inside"}
    (counts,) = found.counts.values()
    assert (found.left_out, counts.decided, counts.delivered) == (2, 2, 1)


def test_only_decisions_that_optimizely_was_told_of_are_compared() -> None:
    three_way = ThreeWay({})
    publish(three_way, 0, "rollout", Reason.OK, decision_event_dispatched=False)
    publish(three_way, 1, "old", Reason.OK, experiment_id=None)
    found = compared(three_way, SINCE, UNTIL)
    assert (found.differences, found.without_ids) == ([], 1)


def test_csv_names_everybody_and_json_counts_by_cause() -> None:
    three_way = ThreeWay(exported("lost", "=1+1"))
    found = compared(three_way, SINCE, UNTIL)
    assert differences_csv(found).splitlines() == [
        "visitor_id,experiment_id,variation_id,cause,reason,client,services",
        "lost,111,222,never_published,,python-sdk 5.2.0,",
        "'=1+1,111,222,never_published,,python-sdk 5.2.0,",
    ]
    (row,) = optimizely_json(found)["rows"]
    assert (row["decided"], row["by_cause"]) == (2, {"never_published": 2})


def test_every_standing_has_a_cause() -> None:
    causes = Counter[Cause]()
    for standing in STANDINGS:
        if standing != Reason.OK:
            three_way = ThreeWay(exported("v"))
            reason = next((each for each in Reason if each == standing), None)
            publish(three_way, 0, "v", reason)
            (difference,) = compared(three_way, SINCE, UNTIL).differences
            causes[difference.cause] += 1
    assert causes.keys() >= {Cause.FILTERED, Cause.CONSENT, Cause.DUPLICATE, Cause.PENDING, Cause.OTHER}

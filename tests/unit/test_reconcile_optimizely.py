"""Optimizely's export: how its files are read, and how its visitors are compared with published decisions."""

from __future__ import annotations

# ruff: noqa: S608 - the queries contain only texts of this file
from collections import Counter
from pathlib import Path

import click
import duckdb
import pytest

from engine_world import decision
from flagpost_consumer.commands.reconcile.lost_at_publishers import Lost, LostAtPublishers, Reported, Service
from flagpost_consumer.commands.reconcile.optimizely_files import read_exports
from flagpost_consumer.commands.reconcile.three_way import EDGE_MS, AtOptimizely, Cause, Export, ThreeWay
from flagpost_consumer.commands.reconcile.three_way_report import (
    compared,
    differences_csv,
    optimizely_json,
    sentences,
)
from flagpost_consumer.core.outcomes import STANDINGS, Reason
from flagpost_schemas import LedgerEntry, Source
from flagpost_schemas.exposures import Exposure, exposure_digest

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
    assert read_exports([file]) == Export(READ)


def test_times_may_be_timestamps_and_columns_that_are_not_needed_may_be_missing(tmp_path: Path) -> None:
    file = tmp_path / "d.parquet"
    duckdb.sql(
        f"copy (select visitor_id, 111 as experiment_id, variation_id, epoch_ms({NOW}) as timestamp from ({ROWS})) "
        f"to '{file}' (format parquet)"
    )
    assert read_exports([file]).visitors[Exposure("111", "222", "v")] == AtOptimizely(NOW, is_held_back=False)


def test_several_files_are_one_export(tmp_path: Path) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.jsonl"
    duckdb.sql(f"copy (select * from ({ROWS}) where uuid <> 'u1') to '{first}' (format csv, header)")
    duckdb.sql(f"copy (select * from ({ROWS}) where uuid = 'u1') to '{second}' (format json)")
    assert read_exports([first, second]) == Export(READ)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "d.csv",
            [
                "visitor_id,experiment_id,variation_id,timestamp",
                f"v,111,222,{NOW}",
                "v,111,222,yesterday",
                "w,111,222,2027-13-01",
                "x,111,222,",
            ],
        ),
        (
            "d.jsonl",
            [
                f'{{"visitor_id":"v","experiment_id":"111","variation_id":"222","timestamp":{NOW}}}',
                '{"visitor_id":"v","experiment_id":"111","variation_id":"222","timestamp":"yesterday"}',
                '{"visitor_id":"w","experiment_id":"111","variation_id":"222","timestamp":"2027-13-01"}',
                '{"visitor_id":"x","experiment_id":"111","variation_id":"222","timestamp":null}',
            ],
        ),
    ],
)
def test_rows_whose_time_cannot_be_read_are_named_and_left_out(
    tmp_path: Path, name: str, lines: list[str]
) -> None:
    """Before the fix, their visitors counted as decided within the window, whatever the window."""
    file = tmp_path / name
    file.write_text("\n".join(lines) + "\n")
    export = read_exports([file])
    assert set(export.visitors) == {Exposure("111", "222", "v")}
    (unreadable,) = export.unreadable
    assert (unreadable.file, unreadable.rows) == (str(file), 3)
    assert unreadable.example in ("yesterday", "2027-13-01")
    found = compared(ThreeWay(export), SINCE, UNTIL)
    told = "\n".join(sentences(found))
    assert f'{file}: 3 rows have no time that can be read (for example "{unreadable.example}")' in told
    assert optimizely_json(found)["unreadable"] == [
        {"file": str(file), "rows": 3, "example": unreadable.example}
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.parquet", "no parquet", "cannot be read as Optimizely's export"),
        ("a.csv", "visitor_id,timestamp\nv,1\n", "it has no column experiment_id, variation_id"),
        ("a.txt", "", "the format is not known from the name"),
        ("a", "", "the format is not known from the name"),
        ("a.jsonl", "{", "cannot be read"),
    ],
)
def test_a_file_that_is_not_an_export_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(click.ClickException, match=said) as told:
        read_exports([file])
    assert str(file) in told.value.message


def exported(*visitors: str, at_ms: int = NOW, held: bool = False) -> dict[Exposure, AtOptimizely]:
    return {Exposure("111", "222", v): AtOptimizely(at_ms, held, "python-sdk 5.2.0") for v in visitors}


def publish(three_way: ThreeWay, offset: int, visitor: str, reason: Reason | None, **fields: object) -> None:
    """Publish a decision, and settle it unless `reason` is None."""
    given = {"experiment_id": "111", "variation_id": "222", "source": SHOP, **fields}
    three_way.publish(0, offset, decision(visitor, "checkout", "a", **given))
    if reason is not None:
        three_way.visitors.settle(0, [LedgerEntry(offset, "track", reason.outcome.value, reason.value)])


def test_every_difference_has_a_cause() -> None:
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
    three_way = ThreeWay(Export(export))
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


def test_visitors_never_published_are_shown_with_the_client_and_the_services_that_publish() -> None:
    three_way = ThreeWay(Export(exported("lost")))
    publish(three_way, 0, "another", Reason.OK)
    (_, lost) = compared(three_way, SINCE, UNTIL).differences
    assert (lost.client, lost.services) == ("python-sdk 5.2.0", ("shop optimizely-sdk 5.2.0",))
    text = "\n".join(sentences(compared(three_way, SINCE, UNTIL)))
    assert "1 visitors decided by Optimizely → 0 published → 0 delivered" in text
    assert (
        "1 never_published: lost (decisions of this experiment come from shop optimizely-sdk 5.2.0; " in text
    )
    nobody = "\n".join(sentences(compared(ThreeWay(Export(exported("lost"))), SINCE, UNTIL)))
    assert "no service publishes decisions of this experiment" in nobody


def test_decisions_outside_the_window_or_at_its_edge_are_left_out() -> None:
    export = {
        **exported("before", at_ms=SINCE + EDGE_MS - 1),
        **exported("after", at_ms=UNTIL - EDGE_MS),
        **exported("inside", at_ms=SINCE + EDGE_MS),
        **exported("here", at_ms=UNTIL),
    }
    three_way = ThreeWay(Export(export))
    publish(three_way, 0, "here", Reason.OK)
    found = compared(three_way, SINCE, UNTIL)
    assert {each.exposure.visitor_id for each in found.differences} == {"inside"}
    (counts,) = found.counts.values()
    assert (found.left_out, counts.decided, counts.delivered) == (2, 2, 1)


def test_only_decisions_that_were_reported_to_optimizely_are_compared() -> None:
    three_way = ThreeWay(Export(exported()))
    publish(three_way, 0, "rollout", Reason.OK, decision_event_dispatched=False)
    publish(three_way, 1, "old", Reason.OK, experiment_id=None)
    found = compared(three_way, SINCE, UNTIL)
    assert (found.differences, found.without_ids) == ([], 1)


def lost_at_shop(*lost: tuple[str, str, int, str]) -> LostAtPublishers:
    """Return the losses that a service reports: fate, reason, number of decisions, and the one listed visitor."""
    found = LostAtPublishers()
    for fate, reason, count, visitor in lost:
        digest = exposure_digest("i", Exposure("111", "222", visitor))
        row = Lost(Service("shop", None), "checkout", "a", "experiment", fate, reason)
        found.count(Reported(row, count, (digest,)))
        found.hold_list("i", Reported(row, count, (digest,)))
    return found


def test_visitors_refused_or_failed_at_the_publisher_are_shown_with_the_reason() -> None:
    three_way = ThreeWay(Export({**exported("full", "slow", "gone", "came"), **exported("held", held=True)}))
    publish(three_way, 0, "came", Reason.NO_CONSENT)
    three_way.lost = lost_at_shop(
        ("refused", "queue_full", 3, "full"),
        ("failed", "msg_timed_out", 1, "slow"),
        ("refused", "queue_full", 1, "came"),  # but was published later
        ("refused", "queue_full", 1, "held"),
    )
    found = compared(three_way, SINCE, UNTIL)
    assert {
        each.exposure.visitor_id: (each.cause.value, each.reason, each.services) for each in found.differences
    } == {
        "full": ("refused", "queue_full", ("shop",)),
        "slow": ("failed", "msg_timed_out", ("shop",)),
        "held": ("refused", "queue_full", ("shop",)),
        "gone": ("never_published", None, ("shop optimizely-sdk 5.2.0",)),
        "came": ("consent", "no_consent", ()),
    }
    told = list(sentences(found))
    assert "    2 refused: full, held (2 by shop: queue_full)" in told
    assert "    1 failed: slow (1 by shop: msg_timed_out)" in told
    # Three decisions were refused, and only one visitor is listed: there may be others.
    assert told[-1] == (
        "    for this variation, shop refused 5 (queue_full), but not every visitor is listed: some of the "
        "never_published may be among them"
    )
    lines = differences_csv(found).splitlines()
    assert "full,111,222,refused,queue_full,python-sdk 5.2.0,shop" in lines


def test_if_every_lost_visitor_is_listed_no_others_are_mentioned() -> None:
    three_way = ThreeWay(Export(exported("full", "gone", "came")))
    publish(three_way, 0, "came", Reason.OK)
    three_way.lost = lost_at_shop(("refused", "queue_full", 1, "full"))
    told = list(sentences(compared(three_way, SINCE, UNTIL)))
    assert "    1 refused: full (1 by shop: queue_full)" in told
    assert not [line for line in told if "not every visitor is listed" in line]


def test_experiments_that_the_export_does_not_have_are_not_compared() -> None:
    """The export has a file for each day and experiment: somebody may pass those of one experiment only."""
    three_way = ThreeWay(Export(exported("v")))
    publish(three_way, 0, "v", Reason.OK)
    for offset in (1, 2):
        publish(three_way, offset, "another", Reason.OK, experiment_id="999")
    found = compared(three_way, SINCE, UNTIL)
    assert found.differences == []
    assert optimizely_json(found)["not_in_export"] == [
        {"experiment_id": "999", "flag_key": "checkout", "decisions": 2}
    ]
    assert list(sentences(found))[-1] == (
        "checkout (experiment 999) is not in the export; its 2 decisions are not compared."
    )


def test_a_visitor_without_a_rule_or_a_numeric_variation_id_is_found_under_the_ids_that_optimizely_gets(
    tmp_path: Path,
) -> None:
    """The SDK sends null for a delivery's variation id that is not numeric, and for all ids if there is no rule."""
    file = tmp_path / "d.csv"
    head = "visitor_id,experiment_id,variation_id,timestamp"
    file.write_text(f"{head}\nrolled,200,,{NOW}\nruleless,,,{NOW}\ngone,,,{NOW}\n")
    three_way = ThreeWay(read_exports([file]))
    publish(
        three_way,
        0,
        "rolled",
        Reason.OK,
        experiment_id="200",
        variation_id="default-200",
        rule_type="delivery",
    )
    publish(three_way, 1, "ruleless", Reason.OK, experiment_id=None, variation_id=None, rule_type="none")
    found = compared(three_way, SINCE, UNTIL)
    assert [(each.exposure, each.cause) for each in found.differences] == [
        (Exposure("", "", "gone"), Cause.NEVER_PUBLISHED)
    ]
    assert found.without_ids == 0
    assert "no rule: 2 visitors decided by Optimizely → 1 published → 1 delivered" in list(sentences(found))


def test_csv_lists_every_visitor_and_json_counts_by_cause() -> None:
    three_way = ThreeWay(Export(exported("lost", "=1+1")))
    found = compared(three_way, SINCE, UNTIL)
    assert differences_csv(found).splitlines() == [
        "visitor_id,experiment_id,variation_id,cause,reason,client,services",
        "'=1+1,111,222,never_published,,python-sdk 5.2.0,",
        "lost,111,222,never_published,,python-sdk 5.2.0,",
    ]
    (row,) = optimizely_json(found)["rows"]
    assert (row["decided"], row["by_cause"]) == (2, {"never_published": 2})


def test_every_standing_has_a_cause() -> None:
    causes = Counter[Cause]()
    for standing in STANDINGS:
        if standing != Reason.OK:
            three_way = ThreeWay(Export(exported("v")))
            reason = next((each for each in Reason if each == standing), None)
            publish(three_way, 0, "v", reason)
            (difference,) = compared(three_way, SINCE, UNTIL).differences
            causes[difference.cause] += 1
    assert causes.keys() >= {Cause.FILTERED, Cause.CONSENT, Cause.DUPLICATE, Cause.PENDING, Cause.OTHER}

"""Impressions are compared with published decisions: the sums, the services left out, and the texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine_world import decision
from flagpost_consumer.commands.reconcile import lost_at_publishers
from flagpost_consumer.commands.reconcile.extent import Window
from flagpost_consumer.commands.reconcile.impressions import Compared, ImpressionBooks
from flagpost_consumer.commands.reconcile.impressions_report import impression_sentences, impressions_json
from flagpost_schemas import DecisionEvent, Source
from flagpost_schemas.exposures import Exposure, exposure_digest

SHOP = Source(service="shop", environment="prod")


def report(sequence: int = 0, **changes: Any) -> bytes:
    """Return a report as flagpost_publisher.impressions writes it."""
    document = {
        "instance": "i",
        "sequence": sequence,
        "since": 0,
        "until": 1_000,
        "service": "shop",
        "environment": "prod",
        "sdk": "optimizely-sdk",
        "sdk_version": "5.7.0",
        "impressions": [told("experiment", 10), told("delivery", 3)],
        "unpublished": [
            {**told("experiment", 4), "fate": "duplicates"},
            {**told("experiment", 1), "fate": "refused"},
            {**told("experiment", 2), "fate": "failed"},
        ],
        "uncounted": 0,
    }
    return json.dumps({**document, **changes}).encode()


def told(rule_type: str, count: int) -> dict[str, Any]:
    return {"flag_key": "checkout", "variation_key": "a", "rule_type": rule_type, "count": count}


def published(rule_type: str | None, source: Source | None = SHOP, **changes: Any) -> DecisionEvent:
    return decision("v", rule_type=rule_type, source=source, **changes)


def books(*reports: bytes | None, window: Window | None = None) -> ImpressionBooks:
    found = ImpressionBooks(window or Window())
    for each in reports:
        found.add(each)
    return found


def test_impressions_are_published_duplicates_refused_or_failed_and_the_rest_is_the_difference() -> None:
    found = books(report())
    for _ in range(2):
        found.publish(published("experiment"))
        found.publish(published("experiment", decision_event_dispatched=False))  # no impression was sent

    rows = found.rows()
    assert rows == {
        ("checkout", "delivery"): Compared(impressions=3),
        ("checkout", "experiment"): Compared(10, published=2, duplicates=4, refused=1, failed=2),
    }
    assert [row.difference for row in rows.values()] == [3, 1]


def test_a_report_that_was_written_twice_counts_once_and_one_that_is_missing_is_noticed() -> None:
    found = books(report(3), report(3), report(6), report(0, instance="j"))

    assert found.rows()["checkout", "delivery"].impressions == 9
    assert (found.reports, found.missing) == (3, 2)


@pytest.mark.parametrize(
    ("since", "until", "counted"),
    [(None, None, 1), (1_000, 1_001, 1), (1_001, None, 0), (None, 1_000, 0)],
)
def test_a_report_belongs_to_the_window_in_which_it_ends(
    since: int | None, until: int | None, counted: int
) -> None:
    assert books(report(), window=Window(since, until)).reports == counted


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"[]",
        b"{}",
        report(until=None),
        report(impressions=[{}]),
        report(impressions=None),
        report(unpublished=[{**told("experiment", 1), "fate": "eaten"}]),
        report(service={}),
        report(unpublished=[{**told("experiment", 1), "fate": "refused", "reason": 1}]),
        report(unpublished=[{**told("experiment", 1), "fate": "refused", "exposures": 1}]),
    ],
)
def test_a_value_that_is_not_a_report_is_counted_as_damaged_and_changes_nothing_else(
    value: bytes | None,
) -> None:
    found = books(value, report())

    assert (found.damaged, found.reports) == (1, 1)
    assert found.rows()["checkout", "experiment"].impressions == 10


def test_services_that_do_not_report_are_left_out_and_named() -> None:
    found = books(report())
    found.publish(published("experiment", None))
    found.publish(published("delivery", Source(service="shop", environment="test")))

    assert found.rows()["checkout", "experiment"].published == 0
    assert impressions_json(found)["not_reporting"] == [
        {"service": None, "environment": None, "published": 1},
        {"service": "shop", "environment": "test", "published": 1},
    ]


def test_the_document_has_each_row_and_each_doubt() -> None:
    found = books(report(0, uncounted=7), report(2, impressions=[], unpublished=[]), b"no report")
    found.publish(published("experiment"))

    assert impressions_json(found) == {
        "rows": [
            {
                "flag_key": "checkout",
                "rule_type": rule_type,
                "impressions": impressions,
                "published": on_topic,
                "duplicates": duplicates,
                "refused": refused,
                "failed": failed,
                "difference": difference,
            }
            for rule_type, impressions, on_topic, duplicates, refused, failed, difference in (
                ("delivery", 3, 0, 0, 0, 0, 3),
                ("experiment", 10, 1, 4, 1, 2, 2),
            )
        ],
        "reports": 2,
        "missing_reports": 1,
        "uncounted": 7,
        "damaged": 1,
        "not_reporting": [],
        "lost": [
            {
                "service": "shop",
                "environment": "prod",
                **{name: value for name, value in told("experiment", 0).items() if name != "count"},
                "fate": fate,
                "reason": "unknown",
                "decisions": count,
                "listed": 0,
            }
            for fate, count in (("failed", 2), ("refused", 1))
        ],
    }


def lost_row(
    fate: str, reason: str | None, count: int, *visitors: str, instance: str = "i"
) -> dict[str, Any]:
    exposures = [exposure_digest(instance, Exposure("1", "2", visitor)) for visitor in visitors]
    row = {**told("experiment", count), "fate": fate, "reason": reason, "exposures": exposures}
    return (
        row
        if reason is not None
        else {name: row[name] for name in row if name not in ("reason", "exposures")}
    )


def holding(*reports: bytes, window: Window | None = None) -> ImpressionBooks:
    found = ImpressionBooks(window or Window(), holds_lists=True)
    for each in reports:
        found.add(each)
    return found


def ends(found: ImpressionBooks, *visitors: str) -> dict[str, tuple[str, str]]:
    told = {visitor: found.lost.end_of(Exposure("1", "2", visitor)) for visitor in visitors}
    return {visitor: (lost.fate, lost.reason) for visitor, lost in told.items() if lost is not None}


def test_lost_decisions_are_shown_by_service_with_the_reason_and_the_listed_visitors() -> None:
    first = [lost_row("refused", "queue_full", 9, "v1", "v2"), lost_row("failed", "msg_timed_out", 3, "v3")]
    second = [lost_row("refused", "queue_full", 2, "v3", "v4", instance="j"), lost_row("refused", None, 1)]
    found = holding(
        report(0, unpublished=first), report(0, unpublished=second, instance="j", environment=None)
    )

    assert ends(found, "v0", "v1", "v2", "v3", "v4") == {
        "v1": ("refused", "queue_full"),
        "v2": ("refused", "queue_full"),
        "v3": ("failed", "msg_timed_out"),  # refused too, but failed is nearer to Kafka
        "v4": ("refused", "queue_full"),
    }
    assert found.lost.end_of(Exposure("1", "3", "v1")) is None
    (line,) = [each for each in impression_sentences(found) if each.startswith(" ")]
    assert line == (
        "    shop refused 2 (queue_full), refused 1 (unknown); "
        "shop (prod) refused 9 (queue_full), failed 3 (msg_timed_out)"
    )
    assert [(row["reason"], row["decisions"], row["listed"]) for row in impressions_json(found)["lost"]] == [
        ("msg_timed_out", 3, 1),
        ("queue_full", 9, 2),
        ("queue_full", 2, 2),
        ("unknown", 1, 0),
    ]


@pytest.mark.parametrize(
    ("since", "until", "is_found"),
    [(None, None, True), (0, 500, True), (900, None, True), (1_001, None, False), (None, 100, False)],
)
def test_a_list_counts_if_some_of_its_time_is_in_the_window(
    since: int | None, until: int | None, is_found: bool
) -> None:
    """If Kafka was away for an hour, a report covers that hour and may end long after the window."""
    row = lost_row("refused", "queue_full", 1, "v")
    found = holding(report(0, since=100, unpublished=[row]), window=Window(since, until))
    assert bool(ends(found, "v")) == is_found


def test_lists_are_kept_only_on_request_and_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    row = lost_row("refused", "queue_full", 9, *(f"v{number}" for number in range(9)))
    assert not ends(books(report(0, unpublished=[row])), "v0")
    monkeypatch.setattr(lost_at_publishers, "MAX_LISTED", 12)
    found = holding(*(report(number, unpublished=[row], instance=f"i{number}") for number in range(3)))
    assert sum(map(len, found.lost._listed.values())) == 12


def test_the_text_has_a_line_for_each_flag_and_type_of_rule_and_for_each_doubt() -> None:
    found = books(report(0, uncounted=7), report(2, impressions=[], unpublished=[]), b"no report")
    for _ in range(3):
        found.publish(published("experiment"))
        found.publish(published("none"))
        found.publish(published(None))
    found.publish(published("none", Source(service="api")))
    by_whom = "    shop (prod) refused 1 (unknown), failed 2 (unknown)"
    lost = f"3 refused or failed; difference 0|{by_whom}"

    assert list(impression_sentences(found)) == [
        line
        for rule, told in (
            (
                "rule of unknown type",
                "0 impressions at Optimizely → 3 published, 0 duplicates, 0 refused or failed; difference -3",
            ),
            (
                "delivery",
                "3 impressions at Optimizely → 0 published, 0 duplicates, 0 refused or failed; difference 3",
            ),
            (
                "experiment",
                f"10 impressions at Optimizely → 3 published, 4 duplicates, {lost}",
            ),
            (
                "no rule",
                "0 impressions at Optimizely → 3 published, 0 duplicates, 0 refused or failed; difference -3",
            ),
        )
        for line in f"checkout, {rule}: {told}".split("|")
    ] + [
        "Reports of impressions that are missing: 1. Their impressions are in the differences.",
        "Impressions that a publisher could not count by flag, because it had no room: 7.",
        "Records of the impressions topic that cannot be read: 1.",
        "api reports no impressions, so its published decisions are left out (1).",
    ]


def test_if_no_publisher_reports_the_text_says_so() -> None:
    assert list(impression_sentences(books())) == [
        "No publisher reported impressions in the window: see docs/reconcile.md, Impressions."
    ]

"""Impressions held against published decisions: what adds up, what is left out, what is said of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flagpost_consumer.operator.reconciliation.extent import Window
from flagpost_consumer.operator.reconciliation.impressions import Compared, ImpressionBooks
from flagpost_consumer.operator.reconciliation.impressions_report import (
    impression_sentences,
    impressions_json,
)
from flagpost_schemas import DecisionEvent, Source
from simulation import decision

SHOP = Source(service="shop", environment="prod")


def report(sequence: int = 0, **changes: Any) -> bytes:
    """As flagpost_publisher.impressions writes it."""
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
    ],
)
def test_what_is_no_report_is_counted_as_damaged_and_changes_nothing_else(value: bytes | None) -> None:
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


def test_the_document_has_each_row_and_what_is_doubtful() -> None:
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
    }


def test_people_read_a_line_for_each_flag_and_type_of_rule_and_what_is_doubtful() -> None:
    found = books(report(0, uncounted=7), report(2, impressions=[], unpublished=[]), b"no report")
    for _ in range(3):
        found.publish(published("experiment"))
        found.publish(published("none"))
        found.publish(published(None))
    found.publish(published("none", Source(service="api")))

    assert list(impression_sentences(found)) == [
        f"checkout, {rule}: {told}"
        for rule, told in (
            (
                "rule of unknown type",
                "0 impressions at Optimizely → 3 published, 0 said nothing new, 0 refused or failed; difference -3",
            ),
            (
                "delivery",
                "3 impressions at Optimizely → 0 published, 0 said nothing new, 0 refused or failed; difference 3",
            ),
            (
                "experiment",
                "10 impressions at Optimizely → 3 published, 4 said nothing new, 3 refused or failed; difference 0",
            ),
            (
                "no rule",
                "0 impressions at Optimizely → 3 published, 0 said nothing new, 0 refused or failed; difference -3",
            ),
        )
    ] + [
        "Reports of impressions that are missing: 1. What they told is among the differences.",
        "Impressions that a publisher had no room to count by flag: 7.",
        "Records of the topic of impressions that cannot be read: 1.",
        "api reports no impressions: what it published is left out (1).",
    ]


def test_where_nobody_reports_that_is_said() -> None:
    assert list(impression_sentences(books())) == [
        "No publisher reported impressions in the window: see docs/reconcile.md, Impressions."
    ]

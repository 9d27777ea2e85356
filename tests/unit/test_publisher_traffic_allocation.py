"""The traffic allocation of a datafile, as publishers read and report it and as the consumer understands it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flagpost_consumer.commands.reconcile.extent import Window
from flagpost_consumer.commands.reconcile.impressions import ImpressionBooks
from flagpost_consumer.core.splits.experiments import splits_in
from flagpost_publisher.attachment import Attachment
from flagpost_publisher.impressions import Impressions
from flagpost_publisher.traffic_allocation import read_splits
from flagpost_schemas import Source
from optimizely_fixtures import DATAFILE, TARGETED, optimizely_client, rule, user_of, variation

ABC = [variation("1", "a", on=False), variation("2", "b", on=True), variation("3", "c", on=True)]


def split_of(ranges: list[tuple[str, int]], **more: Any) -> dict[str, int]:
    """Return the split that is read for an experiment `r` of a flag `f`."""
    allocation = [{"entityId": identity, "endOfRange": end} for identity, end in ranges]
    experiment = {**rule("9", "r", ABC, [0, 0, 0]), "trafficAllocation": allocation, **more}
    flags = [{"key": "f", "experimentIds": ["9", "gone"]}, {"key": "g", "experimentIds": []}]
    splits = read_splits({"experiments": [experiment], "featureFlags": flags})
    assert splits.keys() == {("f", "r")}
    return splits["f", "r"]


@pytest.mark.parametrize(
    ("ranges", "shares"),
    [
        ([("1", 5_000), ("2", 10_000)], {"a": 5_000, "b": 5_000}),
        ([("1", 900), ("2", 1_000)], {"a": 900, "b": 100}),
        ([("1", 1_000), ("", 5_000), ("2", 6_000)], {"a": 1_000, "b": 1_000}),
        ([("1", 1_000), ("2", 2_000), ("1", 5_000)], {"a": 4_000, "b": 1_000}),
        ([("1", 0), ("2", 10_000), ("unknown", 10_000)], {"b": 10_000}),
        ([], {}),
    ],
)
def test_the_share_of_a_variation_is_the_sum_of_its_ranges(
    ranges: list[tuple[str, int]], shares: dict[str, int]
) -> None:
    assert split_of(ranges) == shares


@pytest.mark.parametrize("more", [{"type": "mab"}, {"type": "cmab"}, {"cmab": {"trafficAllocation": 4_000}}])
def test_a_bandit_has_no_fixed_split(more: dict[str, Any]) -> None:
    assert split_of([("1", 5_000), ("2", 10_000)], **more) == {}


def test_experiments_of_groups_are_experiments() -> None:
    grouped = [{"experiments": [rule("9", "r", ABC, [2_000, 4_000, 10_000])]}]
    splits = read_splits({"groups": grouped, "featureFlags": [{"key": "f", "experimentIds": ["9"]}]})
    assert splits == {("f", "r"): {"a": 2_000, "b": 2_000, "c": 6_000}}


def test_a_report_has_the_splits_of_the_experiments_that_had_impressions() -> None:
    """It has none of deliveries, holdouts and experiments without visitors; no split is reported a second time."""
    client = optimizely_client(**{**DATAFILE, **TARGETED})
    counted = Impressions(Source(service="shop"), 0)
    Attachment(client, lambda *_: None, counted.hear, lambda _: None).listen()
    for number in range(20):
        user_of(client, f"v{number}").decide_all()
    report = counted.report(5_000)
    assert report is not None
    document = json.loads(report.value)
    assert document["splits"] == [
        {
            "flag_key": "checkout",
            "rule_key": "checkout_test",
            "shares": {"control": 5_000, "treatment": 5_000},
        }
    ]
    books = ImpressionBooks(Window())
    books.add(report.value)
    split = books.splits.of(("checkout", "checkout_test"))
    assert split is not None
    assert (dict(split.shares), books.damaged) == ({"control": 0.5, "treatment": 0.5}, 0)
    assert counted.report(6_000) is None


@pytest.mark.parametrize(
    "splits",
    [
        [{}],
        5,
        [{"flag_key": "f", "rule_key": 5, "shares": {}}],
        [{"flag_key": "f", "rule_key": "r", "shares": []}],
        [{"flag_key": "f", "rule_key": "r", "shares": {"a": "much"}}],
    ],
)
def test_splits_of_another_form_are_refused(splits: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        list(splits_in({"splits": splits}))
    assert list(splits_in({})) == []

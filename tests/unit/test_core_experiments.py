"""Which decisions belong to an experiment, and which split is expected of it from the reports of publishers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engine_world import decision
from flagpost_consumer.core.splits.experiments import (
    MAX_SPLITS,
    SHARE_BYTES,
    SPLIT_BYTES,
    Splits,
    experiment_of,
    splits_in,
    splits_of,
)

EXPERIMENT = ("checkout", "ab")


@pytest.mark.parametrize("rule_type", ["delivery", "holdout", "none", "something of a later release"])
def test_rules_that_are_not_experiments_have_no_split_to_test(rule_type: str) -> None:
    assert experiment_of(decision("v", rule_type=rule_type)) is None


@pytest.mark.parametrize("rule_type", ["experiment", None])
def test_an_experiment_is_a_rule_of_a_flag(rule_type: str | None) -> None:
    assert experiment_of(decision("v", rule_key="ab", rule_type=rule_type)) == EXPERIMENT


def test_a_split_holds_from_the_beginning_as_long_as_no_other_is_reported() -> None:
    splits = Splits()
    assert splits.of(EXPERIMENT) is None
    splits.tell(EXPERIMENT, {"a": 5_000, "b": 5_000}, 70)
    splits.tell(EXPERIMENT, {"b": 50, "a": 50}, 20)
    split = splits.of(EXPERIMENT)
    assert split is not None
    assert (dict(split.shares), split.since_ms) == ({"a": 0.5, "b": 0.5}, None)
    assert splits.of(("checkout", "other")) is None


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_a_split_that_changed_holds_since_the_old_one_was_last_reported(order: tuple[int, ...]) -> None:
    told = [({"a": 1, "b": 1}, 10), ({"a": 1, "b": 1}, 40), ({"a": 9, "b": 1}, 35), ({"a": 9, "b": 1}, 60)]
    splits = Splits()
    for number in order:
        splits.tell(EXPERIMENT, *told[number])
    split = splits.of(EXPERIMENT)
    assert split is not None
    assert (dict(split.shares), split.since_ms) == ({"a": 0.9, "b": 0.1}, 40)


def test_a_split_that_came_back_is_the_one_that_is_expected() -> None:
    splits = Splits()
    for at_ms, share in enumerate((1, 9, 1)):
        splits.tell(EXPERIMENT, {"a": share, "b": 1}, at_ms)
    split = splits.of(EXPERIMENT)
    assert split is not None
    assert (dict(split.shares), split.since_ms) == ({"a": 0.5, "b": 0.5}, 1)


def test_values_that_are_not_shares_are_left_out_of_a_split() -> None:
    splits = Splits()
    odd = {
        "a": 1.0,
        "b": 3.0,
        "none": 0.0,
        "less": -2.0,
        "all": float("inf"),
        "what": float("nan"),
        "dust": 1e-9,
    }
    splits.tell(EXPERIMENT, odd, 0)
    split = splits.of(EXPERIMENT)
    assert split is not None
    assert dict(split.shares) == {"a": 0.25, "b": 0.75}
    splits.tell(("checkout", "empty"), {"a": 0.0}, 0)
    assert splits.of(("checkout", "empty")) == ({}, None)


def test_shares_that_differ_by_less_than_a_millionth_are_the_same_split() -> None:
    splits = Splits()
    for at_ms, share in enumerate((1.0, 1.0000003)):
        splits.tell(EXPERIMENT, {"a": share, "b": 1.0}, at_ms)
    split = splits.of(EXPERIMENT)
    assert split is not None
    assert (dict(split.shares), split.since_ms) == ({"a": 0.5, "b": 0.5}, None)


@pytest.mark.parametrize("growing", ["a", "b"])
def test_only_the_newest_splits_are_remembered(growing: str) -> None:
    splits = Splits()
    for at_ms in range(10 * MAX_SPLITS):
        splits.tell(EXPERIMENT, {"a": 1, "b": 1, growing: at_ms + 1}, at_ms)
    split = splits.of(EXPERIMENT)
    assert split is not None
    assert split.since_ms == 10 * MAX_SPLITS - 2


# What publishers report


def row(**given: Any) -> dict[str, Any]:
    """A split as a publisher's report has it."""
    return {"flag_key": "checkout", "rule_key": "ab", "shares": {"a": 1, "b": 3.0}, **given}


def test_a_report_s_splits_are_read_with_its_end() -> None:
    report = {"until": 70, "splits": [row(), row(rule_key=None, shares={})]}
    shares = {"a": 1.0, "b": 3.0}
    assert splits_of(orjson.dumps(report)) == (70, [(EXPERIMENT, shares), (("checkout", None), {})])
    assert splits_of(orjson.dumps({"until": 70})) == (70, [])


@pytest.mark.parametrize(
    ("odd", "error"),
    [
        (row(rule_key=1), TypeError),
        (row(shares=None), AttributeError),
        (row(shares={"a": "much"}), ValueError),
        (row(shares={"a": None}), TypeError),
        ({"flag_key": "checkout", "rule_key": "ab"}, KeyError),
        ({"flag_key": "checkout", "shares": {}}, KeyError),
    ],
)
def test_a_split_of_another_form_raises_and_is_left_out_with_its_report(
    odd: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        list(splits_in({"splits": [odd]}))
    assert splits_of(orjson.dumps({"until": 70, "splits": [row(), odd]})) == (0, [])


def test_a_rule_that_is_not_text_is_reported() -> None:
    with pytest.raises(TypeError) as caught:
        list(splits_in({"splits": [row(rule_key=7)]}))
    assert caught.value.args == (7,)


@pytest.mark.parametrize("value", [None, b"", b"no JSON", b"[]", b"1", b"{}", b'{"until": "soon"}'])
def test_a_record_that_is_not_a_report_has_no_splits(value: bytes | None) -> None:
    assert splits_of(value) == (0, [])


# Memory


def test_the_bytes_of_splits_are_counted_and_subtracted_when_splits_are_forgotten() -> None:
    splits = Splits()
    for at_ms in range(MAX_SPLITS):
        splits.tell(EXPERIMENT, {"a": at_ms + 1, "b": 1}, at_ms)
        splits.tell(EXPERIMENT, {"a": at_ms + 1, "b": 1}, at_ms)
    full = splits.bytes_held
    assert full % MAX_SPLITS == 0, "each of them once"
    assert full / MAX_SPLITS > SPLIT_BYTES + 2 * SHARE_BYTES + len("".join(EXPERIMENT)) + len("ab")
    splits.tell(EXPERIMENT, {"a": 1, "b": MAX_SPLITS}, 99)
    assert splits.bytes_held == full
    splits.tell(("checkout" + "x" * 100, None), {"a": 1, "b": 1}, 0)
    splits.tell(("checkout", None), {"a": 1, "b": 1}, 0)
    long_name, short_name = splits.bytes_held - full, full / MAX_SPLITS
    assert long_name == 2 * short_name + 100 - 2 * len("ab")


def test_the_names_of_variations_count_too() -> None:
    held = []
    for name in ("b", "b" + "x" * 100):
        splits = Splits()
        splits.tell(EXPERIMENT, {"a": 1, name: 1}, 0)
        held.append(splits.bytes_held)
    assert held[1] - held[0] == 100

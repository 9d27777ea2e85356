"""Which decisions are of an experiment, and which split is expected of it while publishers tell theirs."""

from __future__ import annotations

import pytest

from flagpost_consumer.core.experiments import MAX_SPLITS, Splits, experiment_of
from simulation import decision

EXPERIMENT = ("checkout", "ab")


@pytest.mark.parametrize("rule_type", ["delivery", "holdout", "none", "something of a later release"])
def test_rules_that_are_no_experiment_have_no_split_to_be_tested(rule_type: str) -> None:
    assert experiment_of(decision("v", rule_type=rule_type)) is None


@pytest.mark.parametrize("rule_type", ["experiment", None])
def test_an_experiment_is_a_rule_of_a_flag(rule_type: str | None) -> None:
    assert experiment_of(decision("v", rule_key="ab", rule_type=rule_type)) == EXPERIMENT


def test_a_split_holds_from_the_first_as_long_as_no_other_is_told() -> None:
    splits = Splits()
    assert splits.of(EXPERIMENT) is None
    splits.tell(EXPERIMENT, {"a": 5_000, "b": 5_000}, 70)
    splits.tell(EXPERIMENT, {"b": 50, "a": 50}, 20)
    split = splits.of(EXPERIMENT)
    assert split is not None
    assert (dict(split.shares), split.since_ms) == ({"a": 0.5, "b": 0.5}, None)
    assert splits.of(("checkout", "other")) is None


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_a_split_that_changed_holds_since_the_old_one_was_last_told(order: tuple[int, ...]) -> None:
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


def test_what_is_no_share_is_left_out_of_a_split() -> None:
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


def test_of_splits_without_end_the_newest_are_remembered() -> None:
    splits = Splits()
    for at_ms in range(10 * MAX_SPLITS):
        splits.tell(EXPERIMENT, {"a": at_ms + 1, "b": 1}, at_ms)
    split = splits.of(EXPERIMENT)
    assert split is not None
    assert split.since_ms == 10 * MAX_SPLITS - 2

"""The live count of the visitors of experiments: each consumer of a group counts those of its own partitions."""

from __future__ import annotations

from random import Random

import pytest

from engine_world import decision
from flagpost_consumer.core.splits.sample_ratio import SKEWED_FROM, evidence
from flagpost_consumer.core.splits.visitors import MAX_VARIATIONS, SEEN_BITS, ExperimentVisitors
from flagpost_schemas import DecisionEvent

EXPERIMENT = ("checkout", "ab")
EVEN = {"a": 5_000, "b": 5_000}


def shown(visitor: str, variation: str | None = "a", **fields: object) -> DecisionEvent:
    values = {"rule_key": "ab", "rule_type": "experiment", "variation": variation}
    return decision(visitor, **{**values, **fields})  # type: ignore[arg-type]


def counting(**shares: float) -> ExperimentVisitors:
    visitors = ExperimentVisitors(["checkout"])
    visitors.tell(EXPERIMENT, shares or EVEN, 0)
    return visitors


def counted(visitors: ExperimentVisitors) -> dict[str, int]:
    return {variation: count for (_, variation), count in sorted(visitors.counts().items())}


def arrive(visitors: ExperimentVisitors, partition: int = 0, **sizes: int) -> None:
    """Take this many new visitors of each variation on a partition."""
    for variation, size in sizes.items():
        for number in range(size):
            visitors.take(partition, shown(f"{partition}-{variation}-{number}", variation))


def test_a_visitor_counts_once_with_the_first_variation() -> None:
    visitors = counting()
    for variation in ("b", "a", "b", "b"):
        visitors.take(3, shown("v", variation))
    visitors.take(3, shown("w", "a"))
    assert counted(visitors) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    "event",
    [
        shown("v", flag="unlisted"),
        shown("v", None),
        shown("v", rule_type="delivery"),
        shown("v", rule_type="holdout"),
        shown("v", rule_type="none"),
        shown("v", rule_type=None),
    ],
)
def test_only_experiments_of_flags_that_are_listed_count(event: DecisionEvent) -> None:
    visitors = counting()
    visitors.take(0, event)
    assert counted(visitors) == {}


def test_a_rule_of_unknown_type_counts_if_the_flags_split_is_set() -> None:
    visitors = ExperimentVisitors(["checkout"], {"checkout": {"a": 90, "b": 10}})
    visitors.take(0, shown("v", rule_type=None, rule_key=None))
    assert visitors.shares(("checkout", None)) == {"a": 0.9, "b": 0.1}
    assert visitors.evidence().keys() == {("checkout", None)}


def test_the_split_that_is_set_overrides_a_publishers() -> None:
    visitors = ExperimentVisitors(["checkout"], {"checkout": {"a": 90, "b": 10}})
    visitors.tell(EXPERIMENT, EVEN, 0)
    arrive(visitors, a=900, b=100)
    assert visitors.evidence()[EXPERIMENT] < 0


def test_there_is_no_evidence_while_no_split_is_known() -> None:
    visitors = ExperimentVisitors(["checkout"])
    arrive(visitors, a=900, b=100)
    assert (visitors.evidence(), visitors.shares(EXPERIMENT)) == ({}, {})
    visitors.tell(EXPERIMENT, EVEN, 0)
    assert visitors.evidence()[EXPERIMENT] >= SKEWED_FROM
    assert counted(visitors) == pytest.approx({"a": 900, "b": 100}, abs=20)


def test_an_experiment_without_a_fixed_split_is_not_tested() -> None:
    visitors = ExperimentVisitors(["checkout"])
    visitors.tell(EXPERIMENT, {}, 0)
    arrive(visitors, a=900, b=100)
    assert visitors.evidence() == {}


def test_an_experiment_with_one_variation_is_not_tested() -> None:
    visitors = counting(a=1)
    arrive(visitors, a=9)
    assert (counted(visitors), visitors.evidence()) == ({"a": 9}, {})


def test_a_visitor_counts_in_each_experiment_of_a_flag() -> None:
    visitors = counting()
    for rule in ("ab", "second"):
        visitors.take(0, shown("v", rule_key=rule))
    assert visitors.counts() == {(EXPERIMENT, "a"): 1, (("checkout", "second"), "a"): 1}


def test_the_evidence_is_that_of_all_partitions_together() -> None:
    visitors = counting()
    for partition in range(5):
        arrive(visitors, partition, a=40, b=30)
    counts = counted(visitors)
    assert counts == pytest.approx({"a": 200, "b": 150}, abs=10)
    assert visitors.evidence()[EXPERIMENT] == pytest.approx(evidence(counts, EVEN))


def test_a_partition_that_is_given_away_is_no_longer_counted_and_starts_again_at_its_new_owner() -> None:
    """So no visitor is counted by two consumers, whose evidence is added up."""
    one, other = counting(), counting()
    arrive(one, 0, a=2, b=2)
    arrive(one, 1, a=1, b=2)
    one.forget([1, 9])
    arrive(other, 1, a=3)
    assert (counted(one), counted(other)) == ({"a": 2, "b": 2}, {"a": 3})


def test_another_split_resets_the_count_and_counts_no_visitor_again() -> None:
    visitors = counting()
    visitors.tell(("checkout", "second"), EVEN, 0)
    arrive(visitors, a=3, b=2)
    visitors.take(0, shown("x", rule_key="second"))
    visitors.tell(EXPERIMENT, {"a": 1, "b": 1}, 10)  # the same
    assert visitors.counts() == {(EXPERIMENT, "a"): 3, (EXPERIMENT, "b"): 2, (("checkout", "second"), "a"): 1}
    visitors.tell(EXPERIMENT, {"a": 9_000, "b": 1_000}, 20)
    arrive(visitors, a=3, b=2)
    visitors.take(0, shown("new", "b"))
    assert visitors.counts() == {(EXPERIMENT, "b"): 1, (("checkout", "second"), "a"): 1}


def test_sums_of_evidence_of_many_consumers_are_as_safe_as_one() -> None:
    """Ten consumers, a thousand fair experiments, each tested forty times: at most one in a hundred warns."""
    random, warned = Random(7), 0
    for _ in range(1_000):
        counts = [[0, 0] for _ in range(10)]
        largest = 0.0
        for _ in range(40):
            for own in counts:
                treated = random.getrandbits(16).bit_count()
                own[0] += treated
                own[1] += 16 - treated
            if abs(sum(a - b for a, b in counts)) > 100:  # counts nearer to even are no evidence
                largest = max(largest, sum(evidence({"a": a, "b": b}, EVEN) for a, b in counts))
        warned += largest >= SKEWED_FROM
    assert warned <= 10


def test_memory_is_bounded_and_visitors_that_are_not_counted_change_no_split() -> None:
    """As many visitors as bits: not all of them are counted, but the same part of each variation."""
    visitors = counting()
    event = {variation: shown("v", variation) for variation in "ab"}
    for number in range(SEEN_BITS // 2):
        object.__setattr__(event["a"], "visitor_id", f"a{number}")
        object.__setattr__(event["b"], "visitor_id", f"b{number}")
        visitors.take(0, event["a"])
        visitors.take(0, event["b"])
    seen = sum(counted(visitors).values())
    assert seen == pytest.approx(SEEN_BITS * 0.632, rel=0.01)
    assert visitors.evidence()[EXPERIMENT] < SKEWED_FROM


def test_only_a_hundred_variations_are_counted_and_an_experiment_with_more_is_not_tested() -> None:
    visitors = counting()
    for number in range(5 * MAX_VARIATIONS):
        visitors.take(number, shown(f"v{number}", f"variation-{number}"))
    assert len(counted(visitors)) == MAX_VARIATIONS
    assert visitors.evidence() == {}


def test_names_of_more_than_a_hundred_characters_are_not_counted() -> None:
    visitors = counting()
    visitors.take(0, shown("v", "a" * 101))
    visitors.take(0, shown("v", rule_key="r" * 101))
    assert counted(visitors) == {}
    visitors.take(0, shown("v", "a" * 100))
    assert counted(visitors) == {"a" * 100: 1}


def test_a_split_may_have_as_many_variations_as_are_counted() -> None:
    visitors = ExperimentVisitors(["checkout"])
    visitors.tell(EXPERIMENT, {f"v{number}": 1 for number in range(MAX_VARIATIONS)}, 0)
    assert len(visitors.shares(EXPERIMENT)) == MAX_VARIATIONS


def test_a_split_of_more_variations_than_are_counted_is_ignored() -> None:
    visitors = ExperimentVisitors(["checkout"])
    visitors.tell(EXPERIMENT, {f"v{number}": 1 for number in range(MAX_VARIATIONS + 1)}, 0)
    visitors.tell(("unlisted", "rule"), EVEN, 0)
    assert visitors.shares(EXPERIMENT) == {}
    assert visitors.shares(("unlisted", "rule")) == {}


@pytest.mark.parametrize("flags", [["checkout"], ["checkout", "search"]])
def test_experiments_with_a_variation_that_is_not_counted_are_remembered_up_to_a_bound(
    flags: list[str],
) -> None:
    visitors = ExperimentVisitors(flags)
    for number in range(3 * MAX_VARIATIONS):
        visitors.take(0, shown("v", "x" * 101, rule_key=f"r{number}"))
    assert len(visitors._unnamed) == MAX_VARIATIONS * len(flags)
    assert counted(visitors) == {}

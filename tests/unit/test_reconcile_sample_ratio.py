"""The sample ratio check of reconcile: who counts, the expected split, and when and where it is skewed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from engine_world import decision
from flagpost_consumer.commands.reconcile.ratio_words import ratio_json, ratio_remark, ratio_warnings
from flagpost_consumer.commands.reconcile.sample_ratio import (
    HOUR_MS,
    Origin,
    SampleRatio,
    Samples,
    assignment_of,
    check_ratios,
)
from flagpost_consumer.core.splits.experiments import Splits
from flagpost_consumer.core.splits.sample_ratio import Shares
from flagpost_schemas import DecisionEvent, Source

SOURCES = {
    "web": Source(service="web", sdk="optimizely-sdk", sdk_version="5.2.0"),
    "app": Source(service="app", sdk="java", sdk_version="4.1.0"),
    "old": Source(service="web", sdk="optimizely-sdk", sdk_version="4.1.0"),
}


def shown(visitor: str, variation: str | None, sender: str = "web", **fields: object) -> DecisionEvent:
    values = {"flag": "checkout", "rule_key": "ab", "rule_type": "experiment", "source": SOURCES[sender]}
    return decision(visitor, variation=variation, **{**values, **fields})  # type: ignore[arg-type]


def crowd(sender: str = "web", hour: int = 0, **sizes: int) -> list[tuple[DecisionEvent, int]]:
    """Return decisions of the given numbers of visitors for each variation, at the beginning of an hour."""
    return [
        (shown(f"{sender}-{hour}-{variation}-{number}", variation, sender), hour * HOUR_MS)
        for variation, size in sizes.items()
        for number in range(size)
    ]


def sampled(
    arrivals: Iterable[tuple[DecisionEvent, int]], undelivered: Mapping[str, int] | None = None
) -> Samples:
    """Take decisions as they arrive; all are delivered except the first few of some variations."""
    samples, left = Samples(), dict(undelivered or {})
    for event, arrived_ms in arrivals:
        assignment = assignment_of(event)
        if assignment is not None:
            lost = left.get(assignment.variation, 0)
            left[assignment.variation] = lost - 1
            samples.take(assignment, arrived_ms, delivered=lost <= 0)
    return samples


def checked(
    samples: Samples, splits: Splits | None = None, given: Mapping[str, Shares] | None = None
) -> list[SampleRatio]:
    return list(check_ratios(samples, splits or Splits(), given or {}))


def told(shares: Shares, at_ms: int = 0) -> Splits:
    splits = Splits()
    splits.tell(("checkout", "ab"), shares, at_ms)
    return splits


def test_a_visitor_counts_once_with_the_first_variation() -> None:
    arrivals = [(shown("v", "a"), 0), (shown("v", "b"), 1), (shown("v", "a"), 2), (shown("w", "b"), 3)]
    (ratio,) = checked(sampled(arrivals))
    assert (ratio.variations, ratio.delivered) == ({"a": 1, "b": 1}, {"a": 1, "b": 1})


def test_a_visitor_is_delivered_once_the_first_variation_is() -> None:
    samples = Samples()
    arrivals = [("v", "a", False), ("v", "b", True), ("v", "a", True), ("v", "a", True), ("w", "b", False)]
    for visitor, variation, delivered in arrivals:
        assignment = assignment_of(shown(visitor, variation))
        assert assignment is not None
        samples.take(assignment, 0, delivered=delivered)
    (ratio,) = checked(samples)
    assert (ratio.variations, ratio.delivered) == ({"a": 1, "b": 1}, {"a": 1, "b": 0})


@pytest.mark.parametrize("rule_type", ["delivery", "holdout", "none"])
def test_only_rules_of_type_experiment_are_tested(rule_type: str) -> None:
    assert assignment_of(shown("v", "a", rule_type=rule_type)) is None


def test_no_variation_is_no_assignment() -> None:
    assert assignment_of(shown("v", None)) is None


def test_a_variation_that_switches_the_flag_off_counts_like_the_others() -> None:
    """Pendo receives `off` for it, but in the experiment it is the control."""
    arrivals = [(shown(f"v{n}", ("off", "hidden", "on")[n % 3], enabled=n % 3 == 2), 0) for n in range(9)]
    (ratio,) = checked(sampled(arrivals))
    assert ratio.variations == {"hidden": 3, "off": 3, "on": 3}


def test_a_rule_of_unknown_type_is_tested_if_its_split_is_given() -> None:
    samples = sampled([(shown(f"v{n}", "ab"[n % 2], rule_type=None), 0) for n in range(10)])
    assert checked(samples) == []
    assert checked(samples, told({"a": 1, "b": 1})) == []
    (ratio,) = checked(samples, given={"checkout": {"a": 1, "b": 1}})
    assert ratio.variations == {"a": 5, "b": 5}


def test_two_experiments_of_a_flag_are_two_tests() -> None:
    arrivals = crowd(a=30, b=30) + [(shown(f"x{n}", "ab"[n % 2], rule_key="second"), 0) for n in range(10)]
    ratios = checked(sampled(arrivals))
    assert [(ratio.rule_key, sum(ratio.variations.values())) for ratio in ratios] == [
        ("ab", 60),
        ("second", 10),
    ]


def test_without_a_known_split_an_even_one_is_assumed() -> None:
    (ratio,) = checked(sampled(crowd(a=505, b=495)))
    assert (ratio.expected, ratio.expected_from) == ({"a": 500.0, "b": 500.0}, Origin.EVEN)
    assert not ratio.skewed
    assert ratio.p_value > 0.5


def test_the_split_of_the_datafile_is_expected_if_a_publisher_reported_it() -> None:
    samples = sampled(crowd(a=900, b=100))
    (even,) = checked(samples)
    (meant,) = checked(samples, told({"a": 9_000, "b": 1_000}))
    assert (even.skewed, meant.skewed, meant.expected_from) == (True, False, Origin.DATAFILE)
    assert meant.expected == pytest.approx({"a": 900.0, "b": 100.0})


def test_a_split_that_is_given_wins_over_the_datafiles() -> None:
    given = {"checkout": {"a": 1.0, "b": 1.0}}
    (ratio,) = checked(sampled(crowd(a=900, b=100)), told({"a": 9, "b": 1}), given)
    assert (ratio.skewed, ratio.expected_from) == (True, Origin.OPTION)


def test_a_variation_that_is_expected_and_missing_counts_as_zero() -> None:
    (ratio,) = checked(sampled(crowd(a=100)), told({"a": 50, "b": 50}))
    assert (ratio.variations, ratio.skewed) == ({"a": 100, "b": 0}, True)


def test_variations_outside_the_expected_split_are_left_out() -> None:
    (ratio,) = checked(sampled(crowd(a=50, b=50, forced=900)), told({"a": 1, "b": 1}))
    assert (ratio.variations, ratio.skewed) == ({"a": 50, "b": 50}, False)


def test_one_variation_has_nothing_to_be_compared_with() -> None:
    assert checked(sampled(crowd(a=1_000))) == []
    assert checked(Samples()) == []


def test_few_visitors_are_no_evidence() -> None:
    (ratio,) = checked(sampled(crowd(a=9)), told({"a": 1, "b": 1}))
    assert not ratio.skewed
    assert ratio.p_value > 0.01


def test_fifty_two_to_forty_eight_of_twenty_thousand_visitors_is_skewed() -> None:
    (ratio,) = checked(sampled(crowd(treatment=10_400, control=9_600)), told({"control": 1, "treatment": 1}))
    assert ratio.skewed


def test_a_skewed_split_stays_skewed_and_says_since_when() -> None:
    """A fault has spoilt the experiment even if it was fixed later."""
    arrivals = crowd(hour=0, a=500, b=500)
    arrivals += [each for hour in range(1, 4) for each in crowd(hour=hour, a=700, b=300)]
    arrivals += [each for hour in range(4, 8) for each in crowd(hour=hour, a=300, b=700)]
    (ratio,) = checked(sampled(arrivals))
    assert ratio.skewed
    assert ratio.skewed_since_ms == 2 * HOUR_MS
    assert ratio.p_value < 1e-6


def test_the_order_of_the_partitions_does_not_matter() -> None:
    arrivals = [each for hour in range(5) for each in crowd(hour=hour, a=520 + hour, b=480)]
    samples = Samples()
    for part in (arrivals[2_000:], arrivals[:2_000]):
        for event, arrived_ms in part:
            assignment = assignment_of(event)
            assert assignment is not None
            samples.take(assignment, arrived_ms, delivered=True)
        samples.partitions_end()
    assert checked(samples) == checked(sampled(arrivals))


def test_after_a_change_of_the_split_only_later_visitors_count() -> None:
    splits = told({"a": 5, "b": 5}, 2 * HOUR_MS - 1)
    splits.tell(("checkout", "ab"), {"a": 9, "b": 1}, 3 * HOUR_MS)
    arrivals = crowd(hour=0, a=500, b=500) + crowd(hour=1, a=50, b=50) + crowd(hour=2, a=900, b=100)
    (ratio,) = checked(sampled(arrivals), splits)
    assert (ratio.variations, ratio.skewed) == ({"a": 900, "b": 100}, False)
    assert ratio.since_ms == 2 * HOUR_MS - 1


def test_the_service_that_is_skewed_is_named_and_the_others_fit_without_it() -> None:
    arrivals = crowd("web", a=5_000, b=5_000) + crowd("app", a=1_300, b=700)
    (ratio,) = checked(sampled(arrivals), told({"a": 1, "b": 1}))
    assert ratio.skewed
    by = {(suspect.by, suspect.name): suspect for suspect in ratio.suspects}
    assert by.keys() == {("service", "app"), ("sdk", "java 4.1.0")}
    assert by["service", "app"].variations == {"a": 1_300, "b": 700}
    assert by["service", "app"].p_value < 0.01 < by["service", "app"].rest_p_value


def test_the_version_of_an_sdk_that_is_skewed_is_named() -> None:
    arrivals = crowd("web", a=3_000, b=3_000) + crowd("old", a=1_300, b=700)
    (ratio,) = checked(sampled(arrivals), told({"a": 1, "b": 1}))
    assert [(suspect.by, suspect.name) for suspect in ratio.suspects] == [("sdk", "optimizely-sdk 4.1.0")]


def test_if_all_senders_are_skewed_each_is_named_and_the_others_do_not_fit_either() -> None:
    arrivals = crowd("web", a=1_300, b=700) + crowd("app", a=1_300, b=700)
    (ratio,) = checked(sampled(arrivals))
    services = [suspect for suspect in ratio.suspects if suspect.by == "service"]
    assert [suspect.name for suspect in services] == ["app", "web"]
    assert all(suspect.rest_p_value < 0.01 for suspect in services)


def test_a_fair_experiment_has_no_suspects_whatever_its_services_do() -> None:
    arrivals = crowd("web", a=1_000, b=1_000) + crowd("app", a=20, b=10)
    (ratio,) = checked(sampled(arrivals))
    assert (ratio.skewed, ratio.suspects) == (False, ())


def test_decisions_that_fit_and_deliveries_that_do_not_are_distinguished() -> None:
    arrivals = crowd(a=1_000, b=1_000)
    (ratio,) = checked(sampled(arrivals, undelivered={"b": 300}))
    assert (ratio.skewed, ratio.delivered_skewed) == (False, True)
    assert ratio.delivered == {"a": 1_000, "b": 700}
    (fair,) = checked(sampled(arrivals, undelivered={"a": 300, "b": 300}))
    assert (fair.skewed, fair.delivered_skewed) == (False, False)


def test_a_publisher_without_a_name_is_a_sender_too() -> None:
    arrivals = crowd("web", a=3_000, b=3_000)
    arrivals += [(shown(f"x{n}", "a" if n % 10 < 8 else "b", source=None), 0) for n in range(1_000)]
    (ratio,) = checked(sampled(arrivals))
    assert {(suspect.by, suspect.name) for suspect in ratio.suspects} == {
        ("service", "unknown"),
        ("sdk", "unknown"),
    }


def test_the_sentences_name_the_skewed_split_and_its_senders() -> None:
    arrivals = crowd("web", a=5_000, b=5_000) + crowd("app", a=1_300, b=700)
    (ratio,) = checked(sampled(arrivals), told({"a": 1, "b": 1}))
    whole, service, sdk = ratio_warnings(ratio)
    assert whole.startswith(
        "checkout, rule ab: visitors are split 6,300 a, 5,700 b where 6,000 a, 6,000 b are expected by the "
        "datafile's traffic allocation. The probability that a fair experiment ever shows such a split, however "
    )
    assert "It has been visible since 1970-01-01 01:00:00Z." in whole
    assert "--expect" not in whole
    assert service.startswith("The service app alone is not split as expected: 1,300 a, 700 b (p = ")
    assert service.endswith("without it, the others are split as expected.")
    assert sdk.startswith("The SDK java 4.1.0 alone is not split as expected")


def test_the_sentences_say_how_to_give_a_split_that_no_publisher_reports() -> None:
    (ratio,) = checked(sampled(crowd(a=900, b=100)))
    whole, nobody = ratio_warnings(ratio)
    assert "where 500 a, 500 b are expected in an even split." in whole
    assert whole.endswith("give them: --expect checkout=a:SHARE,b:SHARE")
    assert nobody == "checkout, rule ab: no service and no SDK version differs from the others."


def test_the_sentences_say_that_the_deliveries_are_skewed() -> None:
    (ratio,) = checked(sampled(crowd(a=1_000, b=1_000), undelivered={"b": 300}))
    (line,) = ratio_warnings(ratio)
    assert line.startswith(
        "checkout, rule ab: decided visitors are split as expected, but delivered visitors are split 1,000 a, 700 b "
        "(p = "
    )


def test_an_expected_split_is_only_a_remark() -> None:
    (ratio,) = checked(sampled(crowd(a=510, b=490)), given={"checkout": {"a": 1, "b": 1}})
    assert list(ratio_warnings(ratio)) == []
    assert ratio_remark(ratio) == (
        "checkout, rule ab: visitors are split 510 a, 490 b where 500 a, 500 b are expected (--expect): the "
        "difference is within chance (p = 1)."
    )


def test_expected_numbers_add_up() -> None:
    """Before the fix, they were rounded: of 5 visitors, 2 and 2 were expected."""
    (ratio,) = checked(sampled(crowd(a=2, b=3)), given={"checkout": {"a": 1, "b": 1}})
    assert "where 2.5 a, 2.5 b are expected" in ratio_remark(ratio)


def test_a_changed_split_says_since_when_it_counts() -> None:
    splits = told({"a": 5, "b": 5}, HOUR_MS)
    splits.tell(("checkout", "ab"), {"a": 9, "b": 1}, 2 * HOUR_MS)
    (ratio,) = checked(sampled(crowd(hour=1, a=9, b=1)), splits)
    assert "9 a, 1 b since their split changed (1970-01-01 01:00:00Z) where 9 a, 1 b" in ratio_remark(ratio)


def test_the_document_has_the_facts_of_the_sentences() -> None:
    arrivals = crowd("web", a=3_000, b=3_000) + crowd("old", a=1_300, b=700)
    (ratio,) = checked(sampled(arrivals), told({"a": 1, "b": 1}))
    document = ratio_json(ratio)
    assert document.pop("p_value") < 0.01
    assert document.pop("delivered_p_value") < 0.01
    (suspect,) = document.pop("suspects")
    assert (suspect["by"], suspect["name"]) == ("sdk", "optimizely-sdk 4.1.0")
    assert suspect["variations"] == {"a": 1_300, "b": 700}
    assert document == {
        "flag_key": "checkout",
        "rule_key": "ab",
        "variations": {"a": 4_300, "b": 3_700},
        "expected": {"a": 4_000.0, "b": 4_000.0},
        "expected_from": "datafile",
        "since_ms": None,
        "skewed_since_ms": HOUR_MS,
        "delivered": {"a": 4_300, "b": 3_700},
        "skewed": True,
        "delivered_skewed": False,
    }

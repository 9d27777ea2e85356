"""Describes the sample ratio of an experiment: sentences for people, and its part of the JSON document.

In: the test of an experiment. Out: text; a dict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from flagpost_consumer.commands.reconcile.sample_ratio import Origin, SampleRatio, Suspect
from flagpost_consumer.core.splits.sample_ratio import ALPHA
from flagpost_consumer.terminal.times import moment_text

_EXPECTED = {
    Origin.OPTION: "expected (--expect)",
    Origin.DATAFILE: "expected by the datafile's traffic allocation",
    Origin.EVEN: "expected in an even split",
}


def ratio_json(ratio: SampleRatio) -> dict[str, Any]:
    """The members of `sample_ratio`."""
    return {**asdict(ratio), "skewed": ratio.skewed, "delivered_skewed": ratio.delivered_skewed}


def ratio_remark(ratio: SampleRatio) -> str:
    """A sentence on a split that is as expected."""
    return f"{_split(ratio)}: the difference is within chance (p = {ratio.p_value:.2g})."


def ratio_warnings(ratio: SampleRatio) -> Iterator[str]:
    """Warnings on a split that is not as expected, and whose decisions cause it; or on deliveries that are split
    differently from decisions.
    """
    if ratio.skewed:
        yield _skewed(ratio)
        yield from map(_suspected, ratio.suspects)
        if not ratio.suspects:
            yield f"{_name(ratio)}: no service and no SDK version differs from the others."
    elif ratio.delivered_skewed:
        yield (
            f"{_name(ratio)}: decided visitors are split as expected, but delivered visitors are split "
            f"{_counts(ratio.delivered)} (p = {ratio.delivered_p_value:.1g}): one variation loses more visitors than "
            "another. Look at who was lost, and why."
        )


def _skewed(ratio: SampleRatio) -> str:
    since = (
        ""
        if ratio.skewed_since_ms is None
        else f" It has been visible since {moment_text(ratio.skewed_since_ms)}."
    )
    advice = f" {_advice(ratio)}" if ratio.expected_from is Origin.EVEN else ""
    return (
        f"{_split(ratio)}. The probability that a fair experiment ever shows such a split, however often you look, "
        f"is at most {ratio.p_value:.1g}.{since} Find the cause before you trust the experiment.{advice}"
    )


def _advice(ratio: SampleRatio) -> str:
    shares = ",".join(f"{name}:SHARE" for name in ratio.variations)
    return f"If the shares are unequal on purpose, give them: --expect {ratio.flag_key}={shares}"


def _suspected(suspect: Suspect) -> str:
    what = "service" if suspect.by == "service" else "SDK"
    others = "are split as expected" if suspect.rest_p_value > ALPHA else "are not split as expected either"
    return (
        f"The {what} {suspect.name} alone is not split as expected: {_counts(suspect.variations)} "
        f"(p = {suspect.p_value:.1g}); without it, the others {others}."
    )


def _split(ratio: SampleRatio) -> str:
    since = "" if ratio.since_ms is None else f" since their split changed ({moment_text(ratio.since_ms)})"
    expected = ", ".join(f"{_expected(count)} {name}" for name, count in ratio.expected.items())
    return (
        f"{_name(ratio)}: visitors are split {_counts(ratio.variations)}{since} where {expected} are "
        f"{_EXPECTED[ratio.expected_from]}"
    )


def _expected(count: float) -> str:
    """With one decimal if it is not whole, so that expectations add up."""
    return f"{count:,.1f}".removesuffix(".0")


def _name(ratio: SampleRatio) -> str:
    return ratio.flag_key if ratio.rule_key is None else f"{ratio.flag_key}, rule {ratio.rule_key}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())

"""Experiments: decisions by how they ended; by flag and variation where `metrics.flags` names the flag."""

from __future__ import annotations

from dashboards.dashboard import Dashboard, Row
from dashboards.overview import DELIVERIES
from dashboards.panels import ANY, Query, bad_from, good_from, graph, stack, stat, table
from dashboards.promql import RELEASE, gained, greatest, rate, ratio, seen, series, total

DECISIONS = "flagpost_decisions_total"
TRACK = 'kind="track"'
VALUES = 'kind="visitor_metadata"'
OF_NAMED_FLAGS = "Only flags that the setting metrics.flags lists, to keep the number of labels small."

ALL = Row(
    "All track events",
    (
        stat(
            "Delivered",
            "Track events (decisions and others) that Pendo accepted in the selected time range.",
            total(gained(DELIVERIES, TRACK, 'outcome="delivered"')),
            "short",
            ANY,
            width=6,
        ),
        stat(
            "Duplicates",
            "Track events that were not sent because they are duplicates.",
            total(gained(DELIVERIES, TRACK, 'outcome="duplicate"')),
            "short",
            ANY,
            width=6,
        ),
        stat(
            "Dropped",
            "Track events dropped because of consent, a filter or a missing visitor id.",
            total(gained(DELIVERIES, TRACK, 'outcome="dropped"')),
            "short",
            ANY,
            width=6,
        ),
        stat(
            "Dead-lettered",
            "An experiment's numbers do not include these until they are replayed.",
            total(gained(DELIVERIES, TRACK, 'outcome="dead_lettered"')),
            "short",
            bad_from(1, 100),
            runbook="FlagpostDeadLetters",
            width=6,
        ),
        stack(
            "Track events by outcome",
            "How track deliveries end, by outcome, a second.",
            "ops",
            ANY,
            Query(total(rate(DELIVERIES, TRACK), "outcome"), "{{outcome}}"),
            runbook="FlagpostDeadLetters",
        ),
        stack(
            "Visitor metadata by reason",
            "Values of the field that a flag sets. superseded and unchanged need not be sent; for "
            "field_missing, create the field in Pendo.",
            "ops",
            ANY,
            Query(seen(total(rate(DELIVERIES, VALUES), "reason")), "{{reason}}"),
            runbook="FlagpostFieldMissing",
        ),
    ),
)

BY_FLAG = Row(
    "Flags of metrics.flags",
    (
        stack(
            "Decisions by outcome",
            f"How the track events of decisions end. {OF_NAMED_FLAGS}",
            "ops",
            ANY,
            Query(total(rate(DECISIONS), "outcome"), "{{outcome}}"),
            runbook="FlagpostDeadLetters",
        ),
        stack(
            "Delivered decisions by flag",
            f"If a flag stops sending decisions, you see it here first. {OF_NAMED_FLAGS}",
            "ops",
            ANY,
            Query(total(rate(DECISIONS, 'outcome="delivered"'), "flag"), "{{flag}}"),
        ),
        stack(
            "Delivered decisions by flag and variation",
            f"Counts events, not visitors: for the split see the panels below. {OF_NAMED_FLAGS}",
            "ops",
            ANY,
            Query(
                total(rate(DECISIONS, 'outcome="delivered"'), "flag", "variation"), "{{flag}} {{variation}}"
            ),
        ),
        graph(
            "Share delivered, by flag",
            "Delivered, as a share of delivered and dead-lettered. The objective is 99.9 %. "
            f"{OF_NAMED_FLAGS}",
            "percentunit",
            good_from(0.995, 0.999),
            Query(
                ratio(
                    total(rate(DECISIONS, 'outcome="delivered"'), "flag"),
                    total(rate(DECISIONS, 'outcome=~"delivered|dead_lettered"'), "flag"),
                ),
                "{{flag}}",
            ),
            runbook="FlagpostDeliveriesFail",
        ),
        table(
            "Decisions by flag, variation and outcome",
            f"Decisions in the selected time range. {OF_NAMED_FLAGS}",
            "short",
            ANY,
            f"round({total(gained(DECISIONS), 'flag', 'variation', 'outcome')})",
            width=24,
        ),
    ),
)

VISITORS = "flagpost_experiment_visitors"
BY_VARIATION = "flag", "rule", "variation"
OF_EXPERIMENTS = "Only experiment rules of flags that the setting metrics.flags lists."

SPLIT = Row(
    "Visitors of experiments",
    (
        graph(
            "Evidence of a mismatch",
            "Evidence that visitors are not split as expected, of all pods together. From 4.6 on it is a "
            "sample ratio mismatch: only one fair experiment in a hundred ever reaches that value. "
            f"{OF_EXPERIMENTS}",
            "short",
            bad_from(2.3, 4.6),
            Query(
                series("release:flagpost_sample_ratio_evidence:sum", of=RELEASE),
                "{{release}} {{flag}} {{rule}}",
            ),
            runbook="FlagpostSampleRatioMismatch",
        ),
        graph(
            "Share of visitors, and expected",
            "Each variation's share of an experiment's visitors, and the share it should have if the "
            f"datafile's traffic allocation or metrics.splits says so. {OF_EXPERIMENTS}",
            "percentunit",
            ANY,
            Query(
                f"{total(series(VISITORS), *BY_VARIATION)}"
                f" / on (flag, rule) group_left {total(series(VISITORS), 'flag', 'rule')}",
                "{{flag}} {{rule}} {{variation}}",
            ),
            Query(
                greatest(series("flagpost_experiment_expected_share"), *BY_VARIATION),
                "{{flag}} {{rule}} {{variation}} expected",
            ),
            runbook="FlagpostSampleRatioMismatch",
        ),
        table(
            "Visitors of experiments by variation",
            "Each visitor counts once, with the first variation, since the pods got their partitions: a "
            f"restart begins at 0. {OF_EXPERIMENTS}",
            "short",
            ANY,
            total(series(VISITORS), *BY_VARIATION),
            runbook="FlagpostSampleRatioMismatch",
            width=24,
        ),
    ),
)

DASHBOARD = Dashboard(
    "experiments",
    "Experiments",
    "How decisions end; by flag and variation for the flags that metrics.flags lists.",
    (ALL, BY_FLAG, SPLIT),
)

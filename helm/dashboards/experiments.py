"""Experiments: decisions by how they ended; by flag and variation where `metrics.flags` names the flag."""

from __future__ import annotations

from dashboards.dashboard import Dashboard, Row
from dashboards.overview import DELIVERIES
from dashboards.panels import ANY, Query, bad_from, good_from, graph, stack, stat, table
from dashboards.promql import RELEASE, gained, greatest, rate, ratio, seen, series, total

DECISIONS = "flagpost_decisions_total"
TRACK = 'kind="track"'
VALUES = 'kind="visitor_metadata"'
OF_NAMED_FLAGS = "Only flags that the setting metrics.flags lists: labels stay few."

ALL = Row(
    "All track events",
    (
        stat(
            "Delivered",
            "Track events that Pendo accepted in the time that is looked at: decisions and track events.",
            total(gained(DELIVERIES, TRACK, 'outcome="delivered"')),
            "short",
            ANY,
            width=6,
        ),
        stat(
            "Duplicates",
            "Duplicates: not sent.",
            total(gained(DELIVERIES, TRACK, 'outcome="duplicate"')),
            "short",
            ANY,
            width=6,
        ),
        stat(
            "Dropped",
            "By consent, filters, or for want of a visitor id.",
            total(gained(DELIVERIES, TRACK, 'outcome="dropped"')),
            "short",
            ANY,
            width=6,
        ),
        stat(
            "Dead-lettered",
            "An experiment's numbers lack these until they are replayed.",
            total(gained(DELIVERIES, TRACK, 'outcome="dead_lettered"')),
            "short",
            bad_from(1, 100),
            runbook="FlagpostDeadLetters",
            width=6,
        ),
        stack(
            "Track events by outcome",
            "How track deliveries end, a second.",
            "ops",
            ANY,
            Query(total(rate(DELIVERIES, TRACK), "outcome"), "{{outcome}}"),
            runbook="FlagpostDeadLetters",
        ),
        stack(
            "Visitor metadata by ending",
            "Values of the field that a flag sets. superseded and unchanged need not be sent; "
            "field_missing: create the field in Pendo.",
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
            f"A flag that falls silent shows here first. {OF_NAMED_FLAGS}",
            "ops",
            ANY,
            Query(total(rate(DECISIONS, 'outcome="delivered"'), "flag"), "{{flag}}"),
        ),
        stack(
            "Delivered decisions by flag and variation",
            f"Events, not visitors: see below for the split. {OF_NAMED_FLAGS}",
            "ops",
            ANY,
            Query(
                total(rate(DECISIONS, 'outcome="delivered"'), "flag", "variation"), "{{flag}} {{variation}}"
            ),
        ),
        graph(
            "Share delivered, by flag",
            f"Delivered, of delivered and dead-lettered. The objective is 99.9 %. {OF_NAMED_FLAGS}",
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
            f"In the time that is looked at. {OF_NAMED_FLAGS}",
            "short",
            ANY,
            f"round({total(gained(DECISIONS), 'flag', 'variation', 'outcome')})",
            width=24,
        ),
    ),
)

VISITORS = "flagpost_experiment_visitors"
BY_VARIATION = "flag", "rule", "variation"
OF_EXPERIMENTS = "Rules of type experiment of the flags that the setting metrics.flags lists."

SPLIT = Row(
    "Visitors of experiments",
    (
        graph(
            "Evidence of a mismatch",
            "Of the visitors against the expected split, all pods together. From 4.6 on it is a sample ratio "
            f"mismatch: a fair experiment ever comes to that once in a hundred. {OF_EXPERIMENTS}",
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
            "Of an experiment's visitors those of each variation; and the share that is to have it, where the "
            f"datafile's traffic allocation or metrics.splits tells. {OF_EXPERIMENTS}",
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
            "Each once, with the first variation, since the pods hold their partitions: a restart begins at 0. "
            f"{OF_EXPERIMENTS}",
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

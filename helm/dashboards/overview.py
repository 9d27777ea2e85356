"""Overview: is it working, and is the promise kept? What is asked first is at the top."""

from __future__ import annotations

from dashboards.dashboard import Dashboard, Row
from dashboards.panels import ANY, NONE_AT_ALL, Query, bad_from, good_from, graph, stack, stat, states, table
from dashboards.promql import RELEASE, gained, greatest, quantile, rate, ratio, series, total

HOUR = 3600
UNEXPLAINED = "pod:flagpost_deliveries_unexplained:sum"
FIRING = 'ALERTS{alertname=~"Flagpost.*",alertstate="firing",namespace=~"$namespace",release=~"$release"'
"""Open at the end. Alerts that nobody's series raised have neither label, and are in all of them."""

DELIVERIES = "flagpost_deliveries_total"
PENDO_STATE = greatest(
    " or ".join(
        series("flagpost_pendo_state", f'state="{state}"') + f" * {rank}"
        for rank, state in enumerate(("throttled", "unreachable", "unauthorized"), start=1)
    ),
    "endpoint",
)
"""The worst state of an endpoint that any consumer has: 0 is ok."""

UNASSIGNED = (
    f"sum(clamp_min({greatest(series('flagpost_topic_partitions', of=RELEASE), 'namespace', 'release')}"
    f" - {total(series('flagpost_partitions_assigned', of=RELEASE), 'namespace', 'release')}, 0))"
)
"""Whatever pods are chosen: a partition is another pod's, or nobody's."""
MAX_AGE = series("flagpost_limit", 'setting="delivery.max_age_seconds"', of=RELEASE)
DEADLINE = (
    f"max({series('release:flagpost_oldest_pending_age_seconds:max', of=RELEASE)}"
    f" / on (namespace, release) min by (namespace, release) ({MAX_AGE}))"
)

WORKING = Row(
    "Is it working?",
    (
        stat(
            "Alerts",
            "Flagpost's alerts that fire now, except those of severity info. The table below lists them. No "
            "data means that Prometheus has not loaded Flagpost's rules, or that nothing runs.",
            f'count({FIRING},severity!="info"}}) or 0 * count({series(UNEXPLAINED, of=RELEASE)})',
            "none",
            NONE_AT_ALL,
        ),
        stat(
            "Consumers",
            "Consumers that Prometheus scrapes. More consumers than partitions do not help.",
            f"count({series('flagpost_build_info')}) or vector(0)",
            "none",
            good_from(1, 2),
            runbook="FlagpostNoConsumers",
        ),
        stat(
            "Partitions without a consumer",
            "Of all partitions of the events topic. Above 0 for seconds while partitions change hands; "
            "otherwise 0.",
            UNASSIGNED,
            "none",
            NONE_AT_ALL,
            runbook="FlagpostPartitionsUnassigned",
        ),
        stat(
            "Delivered a second",
            "Track events and metadata values that Pendo has accepted, a second.",
            total(rate(DELIVERIES, 'outcome="delivered"')),
            "ops",
            ANY,
        ),
        stat(
            "Fullest memory",
            "How much of the allowed pending memory is used, in the consumer that uses the most. At 100 % "
            "it reads no more records, because of Pendo, its limits or Kafka.",
            greatest(series("flagpost_pending_ratio")),
            "percentunit",
            bad_from(0.75, 1),
            runbook="FlagpostOldEventsPending",
        ),
        stat(
            "Lag",
            "Records that are not settled yet, in Kafka and in memory. What matters is whether the lag "
            "grows: see below.",
            f"sum({series('release:flagpost_consumer_lag:sum', of=RELEASE)})",
            "short",
            bad_from(100_000, 1_000_000),
            runbook="FlagpostLagGrows",
        ),
        states(
            "Pendo, as the consumers see it",
            "The worst state that any consumer reports for each endpoint. Unauthorized: the key or URL is "
            "wrong. Unreachable: ten requests in a row failed. Throttled: Pendo's limits are reached. "
            "Nothing is lost meanwhile.",
            PENDO_STATE,
            "{{endpoint}}",
            ("ok", "throttled", "unreachable", "unauthorized"),
            "FlagpostPendoUnauthorized",
        ),
        table(
            "Alerts that fire",
            "Every alert that fires; docs/runbooks has a page for each. An empty table is good if the "
            "number of alerts above is 0.",
            "none",
            NONE_AT_ALL,
            f"count by (alertname, severity, namespace, release, pod) ({FIRING}}})",
        ),
    ),
)

PROMISE = Row(
    "Is the promise kept?",
    (
        stat(
            "Unexplained",
            "Planned deliveries that are neither settled, handed back nor pending, by the consumers' own "
            "counts. Any value but 0 is a defect. `flagpost reconcile` checks the same with the ledger.",
            f"sum(abs({series(UNEXPLAINED, of=RELEASE)}))",
            "none",
            NONE_AT_ALL,
            runbook="FlagpostUnexplained",
        ),
        stat(
            "Lost in Kafka",
            "Offsets that could not be read in the selected time range, because Kafka had deleted them or "
            "their batch cannot be read. A restart does not reset this number; a shorter time range does.",
            total(gained("flagpost_offsets_lost_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostOffsetsLost",
        ),
        stat(
            "Oldest pending",
            "The age of the oldest event that a consumer has read but not settled.",
            f"max({series('release:flagpost_oldest_pending_age_seconds:max', of=RELEASE)})",
            "s",
            bad_from(60, HOUR),
            runbook="FlagpostOldEventsPending",
        ),
        stat(
            "Deadline",
            "The age of the oldest pending event as a share of delivery.max_age_seconds: at 100 % events "
            "expire.",
            DEADLINE,
            "percentunit",
            bad_from(0.5, 0.7),
            runbook="FlagpostDeadlineNear",
        ),
        stat(
            "On time",
            "The share of delivered events that reached Pendo within 60 s of their occurrence. The "
            "objective is 99 %.",
            ratio(
                total(gained("flagpost_event_age_seconds_bucket", 'le="60.0"')),
                total(gained("flagpost_event_age_seconds_count")),
            ),
            "percentunit",
            good_from(0.98, 0.99),
            runbook="FlagpostEventsLate",
        ),
        stat(
            "Delivered",
            "Delivered, as a share of delivered and dead-lettered. The objective is 99.9 %.",
            ratio(
                total(gained(DELIVERIES, 'outcome="delivered"')),
                total(gained(DELIVERIES, 'outcome=~"delivered|dead_lettered"')),
            ),
            "percentunit",
            good_from(0.995, 0.999),
            runbook="FlagpostDeliveriesFail",
        ),
        stat(
            "Dead letters",
            "Deliveries that were dead-lettered in the selected time range; they can be replayed.",
            total(gained(DELIVERIES, 'outcome="dead_lettered"')),
            "none",
            bad_from(1, 100),
            runbook="FlagpostDeadLetters",
        ),
    ),
)

OBJECTIVES = Row(
    "How old are events when they arrive?",
    (
        graph(
            "Event age",
            "From an event's occurrence to Pendo's answer. A visitor's events wait for one another, one "
            "second each, so the 99th percentile shows the busiest visitors.",
            "s",
            bad_from(30, 60),
            Query(quantile(0.5, "flagpost_event_age_seconds"), "50 %"),
            Query(quantile(0.95, "flagpost_event_age_seconds"), "95 %"),
            Query(quantile(0.99, "flagpost_event_age_seconds"), "99 %"),
            runbook="FlagpostEventsLate",
        ),
        graph(
            "Burn rates",
            "How many times faster than allowed the error budgets of 30 days are used up, over the last "
            "hour. From 14.4 on a critical alert fires. No line means that nothing was delivered.",
            "none",
            bad_from(1, 14.4),
            Query(f"max({series('release:flagpost_events_late:ratio_rate1h', of=RELEASE)}) / 0.01", "late"),
            Query(
                f"max({series('release:flagpost_deliveries_undelivered:ratio_rate1h', of=RELEASE)}) / 0.001",
                "not delivered",
            ),
            runbook="FlagpostDeliveriesFail",
        ),
    ),
)

FLOW = Row(
    "What happens to records?",
    (
        graph(
            "Records read",
            "Records read from the events topic, a second.",
            "cps",
            ANY,
            Query(total(rate("flagpost_records_consumed_total")), "records"),
        ),
        stack(
            "Deliveries by outcome",
            "How deliveries end. Duplicates and drops are intended; dead letters need attention.",
            "ops",
            ANY,
            Query(total(rate(DELIVERIES), "outcome"), "{{outcome}}"),
            runbook="FlagpostDeadLetters",
        ),
        stack(
            "Pending by kind",
            "Unsettled deliveries in the memory of all consumers: they wait, are in flight, or Kafka has "
            "not acknowledged their settlement.",
            "short",
            ANY,
            Query(total(series("flagpost_deliveries_pending"), "kind"), "{{kind}}"),
            runbook="FlagpostOldEventsPending",
        ),
        graph(
            "Backlog and lag",
            "More pods help with the sendable backlog. The paced backlog waits for its visitor's next "
            "second; more pods do not help with that.",
            "short",
            ANY,
            Query(f"sum({series('release:flagpost_backlog_sendable:sum', of=RELEASE)})", "sendable"),
            Query(total(series("flagpost_backlog_paced")), "paced"),
            Query(f"sum({series('release:flagpost_consumer_lag:sum', of=RELEASE)})", "lag"),
            runbook="FlagpostLagGrows",
        ),
    ),
)

DASHBOARD = Dashboard(
    "overview",
    "Overview",
    "Is it working, is every event accounted for, and how late are they? Begin here.",
    (WORKING, PROMISE, OBJECTIVES, FLOW),
)

"""Overview: is it working, and is the promise kept? What is asked first is at the top."""

from __future__ import annotations

from dashboards.dashboard import Dashboard, Row
from dashboards.panels import ANY, NONE_AT_ALL, Query, bad_from, good_from, graph, stack, stat, states, table
from dashboards.promql import RELEASE, gained, greatest, quantile, rate, ratio, series, total

HOUR = 3600
DEADLINE_NEAR = 600_000 - 2 * 24 * HOUR
"""Seconds: FlagpostDeadlineNear."""

DELIVERIES = "flagpost_deliveries_total"
PENDO_STATE = greatest(
    " or ".join(
        series("flagpost_pendo_state", f'state="{state}"') + f" * {rank}"
        for rank, state in enumerate(("throttled", "unreachable", "unauthorized"), start=1)
    ),
    "endpoint",
)
"""The worst state of an endpoint that any consumer has: 0 is ok."""

WORKING = Row(
    "Is it working?",
    (
        stat(
            "Alerts",
            "Alerts of Flagpost's that fire now, but for those that only inform. The table below names them.",
            'count(ALERTS{alertname=~"Flagpost.*",alertstate="firing",severity!="info"}) or vector(0)',
            "none",
            NONE_AT_ALL,
        ),
        stat(
            "Consumers",
            "Consumers that are scraped. More than there are partitions do not help.",
            f"count({series('flagpost_build_info')}) or vector(0)",
            "none",
            good_from(1, 2),
            runbook="FlagpostNoConsumers",
        ),
        stat(
            "Partitions",
            "Partitions that a consumer has. It must be all that the topic has, 24 by default.",
            total(series("flagpost_partitions_assigned")),
            "none",
            ((None, "red"), (1, "green")),
            runbook="FlagpostNoConsumers",
        ),
        stat(
            "Delivered a second",
            "What Pendo has accepted, track events and metadata values.",
            total(rate(DELIVERIES, 'outcome="delivered"')),
            "ops",
            ANY,
        ),
        stat(
            "Pending",
            "Deliveries in the consumers' memory. Intake pauses at delivery.max_pending (20,000) in each.",
            total(series("flagpost_deliveries_pending")),
            "short",
            bad_from(15_000, 20_000),
        ),
        stat(
            "Lag",
            "Records that are not settled yet, in Kafka and in memory. What counts is whether it grows: see "
            "below.",
            f"sum({series('release:flagpost_consumer_lag:sum', of=RELEASE)})",
            "short",
            bad_from(100_000, 1_000_000),
            runbook="FlagpostLagGrows",
        ),
        states(
            "Pendo, as the consumers see it",
            "The worst state that any consumer has of each endpoint. Unauthorized: the key or URL is wrong. "
            "Unreachable: ten requests in a row failed. Throttled: Pendo's limits. Nothing is lost "
            "meanwhile.",
            PENDO_STATE,
            "{{endpoint}}",
            ("ok", "throttled", "unreachable", "unauthorized"),
            "FlagpostPendoUnauthorized",
        ),
        table(
            "What fires",
            "Every alert that fires; docs/runbooks has a page for each. Empty is good.",
            "none",
            NONE_AT_ALL,
            "count by (alertname, severity, namespace, release, pod) "
            '(ALERTS{alertname=~"Flagpost.*",alertstate="firing"})',
        ),
    ),
)

PROMISE = Row(
    "Is the promise kept?",
    (
        stat(
            "Unexplained",
            "Planned deliveries that are neither settled, handed back nor pending, by the consumers' own "
            "books. Anything but 0 is a defect. `flagpost reconcile` proves it from the ledger.",
            f"sum(abs({series('pod:flagpost_deliveries_unexplained:sum', of=RELEASE)}))",
            "none",
            NONE_AT_ALL,
            runbook="FlagpostUnexplained",
        ),
        stat(
            "Lost in Kafka",
            "Offsets that Kafka deleted before they were read, since the consumers started.",
            total(series("flagpost_offsets_lost_total")),
            "none",
            NONE_AT_ALL,
            runbook="FlagpostOffsetsLost",
        ),
        stat(
            "Oldest pending",
            "The age of the oldest event that is not settled. At delivery.max_age_seconds (600,000 s, 6.9 "
            "days) it expires.",
            f"max({series('release:flagpost_oldest_pending_age_seconds:max', of=RELEASE)})",
            "s",
            bad_from(HOUR, DEADLINE_NEAR),
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
            "The share of what should be delivered that was: delivered, of delivered and dead-lettered. The "
            "objective is 99.9 %.",
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
            "Deliveries that were dead-lettered in the time that is looked at; they can be put back.",
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
            "From an event's occurrence to Pendo's answer. A visitor's events wait for one another, a "
            "second each, so the 99th percentile tells of the busiest visitors.",
            "s",
            bad_from(30, 60),
            Query(quantile(0.5, "flagpost_event_age_seconds"), "50 %"),
            Query(quantile(0.95, "flagpost_event_age_seconds"), "95 %"),
            Query(quantile(0.99, "flagpost_event_age_seconds"), "99 %"),
            runbook="FlagpostEventsLate",
        ),
        graph(
            "Burn rates",
            "How many times faster than allowed the error budgets of 30 days are used up, over an hour. "
            "From 14.4 on it wakes somebody. No line: nothing was delivered.",
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
    "Where does it go?",
    (
        graph(
            "Records read",
            "Records taken in from the events topic.",
            "cps",
            ANY,
            Query(total(rate("flagpost_records_consumed_total")), "records"),
        ),
        stack(
            "Deliveries by outcome",
            "How deliveries end: duplicates and drops are by design, dead letters need a look.",
            "ops",
            ANY,
            Query(total(rate(DELIVERIES), "outcome"), "{{outcome}}"),
            runbook="FlagpostDeadLetters",
        ),
        stack(
            "Pending by kind",
            "Deliveries in memory, not settled: what waits, is on its way, or whose settlement Kafka has "
            "not acknowledged.",
            "short",
            bad_from(15_000, 20_000),
            Query(total(series("flagpost_deliveries_pending"), "kind"), "{{kind}}"),
            runbook="FlagpostOldEventsPending",
        ),
        graph(
            "Backlog and lag",
            "Sendable is what more pods would help with; paced waits for its visitor's second, and more "
            "pods do not help.",
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

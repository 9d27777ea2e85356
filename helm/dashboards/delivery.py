"""Delivery: Pendo by rate, errors and duration; what its answers mean; and what became of deliveries."""

from __future__ import annotations

from dashboards.dashboard import Dashboard, Row
from dashboards.overview import DELIVERIES, PENDO_STATE
from dashboards.panels import ANY, NO_RATE, Query, bad_from, graph, heatmap, stack, states
from dashboards.promql import of_limit, quantile, rate, ratio, seen, series, total

REQUESTS = "flagpost_pendo_requests_total"
SETUP = 'status=~"3..|401|403|404"'
AGAIN = 'status=~"408|425|5..|timeout|connection"'
REJECTED = ('status=~"4.."', 'status!~"401|403|404|408|425|429"')

PENDO = Row(
    "Pendo: rate, errors, duration",
    (
        stack(
            "Requests by answer",
            "Requests a second, by endpoint and status. timeout and connection: no answer came.",
            "reqps",
            ANY,
            Query(seen(total(rate(REQUESTS), "endpoint", "status")), "{{endpoint}} {{status}}"),
            runbook="FlagpostPendoUnreachable",
        ),
        graph(
            "Share of requests that failed",
            "Everything but 2xx and 429, of all requests. What is retried and then passes costs time, "
            "not events.",
            "percentunit",
            bad_from(0.01, 0.1),
            Query(
                ratio(
                    total(rate(REQUESTS, 'status!~"2..|429"'), "endpoint"), total(rate(REQUESTS), "endpoint")
                ),
                "{{endpoint}}",
            ),
            runbook="FlagpostPendoUnreachable",
        ),
        graph(
            "Duration of requests",
            "From a request's start to the end of its answer, or to its time-out. No line: no request ended.",
            "s",
            bad_from(1, 5),
            Query(quantile(0.5, "flagpost_pendo_request_seconds", "endpoint"), "{{endpoint}} 50 %"),
            Query(quantile(0.99, "flagpost_pendo_request_seconds", "endpoint"), "{{endpoint}} 99 %"),
            runbook="FlagpostPendoUnreachable",
        ),
        states(
            "State of each endpoint",
            "The worst that any consumer has. While an endpoint is not ok, one probe at a time finds out "
            "when it is again.",
            PENDO_STATE,
            "{{endpoint}}",
            ("ok", "throttled", "unreachable", "unauthorized"),
            "FlagpostPendoUnauthorized",
        ),
    ),
)

LIMITS = Row(
    "What holds it back?",
    (
        graph(
            "Throttling",
            "Answers 429 a second. They hold the endpoint if three visitors met them within 10 s and they are a "
            "twentieth of its answers; otherwise only the visitors that met them.",
            "reqps",
            bad_from(0.1, 1),
            Query(total(rate(REQUESTS, 'status="429"'), "endpoint"), "{{endpoint}}"),
            runbook="FlagpostPendoThrottled",
        ),
        graph(
            "Budget used",
            "Requests a minute, of the share of *_requests_per_minute that the consumers have. At 100 % "
            "deliveries wait for it; 0 % where there is no limit.",
            "percentunit",
            bad_from(0.8, 0.95),
            Query(
                ratio(
                    f"60 * {total(rate(REQUESTS), 'endpoint')}",
                    total(series("flagpost_pendo_budget_per_minute"), "endpoint"),
                ),
                "{{endpoint}}",
            ),
            runbook="FlagpostPendoThrottled",
        ),
        graph(
            "Budget",
            "Requests a minute that each consumer may start: its share of the group's limit, by partitions.",
            "none",
            ANY,
            Query(f"{series('flagpost_pendo_budget_per_minute')} < Inf", "{{pod}} {{endpoint}}"),
        ),
        graph(
            "Requests in flight",
            "Of each consumer, as a share of its pendo.max_connections, which both endpoints have together. Always "
            "at 100 %: more pods, or a larger limit.",
            "percentunit",
            bad_from(0.9, 1),
            Query(
                of_limit(series("flagpost_pendo_in_flight"), "pendo.max_connections"), "{{pod}} {{endpoint}}"
            ),
            runbook="FlagpostLagGrows",
        ),
        graph(
            "Oldest request",
            "How long each consumer's oldest request has waited for its answer. A track request ends after "
            "pendo.request_timeout_seconds, one of metadata after pendo.metadata_timeout_seconds.",
            "s",
            ANY,
            Query(series("flagpost_oldest_attempt_seconds"), "{{pod}}"),
            runbook="FlagpostAttemptForgotten",
        ),
    ),
)

VERDICTS = Row(
    "What do its answers mean?",
    (
        stack(
            "Verdicts",
            "Delivered; throttled and transient are retried; setup means that a key or URL is wrong, or "
            "that one delivery is poison; rejected is final.",
            "reqps",
            ANY,
            Query(total(rate(REQUESTS, 'status=~"2.."')), "delivered"),
            Query(total(rate(REQUESTS, 'status="429"')), "throttled"),
            Query(total(rate(REQUESTS, AGAIN)), "transient"),
            Query(total(rate(REQUESTS, SETUP)), "setup"),
            Query(total(rate(REQUESTS, *REJECTED)), "rejected"),
            runbook="FlagpostPendoUnauthorized",
        ),
        graph(
            "Track requests for each delivered event",
            "1 is best. More: what was retried.",
            "none",
            bad_from(1.2, 2),
            Query(
                ratio(
                    total(rate(REQUESTS, 'endpoint="track"')),
                    total(rate(DELIVERIES, 'kind="track"', 'outcome="delivered"')),
                ),
                "requests",
            ),
            runbook="FlagpostPendoUnreachable",
        ),
        graph(
            "Metadata values for each request",
            "How well metadata is coalesced: up to 1,000 visitors a request.",
            "none",
            ANY,
            Query(
                ratio(
                    total(rate(DELIVERIES, 'kind=~".*_metadata"', 'outcome="delivered"')),
                    total(rate(REQUESTS, 'endpoint="metadata"', 'status=~"2.."')),
                ),
                "values",
            ),
        ),
        heatmap(
            "Event age",
            "From an event's occurrence to Pendo's answer. What lies above 60 s counts against the "
            "objective.",
            "s",
            total(rate("flagpost_event_age_seconds_bucket"), "le"),
            runbook="FlagpostEventsLate",
        ),
    ),
)

ENDINGS = Row(
    "What was not delivered, and why?",
    (
        stack(
            "Dead letters by reason",
            "Kept for 26 days, with the reason; to be put back once the cause is fixed.",
            "ops",
            NO_RATE,
            Query(
                seen(total(rate(DELIVERIES, 'outcome="dead_lettered"'), "kind", "reason")),
                "{{kind}} {{reason}}",
            ),
            runbook="FlagpostDeadLetters",
        ),
        graph(
            "Records quarantined",
            "Records that made Flagpost's own code raise an exception twice, and are dead letters: a defect.",
            "cps",
            NO_RATE,
            Query(total(rate("flagpost_quarantined_total")), "quarantined"),
            runbook="FlagpostQuarantined",
        ),
        stack(
            "Drops by reason",
            "By design or setting: consent, filters, no visitor id. field_missing: Pendo lacks the field.",
            "ops",
            ANY,
            Query(
                seen(total(rate(DELIVERIES, 'outcome="dropped"'), "kind", "reason")), "{{kind}} {{reason}}"
            ),
            runbook="FlagpostFieldMissing",
        ),
        stack(
            "Properties trimmed",
            "Repairs that Pendo's rules for properties demanded; `flagpost preview` shows them for an event.",
            "ops",
            ANY,
            Query(seen(total(rate("flagpost_properties_trimmed_total"), "rule")), "{{rule}}"),
        ),
        stack(
            "Planned and handed back",
            "Deliveries that records gave, and those handed back unsettled when partitions moved or a pod "
            "stopped.",
            "ops",
            ANY,
            Query(total(rate("flagpost_deliveries_planned_total"), "kind"), "planned {{kind}}"),
            Query(total(rate("flagpost_deliveries_returned_total")), "handed back"),
        ),
    ),
)

DASHBOARD = Dashboard(
    "delivery",
    "Delivery",
    "Pendo's endpoints by rate, errors and duration; what holds deliveries back; how they end.",
    (PENDO, LIMITS, VERDICTS, ENDINGS),
)

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
            "Requests a second, by endpoint and status. timeout and connection mean that no answer arrived.",
            "reqps",
            ANY,
            Query(seen(total(rate(REQUESTS), "endpoint", "status")), "{{endpoint}} {{status}}"),
            runbook="FlagpostPendoUnreachable",
        ),
        graph(
            "Share of requests that failed",
            "Share of requests whose answer was neither 2xx nor 429. A request that is retried and then "
            "succeeds costs time, but no event is lost.",
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
            "From the start of a request to the end of its answer, or to its time-out. No line means that "
            "no request ended.",
            "s",
            bad_from(1, 5),
            Query(quantile(0.5, "flagpost_pendo_request_seconds", "endpoint"), "{{endpoint}} 50 %"),
            Query(quantile(0.99, "flagpost_pendo_request_seconds", "endpoint"), "{{endpoint}} 99 %"),
            runbook="FlagpostPendoUnreachable",
        ),
        states(
            "State of each endpoint",
            "The worst state that any consumer reports. While an endpoint is not ok, a consumer sends it "
            "one probe at a time.",
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
            "Answers with status 429, a second. If three visitors get 429 within 10 s and a twentieth of "
            "the endpoint's answers are 429, sending to the endpoint stops for a while; otherwise only the "
            "visitors that got 429 wait.",
            "reqps",
            bad_from(0.1, 1),
            Query(total(rate(REQUESTS, 'status="429"'), "endpoint"), "{{endpoint}}"),
            runbook="FlagpostPendoThrottled",
        ),
        graph(
            "Budget used",
            "Requests a minute, as a share of what *_requests_per_minute allows the consumers. At 100 % "
            "deliveries wait for the budget. 0 % means that there is no limit.",
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
            "Requests a minute that each consumer may start: its share of the group's limit, by its share "
            "of the partitions.",
            "none",
            ANY,
            Query(f"{series('flagpost_pendo_budget_per_minute')} < Inf", "{{pod}} {{endpoint}}"),
        ),
        graph(
            "Requests in flight",
            "Requests in flight of each consumer, as a share of its pendo.max_connections, which both "
            "endpoints share. If it is always at 100 %, add pods or raise the limit.",
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
            "pendo.request_timeout_seconds, a metadata request after pendo.metadata_timeout_seconds.",
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
            "throttled and transient are retried; setup means that a key or URL is wrong, or that one "
            "delivery is poison; rejected is final.",
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
            "1 is best. A higher value means retries.",
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
            "How many metadata values share one request: up to 1,000 visitors fit into one.",
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
            "From an event's occurrence to Pendo's answer. Events above 60 s count against the objective.",
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
            "Deliveries that became dead letters. These are kept for 26 days and can be replayed once the "
            "cause is fixed.",
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
            "Records that made Flagpost's own code raise an exception twice and became dead letters. This "
            "is a defect.",
            "cps",
            NO_RATE,
            Query(total(rate("flagpost_quarantined_total")), "quarantined"),
            runbook="FlagpostQuarantined",
        ),
        stack(
            "Drops by reason",
            "Dropped on purpose or by a setting: consent, filters, no visitor id. field_missing: Pendo does "
            "not have the field.",
            "ops",
            ANY,
            Query(
                seen(total(rate(DELIVERIES, 'outcome="dropped"'), "kind", "reason")), "{{kind}} {{reason}}"
            ),
            runbook="FlagpostFieldMissing",
        ),
        stack(
            "Properties trimmed",
            "Changes to properties that Pendo's rules require; `flagpost preview` shows them for one event.",
            "ops",
            ANY,
            Query(seen(total(rate("flagpost_properties_trimmed_total"), "rule")), "{{rule}}"),
        ),
        stack(
            "Planned and handed back",
            "Deliveries planned from records, and deliveries handed back unsettled when partitions moved or "
            "a pod stopped.",
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
